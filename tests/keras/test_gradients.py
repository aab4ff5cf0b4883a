import keras
import numpy as np
import pytest

from optimization.keras import gradients as g
from tests.keras.common import tensorflow_only

VALUES = [np.array([[3.0, -4.0]], "float32"), np.array([12.0, 0.0, -0.5], "float32")]


def arrays(tensors):
    return [keras.ops.convert_to_numpy(g.densify(tensor)) for tensor in tensors]


def tensors(values=VALUES):
    return [keras.ops.convert_to_tensor(value) for value in values]


def slices(values, indices, rows):
    import tensorflow as tf

    values = np.asarray(values, "float32")
    return tf.IndexedSlices(values, np.asarray(indices), (rows, values.shape[1]))


# One float32 rounding or two.
ROUNDING = {"rtol": 3e-7, "atol": 0}


def test_global_norm():
    expected = np.sqrt(sum((value.astype("float64") ** 2).sum() for value in VALUES))
    np.testing.assert_allclose(float(g.global_norm(tensors()).value), expected, **ROUNDING)


@pytest.mark.parametrize("bound", [0.1, 13.0, 1e4])
def test_clip_by_global_norm(bound):
    norm = np.sqrt(sum((value.astype("float64") ** 2).sum() for value in VALUES))
    clipped = arrays(g.clip_by_global_norm(tensors(), bound))
    for actual, value in zip(clipped, VALUES, strict=True):
        np.testing.assert_allclose(actual, value * min(1, bound / norm), **ROUNDING)


def test_a_gradient_within_the_bound_is_not_changed_at_all():
    for actual, value in zip(arrays(g.clip_by_global_norm(tensors(), 13.1)), VALUES, strict=True):
        np.testing.assert_array_equal(actual, value)


@pytest.mark.parametrize("bad", [np.inf, np.nan])
def test_a_norm_that_is_not_finite_makes_all_nan(bad):
    values = [np.array([1.0, bad], "float32"), np.ones(2, "float32")]
    assert all(np.isnan(a).all() for a in arrays(g.clip_by_global_norm(tensors(values), 1.0)))


def test_zero_gradients_stay_zero():
    zeros = tensors([np.zeros(3, "float32")])
    np.testing.assert_array_equal(arrays(g.clip_by_global_norm(zeros, 1.0))[0], 0)
    np.testing.assert_array_equal(arrays(g.clip_by_norm(zeros, 1.0)[0])[0], 0)


@pytest.mark.parametrize("bound", [0.5, 5.0, 100.0])
def test_clip_by_norm(bound):
    clipped, exceeds = g.clip_by_norm(tensors(), bound)
    for actual, value, exceeded in zip(arrays(clipped), VALUES, exceeds, strict=True):
        norm = np.linalg.norm(value.astype("float64").ravel())
        assert bool(exceeded) == (norm > bound)
        np.testing.assert_allclose(actual, value * min(1, bound / norm), **ROUNDING)


def test_clip_by_value():
    (actual,) = arrays([g.clip_by_value(tensors()[0], 3.5)])
    np.testing.assert_array_equal(actual, [[3.0, -3.5]])


def test_norm_of_low_precision_gradients_is_float32():
    # The square of 300 overflows float16.
    half = keras.ops.cast(keras.ops.convert_to_tensor(np.full(4, 300.0)), "float16")
    assert float(g.global_norm([half]).value) == 600.0
    (clipped,) = g.clip_by_global_norm([half], 60.0)
    assert keras.backend.standardize_dtype(clipped.dtype) == "float16"
    np.testing.assert_allclose(arrays([clipped])[0], 30.0, rtol=1e-3)  # float16 has 11 bits


@tensorflow_only
def test_duplicate_indices_are_summed():
    summed = g.sum_duplicates(slices([[1, 2], [10, 20], [5, 6]], [4, 0, 4], rows=6))
    assert sorted(summed.indices.numpy().tolist()) == [0, 4]
    expected = np.zeros((6, 2))
    expected[0], expected[4] = [10, 20], [6, 8]
    np.testing.assert_array_equal(arrays([summed])[0], expected)


@tensorflow_only
@pytest.mark.parametrize("bound", [0.5, 10.0, 1000.0])
def test_clips_of_sparse_gradients_equal_those_of_dense_ones(bound):
    sparse = g.sum_duplicates(slices([[1, 2], [10, 20], [5, -6]], [4, 0, 4], rows=6))
    dense = g.densify(sparse)
    other = tensors()[0]
    pairs = [
        (g.clip_by_norm([sparse], bound)[0][0], g.clip_by_norm([dense], bound)[0][0]),
        (g.clip_by_value(sparse, bound), g.clip_by_value(dense, bound)),
        (
            g.clip_by_global_norm([sparse, other], bound)[0],
            g.clip_by_global_norm([dense, other], bound)[0],
        ),
    ]
    for actual, expected in pairs:
        assert g.is_sparse(actual)
        np.testing.assert_allclose(*arrays([actual, expected]), **ROUNDING)


def test_gradients_that_are_still_to_be_scaled():
    values = tensors([np.float32([3.0, 0.0]), np.float32([[4.0], [12.0]])])
    half, plain = g.Postponed(values[0], 0.5), g.Postponed(values[1])
    assert float(g.global_norm([half, plain]).value) == pytest.approx((1.5**2 + 160) ** 0.5)
    twice, doubled = g.scale_all([half, plain], keras.ops.convert_to_tensor(2.0))
    assert twice.values is values[0]
    ((clipped,), _) = g.clip_by_norm([g.Postponed(values[0], 2.0)], 3.0)
    actual = arrays([twice, doubled, clipped, g.clip_by_value(plain, 5.0)])
    expected = [[3, 0], [[8], [24]], [3, 0], [[4], [5]]]
    for each, wanted in zip(actual, expected, strict=True):
        np.testing.assert_allclose(each, wanted, rtol=1e-6)
    assert g.values_of(half) is values[0]
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(g.entries(half)), [1.5, 0])


def test_factors_in_common_are_multiplied_once():
    factor = keras.ops.convert_to_tensor(0.5)
    several = [g.Postponed(np.ones(2, "float32"), factor) for _ in range(3)]
    scaled = g.scale_all(several, 4.0)
    assert len({id(gradient.factor) for gradient in scaled}) == 1
    assert float(scaled[0].factor) == 2
