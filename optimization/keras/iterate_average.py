"""The average x that schedule-free optimizers keep, for `PipelineOptimizer`."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from optimization.keras.control import is_traced
from optimization.keras.copies import CopiesWeights, MasterWeights
from optimization.keras.members import Members
from optimization.keras.rule_optimizer import RuleOptimizer
from optimization.keras.state import by_unique_name
from optimization.keras.swapping import Swappable, assign_values, copied, values_of
from optimization.rules.arrays import State
from optimization.rules.rule import Numbers


class _Entry(NamedTuple):
    """A weight, what is trained in its place (itself or a copy), and the optimizer of that."""

    weight: Any
    target: Any
    optimizer: Any

    def evaluated(self) -> Any:
        """Returns x, where y is trained."""
        y = copied(self.target)
        return self.optimizer.rule.to_evaluate(y, *self._known(y.dtype))

    def trained(self) -> Any:
        """Returns y, where the weight holds x."""
        value = ops.convert_to_tensor(self.target)
        if self.target is not self.weight:
            return ops.cast(value, self.weight.dtype)  # the copy held y all the time
        return self.optimizer.rule.to_train(value, *self._known(value.dtype))

    def _known(self, dtype: Any) -> tuple[State, Numbers]:
        part = self.optimizer.part_of(self.target)
        kept = part.state_of(self.target).items()
        state = State({name: ops.cast(slot, dtype) for name, slot in kept})
        return state, part.settings_of(self.target)


def averages_iterates(optimizer: keras.optimizers.Optimizer) -> bool:
    """Says whether an optimizer averages weights by itself."""
    return isinstance(optimizer, RuleOptimizer) and optimizer.rule.schedule_free


class IterateAverage(Swappable):
    """Swaps the weights y that train for the weights x that are evaluated, and back.

    It has no variables but a flag: x is computed from y and z - x, and y from x and z - x. While
    the weights are swapped y is kept aside, so that a second swap restores it bit for bit; what
    Keras saves has it too. Only from a checkpoint of variables it is computed. A step of the
    optimizers moves x.

    Args:
        members: The optimizers, of which some are schedule-free.
        masters: The float32 copies of low-precision weights.
    """

    def __init__(self, members: Members, masters: MasterWeights):
        super().__init__()
        self._members = members
        self._masters = masters
        self._entries: dict[str, _Entry] = {}  # by path, in the order of `weights`

    def build(self, optimizer: CopiesWeights, variables: Sequence[Any]) -> None:
        super().build(optimizer, variables)
        named = []
        for weight, target in zip(variables, self._masters.of(variables), strict=True):
            member = self._members.member_of(target)
            if member and averages_iterates(member.optimizer):
                entry = _Entry(weight, target, member.optimizer)
                named.append((optimizer.path_of(weight), entry))
                self.weights.append(weight)
        self._entries = by_unique_name(named)

    def variables_by_path(self) -> dict[str, keras.Variable]:
        return {"swapped": self.swapped}

    def guard(self) -> contextlib.AbstractContextManager[Any]:
        # Inside a function compiled by JAX nothing can be raised: there the weights become y
        # again, and the gradient of this one step was taken at x.
        if is_traced(self.swapped.value):
            swapped = ops.convert_to_tensor(self.swapped)
            for entry in self._entries.values():
                weight = ops.convert_to_tensor(entry.weight)
                entry.weight.assign(ops.where(swapped, entry.trained(), weight))
            self.swapped.assign(False)
            return contextlib.nullcontext()
        return super().guard()

    def finalize(self) -> None:
        """Ends a training: the weights become x. A `swap()` makes them y again, to go on."""
        if not self.is_swapped():
            self.swap()

    def _exchange(self, restoring: bool, kept: Mapping[str, Sequence[Any]]) -> None:
        for path, entry in self._entries.items():
            if restoring:
                assign_values(entry.weight, kept.get(path) or [entry.trained()])
            else:
                self._aside[path] = values_of(entry.weight)
                assign_values(entry.weight, [entry.evaluated()])

    def _saved_aside(self) -> Collection[str]:
        # A weight with a copy has y in that.
        return [path for path, e in self._entries.items() if e.target is e.weight]
