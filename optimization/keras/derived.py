"""The classes of Keras that are made of rules."""

import inspect
from typing import Any

import keras

from optimization.caching import cached
from optimization.configs.documentation import complete
from optimization.keras.rule_optimizer import RuleOptimizer
from optimization.keras.rule_part import rule_arguments
from optimization.rules.rule import Rule

_ARGUMENTS = """
Besides, it takes the arguments of `keras.optimizers.Optimizer`.

>>> weight = keras.Variable([0.5, -0.5])
>>> optimizer = {name}(learning_rate=0.01)
>>> optimizer.apply([keras.ops.ones(2)], [weight])
>>> int(optimizer.iterations)
1

Raises:
    ConfigError: For a value that the section does not take either; a `ValueError`.
    ValueError: At build, for expressions of which none matches a variable.
"""

# What a field would hide. A list of exclusions takes the place of Keras' method.
_TAKEN = {*dir(keras.optimizers.Optimizer)} - {"exclude_from_weight_decay"}


@cached
def keras_class(rule: type[Rule]) -> type[RuleOptimizer]:
    """Returns the class of Keras that is made of a rule."""
    origin = rule.origin()
    if origin is not rule:
        return keras_class(origin)
    name = origin.class_name
    taken = sorted(field for field in rule_arguments(origin) if field in _TAKEN)
    if taken:
        raise TypeError(
            f"{origin.__name__} cannot have a field `{taken[0]}`: an optimizer of Keras has an "
            "attribute of that name"
        )
    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    parameters = [inspect.Parameter("self", kind)]
    rate = origin.usual_rate
    parameters.append(inspect.Parameter("learning_rate", kind, default=rate))
    usual = origin()
    for field in rule_arguments(origin):
        parameters.append(inspect.Parameter(field, kind, default=getattr(usual, field)))
    for rate_name in origin.own_rates.values():
        parameters.append(
            inspect.Parameter(rate_name, inspect.Parameter.KEYWORD_ONLY, default=None)
        )
    parameters.append(inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD))

    def __init__(self: Any, *args: Any, **kwargs: Any) -> None:  # noqa: N807  a method
        RuleOptimizer.__init__(self, *args, **kwargs)

    written: Any = __init__
    written.__signature__ = inspect.Signature(parameters)
    written.__qualname__ = f"{name}.__init__"
    members = {
        "rule_class": origin,
        "__init__": __init__,
        "__doc__": _documentation(origin),
        "__module__": "optimization.optimizers",
        "__qualname__": name,
    }
    made = type(name, (RuleOptimizer,), members)
    keras.saving.register_keras_serializable("optimization", name)(made)
    return made


def _documentation(rule: type[Rule]) -> str:
    fields = complete(rule, [*rule_arguments(rule), "name"])
    return fields + _ARGUMENTS.format(name=rule.class_name)
