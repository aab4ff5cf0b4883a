import json

import keras
import numpy as np
import pytest

from optimization.configs.optimization_config import OptimizationConfig
from optimization.keras.ema import WeightAverage
from optimization.optimizer_factory import OptimizerFactory
from optimization.optimizers import AdamWeightDecay, PipelineOptimizer
from tests.golden_cases import make_variables
from tests.keras.common import BACKEND, problem, tensorflow_only
from tests.references import averages

INITIAL = {"a/kernel": np.array([1.0, -2.0, 0.3], "float32")}


def optimizer_of(ema, lr=0.1):
    return PipelineOptimizer(keras.optimizers.SGD(lr), ema=ema)


def step(optimizer, variables, gradient):
    optimizer.apply([keras.ops.convert_to_tensor(np.float32(gradient))], variables)


def average_of(optimizer, path="a/kernel"):
    return optimizer.variables_by_path()[f"average/{path}"].numpy().copy()


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("start", [0, 3])
def test_average_follows_the_formula(dynamic, start):
    optimizer = optimizer_of({"average_decay": 0.6, "start_step": start, "dynamic_decay": dynamic})
    variables = make_variables(INITIAL)
    average = INITIAL["a/kernel"].astype("float64")
    for n in range(1, 13):
        step(optimizer, variables, [0.5, n % 3, -1.0])
        d = 0.6 if not dynamic else min(0.6, (1 + n - start) / (10 + n - start))
        if n < start:
            d = 0.0
        average = d * average + (1 - d) * variables[0].numpy().astype("float64")
        # One float32 rounding at each of 12 steps.
        np.testing.assert_allclose(average_of(optimizer), average, rtol=1e-6)


@pytest.mark.parametrize(
    ("steps", "expected"), [(0, 0.0), (1, 0.0), (2, 0.1), (3, 2 / 11), (91, 0.9), (10**6, 0.9)]
)
def test_decay_at_its_boundaries(steps, expected):
    average = WeightAverage(average_decay=0.9, start_step=2)
    # One float32 rounding.
    assert 1 - float(average.share(steps)) == pytest.approx(expected, rel=1e-6)


def weights_and_averages(optimizer, expected, steps=12):
    """Yields the average after each step, and that of float64 by the decay of each update."""
    variables = make_variables(INITIAL)
    average = INITIAL["a/kernel"].astype("float64")
    for n in range(1, steps + 1):
        step(optimizer, variables, [0.5, n % 3, -1.0])
        d = expected(n)
        average = d * average + (1 - d) * variables[0].numpy().astype("float64")
        yield average_of(optimizer), average


@pytest.mark.parametrize("name", averages.FORMS)
def test_every_form_of_decay_is_its_origin_s(name):
    settings, expected = averages.FORMS[name]
    for found, average in weights_and_averages(optimizer_of(settings), expected):
        np.testing.assert_allclose(found, average, rtol=2e-6)  # in float32


def scheduled_optimizer(**more):
    config = OptimizationConfig(
        {
            "optimizer": {"type": "sgd"},
            "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
            "ema": {"dynamic_decay": False},
            "schedules": {"average_decay": averages.SCHEDULE},
            **more,
        }
    )
    factory = OptimizerFactory(config)
    return factory.build_optimizer(factory.build_learning_rate())


def test_the_decay_follows_a_schedule():
    optimizer = scheduled_optimizer()
    for found, average in weights_and_averages(optimizer, averages.scheduled):
        np.testing.assert_allclose(found, average, rtol=2e-6)  # in float32
    assert float(optimizer.scheduled_values()["average_decay"]) == 1.0


def test_a_scheduled_decay_is_that_of_use_ema_too():
    section = {"type": "sgd", "sgd": {"use_ema": True}}
    more = {"optimizer": section, "ema": None, "schedules": {"ema_momentum": averages.SCHEDULE}}
    optimizer = scheduled_optimizer(**more)
    # Keras': after the first update it is the weights.
    pairs = weights_and_averages(optimizer, lambda n: 0 if n == 1 else averages.scheduled(n))
    for found, average in pairs:
        np.testing.assert_allclose(found, average, rtol=2e-6)  # in float32


