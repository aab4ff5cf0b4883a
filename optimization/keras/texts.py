"""How optimizers print."""

from typing import Any

import keras

from optimization.configs import printing
from optimization.schedules.scaled import rate_text


def optimizer_text(optimizer: Any) -> printing.Text:
    """Returns a Keras optimizer as its class, learning rate, and what differs from defaults."""
    arguments = printing.differing(optimizer, _saved_arguments(optimizer))
    rate = rate_text(optimizer._learning_rate)
    return printing.Text(printing.call(type(optimizer).__name__, learning_rate=rate, **arguments))


def _saved_arguments(optimizer: Any) -> dict[str, Any]:
    """Returns what an optimizer would save, apart from its rates; {} where it can't be saved."""
    saved = keras.Variable | keras.optimizers.schedules.LearningRateSchedule
    if not isinstance(optimizer._learning_rate, saved):
        return {}  # a function, of which Keras warns
    try:
        config = optimizer.get_config()
    except Exception:  # of a class that does not save, or where variables have no values yet
        return {}
    others = ("name", "learning_rate", "bias_learning_rate", "other_learning_rate")
    return {k: v for k, v in config.items() if k not in others}
