"""The classes of PyTorch that are made of rules."""

import inspect
from typing import Any

from optimization.caching import cached
from optimization.configs.documentation import complete
from optimization.rules.rule import Rule, native_argument, native_name
from optimization.torch.rule_optimizer import RuleOptimizer
from optimization.torch.schedule_free import ScheduleFree

_ARGUMENTS = """
    In PyTorch `beta_1` and `beta_2` are `betas`, and `epsilon` is `eps`; groups call them so.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.
        **arguments: The fields above, by either name, and what groups may have of their own.

    Raises:
        TypeError: For an argument that there is not.
        ValueError: For a value that the section does not take either.
"""


@cached
def native_class(rule: type[Rule]) -> type[RuleOptimizer]:
    """Returns the class of PyTorch that is made of a rule."""
    origin = rule.origin()
    if origin is not rule:
        return native_class(origin)
    base = ScheduleFree if origin.schedule_free else RuleOptimizer
    name, usual = native_name(origin) or origin.class_name, dict(origin.native_usual)
    usual_rate = usual.pop("lr", origin.usual_rate)

    def __init__(  # noqa: N807  a method
        self: Any, params: Any, lr: Any = usual_rate, **arguments: Any
    ) -> None:
        base.__init__(self, params, lr, **arguments)

    made: Any = type(name, (base,), {"__init__": __init__})
    made.__doc__ = complete(origin).rstrip() + "\n" + _ARGUMENTS
    made.__module__, made.__qualname__ = "optimization.torch", name
    made.rule, made.places = origin(), _places(origin)
    made.slots = [slot for slot in origin.slots if slot.native]
    made.usual = {**origin.variable_settings, **made.arguments_of(origin(usual))}
    written: Any = __init__
    kind = inspect.Parameter.KEYWORD_ONLY
    first = [*inspect.signature(base.__init__).parameters.values()][:-1]
    first[2] = first[2].replace(default=usual_rate)
    own = [inspect.Parameter(key, kind, default=value) for key, value in made.usual.items()]
    written.__signature__ = inspect.Signature([*first, *own])
    return made


def _places(rule: type[Rule]) -> list[tuple[str, str, int | None]]:
    """Returns the fields that PyTorch's class has, with their keys and places: see its `places`."""
    others = (*rule.not_native, *rule.pattern_fields())
    names = [name for name in rule.argument_names() if name not in others]
    parts = {name: native_argument(rule, name).partition(".") for name in names}
    return [(name, key, int(place) if place else None) for name, (key, _, place) in parts.items()]
