"""What a Keras optimizer must be like to be wrapped by `PipelineOptimizer`."""

from typing import Any

import keras

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
    """Raises if an optimizer can't be wrapped.

    Raises:
        TypeError: If it is not a Keras optimizer, or takes its steps in a way of its own.
        ValueError: If it is built, or does itself what the pipeline does.
    """
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
    if config["module"].startswith("keras.src.backend."):
        config = {**config, "module": "keras.optimizers", "registered_name": None}
    return config
