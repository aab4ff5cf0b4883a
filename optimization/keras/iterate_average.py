"""The average x that schedule-free optimizers keep, for `PipelineOptimizer`."""

import contextlib
from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from optimization.keras import distribution
from optimization.keras.control import is_traced
from optimization.keras.copies import CopiesWeights
from optimization.keras.masters import MasterWeights
from optimization.keras.members import Members
from optimization.keras.rule_optimizer import RuleOptimizer
from optimization.keras.state import by_unique_name
from optimization.keras.swapping import Swappable, copied
from optimization.rules.arrays import State
from optimization.rules.rule import Numbers


class _Entry(NamedTuple):
    """A weight, its path, what is trained in its place (itself or a copy), and its optimizer."""

    weight: Any
    path: str
    target: Any
    optimizer: Any

    def to_evaluate(self, y: Any) -> Any:
        """Returns x, given y."""
        return self.optimizer.rule.to_evaluate(y, *self._known(y.dtype))

    def to_train(self, x: Any) -> Any:
        """Returns y, given x."""
        return self.optimizer.rule.to_train(x, *self._known(x.dtype))

    def _known(self, dtype: Any) -> tuple[State, Numbers]:
        """Returns the state and the numbers of what is trained."""
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
    Keras saves has it too. Only from a checkpoint of variables it is computed.

    Args:
        members: The optimizers, of which some are schedule-free.
        masters: The float32 copies of low-precision weights.
    """

    trainable_weights_only = True
    loads_later = None

    def __init__(self, members: Members, masters: MasterWeights):
        self._members = members
        self._masters = masters
        self._entries: list[_Entry] = []
        self._kept: dict[int, list[Any]] = {}

    def get_config(self) -> None:
        """Returns None: it follows from the optimizers."""
        return

    def build(self, optimizer: CopiesWeights, variables: Sequence[Any]) -> None:
        """Finds the weights whose optimizer is schedule-free."""
        self.add_flag(optimizer)
        for weight, target in zip(variables, self._masters.of(variables), strict=True):
            owner = self._members.optimizer_of(target)
            if averages_iterates(owner):
                self._entries.append(_Entry(weight, optimizer.path_of(weight), target, owner))

    @property
    def weights(self) -> list[Any]:
        """The weights that are averaged."""
        return [entry.weight for entry in self._entries]

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns its variable."""
        return {"swapped": self.swapped}

    def guard(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context for a step, which raises where weights are swapped.

        Inside a function compiled by JAX nothing can be raised: there the weights become y again,
        and the gradient of this one step was taken at x.

        Raises:
            RuntimeError: As `Swappable.unswapped`.
        """
        if is_traced(self.swapped.value):
            swapped = ops.convert_to_tensor(self.swapped)
            for entry in self._entries:
                weight = ops.convert_to_tensor(entry.weight)
                entry.weight.assign(ops.where(swapped, self._to_train(entry), weight))
            self.swapped.assign(False)
            return contextlib.nullcontext()
        return self.unswapped()

    def _to_train(self, entry: _Entry) -> Any:
        target = ops.convert_to_tensor(entry.target)
        if entry.target is entry.weight:
            return entry.to_train(target)
        return ops.cast(target, entry.weight.dtype)  # the copy held y all the time

    def following(
        self, variables: Sequence[Any], targets: Sequence[Any], steps: Any
    ) -> tuple[dict[int, keras.Variable], Any]:
        """Returns no averages that are to be moved, as those of `WeightAverage` are."""
        del variables, targets, steps
        return {}, None

    def update(self, steps: Any, moved: Collection[int] = ()) -> None:
        """Does nothing: a step of the optimizers has moved x."""
        del steps, moved

    def overwrite(self, steps: Any, copies: Sequence[Any]) -> None:
        """Does nothing: the weights stay y while they train."""
        del steps, copies

    def finalize(self) -> None:
        """Ends a training: the weights become x. A `swap()` makes them y again, to go on."""
        if not self.is_swapped():
            self.swap()

    def swap(self) -> None:
        """Exchanges y and x; a second call restores y bit for bit.

        Raises:
            RuntimeError: Inside a `tf.function`, where it would run once, while tracing.
        """
        self.check_eager()
        restoring = self.is_swapped()
        kept, self._kept = self._kept, {}
        for number, entry in enumerate(self._entries):
            if not restoring:
                target = copied(entry.target)
                values = entry.to_evaluate(target)
                own = entry.target is entry.weight
                copies = distribution.local_copies(entry.weight)
                self._kept[number] = [copied(copy) for copy in copies]
                _assign(entry.weight, [values if own else ops.cast(values, entry.weight.dtype)])
            elif number in kept:
                _assign(entry.weight, kept[number])
            else:
                _assign(entry.weight, [self._to_train(entry)])
        self.swapped.assign(not restoring)

    def _places(self) -> dict[str, list[int]]:
        # A weight with a copy has y in that.
        numbered = enumerate(self._entries)
        return by_unique_name((e.path, [n]) for n, e in numbered if e.target is e.weight)

    @property
    def _aside(self) -> dict[int, Any]:
        return {number: copies[0] for number, copies in self._kept.items()}

    @_aside.setter
    def _aside(self, values: dict[int, Any]) -> None:
        self._kept = {number: [value] for number, value in values.items()}


def _assign(weight: Any, values: Sequence[Any]) -> None:
    # On every device; the copies of a trainable weight are the same.
    for number, copy in enumerate(distribution.local_copies(weight)):
        copy.assign(values[number % len(values)])