def test_an_optimizer_with_a_scheduled_average_is_saved_and_goes_on():
    optimizer = scheduled_optimizer()
    list(weights_and_averages(optimizer, averages.scheduled, 2))
    config = json.loads(json.dumps(optimizer.get_config()))
    other = PipelineOptimizer.from_config(config)
    variables = make_variables(INITIAL)
    other.build(variables)
    for variable, saved in zip(other.variables, optimizer.variables, strict=True):
        variable.assign(saved)
    before = average_of(other)
    step(other, variables, [0.0, 0.0, 0.0])
    expected = before + (1 - averages.scheduled(3)) * (variables[0].numpy() - before)
    np.testing.assert_allclose(average_of(other), expected, rtol=1e-6)  # in float32


def test_average_starts_from_the_weights():
    optimizer = optimizer_of({})
    optimizer.build(make_variables(INITIAL))
    np.testing.assert_array_equal(average_of(optimizer), INITIAL["a/kernel"])


def test_average_is_a_copy():
    optimizer = optimizer_of({})
    variables = make_variables(INITIAL)
    optimizer.build(variables)
    variables[0].assign([9.0, 9.0, 9.0])
    np.testing.assert_array_equal(average_of(optimizer), INITIAL["a/kernel"])


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_swap_exchanges_bit_for_bit_and_back(dtype):
    optimizer = optimizer_of({"average_decay": 0.9})
    variables = [keras.Variable([0.1, 1.0, 3.0], dtype=dtype, name="w")]
    for _ in range(3):
        step(optimizer, variables, [0.3, 1.1, 0.7])
    weight, average = variables[0].numpy().copy(), average_of(optimizer, "w")
    optimizer.swap()
    np.testing.assert_array_equal(variables[0].numpy(), average.astype(weight.dtype))
    np.testing.assert_array_equal(average_of(optimizer, "w"), weight.astype("float32"))
    optimizer.swap()
    np.testing.assert_array_equal(variables[0].numpy(), weight)
    np.testing.assert_array_equal(average_of(optimizer, "w"), average)
    assert average.dtype == np.float32


def test_a_step_while_swapped_is_an_error():
    optimizer = optimizer_of({})
    variables = make_variables(INITIAL)
    step(optimizer, variables, [1.0, 1.0, 1.0])
    optimizer.swap()
    with pytest.raises(RuntimeError, match="swapped"):
        step(optimizer, variables, [1.0, 1.0, 1.0])
    optimizer.swap()
    step(optimizer, variables, [1.0, 1.0, 1.0])


@tensorflow_only
def test_a_step_while_swapped_is_an_error_in_a_function_traced_before():
    import tensorflow as tf

    optimizer = optimizer_of({})
    variables = make_variables(INITIAL)
    optimizer.build(variables)

    @tf.function
    def train():
        optimizer.apply([tf.ones(3)], variables)

    train()
    before = variables[0].numpy()
    optimizer.swap()
    swapped = variables[0].numpy()
    with pytest.raises(tf.errors.InvalidArgumentError, match="swapped"):
        train()
    np.testing.assert_array_equal(variables[0].numpy(), swapped)
    optimizer.swap()
    np.testing.assert_array_equal(variables[0].numpy(), before)
    train()
    assert int(optimizer.iterations) == 2


@tensorflow_only
def test_swap_inside_a_function_is_an_error():
    import tensorflow as tf

    optimizer = optimizer_of({})
    optimizer.build(make_variables(INITIAL))
    with pytest.raises(RuntimeError, match="eagerly"):
        tf.function(optimizer.swap)()


def test_averaged_weights_restores_after_an_error():
    optimizer = optimizer_of({"average_decay": 0.9})
    variables = make_variables(INITIAL)
    step(optimizer, variables, [1.0, 2.0, 3.0])
    weight = variables[0].numpy().copy()
    average = average_of(optimizer)

    def evaluate():
        with optimizer.averaged():
            np.testing.assert_array_equal(variables[0].numpy(), average)
            with pytest.raises(RuntimeError, match="already"), optimizer.averaged():
                raise AssertionError("not reached")
            raise KeyError("an evaluation that fails")

    with pytest.raises(KeyError):
        evaluate()
    np.testing.assert_array_equal(variables[0].numpy(), weight)


