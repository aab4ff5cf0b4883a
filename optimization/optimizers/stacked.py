"""The update of all small variables of one kind at once, stacked along a new first axis.

A call of a compiled function takes as long as the update of 100,000 numbers, and compiling it as
long as thousands of small updates. Here TensorFlow reads the variables, one operation each, and
puts them into one tensor; plain operations update it, and its parts become the variables' values.
"""

from collections.abc import Sequence
from typing import Any

import keras

from optimization.optimizers.fused_kinds import Input, Row, Scalars, Update
from optimization.optimizers.stages import Length, SquareSum, Staged

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

# Keras' classes whose updates are.
_ELEMENTWISE = (
    *("SGD", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax"),
    *("Ftrl", "Lion", "Nadam", "RMSprop"),
)


def stacks(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> bool:
    """Says whether variables of a kind may be stacked.

    Each must stay by itself. So an optimizer's update must be elementwise, apart from the norms of
    one that is `Staged`, and with each weight there may be only what has its shape, and scalars.

    Args:
        optimizer: One that `fused.fits`.
        variables: A weight of the kind, its state, and its average if any.
    """
    shape = tuple(variables[0].shape)
    if any(tuple(variable.shape) not in (shape, ()) for variable in variables):
        return False
    cls = type(optimizer)
    return cls.__module__.startswith("optimization.") or cls.__name__ in _ELEMENTWISE


class StackedUpdate(Update):
    """The update of small variables of one kind; see `stacks`."""

    def run_all(self, rows: Sequence[Row], scalars: Scalars) -> None:
        """Updates variables on one device.

        Args:
            rows: The variables.
            scalars: What is the same for all variables.
        """
        gradients = tf.stack([row.values for row in rows])
        rank = len(gradients.shape)
        keys = [self.optimizer._var_key(variable) for variable in self.variables]
        places = list(zip(*(row.copies for row in rows), strict=True))
        slots = [
            _Slot(_with_rank(tf.stack([_read(copy) for copy in copies]), rank), key)
            for copies, key in zip(places, keys, strict=True)
        ]
        factor = _together([row.factor for row in rows], rank)
        divisor = _together([row.divisor for row in rows], rank)
        if divisor is not None:  # by an operation that is not made one with the factor's
            gradients = gradients / tf.cast(divisor, gradients.dtype)
        self.whole(Row(slots, gradients, factor, None), scalars)
        for slot, copies in zip(slots, places, strict=True):
            if slot.is_assigned:
                values = tf.reshape(slot.tensor, [len(rows), *copies[0].shape])
                for copy, value in zip(copies, tf.unstack(values), strict=True):
                    tf.raw_ops.AssignVariableOp(resource=copy.handle, value=value)

    def take_step(self) -> None:
        """Has the optimizer update the weights and their state."""
        if isinstance(self.optimizer, Staged):
            arguments = (self.gradient, self.variables[0], self.learning_rate)
            self.optimizer.take_stages(*arguments, _sums)
        else:
            super().take_step()


class _Slot(Input):
    """What stands for the values of one variable in an update of many.

    Args:
        tensor: The values, stacked.
        key: What an optimizer knows the variable by.
    """

    def __init__(self, tensor: Any, key: Any):
        self.tensor = tensor
        self.is_assigned = False
        self._unique_id = key

    def assign(self, value: Any) -> None:
        # Of the shape that it had, also if the value is the same number for all.
        self.tensor = value + tf.zeros_like(self.tensor) if value.shape.rank == 0 else value
        self.is_assigned = True

    def assign_add(self, value: Any) -> None:
        self.assign(self.tensor + value)

    def assign_sub(self, value: Any) -> None:
        self.assign(self.tensor - value)


def _with_rank(tensor: Any, rank: int) -> Any:
    """Returns what is stacked with as many axes as the stacked gradients have."""
    missing = rank - len(tensor.shape)
    return tensor if missing == 0 else tf.reshape(tensor, [-1, *[1] * (rank - 1)])


def _sums(wanted: SquareSum | Length) -> Any:
    """Returns the sum of squares, or the norm, of each variable."""
    x = tf.convert_to_tensor(wanted.of)
    is_norm = isinstance(wanted, Length)
    values = tf.cast(x, tf.float64) if is_norm else x
    total = tf.reduce_sum(tf.square(values), axis=list(range(1, len(x.shape))), keepdims=True)
    return tf.cast(tf.sqrt(total), x.dtype) if is_norm else total


def _together(values: Sequence[Any], rank: int) -> Any:
    """Returns a number of all gradients, None for 1, or those of each."""
    if all(value is values[0] for value in values):
        return values[0]
    return _with_rank(tf.stack(values), rank)


def _read(copy: Any) -> Any:
    # Without what else `read_value` does, which takes its time for thousands of variables.
    return tf.raw_ops.ReadVariableOp(resource=copy.handle, dtype=copy.dtype)
