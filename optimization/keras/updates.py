"""How the inner optimizers of `PipelineOptimizer` update: fused, as a whole, or plainly.

Those that are made of rules are fused. Others may read what no function is given, and what their
updates do is not known: they are updated as Keras does.
"""

from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from optimization.keras import compiling
from optimization.keras.fused import FusedUpdates
from optimization.keras.gradients import Scaled, bare, densify, is_sparse
from optimization.keras.hyperparameters import HyperparameterSchedules
from optimization.keras.members import Member, Members

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

_PLAIN = (bool, int, float, str, tuple, type(None), np.generic)


def checked_jit_compile(jit_compile: bool | str) -> bool | str:
    """Returns the setting."""
    if not isinstance(jit_compile, bool) and jit_compile != "auto":
        raise ValueError(
            f'Argument `jit_compile` must be True, False or "auto", received: {jit_compile=}'
        )
    if jit_compile is True and keras.backend.backend() == "torch":
        raise ValueError("Argument `jit_compile` must not be True on the PyTorch backend.")
    return jit_compile


class Updates:
    """Runs the updates of the inner optimizers.

    Args:
        members: The inner optimizers.
        schedules: Of their hyperparameters.
        jit_compile: Whether XLA compiles them, on TensorFlow: what `FusedUpdates` can do it does;
            the rest is compiled as a whole if True, and plain if "auto".
    """

    def __init__(
        self, members: Members, schedules: HyperparameterSchedules, jit_compile: bool | str
    ):
        self._members = members
        self._schedules = schedules
        self.jit_compile = jit_compile
        self._fused = FusedUpdates()
        self.compiled: dict[tuple, Any] = {}  # as a whole, by settings and the variables' `id`

    @property
    def are_fused(self) -> bool:
        """Whether updates are fused here and now; otherwise gradients can't be `Scaled`."""
        return compiling.acts(self.jit_compile)

    def local_gradient(self, pipeline: keras.optimizers.Optimizer, gradient: Any) -> Any:
        """Returns this process' gradient of what `strategy.run` returned."""
        copies = pipeline._distribution_strategy.experimental_local_results(gradient)
        if len(copies) > 1 and self.are_fused and not is_sparse(copies[0]):
            return Scaled(copies[0], copies=copies)
        return copies[0]

    def postponed(self, pairs: Sequence[tuple[Any, Any]]) -> list[tuple[Any, Any]]:
        """Returns (gradient, variable) pairs whose factors may wait for the update.

        Where updates are not fused, and for what is no gradient but a new value, as they are.
        """
        if not self.are_fused:
            return list(pairs)
        return [(self._postponed(gradient, variable), variable) for gradient, variable in pairs]

    def _postponed(self, gradient: Any, variable: Any) -> Any:
        if isinstance(gradient, Scaled) or getattr(variable, "overwrite_with_gradient", False):
            return gradient
        if is_sparse(gradient) and self.jit_compile is not True:
            return gradient
        return Scaled(densify(gradient))

    def take(
        self,
        grads: Sequence[Any],
        variables: Sequence[Any],
        targets: Sequence[Any],
        steps: Any,
        average: Any,
    ) -> set[int]:
        """Updates variables.

        Args:
            grads: Their gradients.
            variables: The model's variables.
            targets: What is trained in their place.
            steps: Updates taken so far.
            average: A `WeightAverage` or `IterateAverage`, or None.

        Returns:
            The `id` of each variable whose average has moved already.
        """
        if not variables:
            return set()
        pairs = self.postponed(list(zip(grads, targets, strict=True)))
        if not self.are_fused:
            dense, own_targets = zip(*pairs, strict=True)
            self._take_others(dense, own_targets, steps)
            return set()
        following, share = {}, None
        if average is not None:
            following, share = average.following(variables, targets, steps + 1)
        hyperparameters = self._schedules.values(steps)
        left: list[tuple[Any, Any]] = []
        for member, *own in self._members.split(*zip(*pairs, strict=True)):
            own_pairs = list(zip(*own, strict=True))
            if member.part is not None:
                scheduled = self._schedules.followed(member.part, hyperparameters)
                which = (member.part, own_pairs, scheduled)
                left += self._fused.update(*which, following, share)
            else:
                left += own_pairs
        moved = following.keys() - {id(target) for _, target in left}
        if left:
            others, their_targets = zip(*left, strict=True)
            self._take_others([bare(gradient) for gradient in others], their_targets, steps)
        return moved

    def _take_others(self, grads: Sequence[Any], variables: Sequence[Any], steps: Any) -> None:
        # On JAX the caller's jit compiles this along with everything else.
        if self.jit_compile is not True or keras.backend.backend() != "tensorflow":
            self._take_plainly(grads, variables, steps)
            return
        settings = tuple(_settings(member) for member in self._members.members)
        key = (settings, *(id(variable) for variable in variables))
        if key not in self.compiled:
            self.compiled[key] = tf.function(
                lambda dense: self._take_plainly(dense, variables, steps), jit_compile=True
            )
        self.compiled[key]([densify(gradient) for gradient in grads])

    def _take_plainly(self, grads: Sequence[Any], variables: Sequence[Any], steps: Any) -> None:
        values = self._schedules.values(steps)
        with self._schedules.applied(values):
            self._members.update(
                grads, variables, lambda part: self._schedules.followed(part, values)
            )


def _settings(member: Member) -> tuple:
    """Returns all plain values and functions that an optimizer has, but its learning rate.

    Functions are compared by what they are, and stay alive with whoever keeps the settings.
    """
    part = member.part
    if part is not None:
        rates = part.rule.own_rates.values()
        return repr(part.rule), *(_Same(part.own_rate(rate)) for rate in rates)
    known = {k: v for k, v in vars(member.optimizer).items() if k not in ("name", "_learning_rate")}
    plain = {k: repr(v) for k, v in known.items() if isinstance(v, _PLAIN)}
    functions = {k: _Same(v) for k, v in known.items() if callable(v)}
    return tuple({**plain, **functions}.items())


class _Same:
    """Equal to another of the very same object, which it keeps alive."""

    def __init__(self, value: Any):
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)
