"""Who updates what in `PipelineOptimizer`: groups, and the inner optimizers that they share."""

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from optimization.configs.group_config import LayerDecayConfig
from optimization.keras import state
from optimization.keras.groups import ParamGroup, named
from optimization.keras.inner import argument_of, has_rules_of_decay, take_in
from optimization.keras.paths import Among, path_of
from optimization.keras.rule_optimizer import checked, trains_by_rule
from optimization.keras.rule_part import RulePart, rate_now
from optimization.matching.patterns import as_pattern_list, matches_any
from optimization.matching.rules import DEFAULT, assigned, refuse_all_frozen
from optimization.rules.state_config import StateConfig

# What `exclude_from_weight_decay` of Keras remembers, outside the config.
_EXCLUSIONS = ("_exclude_from_weight_decay", "_exclude_from_weight_decay_pattern")
Pairs = Sequence[tuple[Any, Any]]


@dataclasses.dataclass
class Member:
    """A group, or a layer of it: its inner optimizer, and the positions of its variables.

    An optimizer of a rule is shared: the `part` is what the group has of it. Others are not.
    """

    name: str
    group: ParamGroup | None
    multiplier: float
    optimizer: keras.optimizers.Optimizer
    part: RulePart | None
    positions: list[int] = dataclasses.field(default_factory=list)

    @property
    def learning_rate(self) -> Any:
        return (self.part or self.optimizer).learning_rate

    def compiles(self, variable: Any) -> bool:
        """Says whether XLA compiles the update of a variable in time."""
        return self.part is None or self.part.compiles(variable)

    def named(self, paths: Sequence[str]) -> dict[str, keras.Variable]:
        """Returns its state by names, of the paths of its variables, as it was made."""
        optimizer = self.optimizer
        if self.part is None:
            named = state.inner_variables_by_path(optimizer, paths)
            return {n: v for n, v in named.items() if v is not optimizer._iterations}
        rate = optimizer._learning_rate
        has_rate = self.name == DEFAULT and isinstance(rate, keras.Variable)
        own = [("learning_rate", rate)] if has_rate else []
        return state.by_unique_name([*own, *self.part.named])


