"""How optimizers print."""

import contextlib
from typing import Any

import keras

from optimization.configs import printing
from optimization.schedules.scaled import rate_text


def optimizer_text(optimizer: Any) -> printing.Text:
    """Returns a Keras optimizer as its class, learning rate, and what differs from defaults."""
    rate, config = optimizer._learning_rate, {}
    if isinstance(rate, keras.Variable | keras.optimizers.schedules.LearningRateSchedule):
        # Some classes do not save, and variables may have no values yet; of functions Keras warns.
        with contextlib.suppress(Exception):
            config = dict(optimizer.get_config())
    for name in ("name", "learning_rate", "bias_learning_rate", "other_learning_rate"):
        config.pop(name, None)
    arguments = {"learning_rate": rate_text(rate), **printing.differing(optimizer, config)}
    return printing.Text(printing.call(type(optimizer).__name__, **arguments))
