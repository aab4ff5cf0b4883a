import keras
import numpy as np
import pytest

from optimization import OptimizationConfig, OptimizerFactory
from optimization.keras.groups import ParamGroup
from optimization.keras.stages.clip import unitwise_norm
from optimization.optimizers import PipelineOptimizer
from tests import clip_cases
from tests.golden_cases import make_variables
from tests.keras.common import (
    TableSchedule,
    final_weights,
    problem,
    relative_error,
    tensorflow_only,
)
from tests.keras.stages.test_finite_check import compiled, eager

SHAPES = {
    "conv/kernel": (3, 2, 4, 5),
    "dense/kernel": (6, 5),
    "row/kernel": (1, 5),
    "dense/bias": (5,),
    "scale": (),
}


def reference_norm(x):
    """Norms as the paper's code and optax take them, for kernels with the output last."""
    if np.squeeze(x).ndim <= 1:
        return np.sqrt((x**2).sum())
    return np.sqrt((x**2).sum(axis=tuple(range(x.ndim - 1)), keepdims=True))


def adaptively_clipped(g, w, factor, epsilon):
    bound = factor * np.maximum(reference_norm(w), epsilon)
    norm = reference_norm(g)
    return np.where(norm < bound, g, g * (bound / np.maximum(norm, 1e-6)))


@pytest.mark.parametrize(("factor", "epsilon"), [(0.01, 1e-3), (0.5, 1e-3), (100.0, 1.0)])
def test_adaptive_clip(factor, epsilon):
    initial, gradients = problem(SHAPES, steps=1)
    initial["dense/bias"][:] = 0  # epsilon lets it go
    optimizer = PipelineOptimizer(
        keras.optimizers.SGD(1.0), adaptive_clip_factor=factor, adaptive_clip_epsilon=epsilon
    )
    weights = final_weights(optimizer, initial, gradients)
    for path, w in initial.items():
        expected = w - adaptively_clipped(gradients[0][path], w, factor, epsilon)
        # One step in float32.
        np.testing.assert_allclose(weights[path], expected, rtol=1e-5, atol=1e-6, err_msg=path)
    assert int(optimizer.clipped_share) == (factor < 100)


def test_adaptive_clip_is_optax():
    optax = pytest.importorskip("optax", reason="optax is not installed")
    initial, gradients = problem(SHAPES, steps=1)
    # optax takes no numpy scalars.
    initial = {path: np.asarray(value) for path, value in initial.items()}
    gradient = {path: np.asarray(value) for path, value in gradients[0].items()}
    clip = optax.adaptive_grad_clip(0.3, eps=1e-3)
    updates, _ = clip.update(gradient, clip.init(initial), initial)
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), adaptive_clip_factor=0.3)
    weights = final_weights(optimizer, initial, gradients)
    expected = {path: initial[path] - np.asarray(updates[path]) for path in initial}
    assert relative_error(weights, expected) < 1e-6  # one step in float32


def test_a_gradient_of_zero_stays_zero():
    variables = make_variables({"w": np.zeros((3, 2), "float32")})
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), adaptive_clip_factor=0.1)
    optimizer.apply([keras.ops.zeros((3, 2))], variables)
    np.testing.assert_array_equal(variables[0].numpy(), 0)
    assert float(optimizer.clipped_share) == 0


def test_units_are_outputs():
    x = np.random.default_rng(0).normal(size=(2, 3, 4)).astype("float32")
    # The kernel of a one-dimensional convolution; optax takes (0,) here, for attention.
    assert tuple(unitwise_norm(x).value.shape) == (1, 1, 4)


BOUNDS = {
    "global_clipnorm": {"global_clipnorm": 6.0},
    "gradient_clip_norm": {"gradient_clip_norm": 6.0},
    "both": {"gradient_clip_norm": 9.0, "global_clipnorm": 6.0},
    "clipnorm": {"clipnorm": 4.0},
    "clipvalue": {"clipvalue": 2.5},
    "adaptive": {"adaptive_clip_factor": 3.0},
}


def exceeds(arguments, gradient, weights):
    norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradient.values()))
    if "clipnorm" in arguments:
        return any(np.linalg.norm(g.ravel()) > 4.0 for g in gradient.values())
    if "clipvalue" in arguments:
        return any(np.abs(g).max() > 2.5 for g in gradient.values())
    if "adaptive_clip_factor" in arguments:
        return any(
            (reference_norm(g) > 3.0 * np.maximum(reference_norm(weights[p]), 1e-3)).any()
            for p, g in gradient.items()
        )
    return norm > 6.0


