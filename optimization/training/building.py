"""The model and the optimizer of a task, as the trainer takes them: whole, or with an error."""

import typing

from optimization.configs.errors import ConfigError
from optimization.configs.experiment_config import RuntimeConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.training.errors import TrainingError
from optimization.training.inspection import innermost

if typing.TYPE_CHECKING:
    import keras

    from optimization.training.task import Task


def build_model(task: "Task", initialize: bool) -> "keras.Model":
    """Returns the task's model; `initialize` where no checkpoint will set the weights."""
    model = task.build_model()
    if not model.built:
        raise TrainingError(
            f"{type(task).__name__}.build_model() must return a model that is built: "
            "call `model.build(input_shape)`, or the model on a batch, before returning it"
        )
    if initialize:
        task.initialize(model)
    return model


def build_optimizer(
    task: "Task",
    config: OptimizationConfig,
    runtime: RuntimeConfig,
    model: "keras.Model",
    accumulation: int,
) -> "keras.optimizers.Optimizer":
    """Returns the task's optimizer, built, with `accumulation` batches in one update."""
    try:
        optimizer = task.create_optimizer(config, runtime)
        inner = innermost(optimizer)
        if hasattr(inner, "set_model"):  # for rules about layers, and averages of all weights
            inner.set_model(model)
        if not optimizer.built:
            optimizer.build(model.trainable_variables)
    except ConfigError:
        raise
    except ValueError as error:
        # For example a pattern that matches no variable of this model.
        raise TrainingError(f"trainer.optimizer_config: {error}") from error
    own = inner.gradient_accumulation_steps or 1 if hasattr(inner, "micro_step") else 1
    if own != accumulation:
        raise TrainingError(
            f"trainer.optimizer_config: `gradient_accumulation_steps` is {accumulation}, but the "
            f"{type(inner).__name__} that the task created makes an update of {own}"
        )
    return optimizer