def test_without_an_average_swapping_is_an_error():
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1))
    optimizer.build(make_variables(INITIAL))
    with pytest.raises(ValueError, match="no weight average"):
        optimizer.swap()
    assert optimizer.ema is None


def normalized_model():
    model = keras.Sequential(
        [keras.layers.Dense(3), keras.layers.BatchNormalization(), keras.layers.Dropout(0.1)]
    )
    model.build((None, 2))
    return model


def test_all_weights_need_the_model():
    model = normalized_model()
    optimizer = optimizer_of({"trainable_weights_only": False})
    optimizer.build(model.trainable_variables)
    grads = [keras.ops.ones(v.shape) for v in model.trainable_variables]
    with pytest.raises(ValueError, match="shadow_copy"):
        optimizer.apply(grads, model.trainable_variables)
    with pytest.raises(ValueError, match="built model"):
        optimizer.shadow_copy(keras.Sequential([keras.layers.Dense(1)]))


def test_all_weights_average_batch_statistics_too():
    model = normalized_model()
    optimizer = optimizer_of({"trainable_weights_only": False, "dynamic_decay": False})
    optimizer.shadow_copy(model)
    statistics = model.layers[1].moving_mean
    assert f"average/{statistics.path}" in optimizer.variables_by_path()
    statistics.assign([1.0, 2.0, 3.0])
    optimizer.apply(
        [keras.ops.ones(v.shape) for v in model.trainable_variables], model.trainable_variables
    )
    expected = 0.01 * np.array([1.0, 2.0, 3.0])  # it started from 0
    np.testing.assert_allclose(average_of(optimizer, statistics.path), expected, rtol=1e-6)
    optimizer.swap()
    np.testing.assert_allclose(statistics.numpy(), expected, rtol=1e-6)


def test_trainable_weights_only_leaves_batch_statistics_alone():
    model = normalized_model()
    optimizer = optimizer_of({})
    optimizer.shadow_copy(model)
    averages = [n for n in optimizer.variables_by_path() if n.startswith("average/")]
    assert averages == [f"average/{v.path}" for v in model.trainable_variables]


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's own limit")
def test_all_weights_can_not_be_averaged_inside_jit():
    model = normalized_model()
    optimizer = optimizer_of({"trainable_weights_only": False})
    optimizer.shadow_copy(model)
    model.compile(optimizer, loss="mse")
    with pytest.raises(ValueError, match="compiled by JAX"):
        model.fit(np.ones((4, 2)), np.ones((4, 3)), verbose=0)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [({"average_decay": 1.0}, "average_decay"), ({"start_step": -1}, "start_step")],
)
def test_wrong_arguments(arguments, named):
    with pytest.raises(ValueError, match=f"`{named}`"):
        WeightAverage(**arguments)


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's own feature")
def test_stateless_steps_average_too():
    import jax

    initial, gradients = problem(steps=4)
    stateful, stateless = (
        PipelineOptimizer(AdamWeightDecay(0.1), ema={"average_decay": 0.9}, global_clipnorm=1.0)
        for _ in range(2)
    )
    variables = make_variables(initial)
    for gradient in gradients:
        stateful.apply([gradient[v.path] for v in variables], variables)
    others = make_variables(initial)
    stateless.build(others)
    weights = [v.value for v in others]
    state = [v.value for v in stateless.variables]
    apply = jax.jit(stateless.stateless_apply, donate_argnums=(0, 2))
    for gradient in gradients:
        weights, state = apply(state, [gradient[v.path] for v in others], weights)
    for actual, expected in zip(state, stateful.variables, strict=True):
        # The same float32 operations, fused by XLA.
        np.testing.assert_allclose(
            np.asarray(actual, "float64"), expected.numpy().astype("float64"), rtol=1e-5, atol=1e-7
        )
