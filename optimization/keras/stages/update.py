"""The stage that updates the weights: each variable by the optimizer of its group."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import keras
from keras import ops

from optimization.configs.group_config import LayerDecayConfig
from optimization.keras import control
from optimization.keras.copies import MasterWeights
from optimization.keras.gradients import compute_dtype, is_overwritten
from optimization.keras.group_table import GroupRow, format_group_table, highest_rates, table_row
from optimization.keras.groups import ParamGroup, owning_layer_types
from optimization.keras.hyperparameters import HyperparameterSchedules
from optimization.keras.members import Members
from optimization.keras.stages.stage import Batch, Rest, Stage, argument
from optimization.keras.updates import Updates
from optimization.rules.base import ALL_CLIPS
from optimization.rules.state_config import StateConfig
from optimization.schedules.scaled import rate_text

DECAY = "average_decay"
_LAST = 2**31 - 2  # of int32, to which an update can add 1: JAX and PyTorch count so


def _values(function: Callable[[Any], Any], mapping: Mapping[str, Any]) -> dict[str, Any]:
    return {name: function(value) for name, value in mapping.items()}


class Update(Stage):
    """Decays and updates weights, and counts the update.

    The stage that keeps an average which moves with the weights sets `average`.
    """

    title = "weight decay and update, group by group; count"
    sees = "the gradients of the group"
    set_by = "`optimizer`, `param_groups`, `layer_decay`, `schedules`"
    shows = (
        *("learning_rates", "scheduled_values", "frozen_variables"),
        *("group_table", "format_group_table", "thawing_variables", "updating_optimizers"),
    )
    remembers = ("layer_types", "excluded_names", "excluded_paths")
    settable = False

    param_groups: Sequence[ParamGroup] = argument(
        (),
        "Settings for some of the variables; the first group that matches counts.",
        save=lambda groups: [group.get_config() for group in groups],
        load=lambda saved: [ParamGroup.from_config(group) for group in saved or ()],
        text=lambda groups: tuple(group.label for group in groups),
    )
    layer_decay: Mapping[str, Any] | None = argument(
        None,
        "Settings of `LayerDecayConfig`, or None.",
        text=lambda decay: decay and LayerDecayConfig(decay),
    )
    schedules: Mapping[str, Callable[[Any], Any]] | None = argument(
        None,
        "Functions of the updates taken, by hyperparameter, such as `weight_decay`, `momentum` or "
        "`beta_1`, or a clip. Groups that replace it, or do not have it, keep theirs.",
        save=lambda schedules: _values(keras.saving.serialize_keras_object, schedules),
        load=lambda saved: _values(keras.saving.deserialize_keras_object, saved or {}),
        text=lambda schedules: _values(rate_text, schedules),
    )
    state: Mapping[str, Any] | None = argument(
        None,
        "Settings of `StateConfig`: how precisely state is kept, and weights in bfloat16; None for "
        "float32.",
        text=lambda state: state and StateConfig(state),
    )
    jit_compile: bool | Literal["auto"] = argument(
        "auto",
        'Compile updates with XLA on TensorFlow: "auto" where they are part of a `tf.function` and '
        "can be fused (see `updates`), at any place in the step; True everywhere, on one replica, "
        "with sparse gradients made dense; False nowhere. JAX: the step is compiled as a whole by "
        "whoever jits it. PyTorch: True is an error.",
    )

    def __post_init__(self) -> None:
        jit_compile: Any = self.jit_compile
        if not isinstance(jit_compile, bool) and jit_compile != "auto":
            raise ValueError(
                f'Argument `jit_compile` must be True, False or "auto", received: {jit_compile=}'
            )
        if jit_compile is True and keras.backend.backend() == "torch":
            raise ValueError("Argument `jit_compile` must not be True on the PyTorch backend.")
        self.average: Any = None
        self._variables: list[Any] = []
        self._layer_types: dict[int, str] = {}
        self._saved_layer_types: dict[str, str] = {}

    def attach(self, pipeline: Any) -> None:
        super().attach(pipeline)
        precision = None if self.state is None else StateConfig(self.state)
        if precision is not None and not precision.is_rounded:
            precision = None
        self.members = Members(pipeline, self.param_groups, self.layer_decay, precision)
        self.masters = MasterWeights(precision is None or precision.has_copies)
        own = self.members.own_optimizers()
        clips = {name: getattr(pipeline, name) for name in ALL_CLIPS}
        self.hyperparameters = HyperparameterSchedules(self.schedules, own, clips)
        self.param_groups, self.schedules = self.members.groups, self.hyperparameters.schedules
        decay = self.members.layer_decay
        self.layer_decay = None if decay is None else decay.as_dict()
        self.updates = Updates(self.members, self.hyperparameters, self.jit_compile)

    # State

    def set_model(self, model: keras.Model) -> None:
        self._layer_types = owning_layer_types(model)

    def check(self, variables: Sequence[Any]) -> None:
        replicas = control.replicas_of(self.pipeline)
        if self.jit_compile is True and replicas > 1:
            raise ValueError(
                'Argument `jit_compile` must be "auto" or False on more than one replica, '
                f"received: {replicas} replicas"
            )

    def build(self, variables: Sequence[Any]) -> None:
        self._variables = list(variables)
        names = [self.pipeline.path_of(variable) for variable in variables]
        types = [
            self._layer_types.get(id(variable), self._saved_layer_types.get(name))
            for variable, name in zip(variables, names, strict=True)
        ]
        self._saved_layer_types = {n: t for n, t in zip(names, types, strict=True) if t}
        self.members.assign(variables, names, types)
        targets = self.masters.build(self.pipeline, variables, names, self.members.frozen)
        self.members.build(variables, targets, names)
        self.hyperparameters.build(self.members.members)

    def variables_by_path(self) -> dict[str, keras.Variable]:
        inner = self.members.variables_by_path(self.pipeline.variable_paths)
        return {**self.masters.by_path, **inner}

    def inner_variables(self) -> list[keras.Variable]:
        return [v for member in self.members.members for v in member.named(()).values()]

    def largest_gradients(self, variables: Sequence[Any]) -> list[float]:
        """Returns the largest gradient of each variable that its optimizer can hold, if known."""
        found = []
        for variable, target in zip(variables, self.masters.of(variables), strict=True):
            member = self.members.member_of(target)
            part = None if member is None or is_overwritten(variable) else member.part
            if part is None or compute_dtype(target) == "float64":
                found.append(math.inf)
            else:
                found.append(part.largest_gradient(target))
        return found

    # Its part of a step

    def __call__(self, batch: Batch, rest: Rest) -> None:
        steps = self.pipeline.iterations
        targets = self.masters.brought_up_to_date(batch.variables)
        moved = self.updates.take(batch.grads, batch.variables, targets, steps, self.average)
        if keras.backend.standardize_dtype(steps.dtype) == "int32":
            steps.assign(ops.minimum(steps, _LAST - 1) + 1)
        else:
            steps.assign_add(1)
        rest(replace(batch, targets=targets, moved=moved))

    # Its config

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "layer_types": dict(self._saved_layer_types),
            "excluded_names": list(self.members.excluded_names),
            "excluded_paths": list(self.members.excluded_paths),
        }

    def remember(self, saved: Mapping[str, Any]) -> None:
        self._saved_layer_types = saved["layer_types"] or {}
        self.members.excluded_names = saved["excluded_names"] or []
        self.members.excluded_paths = saved["excluded_paths"] or []

    # Reports

    def learning_rates(self) -> dict[str, Any]:
        """Returns the learning rate now of each group; layers of a group count as groups."""
        return {m.name: m.learning_rate for m in self.members.members if m.positions}

    def scheduled_values(self) -> dict[str, Any]:
        """Returns what the hyperparameters that follow a schedule are now."""
        steps = self.pipeline.iterations
        values, decay = self.hyperparameters.values(steps), getattr(self.average, DECAY, None)
        return {**values, DECAY: decay(steps)} if callable(decay) else values

    def updaters(self) -> Iterator[tuple[str, keras.optimizers.Optimizer, Any]]:
        """Yields the path of each variable that is not frozen, who updates it, and what of it."""
        for variable, target in zip(self._variables, self.masters.of(self._variables), strict=True):
            member = self.members.member_of(target)
            if member:
                yield self.pipeline.path_of(variable), member.optimizer, target

    def frozen_variables(self) -> set[int]:
        """Returns the `id` of each variable that a group freezes."""
        return {id(v) for i, v in enumerate(self._variables) if i in self.members.frozen}

    def thawing_variables(self) -> dict[int, int]:
        """Returns the `id` of each variable that a group freezes at first, with `freeze_steps`."""
        owned = zip(self._variables, self.members.owners, strict=True)
        return {id(v): group.freeze_steps for v, group in owned if group and group.freeze_steps}

    def updating_optimizers(self) -> dict[str, Any]:
        """Returns each optimizer inside, by the name of the first group that it updates."""
        first: dict[int, Any] = {}
        for member in self.members.members:
            first.setdefault(id(member.optimizer), member)
        return {member.name: member.optimizer for member in first.values()}

    def group_table(self) -> list[GroupRow]:
        """Returns what each variable is trained with; `format_group_table` makes it a text.

        Raises:
            ValueError: If the optimizer is not built.
        """
        if not self.pipeline.built:
            raise ValueError("The optimizer is not built: its groups are not known yet.")
        averaged = {id(weight) for weight in (self.average.weights if self.average else ())}
        path, highest = self.pipeline.path_of, highest_rates(self.members)
        who, targets = self.members.member_of, self.masters.of(self._variables)
        found = zip(self._variables, self.members.owners, targets, strict=True)
        return [
            table_row(path(variable), owner, who(target), target, id(variable) in averaged, highest)
            for variable, owner, target in found
        ]

    def format_group_table(self, variables: bool = False) -> str:
        """Returns `group_table` as a text; with `variables` each has a line below its group's."""
        return format_group_table(self.group_table(), variables)
