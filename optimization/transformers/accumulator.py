"""`GradientAccumulator` of transformers' TensorFlow part."""

from collections.abc import Sequence
from typing import Any

import tensorflow as tf


class GradientAccumulator:
    """Adds up gradients, on each replica for itself.

    >>> import tensorflow as tf
    >>> accumulator = GradientAccumulator()
    >>> for _ in range(2):
    ...     accumulator([tf.constant([1.0, 2.0])])  # the gradients of a batch
    >>> accumulator.gradients[0].numpy()
    array([2., 4.], dtype=float32)
    >>> accumulator.reset()  # once an optimizer has applied them

    Called inside `strategy.run`, it keeps a sum for each replica, which nothing but the optimizer
    brings together. The sums are not divided by their number. It is for loops of one's own on
    TensorFlow: `gradient_accumulation_steps` of an optimizer needs none of it, and also knows when
    an update is due.
    """

    def __init__(self) -> None:
        self._sums: list[tf.Variable | None] = []
        self._counter: tf.Variable | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"

    @property
    def step(self) -> tf.Tensor:
        """How many gradients have been added up, an int64 scalar."""
        return self._count.value()

    @property
    def _count(self) -> tf.Variable:
        if self._counter is None:
            self._counter = _local_variable(tf.constant(0, tf.int64))
        return self._counter

    @property
    def gradients(self) -> list[tf.Tensor | None]:
        """The sums on this replica; None where the first gradient was None.

        Raises:
            ValueError: If there are none yet.
        """
        if not self._sums:
            raise ValueError("the accumulator has no gradients yet: call it with some first")
        return [None if total is None else total.value() for total in self._sums]

    def __call__(self, gradients: Sequence[Any]) -> None:
        """Adds the gradients of this replica, dense, sparse or None, to their sums.

        Raises:
            ValueError: If there are more or fewer than the first time.
        """
        dense = [None if g is None else tf.convert_to_tensor(g) for g in gradients]
        if not self._sums:
            _ = self._count  # makes the variable
            self._sums = [None if g is None else _local_variable(tf.zeros_like(g)) for g in dense]
        if len(dense) != len(self._sums):
            raise ValueError(f"expected {len(self._sums)} gradients, received {len(dense)}")
        for total, gradient in zip(self._sums, dense, strict=True):
            if total is not None and gradient is not None:
                total.assign_add(gradient)
        self._count.assign_add(1)

    def reset(self) -> None:
        """Sets the sums, and their number, to zero."""
        if not self._sums:
            return
        self._count.assign(0)
        for total in self._sums:
            if total is not None:
                total.assign(tf.zeros_like(total.value()))


def _local_variable(value: tf.Tensor) -> tf.Variable:
    """Returns a variable of which each replica has its own, and assigns to it without others."""
    return tf.Variable(
        value,
        trainable=False,
        synchronization=tf.VariableSynchronization.ON_READ,
        aggregation=tf.VariableAggregation.ONLY_FIRST_REPLICA,
    )
