"""The classes of PyTorch that are made of rules."""

import inspect
from typing import Any

from optimization.caching import cached
from optimization.configs.documentation import complete
from optimization.rules.rule import Rule, native_name
from optimization.torch.arguments import native_defaults, places, usual_rate
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
    name = native_name(origin) or origin.class_name
    members = {
        "rule_class": origin,
        "rule": origin(),
        "places": places(origin),
        "__doc__": complete(origin).rstrip() + "\n" + _ARGUMENTS,
        "__module__": "optimization.torch",
        "__qualname__": name,
    }
    kind = inspect.Parameter.KEYWORD_ONLY
    first = [*inspect.signature(RuleOptimizer.__init__).parameters.values()][:-1]
    first = [p.replace(default=usual_rate(origin)) if p.name == "lr" else p for p in first]
    own = [inspect.Parameter(k, kind, default=v) for k, v in native_defaults(origin).items()]

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  a method
        RuleOptimizer.__init__(self, *args, **kwargs)

    written: Any = __init__
    written.__signature__ = inspect.Signature([*first, *own])
    base = ScheduleFree if origin.schedule_free else RuleOptimizer
    return type(name, (base,), {**members, "__init__": __init__})
