"""Averages of weights, for which a model can swap the weights that train for a while."""

import contextlib
from collections.abc import Collection, Mapping, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from optimization.keras.control import is_traced, local_copies, tf
from optimization.keras.copies import CopiesWeights, MasterWeights, copied
from optimization.keras.members import Members
from optimization.keras.paths import saved_names
from optimization.keras.rule_optimizer import RuleOptimizer
from optimization.keras.state import by_unique_name
from optimization.rules.arrays import State
from optimization.rules.rule import Numbers

KEPT = "kept/"
SWAPPED = (
    "The weights are swapped with their averages: call `swap()` before the next step, or give "
    "`fit` the callback `EvaluateAverages`."
)


class Swappable:
    """Averages of weights; a variable, which is saved too, says whether they are swapped.

    Attributes:
        swapped: That variable, once there is one.
        weights: The weights that are averaged.
        loads_later: How names of averages begin that may be loaded before they exist, or None.
    """

    swapped: Any = None
    loads_later: str | None = None

    def __init__(self) -> None:
        self.weights: list[Any] = []
        # What a second swap restores that no variable can hold: on each device, by path.
        self._aside: dict[str, list[Any]] = {}

    # What a subclass has of its own

    def _exchange(self, restoring: bool, kept: Mapping[str, Sequence[Any]]) -> None:
        """Exchanges weights and averages, of which some were kept aside if `restoring`."""
        raise NotImplementedError

    def _saved_aside(self) -> Collection[str]:
        """Returns the paths of the weights of which what is kept aside is saved."""
        raise NotImplementedError

    def following(
        self, variables: Sequence[Any], targets: Sequence[Any], steps: Any
    ) -> tuple[dict[int, keras.Variable], Any]:
        """Returns the averages that the update of `targets` can move, and the share for `move`.

        Averages are by `id` of the weight; `targets` is trained in the place of `variables`.
        """
        return {}, None

    def move(self, steps: Any, moved: Collection[int] = ()) -> None:
        """Moves the averages after `steps` steps, but those of weights whose `id` is in `moved`."""

    def overwrite(self, steps: Any, copies: Sequence[Any]) -> None:
        """Has the weights, and what trains in their place, become averages where that is due."""

    # The swap

    def build(self, optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> None:
        """Creates its variables, as those of `optimizer`, for trainable variables."""
        self.swapped = optimizer.add_variable((), dtype="bool", name="swapped")

    def is_swapped(self) -> bool:
        """Says whether the weights are swapped with their averages at present."""
        return self.swapped is not None and bool(ops.convert_to_numpy(self.swapped))

    def swap(self) -> None:
        """Exchanges weights and averages; a second call restores both bit for bit."""
        # Inside a `tf.function` it would run once, while tracing.
        if tf is not None and not tf.executing_eagerly():
            raise RuntimeError("`swap()` must be called eagerly, outside any `tf.function`.")
        restoring = self.is_swapped()
        kept, self._aside = self._aside if restoring else {}, {}
        self._exchange(restoring, kept)
        self.swapped.assign(not restoring)

    def guard(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context for a step, which raises where weights are swapped.

        Raises:
            RuntimeError: If they are. In a `tf.function` it is an `InvalidArgumentError`, when the
                function runs, and no weight is changed; inside a function compiled by XLA or JAX
                nothing can be raised.
        """
        if tf is not None and not tf.executing_eagerly():
            # The flag is read in the graph, which may have been traced before the swap.
            not_swapped = tf.logical_not(tf.convert_to_tensor(self.swapped))
            return tf.control_dependencies([tf.debugging.Assert(not_swapped, [SWAPPED])])
        if not is_traced(self.swapped.value) and self.is_swapped():
            raise RuntimeError(SWAPPED)
        return contextlib.nullcontext()

    # What is saved beside the variables

    def kept(self) -> dict[str, Any]:
        """Returns what is kept aside while the weights are swapped, by `kept/` and path."""
        paths = [path for path in self._saved_aside() if path in self._aside]
        return {f"{KEPT}{path}": ops.convert_to_numpy(self._aside[path][0]) for path in paths}

    def keep(self, values: Mapping[str, Any], paths: Sequence[str]) -> None:
        """Takes what `kept` returned, of a model with these paths, instead of what is kept."""
        places = {f"{KEPT}{path}": path for path in self._saved_aside()}
        names = saved_names(places, values, paths)
        self._aside = {
            path: [ops.convert_to_tensor(values[names[name]])]
            for name, path in places.items()
            if names[name] in values
        }


def values_of(variable: Any) -> list[Any]:
    """Returns the value on each device: Keras lets statistics differ between replicas."""
    return [copied(copy) for copy in local_copies(variable)]


def assign_values(variable: Any, values: Sequence[Any]) -> None:
    """Assigns on each device its value; or the one there is, to all."""
    for number, copy in enumerate(local_copies(variable)):
        copy.assign(ops.cast(values[number % len(values)], copy.dtype))


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