@pytest.mark.parametrize("mode", [eager, compiled])
@pytest.mark.parametrize("arguments", BOUNDS.values(), ids=BOUNDS)
def test_statistics(mode, arguments):
    initial, gradients = problem(steps=6)
    # A rate of almost 0: the weights are those the adaptive clip begins with.
    optimizer = PipelineOptimizer(keras.optimizers.SGD(TableSchedule([1e-9])), **arguments)
    variables = make_variables(initial)
    optimizer.build(variables)
    step = mode(optimizer, variables)
    clipped = 0
    for index, gradient in enumerate(gradients, start=1):
        if index == 2:  # far inside every bound
            gradient = {path: g * 1e-3 for path, g in gradient.items()}
        step([keras.ops.convert_to_tensor(gradient[v.path]) for v in variables])
        norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradient.values()))
        assert float(optimizer.last_gradient_norm) == pytest.approx(norm, rel=1e-5)
        clipped += bool(exceeds(arguments, gradient, initial))
        assert float(optimizer.clipped_share) == pytest.approx(clipped / index)
    assert 0 < clipped < 6


def test_without_a_clip_there_are_no_statistics():
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1))
    final_weights(optimizer, *problem(steps=1))
    assert optimizer.last_gradient_norm is None
    assert optimizer.clipped_share is None


