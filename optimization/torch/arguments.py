"""The arguments of PyTorch's optimizers that are made of rules, as groups have them."""

from typing import Any

from optimization.caching import cached
from optimization.rules.rule import Rule, native_argument


@cached
def _fields(rule: type[Rule]) -> list[str]:
    """Returns the fields of a rule that PyTorch's class has: not what is about names."""
    others = (*rule.not_native, *rule.pattern_fields())
    return [name for name in rule.argument_names() if name not in others]


def places(rule: type[Rule]) -> list[tuple[str, str, int | None]]:
    """Returns the fields, with the key that each has in groups, its place if that holds several."""
    found = []
    for name in _fields(rule):
        key, _, place = native_argument(rule, name).partition(".")
        found.append((name, key, int(place) if place else None))
    return found


@cached
def _native_defaults(rule: type[Rule]) -> dict[str, Any]:
    usual = {name: value for name, value in rule.native_usual.items() if name != "lr"}
    return {**rule.variable_settings, **native_arguments(rule(usual))}


def usual_rate(rule: type[Rule]) -> float:
    """Returns the learning rate of PyTorch's class, where none is given."""
    return rule.native_usual.get("lr", rule.usual_rate)


def native_arguments(section: Rule) -> dict[str, Any]:
    """Returns the arguments of PyTorch's class that a section means."""
    rule, values = type(section), section.arguments()
    found: dict[str, Any] = {}
    for name, key, place in places(rule):
        value = values.get(name, getattr(section, name))
        value = 0.0 if value is None and name in rule.decay_arguments else value
        if place is not None:
            value = (*found.get(key, ()), value)
        found[key] = value
    return found


def native_defaults(rule: type[Rule]) -> dict[str, Any]:
    """Returns what the groups of PyTorch's class have, with what is usual."""
    return dict(_native_defaults(rule))