class Members:
    """Makes the groups of a pipeline, and passes each its gradients; the first match counts."""

    def __init__(
        self,
        pipeline: Any,
        groups: Sequence[ParamGroup],
        layer_decay: Mapping[str, Any] | None,
        precision: StateConfig | None = None,
    ):
        self.precision = precision
        self._pipeline = pipeline
        default = self._default = pipeline.optimizer
        self.groups = named(groups)
        self.layer_decay = None if layer_decay is None else LayerDecayConfig(layer_decay)
        for group in self.groups:
            replaced(group.optimizer or default, group)  # so that a wrong name is an error here
        part = RulePart(default) if trains_by_rule(default) else None
        self.members = [Member(DEFAULT, None, 1.0, default, part)]
        self._shared = {id(default): default}  # those of rules, by the `id` of what was given
        self._by_target: dict[int, Member] = {}
        self._rates: dict[str, Any] = {}
        self.frozen: set[int] = set()
        self.owners: list[ParamGroup | None] = []
        self.excluded_names: list[str] = []
        self.excluded_paths: list[str] = []

    def exclude(self, variables: Sequence[Any], patterns: Sequence[str]) -> None:
        """Spares variables the weight decay of Keras' optimizers."""
        if has_rules_of_decay(self._default):
            raise ValueError(
                f"{type(self._default).__name__} has rules of its own for what decays: give them "
                "to its constructor, or use a parameter group."
            )
        self.excluded_names = as_pattern_list(patterns, "var_names") or []
        self.excluded_paths = [path_of(variable) for variable in variables]

    def assign(
        self, variables: Sequence[Any], paths: Sequence[str], layer_types: Sequence[str | None]
    ) -> None:
        """Decides which group each of the model's variables belongs to."""
        ndims = [len(variable.shape) for variable in variables]
        shapes = {path: tuple(v.shape) for path, v in zip(paths, variables, strict=True)}
        left = operator.methodcaller("left", shapes)
        self.owners = assigned(self.groups, paths, ndims, layer_types, left)
        self.frozen = {i for i, group in enumerate(self.owners) if group and group.freeze}
        if self.frozen and len(self.frozen) == len(paths):
            raise ValueError("Every variable is frozen by a parameter group: nothing can learn.")
        refuse_all_frozen(self.owners)

    def build(self, variables: Sequence[Any], targets: Sequence[Any], paths: Sequence[str]) -> None:
        """Makes the inner optimizers, which update targets in variables' place, and all state."""
        layers: Sequence[tuple[int | None, float]] = [(None, 1.0)] * len(paths)
        if self.layer_decay is not None:
            layers = self.layer_decay.multipliers(paths)
        for position, (layer, multiplier) in enumerate(layers):
            if position not in self.frozen:
                member = self._member(self.owners[position], layer, multiplier)
                member.positions.append(position)
                self._by_target[id(targets[position])] = member
        among = Among.of(paths, variables)
        among.require(self.excluded_names, "var_names")
        spared = [
            target
            for target, path in zip(targets, paths, strict=True)
            if path in self.excluded_paths or matches_any(path, self.excluded_names)
        ]
        for optimizer in {id(m.optimizer): m.optimizer for m in self.members}.values():
            _exclude(optimizer, list(zip(variables, targets, strict=True)), spared)
            own: list[Any] = [
                (m.part, [targets[p] for p in m.positions], [paths[p] for p in m.positions])
                for m in self.members
                if m.optimizer is optimizer
            ]
            if trains_by_rule(optimizer):
                optimizer.precision = self.precision
                optimizer.build_parts(own, among)
            elif self.precision is not None:
                name = type(optimizer).__name__
                raise ValueError(f"Argument `state`: the state of {name} is its own; leave it out")
            else:
                optimizer.build(own[0][1])

    def _member(
        self, group: ParamGroup | None, layer: int | None, layer_multiplier: float
    ) -> Member:
        """Returns the member for a group and a multiplier; makes it if there is none yet."""
        multiplier = layer_multiplier * (group.learning_rate_multiplier if group else 1.0)
        for member in self.members:
            if member.group is group and member.multiplier == multiplier:
                return member
        name = group.label if group else DEFAULT
        if layer is not None and layer_multiplier != 1:
            name = f"{name}/layer_{layer}"
        optimizer, part = self._updater(group, multiplier)
        self.members.append(Member(name, group, multiplier, optimizer, part))
        return self.members[-1]

    def _updater(
        self, group: ParamGroup | None, multiplier: float
    ) -> tuple[keras.optimizers.Optimizer, RulePart | None]:
        """Returns the optimizer of a group, and the part of it if it is one of a rule."""
        given = (group and group.optimizer) or self._default
        changed = replaced(given, group)
        rate = self._rate_source(group)
        if group is not None and group.learning_rate is not None:
            # The rates of SGDTorch's biases and others give way to the group's too.
            changed |= {n: None for n in given.get_config() if n.endswith("_learning_rate")}
        start = group.freeze_steps if group else 0
        if not trains_by_rule(given):
            if group is not None and start:
                raise ValueError(
                    f"`freeze_steps` of the group {group.label!r} needs an optimizer of this "
                    f"package: {type(given).__name__} counts all updates."
                )
            changed["learning_rate"] = lambda: rate_now(self._default, rate, multiplier)
            return self._taken(given, changed), None
        if id(given) not in self._shared:
            usual = given._learning_rate
            schedule = {"learning_rate": usual} if callable(usual) else {}
            self._shared[id(given)] = self._taken(given, schedule)
        own = set(given.rule.own_rates.values()) & changed.keys()
        own_rates = {name: changed.pop(name) for name in own}
        fields = {n: getattr(given.rule, n) for n in given.rule.argument_names()}
        rule = checked(type(given.rule), {**fields, **changed})
        optimizer = self._shared[id(given)]
        return optimizer, RulePart(optimizer, rule, rate, multiplier, own_rates, start)

    def _taken(
        self, original: keras.optimizers.Optimizer, changed: Mapping[str, Any]
    ) -> keras.optimizers.Optimizer:
        """Returns one like an optimizer, with some other arguments, for the pipeline alone."""
        clone = type(original).from_config({**original.get_config(), **changed})
        for attribute in _EXCLUSIONS:
            if hasattr(original, attribute):
                setattr(clone, attribute, getattr(original, attribute))
        take_in(clone, self._pipeline._iterations)
        return clone

    def rate_of(self, group: ParamGroup | None) -> Any:
        """Returns the learning rate of a group before its multiplier: a number or a schedule."""
        if group is not None and group.learning_rate is not None:
            return group.learning_rate
        own = group and group.optimizer
        return (own or self._default)._learning_rate

    def _rate_source(self, group: ParamGroup | None) -> Any:
        """Returns the rate before multiplication, as `rate_now` takes it."""
        rate = self.rate_of(group)
        if group is None or rate is self._default._learning_rate:
            return None
        if isinstance(rate, keras.Variable):
            rate = float(keras.ops.convert_to_numpy(rate))
        if callable(rate):
            return rate
        if group.label not in self._rates:
            self._rates[group.label] = self._pipeline.add_variable(
                (),
                initializer=keras.initializers.Constant(rate),
                aggregation="only_first_replica",
                name=f"learning_rate_{len(self._rates)}",
            )
        return self._rates[group.label]

    def variables_by_path(self, paths: Sequence[str]) -> dict[str, keras.Variable]:
        """Returns the variables of the inner optimizers, and learning rates of groups, by path."""
        items = self._rates.items()
        found = {f"groups/{name}/learning_rate": rate for name, rate in items}
        for member in self.members:
            start = "optimizer" if member.name == DEFAULT else f"groups/{member.name}"
            own = member.named([paths[p] for p in member.positions]).items()
            found.update((f"{start}/{path}", variable) for path, variable in own)
        return found

    def split(self, pairs: Pairs) -> list[tuple[Member, Pairs]]:
        """Returns the members that have some of the variables, with their gradients and these."""
        if len(self.members) == 1:
            return [(self.members[0], pairs)]
        parts = [(m, [p for p in pairs if self.member_of(p[1]) is m]) for m in self.members]
        return [(member, own) for member, own in parts if own]

    def member_of(self, target: Any) -> Member | None:
        """Returns who updates what is trained in a variable's place; None if it is frozen."""
        return self._by_target.get(id(target))

    def own_optimizers(self) -> list[keras.optimizers.Optimizer]:
        """Returns the optimizers that were given, the default one first."""
        own = [group.optimizer for group in self.groups if group.optimizer is not None]
        return [self._default, *own]


def replaced(optimizer: keras.optimizers.Optimizer, group: ParamGroup | None) -> dict[str, Any]:
    """Returns what a group replaces, by the constructor's names."""
    own = group.hyperparameters if group else {}
    return {argument_of(optimizer, name): value for name, value in own.items()}


def _exclude(optimizer: keras.optimizers.Optimizer, pairs: Pairs, spared: Sequence[Any]) -> None:
    """Spares variables the decay, and the copies of what `exclude_from_weight_decay` was given."""
    excluded: set[Any] = getattr(optimizer, "_exclude_from_weight_decay", set())
    key = optimizer._var_key
    copies = [target for variable, target in pairs if key(variable) in excluded]
    optimizer._exclude_from_weight_decay = excluded | {key(each) for each in (*copies, *spared)}
