"""The inner optimizers of `PipelineOptimizer`: one for each group and multiplier."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras

from optimization.keras import distribution, state
from optimization.keras.groups import DEFAULT, ParamGroup, assigned, named
from optimization.keras.inner import argument_of, has_rules_of_decay, share_iterations
from optimization.keras.paths import path_of
from optimization.keras.patterns import (
    as_pattern_list,
    matches_any,
    matching_among,
    require_matches,
)
from optimization.keras.rates import ScaledRate
from optimization.keras.rule_optimizer import RuleOptimizer
from optimization.matching.layer_decay import LayerDecay

# What `exclude_from_weight_decay` of Keras remembers, outside the config.
_EXCLUSIONS = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")


@dataclasses.dataclass
class Member:
    """One inner optimizer, and the positions of the variables that it updates."""

    name: str
    group: ParamGroup | None
    multiplier: float
    optimizer: keras.optimizers.Optimizer
    positions: list[int] = dataclasses.field(default_factory=list)

    @property
    def is_default(self) -> bool:
        """Whether this is the optimizer that the pipeline was given."""
        return self.name == DEFAULT


class Members:
    """Makes the inner optimizers and passes each its gradients.

    Args:
        default: The optimizer of the default group.
        groups: Rules, in the order in which they are asked.
        layer_decay: Arguments of `LayerDecay`, or None.

    Raises:
        TypeError: If a group is not a `ParamGroup`.
        ValueError: For groups with the same name, or a hyperparameter that does not exist.
    """

    def __init__(
        self,
        default: keras.optimizers.Optimizer,
        groups: Sequence[ParamGroup],
        layer_decay: Mapping[str, Any] | None,
    ):
        self._default = default
        self.groups = named(groups)
        self.layer_decay = None if layer_decay is None else LayerDecay(**layer_decay)
        for group in self.groups:
            _replaced(group.optimizer or default, group)  # so that a wrong name is an error here
        self.members = [Member(DEFAULT, None, 1.0, default)]
        self._by_variable: dict[int, Member] = {}
        self._rates: dict[str, Any] = {}
        self.frozen: set[int] = set()
        self.owners: list[ParamGroup | None] = []
        self.excluded_names: list[str] = []
        self.excluded_paths: list[str] = []

    def exclude(self, variables: Sequence[Any], patterns: Sequence[str]) -> None:
        """Spares variables the weight decay of Keras' optimizers.

        Raises:
            ValueError: If the default optimizer decays by rules of its own, or for an invalid
                expression.
        """
        if has_rules_of_decay(self._default):
            raise ValueError(
                f"{type(self._default).__name__} has rules of its own for what decays: give them "
                "to its constructor, or use a parameter group."
            )
        self.excluded_names = as_pattern_list(patterns, "var_names") or []
        self.excluded_paths = [path_of(variable) for variable in variables]

    def resolve(
        self, variables: Sequence[Any], paths: Sequence[str], layer_types: Sequence[str | None]
    ) -> None:
        """Decides which group each of the model's variables belongs to.

        Args:
            variables: The model's variables.
            paths: Their paths.
            layer_types: Class names of the layers that own them, or None.

        Raises:
            ValueError: For a rule that matches nothing, or if all variables are frozen.
        """
        ndims = [len(variable.shape) for variable in variables]
        self.owners = assigned(self.groups, paths, ndims, layer_types)
        self.frozen = {i for i, group in enumerate(self.owners) if group and group.freeze}
        if self.frozen and len(self.frozen) == len(paths):
            raise ValueError("Every variable is frozen by a parameter group: nothing can learn.")

    def build(
        self,
        pipeline: keras.optimizers.Optimizer,
        variables: Sequence[Any],
        targets: Sequence[Any],
        paths: Sequence[str],
    ) -> None:
        """Makes the inner optimizers and all their state.

        Args:
            pipeline: Owns the variables of learning rates, and the count of updates.
            variables: The model's variables.
            targets: What the inner optimizers update in their place.
            paths: Their paths.

        Raises:
            ValueError: As `LayerDecay.layers` and the inner optimizers do.
        """
        layers: Sequence[tuple[int | None, float]] = [(None, 1.0)] * len(paths)
        if self.layer_decay is not None:
            layers = self.layer_decay.multipliers(paths)
        for position, (layer, multiplier) in enumerate(layers):
            if position not in self.frozen:
                member = self._member(pipeline, self.owners[position], layer, multiplier)
                member.positions.append(position)
                self._by_variable[id(targets[position])] = member
        with matching_among(paths, variables):
            require_matches(self.excluded_names, variables, "var_names")
            spared = [
                target
                for target, path in zip(targets, paths, strict=True)
                if path in self.excluded_paths or matches_any(path, self.excluded_names)
            ]
            for member in self.members:
                _exclude_copies(member.optimizer, variables, targets)
                _exclude(member.optimizer, spared)
                member.optimizer.build([targets[position] for position in member.positions])

    def _member(
        self,
        pipeline: keras.optimizers.Optimizer,
        group: ParamGroup | None,
        layer: int | None,
        layer_multiplier: float,
    ) -> Member:
        """Returns the member for a group and a multiplier; makes it if there is none yet."""
        multiplier = layer_multiplier * (group.learning_rate_multiplier if group else 1.0)
        for member in self.members:
            if member.group is group and member.multiplier == multiplier:
                return member
        name = group.label if group else DEFAULT
        if layer is not None and layer_multiplier != 1:
            name = f"{name}/layer_{layer}"
        source, constant = self._rate_source(pipeline, group)
        optimizer = _clone(self._default, group, ScaledRate(source, multiplier, constant))
        share_iterations(optimizer, pipeline._iterations)
        distribution.reduce_only_once(optimizer)
        self.members.append(Member(name, group, multiplier, optimizer))
        return self.members[-1]

    def rate_of(self, group: ParamGroup | None) -> Any:
        """Returns the learning rate of a group before its multiplier: a number or a schedule."""
        if group is not None and group.learning_rate is not None:
            return group.learning_rate
        own = group and group.optimizer
        return (own or self._default)._learning_rate

    def _rate_source(
        self, pipeline: keras.optimizers.Optimizer, group: ParamGroup | None
    ) -> tuple[Callable[[], Any], bool]:
        """Returns a function for the rate before multiplication, and whether it is a constant."""
        rate = self.rate_of(group)
        if rate is self._default._learning_rate:
            return lambda: self._default.learning_rate, not callable(rate)
        if isinstance(rate, keras.Variable):
            rate = float(keras.ops.convert_to_numpy(rate))
        if callable(rate):
            return lambda: rate(pipeline._iterations), False
        name = DEFAULT if group is None else group.label
        if name not in self._rates:
            self._rates[name] = pipeline.add_variable(
                (),
                initializer=keras.initializers.Constant(rate),
                aggregation="only_first_replica",
                name=f"learning_rate_{len(self._rates)}",
            )
        variable = self._rates[name]
        return lambda: variable, True

    def variables(self) -> list[keras.Variable]:
        """Returns the variables of the inner optimizers, without the count of updates."""
        return [
            variable
            for member in self.members
            for variable in member.optimizer.variables
            if variable is not member.optimizer._iterations
        ]

    def variables_by_path(self, paths: Sequence[str]) -> dict[str, keras.Variable]:
        """Returns these, and learning rates of groups, by path.

        Args:
            paths: The paths of the model's variables.
        """
        items = self._rates.items()
        named = {f"groups/{name}/learning_rate": rate for name, rate in items}
        for member in self.members:
            start = "optimizer" if member.is_default else f"groups/{member.name}"
            own_paths = [paths[position] for position in member.positions]
            inner = state.inner_variables_by_path(member.optimizer, own_paths)
            named.update(
                (f"{start}/{path}", variable)
                for path, variable in inner.items()
                if variable is not member.optimizer._iterations
            )
        return named

    def update(
        self,
        grads: Sequence[Any],
        variables: Sequence[Any],
        followed: Callable[[RuleOptimizer], Mapping[str, Any]],
    ) -> None:
        """Updates variables, each by its optimizer; weight decay comes first, as in Keras.

        Args:
            grads: The gradients.
            variables: The variables.
            followed: Returns the scheduled numbers of an optimizer of a rule.
        """
        for member, own_grads, own_variables in self.split(grads, variables):
            optimizer, rate = member.optimizer, member.optimizer.learning_rate
            if isinstance(optimizer, RuleOptimizer):
                rate = optimizer.counted(rate, followed(optimizer))
            optimizer._apply_weight_decay(own_variables)
            optimizer._backend_update_step(own_grads, own_variables, rate)

    def split(
        self, grads: Sequence[Any], variables: Sequence[Any]
    ) -> list[tuple[Member, Sequence[Any], Sequence[Any]]]:
        """Returns the members that have some of the variables, with these and their gradients."""
        if len(self.members) == 1:
            return [(self.members[0], grads, variables)]
        pairs = list(zip(grads, variables, strict=True))
        parts: list[tuple[Member, Sequence[Any], Sequence[Any]]] = []
        for member in self.members:
            own = [(g, v) for g, v in pairs if self._by_variable[id(v)] is member]
            if own:
                parts.append((member, [g for g, _ in own], [v for _, v in own]))
        return parts

    def optimizer_of(self, target: Any) -> keras.optimizers.Optimizer:
        """Returns who updates a variable, one of those that `build` was given as targets."""
        return self._by_variable[id(target)].optimizer

    def member_at(self, position: int) -> Member | None:
        """Returns who updates the variable at a position; None if it is frozen."""
        return next((m for m in self.members if position in m.positions), None)

    def rates(self) -> dict[str, Any]:
        """Returns the learning rate now of each member that has variables, by name."""
        return {m.name: m.optimizer.learning_rate for m in self.members if m.positions}

    def scheduled(self) -> list[tuple[keras.optimizers.Optimizer, set[str]]]:
        """Returns the optimizers, each with the hyperparameters that its group has replaced."""
        return [
            (m.optimizer, set(_replaced(m.optimizer, m.group)) if m.group else set())
            for m in self.members
        ]

    def own_optimizers(self) -> list[keras.optimizers.Optimizer]:
        """Returns the optimizers that were given, the default one first."""
        own = [group.optimizer for group in self.groups if group.optimizer is not None]
        return [self._default, *own]


def _clone(
    default: keras.optimizers.Optimizer, group: ParamGroup | None, rate: ScaledRate
) -> keras.optimizers.Optimizer:
    own = None if group is None else group.optimizer
    original = default if own is None else own
    config = {**original.get_config(), **({} if group is None else _replaced(original, group))}
    if group is not None and group.learning_rate is not None:
        # The rates of SGDTorch's biases and others give way to the group's too.
        others = [key for key in config if key.endswith("_learning_rate")]
        config.update(dict.fromkeys(others))
    clone = type(original).from_config({**config, "learning_rate": rate})
    if hasattr(clone, "rate_multiplier"):
        clone.rate_multiplier = rate.multiplier
    for attribute in _EXCLUSIONS:
        if hasattr(original, attribute):
            setattr(clone, attribute, getattr(original, attribute))
    return clone


def _exclude_copies(
    optimizer: keras.optimizers.Optimizer, variables: Sequence[Any], targets: Sequence[Any]
) -> None:
    """Has what Keras' `exclude_from_weight_decay(var_list=...)` excludes hold for copies too."""
    excluded = getattr(optimizer, "_exclude_from_weight_decay", None)
    if excluded:
        for variable, target in zip(variables, targets, strict=True):
            if optimizer._var_key(variable) in excluded:
                excluded.add(optimizer._var_key(target))


def _exclude(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> None:
    if variables:
        excluded: set[Any] = getattr(optimizer, "_exclude_from_weight_decay", set())
        keys = {optimizer._var_key(variable) for variable in variables}
        optimizer._exclude_from_weight_decay = excluded | keys


def _replaced(optimizer: keras.optimizers.Optimizer, group: ParamGroup) -> dict[str, Any]:
    return {argument_of(optimizer, name): value for name, value in group.hyperparameters.items()}