def test_the_norm_is_that_before_transformers():
    def double(pairs):
        return [(2 * g, v) for g, v in pairs]

    optimizer = PipelineOptimizer(
        keras.optimizers.SGD(1.0), gradient_clip_norm=2.5, gradient_transformers=[double]
    )
    variables = make_variables({"a": np.zeros(2, "float32")})
    optimizer.apply([keras.ops.convert_to_tensor(np.float32([3, 4]))], variables)
    assert float(optimizer.last_gradient_norm) == 5
    np.testing.assert_allclose(variables[0].numpy(), [-3, -4], rtol=1e-6)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"adaptive_clip_factor": 0.1, "clipnorm": 1.0}, "Only one of"),
        ({"adaptive_clip_factor": 0.1, "global_clipnorm": 1.0}, "Only one of"),
        ({"adaptive_clip_factor": 0.0}, "`adaptive_clip_factor` must be > 0"),
        ({"adaptive_clip_factor": 0.1, "adaptive_clip_epsilon": 0.0}, "`adaptive_clip_epsilon`"),
        ({"adaptive_clip_factor": 0.1, "gradient_transformers": [list]}, "can't be combined"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PipelineOptimizer(keras.optimizers.SGD(0.1), **arguments)


@tensorflow_only
def test_a_sparse_gradient_is_clipped_like_the_dense_one():
    import tensorflow as tf

    indices = np.array([1, 3, 1])
    values = np.random.default_rng(0).normal(size=(3, 2)).astype("float32")
    dense = np.zeros((5, 2), "float32")
    np.add.at(dense, indices, values)
    initial = {"table": np.ones((5, 2), "float32")}

    def make():
        return PipelineOptimizer(keras.optimizers.SGD(1.0), adaptive_clip_factor=0.1)

    expected = final_weights(make(), initial, [{"table": dense}])
    variables = make_variables(initial)
    make().apply([tf.IndexedSlices(values, tf.constant(indices), (5, 2))], variables)
    assert relative_error({"table": variables[0].numpy()}, expected) < 1e-6  # other order of sums


GROUPED = [(kind, groups) for kind in clip_cases.KINDS for groups in (True, False)]


def by_config(mode, config, initial, gradients):
    factory = OptimizerFactory(config, train_steps=100)
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    variables = make_variables({path: w.astype("float32") for path, w in initial.items()})
    optimizer.build(variables)
    step = mode(optimizer, variables)
    for grads in gradients:
        step([keras.ops.convert_to_tensor(grads[v.path].astype("float32")) for v in variables])
    return optimizer, {v.path: keras.ops.convert_to_numpy(v) for v in variables}


@pytest.mark.parametrize("mode", [eager, compiled])
@pytest.mark.parametrize(("kind", "groups"), GROUPED)
def test_groups_have_clips_of_their_own_and_a_bound_follows_its_schedule(mode, kind, groups):
    initial, gradients = clip_cases.problem()
    config = clip_cases.config(kind, clip_cases.GROUPS if groups else [])
    optimizer, found = by_config(mode, config, initial, gradients)
    expected = clip_cases.expected(kind, initial, gradients, groups)
    assert relative_error(found, expected) < 1e-6  # float32
    norm = clip_cases.norm_of(gradients[-1])  # of all, whoever clips them
    assert float(optimizer.last_gradient_norm) == pytest.approx(norm, rel=1e-5)
    now = float(optimizer.scheduled_values()[kind])
    assert now == pytest.approx(clip_cases.bound_at(len(gradients)), rel=1e-6)


@pytest.mark.parametrize("kind", clip_cases.OF_MUON)
def test_a_clip_of_a_group_acts_on_what_the_auxiliary_optimizer_updates_too(kind):
    initial, gradients = clip_cases.problem()
    own = clip_cases.of_muon(**{kind: clip_cases.OF_MUON[kind]})
    _, found = by_config(eager, own, initial, gradients)
    before = clip_cases.clipped_before(kind, gradients)
    _, expected = by_config(eager, clip_cases.of_muon(), initial, before)
    _, others = by_config(eager, clip_cases.of_muon(), initial, gradients)
    assert relative_error(found, expected) < 2e-5  # float32
    assert relative_error(found, others) > 1e-2


def test_clips_of_groups_are_those_of_the_mean_of_accumulated_gradients():
    initial, gradients = clip_cases.problem()
    config = clip_cases.config(gradient_accumulation_steps=2)
    _, found = by_config(eager, config, initial, gradients)
    pairs = zip(gradients[::2], gradients[1::2], strict=True)
    means = [{path: (a[path] + b[path]) / 2 for path in a} for a, b in pairs]
    expected = clip_cases.expected("global_clipnorm", initial, means)
    assert relative_error(found, expected) < 1e-6


def test_clips_of_groups_and_on_schedules_are_saved_with_the_optimizer():
    initial, gradients = clip_cases.problem()
    optimizer, _ = by_config(eager, clip_cases.config(), initial, gradients[:3])
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert [group.clip for group in again.param_groups] == [
        {"global_clipnorm": 0.5},
        {"clipvalue": 0.05},
        {"clipnorm": 0.0},
    ]
    first, last = clip_cases.FIRST, clip_cases.LAST
    assert float(again.schedules["global_clipnorm"](0)) == first
    assert float(again.schedules["global_clipnorm"](99)) == pytest.approx(last)


def test_a_scheduled_clip_must_be_there():
    with pytest.raises(ValueError, match="`clipnorm` follows a schedule and must be set"):
        PipelineOptimizer(keras.optimizers.SGD(1.0), schedules={"clipnorm": TableSchedule([1.0])})


@pytest.mark.parametrize(
    "clip", [{"clip": 1.0}, {"clipnorm": -1.0}, {"clipnorm": 1, "clipvalue": 1}]
)
def test_a_group_has_one_clip(clip):
    with pytest.raises(ValueError, match="Argument `clip` must be {kind: bound}"):
        ParamGroup(match="a", clip=clip)


def test_a_group_with_a_clip_is_not_combined_with_transformers():
    with pytest.raises(ValueError, match="can't be combined with a clip"):
        PipelineOptimizer(
            keras.optimizers.SGD(1.0),
            gradient_transformers=[lambda pairs: pairs],
            param_groups=[ParamGroup(match="a", clip={"clipnorm": 1.0})],
        )


def test_a_bound_of_a_group_decides_what_is_not_finite():
    config = clip_cases.config(groups=[{"match": "^head", "clipvalue": 1.0}], schedule=False)
    config = OptimizationConfig(
        {
            "optimizer": {"type": "adam", "adam": {"on_nonfinite": "skip"}},
            "learning_rate": config.learning_rate,
            "param_groups": config.param_groups,
        }
    )
    initial, gradients = clip_cases.problem(steps=2)
    gradients[0]["head/kernel"][:] = 1e30  # which Adam can't hold, but its clip bounds it
    gradients[1]["body/kernel"][:] = 1e30
    optimizer, _ = by_config(eager, config, initial, gradients)
    assert (int(optimizer.iterations), int(optimizer.nonfinite_steps)) == (1, 1)
