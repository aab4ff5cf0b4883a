"""Decides how each parameter is updated: by which algorithm, with which numbers."""

import dataclasses
import operator
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from optimization.configs.auxiliary_groups import Group
from optimization.configs.errors import shortened
from optimization.configs.optimization_config import OptimizationConfig
from optimization.jax.functions import FUNCTIONS
from optimization.jax.rates import Schedule, rate_of, schedule
from optimization.jax.sharding import sharding_of
from optimization.matching.patterns import check_matches
from optimization.matching.rules import DEFAULT, assigned, refuse_all_frozen
from optimization.rules.arrays import State
from optimization.rules.base import ALL_CLIPS
from optimization.rules.rule import MODIFIER_SLOTS, Numbers, Rule, Slot, given
from optimization.schedules.constant import ConstantLrConfig


@dataclasses.dataclass(frozen=True)
class Part:
    """What the parameters of a group have in common.

    Attributes:
        label: The name of the group.
        rule: The optimizer's section, with what the group has replaced.
        rate: The learning rate, before multipliers.
        followed: Schedules, by the name of the number that follows.
        has_own_rate: Whether the learning rate is not that of all.
        has_own_rule: Whether the optimizer is not that of all.
        constant_rate: Whether the rate is a constant.
        freeze_steps: How many updates leave it as it is.
    """

    label: str
    rule: Rule
    rate: Schedule
    followed: Mapping[str, Schedule]
    has_own_rate: bool
    has_own_rule: bool
    constant_rate: bool
    freeze_steps: int = 0

    def numbers(self, count: Any) -> dict[str, Any]:
        """Returns what is the same for all its parameters in an update."""
        curves = {n: f(jnp.float32(count), FUNCTIONS) for n, f in self.rule.curves().items()}
        followed = {name: function(count) for name, function in self.followed.items()}
        done = jnp.maximum(count - self.freeze_steps, 0) if self.freeze_steps else count
        return {"lr": self.rate(count), "done": done, "t": done + 1, **followed, **curves}

    def held(self, count: Any, before: Any, after: Any) -> Any:
        """Returns what there is after an update, a tree: that before it, while it is frozen."""
        if not self.freeze_steps:
            return after
        stays = count < self.freeze_steps
        return jax.tree.map(lambda old, new: jnp.where(stays, old, new), before, after)

    def prepared(self, shared: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what is kept once, of this update; `now` is what `numbers` returned."""
        values = {name: jnp.asarray(value, jnp.float32) for name, value in now.items()}
        moving = State(shared)
        self.rule.prepare(moving, Numbers(**{**self.fields(), **values}), FUNCTIONS)
        return {**shared, **moving.moved()}

    def initial(self) -> dict[str, Any]:
        """Returns what is kept once, before the first update."""
        h = Numbers(**self.fields())
        return {slot.name: jnp.float32(slot.first(h)) for slot in self.rule.shared}

    def concluded(self, shared: Mapping[str, Any], sums: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what is kept once, after an update; `sums` are those of `Rule.summed`."""
        values = {name: jnp.asarray(value, jnp.float32) for name, value in sums.items()}
        moving = State(shared)
        self.rule.conclude(moving, Numbers(**{**self.fields(), **values}), FUNCTIONS)
        return {**shared, **moving.moved()}

    def shares_with(self, other: "Part | None") -> bool:
        """Says whether a part has the same optimizer, but for what groups replace."""
        is_usual = other is not None and not (self.has_own_rule or other.has_own_rule)
        return other is self or is_usual

    def fields(self) -> dict[str, Any]:
        """Returns the fields of the rule that its formula knows."""
        return {name: getattr(self.rule, name) for name in self.rule.argument_names()}


@dataclasses.dataclass(frozen=True)
class Leaf:
    """How one parameter is updated.

    Attributes:
        path: Its path.
        part: What its group has; None for a parameter that stays as it is.
        multiplier: The factor on the learning rate.
        settings: Its numbers that do not change.
    """

    path: str
    part: Part | None
    multiplier: float = 1.0
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def numbers(self, now: Mapping[str, Any], dtype: Any) -> Numbers:
        """Returns its numbers in an update; one that is 0 or None stays so.

        Args:
            now: What `Part.numbers` returned, and what the part shares.
            dtype: That of the numbers.
        """
        followed, settings = () if self.part is None else self.part.followed, self.settings
        values = {
            name: jnp.asarray(value, dtype)
            for name, value in now.items()
            if name not in followed or given(settings.get(name))
        }
        multiplier = jnp.asarray(self.multiplier, dtype)
        if self.multiplier != 1.0:
            values["lr"] = values["lr"] * multiplier
        return Numbers(**{**settings, **values, "multiplier": multiplier, "done": now["done"]})

    def slots(self) -> list[Slot]:
        """Returns what is kept of it."""
        if self.part is None:
            return []
        h = Numbers(**self.settings)
        return [slot for slot in self.part.rule.all_slots() if slot.plural and slot.when(h)]

    def initial(self, slot: Slot, like: jax.Array) -> jax.Array:
        """Returns a slot before the first update."""
        h = Numbers(**self.settings)
        dtype = jnp.int32 if slot.dtype == "int" else wide(like.dtype)
        shape = slot.shape_of(like.shape, h)
        if shape is None:
            return jnp.full_like(like, slot.first(h), dtype)
        placed = sharding_of(like) and sharding_of(like, slot.axes_of(like.shape, h) or ())
        return jnp.full(shape, slot.first(h), dtype, device=placed)


def wide(dtype: Any) -> Any:
    """Returns the dtype in which a parameter is updated: float32 at least."""
    return jnp.promote_types(dtype, jnp.float32)


def path_of(keys: Sequence[Any]) -> str:
    """Returns a key path of JAX as a path: names and numbers, "/"-joined.

    The `value` in which flax's NNX keeps an array is no part of the name.
    """
    last = keys[-1] if keys else None
    if isinstance(last, jax.tree_util.GetAttrKey) and last.name in ("value", "raw_value"):
        keys = keys[:-1]
    return jax.tree_util.keystr(tuple(keys), simple=True, separator="/")


def of_other_shapes(grads: Any, params: Any) -> str:
    """Returns which gradients have not the shape of their parameter; "" for none."""
    leaves = jax.tree_util.tree_leaves_with_path(params)
    pairs = zip(leaves, jax.tree.leaves(grads), strict=True)
    shapes = [(path_of(keys), jnp.shape(g), jnp.shape(x)) for (keys, x), g in pairs]
    others = [f"{found} for {path!r} of {own}" for path, found, own in shapes if found != own]
    return shortened("; ".join(others), 1000)


class Plan:
    """Says for any tree of parameters how each of them is updated.

    Args:
        config: A config that can be built.
        params: The parameters, where the config has groups, layer decay or lists of patterns, or a
            rule that goes by the whole model: what belongs to which group is decided once.

    Raises:
        ValueError: For rules and patterns that match no parameter.
    """

    def __init__(self, config: OptimizationConfig, params: Any = None):
        self._config = config
        self.parts = {DEFAULT: self._part(None)}
        self._places: dict[str, tuple[Group | None, float]] | None = None
        self._shapes: dict[str, tuple[int, ...]] = {}  # in the order of the model
        if params is not None:
            self._assign(params)

    def _part(self, group: Group | None) -> Part:
        config = self._config
        own = None if group is None else group.optimizer.get()
        section = own or config.optimizer.get()
        changed: dict[str, Any] = {}
        if group is not None and group.weight_decay is not None:
            changed[section.argument_name("weight_decay")] = group.weight_decay
        values = section.arguments()
        own_rate = config.learning_rate_of(group)
        rate, warmup = own_rate or config.learning_rate_of()
        return Part(
            DEFAULT if group is None else group.label,
            type(section)({**values, **changed}),
            rate_of(config, group, section),
            self._followed(section, changed, of_all=group is None),
            own_rate is not None,
            own is not None,
            isinstance(rate, ConstantLrConfig) and warmup is None,
            0 if group is None else group.freeze_steps,
        )

    def _followed(
        self, section: Any, changed: Mapping[str, Any], of_all: bool
    ) -> dict[str, Schedule]:
        """Returns the schedules of numbers that a section has, not as 0, and a group leaves.

        Clips are those of all.
        """
        usual, followed = self._config.optimizer.get(), {}
        for name, oneof in self._config.number_schedules().items():
            argument = section.argument_name(usual.argument_name(name))
            if argument in ALL_CLIPS and not of_all:
                continue
            if argument not in changed and section.has_number(argument):
                start = self._config._schedule_start
                followed[argument] = schedule(oneof.get(), start=start)
        return followed

    def _assign(self, params: Any) -> None:
        config, rules = self._config, self._config.groups()
        self._shapes = _shapes(_in_order_of_definition(params))
        paths = list(self._shapes)
        ndims = [len(shape) for shape in self._shapes.values()]
        left = operator.methodcaller("left", self._shapes)
        owners = assigned(rules, paths, ndims, [None] * len(paths), left)
        if owners and all(owner is not None and owner.freeze for owner in owners):
            raise ValueError("Every parameter is frozen by a parameter group: nothing can learn.")
        refuse_all_frozen(owners)
        factors = [1.0] * len(paths)
        if config.layer_decay is not None:
            factors = [factor for _, factor in config.layer_decay.multipliers(paths)]
        places = {}
        for path, owner, factor in zip(paths, owners, factors, strict=True):
            places[path] = owner, factor * (owner.learning_rate_multiplier if owner else 1.0)
            if owner is not None and not owner.freeze:
                self.parts.setdefault(owner.label, self._part(owner))
        for part in self.parts.values():
            for argument, patterns in part.rule.patterns().items():
                check_matches(patterns, paths, argument)
        self._places = places

    def leaves(self, params: Any) -> list[Leaf]:
        """Returns how each parameter of a tree is updated, in the tree's order.

        Raises:
            ValueError: For a parameter that the optimizer was not built with, for one that is
                complex, and for two of one path.
        """
        arrays: dict[str, Any] = {}
        for keys, array in jax.tree_util.tree_leaves_with_path(params):
            path = path_of(keys)
            if path in arrays:
                raise ValueError(f"Two parameters have the path {path!r}: rename one of them")
            arrays[path] = array
        shapes = {**self._shapes, **{path: tuple(jnp.shape(x)) for path, x in arrays.items()}}
        parts: dict[str, tuple[Part, float]] = {}
        for path, array in arrays.items():
            owner, multiplier = self._place(path)
            trains = jnp.issubdtype(jnp.result_type(array), jnp.inexact)
            if trains and not (owner is not None and owner.freeze):
                if jnp.iscomplexobj(array):
                    message = "is complex: wrap this in `optax.contrib.split_real_and_imaginary`"
                    raise ValueError(f"The parameter {path!r} {message}")
                label = DEFAULT if owner is None else owner.label
                parts[path] = self.parts[label], multiplier
        settings: dict[str, Mapping[str, Any]] = {}
        for part in self.parts.values():
            own = [path for path, (owner, _) in parts.items() if owner is part]
            settings |= dict(zip(own, _settings(part, own, shapes), strict=True))
        return [
            Leaf(path, *parts[path], settings[path]) if path in parts else Leaf(path, None)
            for path in arrays
        ]

    def slot_names(self) -> list[str]:
        """Returns the names of all slots that parameters may have."""
        slots: list[Slot] = []
        for part in self.parts.values():
            h = Numbers(**part.fields())
            slots += [*part.rule.slots, *(slot for slot in MODIFIER_SLOTS if slot.when(h))]
        return list(dict.fromkeys(slot.name for slot in slots if slot.plural))

    def numbers(self, count: Any) -> dict[str, dict[str, Any]]:
        """Returns what is the same for all parameters of each part in an update, by its label."""
        return {label: part.numbers(count) for label, part in self.parts.items()}

    def reported(self, now: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Returns the rates and what else follows a schedule, of what `numbers` returned."""
        found = {}
        for label, part in self.parts.items():
            ending = "" if label == DEFAULT else f"/{label}"
            if part.has_own_rate or not ending:
                found[f"learning_rate{ending}"] = now[label]["lr"]
            if part.has_own_rule or not ending:
                names = (*part.followed, *part.rule.curves())
                found |= {f"{name}{ending}": now[label][name] for name in names}
        return found

    def _place(self, path: str) -> tuple[Group | None, float]:
        if self._places is None:
            return None, 1.0
        if path not in self._places:
            known = ", ".join(sorted(self._places)[:3])
            raise ValueError(
                f"The optimizer was not built with a parameter {path!r}: give `build_optimizer` "
                f"the same tree as `init` and `update` (it had {known}, ...)"
            )
        return self._places[path]


def _settings(
    part: Part, paths: Sequence[str], shapes: Mapping[str, Sequence[int]]
) -> list[dict[str, Any]]:
    """Returns the numbers that do not change of each of some parameters."""
    rule, settings = part.rule, []
    fields = {**part.fields(), "constant_rate": part.constant_rate}
    for path, own in zip(paths, rule.own_numbers(paths, shapes), strict=True):
        spared = {} if rule.decays(path) else dict.fromkeys(rule.decay_arguments, 0.0)
        settings.append({**fields, **spared, **rule.variable_settings, **own})
    return settings


def _shapes(leaves: Sequence[tuple[Any, Any]]) -> dict[str, tuple[int, ...]]:
    return {path_of(keys): tuple(jnp.shape(leaf)) for keys, leaf in leaves}


def _in_order_of_definition(params: Any) -> list[tuple[Any, Any]]:
    """Returns the leaves of a tree with their paths, those of a dict as they were put into it.

    JAX sorts the keys of dicts; what comes before and after the blocks of a network would be lost.
    """
    if not isinstance(params, Mapping):
        leaves = jax.tree_util.tree_leaves_with_path(params, is_leaf=lambda x: x is not params)
        nested = any(isinstance(leaf, Mapping) for _, leaf in leaves)
        if not nested:
            return jax.tree_util.tree_leaves_with_path(params)
        return [
            ((*keys, *more), leaf)
            for keys, tree in leaves
            for more, leaf in _in_order_of_definition(tree)
        ]
    return [
        ((jax.tree_util.DictKey(key), *keys), leaf)
        for key, tree in params.items()
        for keys, leaf in _in_order_of_definition(tree)
    ]
