import keras
import numpy as np
import pytest

from optimization.keras.norms import norm
from optimization.optimizers import LARS, Adafactor, PipelineOptimizer
from tests.golden_cases import make_variables
from tests.keras.common import tensorflow_only
from tests.keras.stages.test_finite_check import compiled, eager

UNIT = np.float32([0.6, 0.0, -0.8])
# Squares of all but 1 are infinite or 0 in float32; the norm of six times 3e38 is infinite too.
SIZES = [1e-30, 1e-24, 1.0, 1e20, 1e30, 3e38]
CLIPS = {
    "global_clipnorm": {"global_clipnorm": 1.0},
    "gradient_clip_norm": {"gradient_clip_norm": 1.0},
    "both": {"gradient_clip_norm": 2.0, "global_clipnorm": 1.0},
    "clipnorm": {"clipnorm": 1.0},
    "both in turn": {"gradient_clip_norm": 2.0, "clipnorm": 1.0},
    "adaptive": {"adaptive_clip_factor": 1.0, "adaptive_clip_epsilon": 1.0},
}
ROUNDING = {"rtol": 1e-6, "atol": 0}  # a few float32 roundings


@pytest.mark.parametrize("size", SIZES[:-1])
def test_a_norm_is_finite_and_not_0(size):
    x = keras.ops.convert_to_tensor(np.float32(size) * UNIT)
    np.testing.assert_allclose(float(norm(x).value), size, **ROUNDING)


@pytest.mark.parametrize(
    ("values", "expected"), [([0.0, 0.0], 0.0), ([1.0, np.inf], np.inf), ([np.nan, 1.0], np.nan)]
)
def test_norms_of_zeros_and_of_what_is_not_finite(values, expected):
    x = keras.ops.convert_to_tensor(np.float32(values))
    np.testing.assert_equal(float(norm(x).value), expected)


def clipped(mode, arguments, gradients, **more):
    """Returns the steps that clipped gradients make of weights of 0, and the optimizer."""
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), **arguments, **more)
    variables = make_variables({f"w{i}": np.zeros_like(g) for i, g in enumerate(gradients)})
    optimizer.build(variables)
    mode(optimizer, variables)([keras.ops.convert_to_tensor(g) for g in gradients])
    return [-keras.ops.convert_to_numpy(variable) for variable in variables], optimizer


@pytest.mark.parametrize("size", SIZES[3:])
@pytest.mark.parametrize("mode", [eager, compiled])
@pytest.mark.parametrize("arguments", CLIPS.values(), ids=CLIPS)
def test_large_gradients_are_clipped(arguments, mode, size):
    gradient = np.float32(size) * np.ones(6, "float32")
    for jit_compile in ("auto", False):
        (step,), optimizer = clipped(mode, arguments, [gradient], jit_compile=jit_compile)
        np.testing.assert_allclose(step, 6**-0.5, **ROUNDING)
        assert float(optimizer.clipped_share) == 1.0


@pytest.mark.parametrize("argument", ["global_clipnorm", "gradient_clip_norm", "clipnorm"])
def test_tiny_gradients_are_clipped(argument):
    (step,), optimizer = clipped(eager, {argument: 1e-33}, [np.float32(1e-30) * UNIT])
    np.testing.assert_allclose(step, 1e-33 * UNIT, **ROUNDING)
    assert float(optimizer.last_gradient_norm) == pytest.approx(1e-30)


@pytest.mark.parametrize("mode", [eager, compiled])
def test_one_factor_for_large_and_small_gradients(mode):
    gradients = [np.float32([3e20]), np.float32([[4e20, 1e-3]])]
    steps, _ = clipped(mode, {"global_clipnorm": 1.0}, gradients)
    np.testing.assert_allclose(steps[0], [0.6], **ROUNDING)
    np.testing.assert_allclose(steps[1], [[0.8, 2e-24]], rtol=1e-5)


@tensorflow_only
@pytest.mark.parametrize("argument", ["global_clipnorm", "clipnorm"])
def test_large_sparse_gradients_are_clipped(argument):
    import tensorflow as tf

    optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), **{argument: 1.0})
    variables = make_variables({"table": np.zeros((4, 1), "float32")})
    optimizer.build(variables)
    values = np.float32([[3e37], [4e37]])

    @tf.function
    def step(values):
        optimizer.apply([tf.IndexedSlices(values, tf.constant([2, 0]), (4, 1))], variables)

    step(tf.constant(values))
    np.testing.assert_allclose(variables[0].numpy().ravel(), [-0.8, 0, -0.6, 0], **ROUNDING)


@pytest.mark.parametrize("size", [1e-24, 1e24])
@pytest.mark.parametrize("mode", [eager, compiled])
@pytest.mark.parametrize("classic", [True, False])
def test_the_step_of_lars_does_not_depend_on_the_size_of_gradients(mode, classic, size):
    def step_of(size):
        weights = {"w": np.float32([3.0, 4.0]), "large": np.full((200, 100), 0.5, "float32")}
        lars = LARS(1.0, momentum=0.0, eeta=0.1, classic_momentum=classic)
        optimizer = PipelineOptimizer(lars)
        variables = make_variables(weights)
        optimizer.build(variables)
        gradients = [keras.ops.convert_to_tensor(size * w) for w in weights.values()]
        mode(optimizer, variables)(gradients)
        return [keras.ops.convert_to_numpy(variable) for variable in variables]

    for actual, expected in zip(step_of(np.float32(size)), step_of(np.float32(1)), strict=True):
        np.testing.assert_allclose(actual, expected, **ROUNDING)


@pytest.mark.parametrize(
    "make", [lambda: LARS(0.1), lambda: Adafactor(0.1)], ids=["lars", "adafactor"]
)
def test_an_update_of_large_clipped_gradients_is_that_of_small_ones(make):
    # Large enough to be updated in stages; the norm is infinite in float32.
    shape = (200, 100)

    def after(size):
        optimizer = PipelineOptimizer(make(), global_clipnorm=1.0)
        variables = make_variables({"w": np.ones(shape, "float32")})
        optimizer.build(variables)
        step = compiled(optimizer, variables)
        step([keras.ops.full(shape, size)])
        return keras.ops.convert_to_numpy(variables[0])

    np.testing.assert_allclose(after(3e38), after(1.0), rtol=1e-6)
    assert (after(1.0) != 1).all()
