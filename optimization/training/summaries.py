"""TensorBoard summaries."""

import functools
from collections.abc import Mapping
from typing import Any

import tensorflow as tf


class SummaryWriter:
    """Writes scalars for TensorBoard to one directory, which is made when the first are written."""

    def __init__(self, directory: str, writable: bool = True):
        self._directory = directory
        self._writable = writable

    @functools.cached_property
    def _writer(self) -> Any:
        return tf.summary.create_file_writer(self._directory)

    def write(self, values: Mapping[str, float], step: int) -> None:
        """Writes `values` as of `step`, through to the file."""
        if not self._writable:
            return
        metadata = tf.compat.v1.SummaryMetadata()
        metadata.plugin_data.plugin_name = "scalars"
        metadata.data_class = 1  # DATA_CLASS_SCALAR
        with self._writer.as_default():
            for name, value in values.items():
                # What `tf.summary.scalar` writes; that one needs the tensorboard package, which
                # TensorFlow no longer installs.
                tf.summary.write(name, tf.constant(value, tf.float32), step, metadata)
        self._writer.flush()
