import keras
import numpy as np
import pytest

from optimization.keras.control import conditionally, is_traced
from tests.keras.common import BACKEND


def compiled(function, variable):
    """Returns a function of a flag that the backend compiles, and that assigns to the variable."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(function)
    if BACKEND == "torch":
        return function
    import jax

    @jax.jit
    def pure(flag, value):
        with keras.StatelessScope(state_mapping=[(variable, value)]) as scope:
            function(flag)
        return scope.get_current_value(variable)

    return lambda flag: variable.assign(pure(flag, variable.value))


@pytest.mark.parametrize("jit", [False, True])
def test_only_the_chosen_function_acts(jit):
    variable = keras.Variable([1.0, 2.0], name="v")

    def step(flag):
        conditionally(
            flag,
            lambda x: variable.assign(variable + x),
            (keras.ops.ones(2),),
            [variable],
            otherwise=lambda x: variable.assign(variable * 10),
        )

    step = compiled(step, variable) if jit else step
    step(keras.ops.convert_to_tensor(True))
    np.testing.assert_array_equal(variable.numpy(), [2, 3])
    step(keras.ops.convert_to_tensor(False))
    np.testing.assert_array_equal(variable.numpy(), [20, 30])


@pytest.mark.parametrize("jit", [False, True])
def test_nothing_happens_otherwise(jit):
    variable = keras.Variable(1.0, name="v")

    def step(flag):
        conditionally(flag, lambda: variable.assign(variable + 1), (), [variable])

    step = compiled(step, variable) if jit else step
    step(keras.ops.convert_to_tensor(False))
    assert float(variable) == 1
    step(keras.ops.convert_to_tensor(True))
    assert float(variable) == 2


def test_one_inside_another():
    variable = keras.Variable(0.0, name="v")

    def add(amount):
        return lambda: variable.assign(variable + amount)

    def step(flag):
        inner = keras.ops.convert_to_tensor(True)

        def outer():
            add(1)()
            conditionally(inner, add(10), (), [variable])

        conditionally(flag, outer, (), [variable])

    step = compiled(step, variable)
    step(keras.ops.convert_to_tensor(True))
    step(keras.ops.convert_to_tensor(False))
    assert float(variable) == 11


def test_values_outside_compiled_functions_are_not_traced():
    assert not is_traced(keras.ops.ones(2))
