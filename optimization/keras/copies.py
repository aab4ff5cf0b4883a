"""State that starts as a copy of a weight, as averages do, and float32 copies to train."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from optimization.keras.control import conditionally, tf
from optimization.keras.gradients import compute_dtype, is_overwritten
from optimization.keras.state import by_unique_name


class CopiesWeights(keras.optimizers.Optimizer):
    """Mixin for an optimizer: makes copies of weights, also of those that have no value yet.

    On TensorFlow a model that was not built makes its weights inside the function that trains it.
    While that is traced they have no value. Their copies are filled when the next trace begins,
    which finds them initialized; or by the first step, where TensorFlow runs the first trace.
    """

    _unfilled: "_Unfilled | None" = None

    def add_copy(self, weight: Any, name: str, aggregation: str = "none") -> keras.Variable:
        """Adds a variable, float32 at least, that starts as a copy of a weight."""

        def initializer(shape: Any, dtype: Any = None) -> Any:
            return ops.cast(copied(weight), dtype) if has_value else ops.zeros(shape, dtype)

        has_value = _has_value(weight)
        variable = self.add_variable(
            weight.shape,
            initializer=initializer,
            dtype=compute_dtype(weight),
            aggregation=aggregation,
            layout=getattr(weight, "_layout", None),
            name=name,
        )
        if not has_value:
            self._unfilled = self._unfilled or _Unfilled()
            self._unfilled.pairs.append((variable, weight))
        return variable

    def fill_copies(self) -> None:
        """Fills the copies that wait for their weights' values, before anything reads them."""
        if self._unfilled is not None and self._unfilled.fill():
            self._unfilled = None

    def copies_are_filled(self) -> None:
        """Has copies that wait for their weights' values keep what was loaded into them."""
        self._unfilled = None


class _Unfilled:
    """Copies, each with its weight, that are still to be filled."""

    def __init__(self) -> None:
        self.pairs: list[tuple[keras.Variable, Any]] = []
        # A function may have been traced that fills them, and then it may have run, or not.
        self._filled = keras.Variable(False, dtype="bool", trainable=False, name="filled")

    def fill(self) -> bool:
        """Fills them once, and says whether that is done."""
        with tf.init_scope():
            if all(_has_value(weight) for _, weight in self.pairs):
                if not ops.convert_to_numpy(self._filled):
                    self._assign()
                return True
        targets = [self._filled, *(variable for variable, _ in self.pairs)]
        conditionally(ops.logical_not(self._filled), self._assign, (), targets)
        return False

    def _assign(self) -> None:
        for variable, weight in self.pairs:
            variable.assign(ops.cast(weight, variable.dtype))
        self._filled.assign(True)


def copied(variable: Any) -> Any:
    """Returns a variable's value, not its own buffer, which JAX may donate and PyTorch changes."""
    return ops.copy(ops.convert_to_tensor(variable))


def _has_value(weight: Any) -> bool:
    """Says, outside any `tf.function`, whether a weight is initialized."""
    if tf is None:
        return True
    value = weight.value if isinstance(weight, keras.Variable) else weight
    return not isinstance(value, tf.Variable) or bool(value.is_initialized())


class MasterWeights:
    """Keeps a float32 copy of each float16 or bfloat16 weight.

    As Micikevicius et al. 2018 (arXiv:1710.03740) do. Without it a step smaller than half the
    distance to the next number of the weight's dtype is lost, and moments are as coarse as the
    weight. A weight always is its copy, cast. Where it is not, because somebody assigned to the
    weight, the copy starts from the weight again, component by component.

    Weights in float32 or float64 have no copy, and cost nothing.

    Args:
        of_bfloat16: Whether weights in bfloat16 have copies.
    """

    def __init__(self, of_bfloat16: bool = True) -> None:
        self._spared = () if of_bfloat16 else ("bfloat16",)
        self._copies: dict[int, keras.Variable] = {}
        self.by_path: dict[str, keras.Variable] = {}  # that of the weights

    def build(
        self,
        optimizer: CopiesWeights,
        variables: Sequence[Any],
        paths: Sequence[str],
        frozen: Sequence[int] | set[int],
    ) -> list[Any]:
        """Creates the copies, as variables of `optimizer`; returns what `of` does."""
        named = []
        for position, (variable, path) in enumerate(zip(variables, paths, strict=True)):
            dtype = keras.backend.standardize_dtype(variable.dtype)
            if position not in frozen and dtype not in self._spared and _needs_copy(variable):
                copy = optimizer.add_copy(variable, variable.name)
                copy._path = path  # Keras' optimizers look for patterns in it.
                self._copies[id(variable)] = copy
                named.append((f"master/{path}", copy))
        self.by_path = by_unique_name(named)
        return self.of(variables)

    def of(self, variables: Sequence[Any]) -> list[Any]:
        """Returns for each variable what is updated: its copy, or itself if it has none."""
        return [self._copies.get(id(variable), variable) for variable in variables]

    def brought_up_to_date(self, variables: Sequence[Any]) -> list[Any]:
        """Returns what `of` does, after weights that were assigned have been taken over."""
        for variable in variables:
            copy = self._copies.get(id(variable))
            if copy is not None:
                weight, value = ops.convert_to_tensor(variable), ops.convert_to_tensor(copy)
                same = ops.equal(ops.cast(value, variable.dtype), weight)
                copy.assign(ops.where(same, value, ops.cast(weight, copy.dtype)))
        return self.of(variables)


def _needs_copy(variable: Any) -> bool:
    dtype = keras.backend.standardize_dtype(variable.dtype)
    return compute_dtype(variable) != dtype and not is_overwritten(variable)
