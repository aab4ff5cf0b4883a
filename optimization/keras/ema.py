"""Exponential moving average of a model's weights, kept by `PipelineOptimizer`."""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import keras
from keras import ops

from optimization.configs.printing import by_arguments
from optimization.keras.control import is_traced
from optimization.keras.copies import CopiesWeights
from optimization.keras.gradients import is_overwritten
from optimization.keras.rule_part import steps_since
from optimization.keras.state import by_unique_name, load
from optimization.keras.swapping import SWAPPED, Swappable, assign_values, values_of
from optimization.schedules.averages import AverageDecay

_AVERAGE = "average/"


@dataclasses.dataclass(kw_only=True, eq=False, repr=False)
class WeightAverage(AverageDecay, Swappable):
    """The moving average of `EMAConfig`, which has its formula; float32 at least.

    Integer weights have none. With start_step=2 and dynamic_decay=False this is the average of
    Keras' `use_ema`, which the last two arguments complete.

    Args:
        average_decay: As in `EMAConfig`, in [0, 1), or a schedule: a function of the updates done.
        start_step: As in `EMAConfig`, >= 0.
        dynamic_decay: As in `EMAConfig`, as are `time_constant`, `gamma`, `power`, `rise_steps`.
        trainable_weights_only: As in `EMAConfig`; False needs `shadow_copy(model)`.
        name: Ends the names of its variables.
        overwrite_frequency: After every so many steps the weights become their averages; None: they
            never do.
        overwrite_at_end: Whether `finalize_variable_values`, with which `model.fit` ends, has the
            weights become their averages.

    Raises:
        ValueError: For a value out of its range.
    """

    trainable_weights_only: bool = True
    name: str = "ExponentialMovingAverage"
    overwrite_frequency: int | None = None
    overwrite_at_end: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        Swappable.__init__(self)
        if self.overwrite_frequency is not None and self.overwrite_frequency < 1:
            self._out_of_range("overwrite_frequency", ">= 1")
        self.loads_later = None if self.trainable_weights_only else _AVERAGE
        self._averages: dict[str, keras.Variable] = {}  # by path, in the order of `weights`
        self.waiting: dict[str, Any] = {}  # loaded values of averages that do not exist yet

    __repr__ = by_arguments

    def get_config(self) -> dict[str, Any]:
        """Returns the arguments; `serialized` makes a schedule among them what JSON can hold."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    def share(self, steps: Any) -> Any:
        """Returns the share of the way to the weights that is moved after `steps` steps."""
        steps = ops.convert_to_tensor(steps)
        share = self.moved_share(steps, steps_since(steps, self.start_step), ops)
        return ops.cast(share, "float32")

    # State

    def build(self, optimizer: CopiesWeights, variables: Sequence[Any]) -> None:
        super().build(optimizer, variables)
        self._add(optimizer, variables)

    def add_others(self, optimizer: CopiesWeights, model: keras.Model) -> None:
        """Creates the averages of the model's weights that have none yet, but need one."""
        known = {id(weight) for weight in self.weights}
        others = [w for w in model.weights if id(w) not in known and _is_averaged(w)]
        before = len(self.variables_by_path())
        with optimizer.naming(others):
            self._add(optimizer, others)
        self.loads_later = None
        if self.waiting:
            added = list(self.variables_by_path().items())[before:]
            load(dict(added), self.waiting, list(self._averages))
            self.waiting = {}

    def _add(self, optimizer: CopiesWeights, weights: Sequence[Any]) -> None:
        named = list(self._averages.items())
        for weight in filter(_is_averaged, weights):
            path = optimizer.path_of(weight)
            # Statistics differ from replica to replica until they are read as their mean.
            aggregation = "none" if weight.trainable else "mean"
            name = f"{path.replace('/', '_')}_{self.name}"
            named.append((path, optimizer.add_copy(weight, name, aggregation)))
            self.weights.append(weight)
        self._averages = by_unique_name(named)

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns its variables by the paths of the weights they belong to."""
        averages = {f"{_AVERAGE}{path}": average for path, average in self._averages.items()}
        return {"swapped": self.swapped, **averages}

    # Its part of a step

    def guard(self) -> contextlib.AbstractContextManager[Any]:
        if self.loads_later is not None:
            raise ValueError(
                "The average was made with trainable_weights_only=False: call "
                "`optimizer.shadow_copy(model)` before the first step, so that it knows them all."
            )
        if not self.trainable_weights_only and is_traced(self.swapped.value):
            raise ValueError(
                "An average with trainable_weights_only=False can't be kept inside a function "
                "compiled by JAX, such as `fit`: it is given the trainable weights only."
            )
        return super().guard()

    def move(self, steps: Any, moved: Collection[int] = ()) -> None:
        share = self.share(steps)
        for weight, average in zip(self.weights, self._averages.values(), strict=True):
            if id(weight) not in moved:
                move(average, weight, share)

    def following(
        self, variables: Sequence[Any], targets: Sequence[Any], steps: Any
    ) -> tuple[dict[int, keras.Variable], Any]:
        # Those where nothing comes between: no copy in another dtype, and no constraint.
        averages = dict(zip(map(id, self.weights), self._averages.values(), strict=True))
        found = {
            id(variable): averages[id(variable)]
            for variable, target in zip(variables, targets, strict=True)
            if variable is target and variable.constraint is None and id(variable) in averages
        }
        return found, self.share(steps)

    def overwrite(self, steps: Any, copies: Sequence[Any]) -> None:
        if self.overwrite_frequency is None:
            return
        due = ops.equal(ops.mod(steps, self.overwrite_frequency), 0)
        averages = self._averages.values()
        for weight, copy, average in zip(self.weights, copies, averages, strict=True):
            for variable in (copy,) if copy is weight else (copy, weight):
                value = ops.cast(average, variable.dtype)
                variable.assign(ops.where(due, value, ops.convert_to_tensor(variable)))

    def finalize(self) -> None:
        """Has the weights become their averages, where the training is to end so."""
        if not self.overwrite_at_end:
            return
        if self.is_swapped():
            raise RuntimeError(SWAPPED)
        for weight, average in zip(self.weights, self._averages.values(), strict=True):
            assign_values(weight, values_of(average))

    # The swap

    def _exchange(self, restoring: bool, kept: Mapping[str, Sequence[Any]]) -> None:
        for weight, (path, average) in zip(self.weights, self._averages.items(), strict=True):
            weights, averages = values_of(weight), values_of(average)
            assign_values(weight, averages)
            assign_values(average, kept.get(path, weights))
            if _dtype(weight) != _dtype(average) and not restoring:
                # A weight of lower precision can't hold the average: it is kept aside.
                self._aside[path] = averages

    def _saved_aside(self) -> Collection[str]:
        return self._averages


def serialized(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Returns arguments of `WeightAverage` in a form that JSON can hold."""
    return _with_decay(arguments, keras.saving.serialize_keras_object, callable)


def deserialized(saved: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments of which `serialized` made what was saved."""
    return _with_decay(saved, keras.saving.deserialize_keras_object, _is_mapping)


def _is_mapping(value: Any) -> bool:
    return isinstance(value, Mapping)


def _with_decay(
    arguments: Mapping[str, Any], form: Callable[[Any], Any], has_form: Callable[[Any], bool]
) -> dict[str, Any]:
    decay = arguments.get("average_decay")
    return {**arguments, "average_decay": form(decay)} if has_form(decay) else dict(arguments)


def move(average: Any, weight: Any, share: Any) -> None:
    """Average <- average - share * (average - weight)."""
    difference = ops.subtract(average, ops.cast(weight, average.dtype))
    average.assign_sub(ops.cast(share, average.dtype) * difference)


def _dtype(variable: Any) -> str:
    return keras.backend.standardize_dtype(variable.dtype)


def _is_averaged(weight: Any) -> bool:
    return keras.backend.is_float_dtype(_dtype(weight)) and not is_overwritten(weight)
