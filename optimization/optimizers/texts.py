"""How optimizers print."""

from typing import Any

import keras

from optimization.configs import printing
from optimization.schedules.scaled import rate_text

LearningRateSchedule = keras.optimizers.schedules.LearningRateSchedule
_OWN_ATTRIBUTES = (
    *("clipnorm", "clipvalue", "global_clipnorm", "gradient_clip_norm", "loss_scale_factor"),
    *("adaptive_clip_factor", "adaptive_clip_epsilon", "gradient_transformers", "jit_compile"),
    "gradient_aggregator",
)


def optimizer_text(optimizer: Any) -> printing.Text:
    """Returns a Keras optimizer as its class, learning rate, and what differs from defaults."""
    arguments = printing.differing(optimizer, _saved_arguments(optimizer))
    rate = rate_text(optimizer._learning_rate)
    return printing.Text(printing.call(type(optimizer).__name__, learning_rate=rate, **arguments))


def _saved_arguments(optimizer: Any) -> dict[str, Any]:
    """Returns what an optimizer would save, apart from its rates; {} where it can't be saved."""
    if not isinstance(optimizer._learning_rate, keras.Variable | LearningRateSchedule):
        return {}  # a function, of which Keras warns
    try:
        config = optimizer.get_config()
    except Exception:  # of a class that does not save, or where variables have no values yet
        return {}
    others = ("name", "learning_rate", "bias_learning_rate", "other_learning_rate")
    return {k: v for k, v in config.items() if k not in others}


def pipeline_text(optimizer: Any) -> str:
    """Returns a `PipelineOptimizer` as the optimizer it wraps, and what is done besides."""
    members, check = optimizer._members, optimizer._finite_check
    values = {name: getattr(optimizer, name) for name in _OWN_ATTRIBUTES}
    values |= {
        "gradient_transformers": tuple(map(printing.function, optimizer.gradient_transformers)),
        "gradient_accumulation_steps": optimizer.gradient_accumulation_steps or 1,
        "on_nonfinite": check.on_nonfinite,
        "max_consecutive_nonfinite": check.max_consecutive,
        "ema": optimizer.ema and printing.Text(repr(optimizer._average)),
        "param_groups": tuple(group.label for group in members.groups),
        "layer_decay": members.layer_decay,
        "schedules": {
            name: rate_text(schedule) for name, schedule in optimizer._schedules.schedules.items()
        },
    }
    values = printing.differing(optimizer, {k: v for k, v in values.items() if v})
    inner = optimizer_text(optimizer.optimizer)
    return printing.call(type(optimizer).__name__, inner, **values)
