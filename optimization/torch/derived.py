"""The classes of PyTorch that are made of rules."""

import inspect
import textwrap
from typing import Any

from optimization.caching import cached
from optimization.configs.documentation import complete
from optimization.rules.rule import Rule, native_argument, native_name
from optimization.torch.rule_optimizer import RuleOptimizer
from optimization.torch.schedule_free import ScheduleFree
from optimization.torch.summed import Summed

_ARGUMENTS = """
{words}>>> weight = torch.nn.Parameter(torch.tensor([0.5, -0.5]))
>>> optimizer = {name}([weight], lr=0.01)
>>> weight.grad = torch.ones(2)
>>> optimizer.step()
>>> len(optimizer.state)
1

Args:
    params: Parameters, (name, parameter) pairs, or groups of either.
    lr: The learning rate.
    foreach: Whether all parameters are updated at once; None for yes.
    maximize: Whether the loss is maximized.
    **arguments: The fields above, by either name, and what groups may have of their own.

Raises:
    TypeError: For an argument that there is not, or one that is given by both names.
    ValueError: For a value that the section does not take either.
"""


@cached
def native_class(rule: type[Rule]) -> type[RuleOptimizer]:
    """Returns the class of PyTorch that is made of a rule."""
    origin = rule.origin()
    if origin is not rule:
        return native_class(origin)
    base = ScheduleFree if origin.schedule_free else Summed if origin.summed else RuleOptimizer
    name, usual = native_name(origin) or origin.class_name, dict(origin.native_usual)
    usual_rate = usual.pop("lr", origin.usual_rate)

    def __init__(  # noqa: N807  a method
        self: Any, params: Any, lr: Any = usual_rate, **arguments: Any
    ) -> None:
        base.__init__(self, params, lr, **arguments)

    made: Any = type(name, (base,), {"__init__": __init__})
    made.__module__, made.__qualname__ = "optimization.torch", name
    made.rule, made.places = origin(), _places(origin)
    fields = complete(origin, [field for field, _, _ in made.places])
    made.__doc__ = fields + _ARGUMENTS.format(name=name, words=_words(made.places))
    made.slots = [slot for slot in origin.all_slots() if slot.native]
    made.usual = {**origin.variable_settings, **made.arguments_of(origin(usual))}
    made.__init__.__qualname__ = f"{name}.__init__"
    kind = inspect.Parameter.KEYWORD_ONLY
    first = [*inspect.signature(base.__init__).parameters.values()][:-1]
    first[2] = first[2].replace(default=usual_rate)
    own = [inspect.Parameter(key, kind, default=value) for key, value in made.usual.items()]
    made.__init__.__signature__ = inspect.Signature([*first, *own])
    return made


def _places(rule: type[Rule]) -> list[tuple[str, str, int | None]]:
    """Returns the fields that PyTorch's class has, with their keys and places: see its `places`."""
    others = (*rule.not_native, *rule.pattern_fields())
    names = [name for name in rule.argument_names() if name not in others]
    parts = {name: native_argument(rule, name).partition(".") for name in names}
    return [(name, key, int(place) if place else None) for name, (key, _, place) in parts.items()]


def _words(places: list[tuple[str, str, int | None]]) -> str:
    """Returns a sentence on what groups call the fields that they call otherwise."""
    names: dict[str, list[str]] = {}
    for name, key, _ in places:
        if key != name:
            names.setdefault(key, []).append(f"`{name}`")
    texts = [f"{' and '.join(own)} {'are' if own[1:] else 'is'} `{k}`" for k, own in names.items()]
    text = f"In PyTorch, and in its groups, {', '.join(texts)}."
    return f"{textwrap.fill(text, 96)}\n\n" if names else ""
