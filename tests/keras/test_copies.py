import keras
import numpy as np
import pytest

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.optimizers import EvaluateAverages, ParamGroup, PipelineOptimizer
from tests.golden_cases import make_variable, make_variables
from tests.keras.common import (
    UNCOMPILED,
    data,
    final_weights,
    problem,
    relative_error,
    tensorflow_only,
)
from tests.keras.stages.test_finite_check import compiled, eager
from tests.rules import contracts

pytestmark = pytest.mark.slow


def layers(dtype):
    hidden = keras.layers.Dense(8, activation="tanh", dtype=dtype, name="hidden")
    return hidden, keras.layers.Dense(1, dtype=dtype, name="head")


class Subclassed(keras.Model):
    def __init__(self, dtype):
        super().__init__()
        self.hidden, self.head = layers(dtype)

    def call(self, x):
        return self.head(self.hidden(x))


def sequential(dtype):
    return keras.Sequential(layers(dtype))


def trained(make, dtype, optimizer, build_first, **kwargs):
    keras.utils.set_random_seed(1)
    model = make(dtype)
    x, y = data()
    if build_first:
        model(x)
    model.compile(optimizer(), loss="mse", **kwargs)
    fit = {"shuffle": False, "verbose": 0, "batch_size": 16}
    if model.optimizer.averages_weights:
        fit["callbacks"] = [EvaluateAverages()]
    for count in (64, 24):  # the second has a batch of another size, which is traced anew
        model.fit(x[:count], y[:count], **fit)
    return model


def assert_the_same(*arguments, **kwargs):
    late, early = (trained(*arguments, first, **kwargs) for first in (False, True))
    for ours, theirs in zip(late.get_weights(), early.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    state, expected = (list(m.optimizer.variables_by_path().values()) for m in (late, early))
    for ours, theirs in zip(state, expected, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)


@pytest.mark.parametrize("make", [sequential, Subclassed])
@pytest.mark.parametrize(
    ("dtype", "kwargs"),
    [
        ("float32", {}),
        ("bfloat16", {"jit_compile": False}),
        ("float16", {"run_eagerly": True}),
    ],
)
def test_weights_made_inside_fit_train_as_those_made_before(make, dtype, kwargs):
    def optimizer():
        # No dynamic decay: the average remembers where it started.
        ema = {"average_decay": 0.9, "dynamic_decay": False}
        return PipelineOptimizer(keras.optimizers.Adam(0.01), ema=ema)

    assert_the_same(make, dtype, optimizer, **kwargs)


@pytest.mark.slow
@pytest.mark.parametrize("name", contracts.ONE_OF_EACH_KIND)
def test_a_rule_of_each_kind_trains_weights_made_inside_fit(name):
    def optimizer():
        ema = None if name.startswith("schedule_free") else {"average_decay": 0.9}
        return PipelineOptimizer(OPTIMIZERS_CLS[name](learning_rate=1e-3), ema=ema)

    assert_the_same(sequential, "bfloat16", optimizer, **UNCOMPILED)


@tensorflow_only
@pytest.mark.parametrize("depends_on_data", [False, True])
def test_weights_made_inside_a_function_of_ones_own(depends_on_data):
    """TensorFlow runs the first trace too, if the initial values depend on its arguments."""
    import tensorflow as tf

    optimizer = PipelineOptimizer(
        keras.optimizers.SGD(0.5), ema={"average_decay": 0.5, "dynamic_decay": False}
    )
    made = []

    @tf.function
    def step(x):
        if not made:
            made.append(tf.Variable(lambda: tf.reduce_sum(x) if depends_on_data else 3.0))
        optimizer.apply([tf.ones(())], made)

    weight, average = 3.0, 3.0
    for x in ([1.0, 2.0], [1.0, 2.0], [5.0]):  # the last one is traced anew
        step(tf.constant(x))
        weight -= 0.5
        average = (average + weight) / 2
    (kept,) = [v for k, v in optimizer.variables_by_path().items() if k.startswith("average/")]
    assert (float(made[0]), float(kept)) == (weight, average)


# Largest rounding, relative to the number: half of the last of 8, or 11, bits.
ROUNDING = {"bfloat16": 2.0**-8, "float16": 2.0**-11}


def low(initial, dtype="bfloat16"):
    return [make_variable(path, value, dtype=dtype) for path, value in initial.items()]


def step(optimizer, variables, gradients):
    grads = [
        keras.ops.cast(keras.ops.convert_to_tensor(gradients[v.path]), v.dtype) for v in variables
    ]
    optimizer.apply(grads, variables)


@pytest.mark.parametrize("dtype", ROUNDING)
@pytest.mark.parametrize("name", [*contracts.ONE_OF_EACH_KIND, "ftrl"])
def test_low_precision_weights_are_those_of_float32_rounded(name, dtype):
    initial, gradients = problem(steps=5)
    # Numbers that the dtype can hold, so that both runs start and go on from the same.
    cast = {p: keras.ops.convert_to_numpy(keras.ops.cast(v, dtype)) for p, v in initial.items()}
    initial = {p: v.astype("float32") for p, v in cast.items()}
    gradients = [
        {
            p: keras.ops.convert_to_numpy(keras.ops.cast(v, dtype)).astype("float32")
            for p, v in g.items()
        }
        for g in gradients
    ]
    optimizer, reference = (
        PipelineOptimizer(OPTIMIZERS_CLS[name](learning_rate=1e-3)) for _ in range(2)
    )
    variables = low(initial, dtype)
    for gradient in gradients:
        step(optimizer, variables, gradient)
    expected = final_weights(reference, initial, gradients)
    named = optimizer.variables_by_path()
    masters = {path: named[f"master/{path}"].numpy() for path in initial}
    # FTRL computes each weight anew as a difference of large sums.
    assert relative_error(masters, expected) < (3e-6 if name == "ftrl" else 1e-6)
    for variable in variables:
        actual = variable.numpy().astype("float32")
        rounding = np.abs(expected[variable.path]) * ROUNDING[dtype]
        # 1e-6 for the same sums in another order.
        assert (np.abs(actual - expected[variable.path]) <= rounding * 1.001 + 1e-6).all()
    slots = [v for path, v in named.items() if len(v.shape) and not path.startswith("swapped")]
    assert {keras.backend.standardize_dtype(v.dtype) for v in slots} == {"float32"}


def test_steps_too_small_for_the_weights_add_up():
    variables = low({"w": np.ones(4, "float32")})
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1e-3))
    for _ in range(100):  # each step is a quarter of what bfloat16 can tell apart below 1
        step(optimizer, variables, {"w": np.ones(4, "float32")})
    # 0.9 rounded to bfloat16, whose numbers there are 2^-8 apart.
    np.testing.assert_allclose(variables[0].numpy().astype("float32"), 0.9, atol=2.0**-9)


