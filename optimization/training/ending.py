"""What ends a compiled loop before its last step: a signal to any of the workers, or skips."""

import contextlib
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from optimization.training import signals

_SKIPS = -1


class Ending:
    """A variable that a compiled loop reads: 0 as long as it goes on, else what ends it.

    Of several workers each has a variable of its own, which has the same value in all of them at
    the same step: what they sum up anyway says which signal came to one of them.

    Attributes:
        together: Whether several workers end at the same step.
    """

    def __init__(self, strategy: tf.distribute.Strategy):
        resolver = strategy.cluster_resolver
        self.together = bool(resolver is not None and resolver.task_type)
        with tf.device("CPU:0"):
            self._code = tf.Variable(0, dtype=tf.int64, trainable=False)
            # What has come to this worker; alone it need not ask.
            self._own = self._code
            if self.together:
                self._own = tf.Variable(0, dtype=tf.int64, trainable=False)

    @contextlib.contextmanager
    def running(self) -> Iterator[None]:
        """Has signals end the loops inside; where nothing is lost by it, even before they begin."""
        self._code.assign(0)
        stop = signals.current()
        with stop.telling(self._own.assign), stop.waiting(not self.together):
            yield

    @tf.autograph.experimental.do_not_convert
    def goes_on(self) -> tf.Tensor:
        """Returns whether the loop takes another step."""
        return tf.equal(self._code, 0)

    def end_by_skips(self, too_many: tf.Tensor) -> None:
        """Ends the loop if there are too many skips."""
        self._code.assign(tf.where(too_many, tf.constant(_SKIPS, tf.int64), self._code))

    def flags(self) -> tf.Tensor:
        """Returns what is summed up over the workers: for each signal whether it came."""
        return tf.cast(tf.equal(self._own, tf.constant(signals.SIGNALS, tf.int64)), tf.float32)

    def agree(self, flags: tf.Tensor) -> None:
        """Ends the loop if a signal is among the flags, summed up."""
        numbers = tf.constant(signals.SIGNALS, tf.int64)
        self._code.assign(tf.reduce_max(tf.where(flags > 0, numbers, 0)))

    def check(self) -> None:
        """Raises `Stopped` if a signal has ended the loop, in all workers or in none."""
        stop = signals.current()
        if not self.together:
            stop.check()
        elif (code := int(self._code)) > 0:
            stop.agree(code)

    @tf.autograph.experimental.do_not_convert
    def interruptible(self) -> Any:
        """A block in which a signal ends the run at once, unless others wait for this worker."""
        return signals.current().section(raises=not self.together)
