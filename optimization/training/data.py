"""Arrays to batches, of which the t-th is a function of the seed and t alone."""

import typing
from collections.abc import Callable
from typing import Any

from optimization.configs.task_config import DataConfig
from optimization.training.errors import TrainingError

if typing.TYPE_CHECKING:
    import tensorflow as tf

    from optimization.training.trainer import Trainer

# Rounds of the cipher behind `RandomIndexShuffle`; TensorFlow's own default is 4.
_SHUFFLE_ROUNDS = 8


def array_batches(
    arrays: Any,
    params: DataConfig,
    input_context: "tf.distribute.InputContext | None" = None,
    *,
    transform: "Callable[..., Any] | None" = None,
) -> "tf.data.Dataset":
    """Serves arrays that fit into memory as batches that do not depend on what was read before.

    Batch t holds the examples at positions t * B to (t + 1) * B of an endless line of epochs, each
    of which, where `params.shuffle` says so, is a permutation made from the seed and the number of
    the epoch. So a run that resumes at step t skips to batch t, and replicas take their slices of
    one and the same global batch.

    >>> batches = array_batches(np.arange(6), DataConfig(global_batch_size=2))
    >>> [batch.numpy().tolist() for batch in batches]
    [[0, 1], [2, 3], [4, 5]]

    Args:
        arrays: A nest of arrays, usually `(features, labels)`, of n examples each.
        params: Batch size, order and end of the batches.
        input_context: With several replicas, which of them the dataset serves, one after another.
        transform: Applied to the batch, as `map` would: one argument for each part of the nest.

    Returns:
        A dataset; endless if `params.is_training`, else of ceil(n / B) batches for each replica,
        or floor(n / B) with `drop_remainder`. The last ones may be smaller, or empty.

    Raises:
        TrainingError: If the batch size is not a multiple of the number of replicas, or if
            `drop_remainder` leaves no batch.
        ValueError: If the arrays differ in length or are empty.
    """
    import tensorflow as tf

    from optimization.keras.compiling import traceable, unconverted  # brings Keras

    counts = {len(array) for array in tf.nest.flatten(arrays)}
    if len(counts) != 1 or 0 in counts:
        raise ValueError(
            "Argument `arrays` must hold arrays of one length, and not be empty, "
            f"received lengths: {sorted(counts)}"
        )
    (examples,) = counts
    batch, is_training = params.global_batch_size, params.is_training
    context = input_context or tf.distribute.InputContext()  # of one replica
    replicas = context.num_replicas_in_sync
    per_worker = replicas // context.num_input_pipelines
    first = context.input_pipeline_id * per_worker
    if batch < 1:
        raise TrainingError(f"`global_batch_size` must be > 0, got {batch}")
    if batch % replicas:
        raise TrainingError(
            f"`global_batch_size` must be a multiple of the {replicas} replicas, got {batch}"
        )
    slice_size = batch // replicas
    if params.drop_remainder and batch > examples:
        raise TrainingError(
            f"`global_batch_size` is {batch}, but there are only {examples} examples, "
            "and `drop_remainder` leaves none"
        )
    epoch_size = examples - examples % batch if params.drop_remainder else examples
    order = _order(examples, params)
    with tf.device("CPU:0"):  # where datasets run
        arrays = tf.nest.map_structure(tf.convert_to_tensor, arrays)

    users = None if transform is None else traceable(transform)

    @unconverted
    def gather(element: Any) -> Any:
        start = element // per_worker * batch + (first + element % per_worker) * slice_size
        places = start + tf.range(slice_size, dtype=tf.int64)
        rows = order(places // epoch_size, places % epoch_size)
        if not is_training:
            rows = rows[places < epoch_size]
        values = tf.nest.map_structure(lambda array: tf.gather(array, rows), arrays)
        if users is None:
            return values
        return users(*values) if isinstance(values, tuple) else users(values)

    # Training ends where places no longer fit into an integer: never.
    steps = tf.int64.max // (batch * per_worker) - 1 if is_training else -(-epoch_size // batch)
    dataset = tf.data.Dataset.range(steps * per_worker)
    return dataset.map(gather, num_parallel_calls=tf.data.AUTOTUNE, deterministic=True).prefetch(
        tf.data.AUTOTUNE
    )


def distributed_batches(
    trainer: "Trainer", data: DataConfig, first: int = 0, count: int = -1
) -> Any:
    """Returns a trainer's batches for all replicas, `count` of them from number `first` on.

    Args:
        trainer: Whose task makes the batches, and whose seed counts where `data` has none.
        data: Which data.
        first: How many batches to leave out at the start.
        count: How many there are at most; -1 for all.
    """
    seed = trainer.config.runtime.seed if data.seed is None else data.seed
    data = data.replace(seed=seed)

    def of_worker(context: Any) -> Any:
        # A global batch is one element for each replica of the worker.
        elements = context.num_replicas_in_sync // context.num_input_pipelines
        dataset = trainer.task.build_inputs(data, context).skip(first * elements)
        return dataset if count == -1 else dataset.take(count * elements)

    return trainer.strategy.distribute_datasets_from_function(of_worker)


def _order(examples: int, params: DataConfig) -> "Callable[[Any, Any], Any]":
    """Returns the function from (epoch, position in the epoch) to the row of the arrays."""
    import tensorflow as tf

    if not params.shuffle:
        return lambda epoch, position: position

    def shuffled(epoch: Any, position: Any) -> Any:
        seed = tf.fill(tf.shape(epoch), tf.constant(params.seed or 0, epoch.dtype))
        key = tf.stack([seed, epoch, tf.zeros_like(epoch)], axis=1)
        return tf.raw_ops.RandomIndexShuffle(
            index=position,
            seed=tf.cast(key, tf.uint32),
            max_index=tf.constant(examples - 1, position.dtype),
            rounds=_SHUFFLE_ROUNDS,
        )

    return shuffled
