"""Muon for hidden matrices and kernels of convolutions, AdamW for the rest."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from optimization.matching.matrices import (
    flattened,
    heads,
    is_embedding,
    may_be_matrix,
    parts_of,
)
from optimization.optimizers.paths import path_of
from optimization.optimizers.patterns import all_shapes, matches_any, require_matches
from optimization.optimizers.texts import optimizer_text


@keras.saving.register_keras_serializable(package="optimization")
class Muon(keras.optimizers.Muon):
    """Keras' Muon, for the variables that its authors use it for (Jordan et al. 2024).

    These are hidden matrices and kernels of convolutions, flattened to (all else, outputs); the
    update is Keras'. AdamW updates embeddings, the output layer, vectors, norms and biases of any
    shape, depthwise kernels, what `exclude_layers` matches, and kernels of three and more axes that
    are no convolution's, as those of attention.

    The output layer is found by usual names (`head`, `lm_head`, `classifier`, `logits`,
    `predictions`, `output`, ...); without such a name, it is the last `kernel` of two axes, unless
    that is in one of several equal blocks. A kernel that is called `weight` has PyTorch's layout,
    with the outputs first.

    Arguments are those of `keras.optimizers.Muon`; `exclude_layers` are regular expressions, of
    which one must match a variable.
    """

    def __repr__(self) -> str:
        return optimizer_text(self)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates all state and decides, once, which variables are orthogonalized."""
        if self.built:
            return
        require_matches(self.exclude_layers, variables, "exclude_layers")
        # Among those of all groups: the last layer of a group may be a hidden one.
        shapes = all_shapes(variables)
        shaped = [path for path, shape in shapes.items() if may_be_matrix(path, shape)]
        linear = [p for p in shaped if len(shapes[p]) == 2 and p.split("/")[-1] == "kernel"]
        # A head of one output is a vector, and the head nevertheless.
        outputs = heads(shaped, linear)
        self._orthogonalized = {
            path
            for path in shaped
            if path not in outputs
            and not _is_flat(path, shapes[path])
            and not (self.exclude_embeddings and is_embedding(path))
            and not matches_any(path, self.exclude_layers)
        }
        self._matrix_paths = [path_of(variable) for variable in variables]
        super().build(variables)

    def _should_use_adamw(self, variable: Any) -> bool:
        path = self._matrix_paths[self._get_variable_index(variable)]
        return path not in self._orthogonalized

    def _muon_update_step(self, gradient: Any, variable: Any, lr: Any, m: Any) -> None:
        self.assign_add(m, ops.add(gradient, m * (self.momentum - 1)))
        update = ops.add(gradient, self.momentum * m) if self.nesterov else m
        path = self._matrix_paths[self._get_variable_index(variable)]
        shape = tuple(variable.shape)
        update = ops.reshape(update, flattened(shape, _outputs_first(path)))
        update = self.zeropower_via_newtonschulz5(update, self.ns_steps)
        self.assign_sub(variable, ops.reshape(self.lr_adjust(lr * update), shape))


def _outputs_first(path: str) -> bool:
    return parts_of(path)[-1] == "weight"


def _is_flat(path: str, shape: tuple[int, ...]) -> bool:
    return min(flattened(shape, _outputs_first(path))) == 1
