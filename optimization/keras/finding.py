"""The learning rate range test on a compiled model of Keras."""

from collections.abc import Iterable
from typing import Any

import keras

from optimization.range_test import RangeTest, repeated
from optimization.range_test import find_learning_rate as _find


def find_learning_rate(model: keras.Model, batches: Iterable[Any], **arguments: Any) -> RangeTest:
    """Trains a compiled model with a rate that grows; the model is as before in the end.

    It needs a learning rate that is a number: compile the model with one for the test, such as
    `factory.build_optimizer(1.0)`, which has all else that the config says. Weights, the state of
    the optimizer and the rate are put back; metrics are reset.

    >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    >>> model.compile(keras.optimizers.SGD(0.1), loss="mse")
    >>> x, y = keras.random.normal((32, 2)), keras.random.normal((32, 1))
    >>> found = find_learning_rate(model, [(x, y)], lowest=1e-3, highest=100.0)
    >>> found.diverged, round(float(model.optimizer.learning_rate), 3)
    (True, 0.1)

    Args:
        model: The model.
        batches: Tuples `(x, y)` or `(x, y, sample_weight)`; they begin again where they end.
        **arguments: Those of `optimization.find_learning_rate`.

    Raises:
        ValueError: If the model is not compiled, or there are no batches.
        TypeError: If the learning rate follows a schedule.
    """
    optimizer = getattr(model, "optimizer", None)
    if optimizer is None:
        raise ValueError("the model is not compiled: it has no optimizer to test")
    endless = repeated(batches)
    before = optimizer.learning_rate
    try:
        optimizer.learning_rate = float(keras.ops.convert_to_numpy(before))
    except TypeError:
        raise TypeError(
            "the optimizer's learning rate follows a schedule: compile the model with a number as "
            "the rate for the test, such as `factory.build_optimizer(1.0)`"
        ) from None
    if not optimizer.built:
        optimizer.build(model.trainable_variables)
    variables = [*model.variables, *optimizer.variables]
    values = [keras.ops.convert_to_numpy(variable).copy() for variable in variables]

    def step(rate: float) -> float:
        optimizer.learning_rate = rate
        model.reset_metrics()
        return float(model.train_on_batch(*next(endless), return_dict=True)["loss"])

    try:
        return _find(step, **arguments)
    finally:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)
        model.reset_metrics()