@pytest.mark.parametrize("mode", [eager, compiled])
def test_a_weight_that_was_assigned_starts_from_there(mode):
    variables = low({"w": np.ones(4, "float32")})
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1e-3))
    optimizer.build(variables)
    apply = mode(optimizer, variables)
    ones = [keras.ops.ones(4, "bfloat16")]
    apply(ones)
    variables[0].assign(keras.ops.convert_to_tensor(np.float32([2, 1, 1, 3])))
    apply(ones)
    master = optimizer.variables_by_path()["master/w"]
    # Only what was assigned anew: the others go on from what float32 remembers.
    np.testing.assert_allclose(master.numpy(), [1.999, 0.998, 0.998, 2.999], rtol=1e-6)


def test_a_loss_scale_is_undone_in_float32():
    """In float16 a gradient of 1e-6, scaled by 1024, would lose its digits when it is unscaled."""
    variables = low({"w": np.zeros(3, "float32")}, "float16")
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), loss_scale_factor=1024.0)
    scaled = np.float16(1.2345e-6 * 1024)
    optimizer.apply([keras.ops.full((3,), scaled, dtype="float16")], variables)
    master = optimizer.variables_by_path()["master/w"].numpy()
    np.testing.assert_allclose(master, -float(scaled) / 1024, rtol=1e-6)  # one float32 product


def test_float32_weights_have_no_copy():
    optimizer = PipelineOptimizer(keras.optimizers.Adam(0.1))
    variables = [*make_variables({"a": np.ones(2, "float32")}), *low({"b": np.ones(2, "float32")})]
    optimizer.build(variables)
    assert [p for p in optimizer.variables_by_path() if "master" in p] == ["master/b"]


def test_paths_of_copies_are_those_of_the_weights():
    """Muon and weight decay look for patterns in them."""
    shapes = {"embedding/embeddings": (7, 4), "dense/kernel": (6, 5), "dense/bias": (5,)}
    initial, _ = problem(shapes, steps=1)
    inner = keras.optimizers.Muon(0.01)
    optimizer = PipelineOptimizer(inner)
    optimizer.build(low(initial))
    assert [v.path for v in inner._trainable_variables] == list(shapes)
    excluded = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    variables = low(initial)
    excluded.exclude_from_weight_decay(var_list=[variables[0]], var_names=["bias"])
    optimizer = PipelineOptimizer(excluded)
    optimizer.build(variables)
    assert [row.decayed for row in optimizer.group_table()] == [False, True, False]


def test_with_everything_else_it_is_the_same():
    def make():
        return PipelineOptimizer(
            keras.optimizers.AdamW(0.01, weight_decay=0.1),
            param_groups=[ParamGroup(ndim=[0, 1], learning_rate_multiplier=0.1)],
            gradient_accumulation_steps=2,
            global_clipnorm=1.0,
            on_nonfinite="skip",
            ema={"average_decay": 0.9},
        )

    initial, gradients = problem(steps=6)
    optimizer, variables = make(), low(initial)
    for gradient in gradients:
        step(optimizer, variables, gradient)
    expected = final_weights(make(), initial, gradients)
    actual = {v.path: v.numpy().astype("float32") for v in variables}
    # Gradients and weights are rounded to bfloat16; three updates of 0.01.
    assert relative_error(actual, expected) < 0.01


def test_constraints_act_on_copies():
    (variable,) = low({"w": np.float32([0.05, 1.0])})
    variable.constraint = keras.constraints.NonNeg()
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1))
    step(optimizer, [variable], {"w": np.ones(2, "float32")})
    np.testing.assert_array_equal(optimizer.variables_by_path()["master/w"].numpy()[0], 0)
    assert float(variable.numpy()[0]) == 0


def test_training_goes_on_exactly_from_a_saved_model(tmp_path):
    def fit(model):
        x = np.random.default_rng(0).normal(size=(32, 4)).astype("float32")
        model.fit(x, x[:, :1], batch_size=8, shuffle=False, verbose=0)

    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(1, dtype="bfloat16", name="head")]
    )
    model.compile(PipelineOptimizer(keras.optimizers.Adam(1e-3)), loss="mse")
    fit(model)
    model.save(tmp_path / "model.keras")
    fit(model)
    resumed = keras.models.load_model(tmp_path / "model.keras")
    fit(resumed)
    states = [m.optimizer.variables_by_path() for m in (model, resumed)]
    for path, variable in states[0].items():
        np.testing.assert_array_equal(variable.numpy(), states[1][path].numpy(), err_msg=path)
