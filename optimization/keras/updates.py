"""How the inner optimizers of `PipelineOptimizer` update: fused, as a whole, or plainly.

Those that are made of rules are fused. Others may read what no function is given, and what their
updates do is not known: they are updated as Keras does.
"""

from collections.abc import Collection, Sequence
from typing import Any

import keras
import numpy as np

from optimization.keras import compiling
from optimization.keras.fused import FusedUpdates
from optimization.keras.gradients import Postponed, bare, densify, is_sparse
from optimization.keras.hyperparameters import HyperparameterSchedules
from optimization.keras.members import Member, Members, Pairs

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

_PLAIN = (bool, int, float, str, tuple, type(None), np.generic)


class Updates:
    """Runs the updates of the inner optimizers.

    With `jit_compile` on TensorFlow `FusedUpdates` does what it can; the rest is compiled as a
    whole if True, and plain if "auto".
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
        """Whether updates are fused here and now; otherwise gradients can't be `Postponed`."""
        return compiling.acts(self.jit_compile)

    def postponed(self, pairs: Pairs) -> Pairs:
        """Returns (gradient, variable) pairs whose factors may wait for the update.

        Where updates are not fused, and for what is no gradient but a new value, as they are.
        """
        if not self.are_fused:
            return pairs
        return [(self._postponed(gradient, variable), variable) for gradient, variable in pairs]

    def _postponed(self, gradient: Any, variable: Any) -> Any:
        if isinstance(gradient, Postponed) or getattr(variable, "overwrite_with_gradient", False):
            return gradient
        if is_sparse(gradient) and self.jit_compile is not True:
            return gradient
        return Postponed(densify(gradient))

    def take(
        self,
        grads: Sequence[Any],
        variables: Sequence[Any],
        targets: Sequence[Any],
        steps: Any,
        average: Any,
    ) -> Collection[int]:
        """Updates variables, by way of what is trained in their place, after `steps` updates.

        Returns the `id` of each variable whose average, a `WeightAverage`, `IterateAverage` or
        None, has moved already.
        """
        left = self.postponed(list(zip(grads, targets, strict=True)))
        following, share = {}, None
        if self.are_fused:
            if average is not None:
                following, share = average.following(variables, targets, steps + 1)
            values = self._schedules.values(steps)
            parts, left = self._members.split(left), []
            for member, own in parts:
                if member.part is not None:
                    scheduled = self._schedules.followed(member.part, values)
                    own = self._fused.update(member.part, own, scheduled, following, share)
                left += own
        if left:
            self._take_others([(bare(gradient), target) for gradient, target in left], steps)
        return following.keys() - {id(target) for _, target in left}

    def _take_others(self, pairs: Pairs, steps: Any) -> None:
        # On JAX the caller's jit compiles this along with everything else.
        if self.jit_compile is not True or keras.backend.backend() != "tensorflow":
            self._take_plainly(pairs, steps)
            return
        variables = [variable for _, variable in pairs]
        settings = tuple(_settings(member) for member in self._members.members)
        key = (settings, *map(id, variables))
        if key not in self.compiled:
            self.compiled[key] = tf.function(
                lambda dense: self._take_plainly(list(zip(dense, variables, strict=True)), steps),
                jit_compile=True,
            )
        self.compiled[key]([densify(gradient) for gradient, _ in pairs])

    def _take_plainly(self, pairs: Pairs, steps: Any) -> None:
        values = self._schedules.values(steps)
        with self._schedules.applied(values):
            for member, own in self._members.split(pairs):
                grads, variables = map(list, zip(*own, strict=True))
                if member.part is not None:
                    scheduled = self._schedules.followed(member.part, values)
                    member.part.update(grads, variables, scheduled)
                    continue
                optimizer, rate = member.optimizer, member.learning_rate
                optimizer._apply_weight_decay(variables)  # before the update, as in Keras
                optimizer._backend_update_step(grads, variables, rate)


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
