"""What the trainer does with Keras' metrics."""

import typing
from collections.abc import Sequence

if typing.TYPE_CHECKING:
    import keras


def results(metrics: "Sequence[keras.metrics.Metric]") -> dict[str, float]:
    """Returns the values by name; a metric with several has one for each, `name/part`.

    Raises:
        ValueError: If a value is no scalar.
    """
    values: dict[str, float] = {}
    for metric in metrics:
        value = metric.result()
        parts = value if isinstance(value, dict) else {"": value}
        for part, number in parts.items():
            name = f"{metric.name}/{part}" if part else metric.name
            if getattr(number, "shape", ()) != ():
                raise ValueError(
                    f"the metric {name!r} must be a scalar, or a mapping of scalars, "
                    f"received: shape {tuple(number.shape)}"
                )
            values[name] = float(number)
    return values


def reset(metrics: "Sequence[keras.metrics.Metric]") -> None:
    """Has the metrics start anew."""
    for metric in metrics:
        metric.reset_state()
