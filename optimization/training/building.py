"""What a run is made of: the devices, the precision, the model and the optimizer."""

import contextlib
from collections.abc import Iterator

import keras
import tensorflow as tf

from optimization.configs.errors import ConfigError
from optimization.configs.experiment_config import RuntimeConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.training.errors import TrainingError, first_line
from optimization.training.inspection import innermost
from optimization.training.task import Task
from optimization.training.workers import noticed_soon


def build_strategy(config: RuntimeConfig) -> tf.distribute.Strategy:
    """Returns the distribution strategy that `config` names.

    Raises:
        TrainingError: If `enable_xla` meets more than one replica, or TF_CONFIG is wrong.
    """
    strategy = tf.distribute.get_strategy()
    if config.distribution_strategy == "multi_worker_mirrored":
        try:
            with noticed_soon():
                strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"TF_CONFIG cannot be used: {error}") from error
        except tf.errors.OpError as error:  # a port that is taken, a machine out of reach
            message = f"the workers of TF_CONFIG cannot connect: {first_line(error)}"
            raise TrainingError(message) from error
    elif config.distribution_strategy == "mirrored":
        devices = tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")
        if len(devices) > 1:
            strategy = tf.distribute.MirroredStrategy([device.name for device in devices])
    if config.enable_xla and strategy.num_replicas_in_sync > 1:
        raise TrainingError(
            "`runtime.enable_xla` works on one device only, there are "
            f"{strategy.num_replicas_in_sync}; set runtime.distribution_strategy=one_device"
        )
    return strategy


def is_chief(strategy: tf.distribute.Strategy) -> bool:
    """Whether this process is the one that writes files and speaks."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.task_type:
        return True
    return resolver.task_type == "chief" or (
        resolver.task_id == 0 and "chief" not in resolver.cluster_spec().jobs
    )


@contextlib.contextmanager
def dtype_policy(config: RuntimeConfig) -> Iterator[None]:
    """Sets Keras' dtype policy for the layers made inside, and puts the former one back."""
    before = keras.config.dtype_policy()
    dtype = config.mixed_precision_dtype
    if dtype is not None:
        keras.config.set_dtype_policy(dtype if dtype == "float32" else f"mixed_{dtype}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def build_model(task: Task, initialize: bool) -> keras.Model:
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
    task: Task, config: OptimizationConfig, runtime: RuntimeConfig, model: keras.Model
) -> keras.optimizers.Optimizer:
    """Returns the task's optimizer, built, with as many batches in one update as `config` says."""
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
    accumulation = config.optimizer.get().gradient_accumulation_steps
    own = inner.gradient_accumulation_steps or 1 if hasattr(inner, "micro_step") else 1
    if own != accumulation:
        raise TrainingError(
            f"trainer.optimizer_config: `gradient_accumulation_steps` is {accumulation}, but the "
            f"{type(inner).__name__} that the task created makes an update of {own}"
        )
    ramp, taken = config.ramp(), getattr(inner, "accumulation", None)
    if bool(ramp.boundaries) != bool(taken):
        raise TrainingError(
            "trainer.optimizer_config: `accumulation` grows, but not that of the "
            f"{type(inner).__name__} that the task created; return what the factory builds"
        )
    return optimizer
