"""The devices, the precision and the seed of a run, from a `RuntimeConfig`."""

import contextlib
import typing
from collections.abc import Iterator

from optimization.configs.experiment_config import RuntimeConfig
from optimization.training.errors import TrainingError

if typing.TYPE_CHECKING:
    import keras
    import tensorflow as tf


def build_strategy(config: RuntimeConfig) -> "tf.distribute.Strategy":
    """Returns the distribution strategy that `config` names.

    Raises:
        TrainingError: If `enable_xla` meets more than one replica, or TF_CONFIG is wrong.
    """
    import tensorflow as tf

    strategy = tf.distribute.get_strategy()
    if config.distribution_strategy == "multi_worker_mirrored":
        try:
            strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except (ValueError, KeyError, TypeError) as error:
            raise TrainingError(f"TF_CONFIG cannot be used: {error}") from error
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


def is_chief(strategy: "tf.distribute.Strategy") -> bool:
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
    import keras

    before = keras.config.dtype_policy()
    dtype = config.mixed_precision_dtype
    if dtype is not None:
        keras.config.set_dtype_policy(dtype if dtype == "float32" else f"mixed_{dtype}")
    try:
        yield
    finally:
        keras.config.set_dtype_policy(before)


def with_loss_scale(
    optimizer: "keras.optimizers.Optimizer", config: RuntimeConfig | None
) -> "keras.optimizers.Optimizer":
    """Returns the optimizer with the loss scaling that `config` asks for.

    A number is the optimizer's own `loss_scale_factor`. "dynamic", and None with float16, wraps it:
    in a `DynamicLossScale` if it skips updates that are not finite, as the factory's do with
    `on_nonfinite: skip`, in Keras' own `LossScaleOptimizer` otherwise.
    """
    import keras

    if config is None or config.mixed_precision_dtype != "float16":
        return optimizer
    if not config.scales_dynamically:
        optimizer.loss_scale_factor = config.loss_scale
        return optimizer
    from optimization.training.loss_scale import DynamicLossScale, skips_nonfinite

    if skips_nonfinite(optimizer):
        return DynamicLossScale(optimizer)
    return keras.optimizers.LossScaleOptimizer(optimizer)
