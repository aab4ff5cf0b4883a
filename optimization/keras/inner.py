"""What a Keras optimizer must be like to be wrapped by `PipelineOptimizer`."""

import inspect
from typing import Any

import keras

from optimization.configs.errors import did_you_mean
from optimization.keras.control import tf
from optimization.keras.rule_optimizer import RuleOptimizer
from optimization.keras.rule_part import rule_arguments

_DECAY_PATTERNS = ("exclude_from_weight_decay", "include_in_weight_decay", "weight_keys")
# What the pipeline does in the inner optimizer's place.
_PIPELINE_ARGUMENTS = (
    "clipnorm",
    "clipvalue",
    "global_clipnorm",
    "use_ema",
    "gradient_accumulation_steps",
    "loss_scale_factor",
)


def check_wrappable(optimizer: Any) -> None:
    if not isinstance(optimizer, keras.optimizers.Optimizer):
        raise TypeError(
            f"Argument `optimizer` must be a keras.optimizers.Optimizer, received: {optimizer!r}"
        )
    if type(optimizer).apply is not keras.optimizers.Optimizer.apply:
        raise TypeError(
            "Argument `optimizer` must be an optimizer that leaves `apply` to Keras (wrap the "
            f"other way round), received: {type(optimizer).__name__}"
        )
    if optimizer.built:
        raise ValueError("Argument `optimizer` must not be built yet.")
    for argument in _PIPELINE_ARGUMENTS:
        if getattr(optimizer, argument):
            raise ValueError(
                f"Argument `optimizer` must not have `{argument}`, which the pipeline does in its "
                f"place, received: {argument}={getattr(optimizer, argument)}"
            )


def portable(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a serialized optimizer in a form that every backend can read."""
    # On PyTorch Keras swaps in a private subclass; the public one loads on every backend.
    if (config["module"] or "").startswith("keras.src.backend."):  # None for one of __main__
        config = {**config, "module": "keras.optimizers", "registered_name": None}
    return config


def take_in(optimizer: keras.optimizers.Optimizer, iterations: keras.Variable) -> None:
    """Has an inner optimizer count by the pipeline's variable: all see the same step.

    Nor does it sum over replicas gradients that are summed already.
    """
    optimizer._untrack_variable(optimizer._iterations)
    optimizer._iterations = iterations
    if tf is not None:
        optimizer._all_reduce_sum_gradients = lambda grads_and_vars: grads_and_vars


def argument_of(optimizer: keras.optimizers.Optimizer, name: str) -> str:
    """Returns the constructor's name of a hyperparameter.

    "weight_decay" stands for `weight_decay_rate` where the optimizer has that, unless it was given
    Keras' own argument, which would decay a second time.
    """
    names = _hyperparameters(type(optimizer))
    decays_outside = "weight_decay" in names and optimizer.weight_decay
    if name == "weight_decay" and "weight_decay_rate" in names and not decays_outside:
        return "weight_decay_rate"
    if name in names:
        return name
    hint = did_you_mean(name, names) or f"; known: {', '.join(sorted(names))}"
    raise ValueError(f"{type(optimizer).__name__} has no hyperparameter {name!r}{hint}")


def _hyperparameters(cls: Any) -> list[str]:
    """Returns the names that the constructor writes out and that are no business of the step.

    Those of a rule are known wherever a subclass passes them on.
    """
    kinds = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)
    # Of `__init__`: on PyTorch Keras' `__new__` takes anything.
    parameters = inspect.signature(cls.__init__).parameters.values()
    others = {"self", "learning_rate", "name", "ema_momentum", "ema_overwrite_frequency"}
    others.update(_PIPELINE_ARGUMENTS)
    written = [p.name for p in parameters if p.kind in kinds and p.name not in others]
    of_rule = rule_arguments(cls.rule_class) if issubclass(cls, RuleOptimizer) else ()
    return [*dict.fromkeys((*written, *of_rule))]


def has_rules_of_decay(optimizer: keras.optimizers.Optimizer) -> bool:
    """Says whether an optimizer has arguments of its own for which variables decay."""
    # Arguments, no attributes: Keras' own `exclude_from_weight_decay` is a method.
    return any(name in _hyperparameters(type(optimizer)) for name in _DECAY_PATTERNS)


def is_decayed(optimizer: keras.optimizers.Optimizer, variable: Any) -> bool:
    """Says whether a built optimizer decays one of its variables."""
    if isinstance(optimizer, RuleOptimizer):
        return optimizer.is_decayed(variable)
    return bool(optimizer.weight_decay) and optimizer._use_weight_decay(variable)
