"""TensorBoard summaries."""

from collections.abc import Mapping
from typing import Any


class SummaryWriter:
    """Writes scalars for TensorBoard to one directory, which is made when the first are written.

    Args:
        directory: Where the event files go; None writes nothing.
    """

    def __init__(self, directory: str | None):
        self._directory = directory
        self._writer: Any = None  # a tf.summary.SummaryWriter

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Writes `values` as of `step`, through to the file."""
        import tensorflow as tf

        if self._directory is None:
            return
        if self._writer is None:
            self._writer = tf.summary.create_file_writer(self._directory)
        with self._writer.as_default():
            for name, value in values.items():
                # What `tf.summary.scalar` writes; that one needs the tensorboard package, which
                # TensorFlow no longer installs.
                tensor = tf.constant(value, tf.float32)
                tf.summary.write(name, tensor, step=step, metadata=_scalar_metadata())
        self._writer.flush()

    def close(self) -> None:
        """Closes the event file."""
        if self._writer is not None:
            self._writer.close()
            self._writer = None


def _scalar_metadata():
    import tensorflow as tf

    metadata = tf.compat.v1.SummaryMetadata()
    metadata.plugin_data.plugin_name = "scalars"
    metadata.data_class = 1  # DATA_CLASS_SCALAR
    return metadata
