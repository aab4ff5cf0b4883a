import re

import keras
import numpy as np
import pytest

from optimization.optimizers import LAMB, AdamWeightDecay, PipelineOptimizer
from tests.golden_cases import make_variables
from tests.keras.common import (
    BACKEND,
    TableSchedule,
    data,
    final_weights,
    problem,
    relative_error,
    small_model,
    tensorflow_only,
)
from tests.references import weights_of

RATE = 0.1


def sgd(**kwargs):
    return PipelineOptimizer(keras.optimizers.SGD(RATE), **kwargs)


def clipped_sgd(clip):
    """The weights after plain SGD over `clip(gradients of a step)`, in float64."""
    initial, gradients = problem()
    clipped = [clip({p: g.astype("float64") for p, g in step.items()}) for step in gradients]
    return weights_of(lambda path, w, g, t, slots: w - RATE * g, initial, clipped)


def globally(bound):
    def clip(step):
        norm = np.sqrt(sum((g**2).sum() for g in step.values()))
        return {path: g * min(1, bound / norm) for path, g in step.items()}

    return clip


def by_norm(step):
    return {path: g * min(1, 2.0 / np.linalg.norm(g.ravel())) for path, g in step.items()}


CLIPS = {
    "none": ({}, lambda step: step),
    "clipnorm": ({"clipnorm": 2.0}, by_norm),
    "clipvalue": ({"clipvalue": 0.7}, lambda s: {p: np.clip(g, -0.7, 0.7) for p, g in s.items()}),
    "global_clipnorm": ({"global_clipnorm": 6.0}, globally(6.0)),
    "gradient_clip_norm": ({"gradient_clip_norm": 6.0}, globally(6.0)),
    "first loose": ({"gradient_clip_norm": 9.0, "global_clipnorm": 6.0}, globally(6.0)),
    "first tight": ({"gradient_clip_norm": 6.0, "global_clipnorm": 9.0}, globally(6.0)),
    "first, then each": (
        {"gradient_clip_norm": 6.0, "clipnorm": 2.0},
        lambda step: by_norm(globally(6.0)(step)),
    ),
    "off": ({"gradient_clip_norm": 0.0, "clipnorm": 2.0}, by_norm),
}


@pytest.mark.parametrize(("arguments", "clip"), CLIPS.values(), ids=CLIPS)
def test_clips(arguments, clip):
    expected = clipped_sgd(clip)
    initial, gradients = problem()
    # 10 float32 steps; a norm over 200 entries rounds at about 1e-7.
    assert relative_error(final_weights(sgd(**arguments), initial, gradients), expected) < 2e-6


@pytest.mark.parametrize(("arguments", "clip"), CLIPS.values(), ids=CLIPS)
def test_a_gradient_that_is_none_takes_no_part(arguments, clip):
    initial, gradients = problem(steps=1)
    variables = make_variables(initial)
    skipped = variables[2].path
    grads = [None if v.path == skipped else to_tensor(gradients[0][v.path]) for v in variables]
    with pytest.warns(UserWarning, match=skipped):
        sgd(**arguments).apply(grads, variables)
    others = {p: g.astype("float64") for p, g in gradients[0].items() if p != skipped}
    expected = {path: initial[path] - RATE * g for path, g in clip(others).items()}
    weights = {v.path: v.numpy() for v in variables}
    assert relative_error(weights, {**expected, skipped: initial[skipped]}) < 1e-6  # one step
    np.testing.assert_array_equal(weights[skipped], initial[skipped])


def to_tensor(array):
    return keras.ops.convert_to_tensor(array)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clipnorm": 1.0, "clipvalue": 1.0}, "Only one of `clipnorm`"),
        ({"clipnorm": 0.0}, "`clipnorm` must be > 0"),
        ({"clipvalue": -1.0}, "`clipvalue` must be > 0"),
        ({"gradient_clip_norm": -1.0}, "`gradient_clip_norm` must be > 0"),
        ({"loss_scale_factor": 0.0}, "`loss_scale_factor` must be > 0"),
        ({"clipnorm": 1.0, "gradient_transformers": [list]}, "`gradient_transformers`.*clipnorm"),
        (
            {"global_clipnorm": 1.0, "gradient_transformers": [list]},
            "`gradient_transformers`.*global_clipnorm",
        ),
        ({"ema": {"average_decay": 2.0}}, "`average_decay`"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        sgd(**arguments)


@pytest.mark.parametrize(
    "argument",
    [
        {"clipnorm": 1.0},
        {"clipvalue": 1.0},
        {"global_clipnorm": 1.0},
        {"use_ema": True},
        {"gradient_accumulation_steps": 2},
        {"loss_scale_factor": 2.0},
    ],
    ids=lambda argument: next(iter(argument)),
)
def test_the_inner_optimizer_leaves_the_step_to_the_pipeline(argument):
    with pytest.raises(ValueError, match=next(iter(argument))):
        PipelineOptimizer(keras.optimizers.SGD(0.1, **argument))


def test_what_can_not_be_wrapped():
    built = keras.optimizers.SGD(0.1)
    built.build(make_variables({"a": np.zeros(1, "float32")}))
    with pytest.raises(ValueError, match="built"):
        PipelineOptimizer(built)
    with pytest.raises(TypeError, match=r"keras\.optimizers\.Optimizer"):
        PipelineOptimizer("sgd")
    for wrapper in (sgd(), keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD(0.1))):
        with pytest.raises(TypeError, match="other way round"):
            PipelineOptimizer(wrapper)


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch has no XLA here")
def test_jit_compile_is_an_error_on_torch():
    with pytest.raises(ValueError, match="`jit_compile`"):
        sgd(jit_compile=True)


@pytest.mark.skipif(BACKEND == "torch", reason="jit_compile is an error there")
def test_jit_compile_changes_no_result():
    initial, gradients = problem()
    plain = final_weights(PipelineOptimizer(AdamWeightDecay(0.01)), initial, gradients)
    jitted = PipelineOptimizer(AdamWeightDecay(0.01), jit_compile=True)
    assert relative_error(final_weights(jitted, initial, gradients), plain) < 1e-6  # XLA's rounding


# Order and counting


def test_aggregator_then_transformers_then_update():
    calls = []

    def aggregator(pairs):
        calls.append("aggregator")
        return [(2 * g, v) for g, v in pairs]

    def add_one(pairs):
        calls.append("add_one")
        return [(g + 1, v) for g, v in pairs]

    def triple(pairs):
        calls.append("triple")
        return [(3 * g, v) for g, v in pairs]

    optimizer = sgd(gradient_aggregator=aggregator, gradient_transformers=[add_one, triple])
    variables = make_variables({"a": np.zeros(2, "float32")})
    optimizer.apply([to_tensor(np.float32([1, 2]))], variables)
    assert calls == ["aggregator", "add_one", "triple"]
    np.testing.assert_allclose(variables[0].numpy(), [-0.9, -1.5], rtol=1e-6)


def test_without_a_strategy_aggregation_is_left_to_apply():
    calls = []

    def aggregator(pairs):
        calls.append(len(pairs))
        return pairs

    optimizer = sgd(gradient_aggregator=aggregator)
    variables = make_variables({"a": np.zeros(1, "float32"), "b": np.zeros(1, "float32")})
    pairs = optimizer.aggregate_gradients([(None, variables[0]), (np.ones(1), variables[1])])
    assert [g is None for g, _ in pairs] == [True, False]
    assert calls == []
    optimizer.apply([to_tensor(np.ones(1, "float32"))] * 2, variables)
    assert calls == [2]


def test_static_loss_scale_is_undone_before_the_clip():
    initial, gradients = problem()
    expected = final_weights(sgd(global_clipnorm=6.0), initial, gradients)
    scaled = [{path: g * np.float32(1024) for path, g in step.items()} for step in gradients]
    optimizer = sgd(global_clipnorm=6.0, loss_scale_factor=1024.0)
    # A power of two is multiplied and divided without rounding.
    assert relative_error(final_weights(optimizer, initial, scaled), expected) == 0
    assert float(optimizer.scale_loss(keras.ops.convert_to_tensor(2.0))) == 2048.0


def test_constraints_act_after_the_update():
    variable = keras.Variable([0.05, 1.0], name="w")
    variable.constraint = keras.constraints.NonNeg()
    optimizer = sgd(ema={"average_decay": 0.0, "dynamic_decay": False})
    optimizer.apply([to_tensor(np.float32([1.0, 1.0]))], [variable])
    np.testing.assert_allclose(variable.numpy(), [0.0, 0.9], rtol=1e-6)
    average = optimizer.variables_by_path()["average/w"]
    np.testing.assert_array_equal(average.numpy(), variable.numpy())


def test_one_counter_is_shared():
    optimizer = PipelineOptimizer(keras.optimizers.Adam(TableSchedule([0.1, 0.2, 0.3])))
    assert optimizer.optimizer._iterations is optimizer._iterations
    final_weights(optimizer, *problem(steps=2))
    assert int(optimizer.iterations) == int(optimizer.optimizer.iterations) == 2
    assert float(optimizer.learning_rate) == pytest.approx(0.3)


def test_variables_are_there_once_and_all_used():
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1, momentum=0.9), ema={})
    optimizer.build(make_variables({"a/kernel": np.zeros(2, "float32")}))
    names = ["iteration", "optimizer/learning_rate", "optimizer/momentums/a/kernel"]
    names += ["average/a/kernel", "swapped"]
    assert sorted(optimizer.variables_by_path()) == sorted(names)
    assert len({id(v) for v in optimizer.variables}) == len(optimizer.variables) == 5


def test_hyperparameters_are_those_of_the_inner_optimizer():
    optimizer = PipelineOptimizer(keras.optimizers.AdamW(0.1, weight_decay=0.3, beta_1=0.8))
    assert (optimizer.beta_1, optimizer.weight_decay) == (0.8, 0.3)
    optimizer.beta_1 = 0.7
    optimizer.weight_decay = 0.2
    assert (optimizer.optimizer.beta_1, optimizer.optimizer.weight_decay) == (0.7, 0.2)
    with pytest.raises(AttributeError, match="no attribute 'momentun'"):
        _ = optimizer.momentun


def test_the_learning_rate_can_be_set():
    optimizer = sgd()
    optimizer.learning_rate = 0.5
    variables = make_variables({"a": np.zeros(1, "float32")})
    optimizer.apply([to_tensor(np.ones(1, "float32"))], variables)
    assert float(optimizer.optimizer.learning_rate) == 0.5
    np.testing.assert_array_equal(variables[0].numpy(), [-0.5])
    with pytest.raises(TypeError, match="not settable"):
        PipelineOptimizer(keras.optimizers.SGD(TableSchedule([0.1]))).learning_rate = 0.5


def test_apply_checks_what_it_is_given():
    optimizer = sgd()
    variables = make_variables({"a": np.zeros(1, "float32"), "b": np.zeros(1, "float32")})
    one = to_tensor(np.ones(1, "float32"))
    with pytest.raises(ValueError, match="not built"):
        optimizer.apply([one])
    optimizer.build(variables)
    with pytest.raises(ValueError, match="1 gradients, 2 variables"):
        optimizer.apply([one])
    with pytest.raises(ValueError, match="Unknown variable"):
        optimizer.apply([one], make_variables({"c": np.zeros(1, "float32")}))
    with pytest.raises(ValueError, match="No gradients"):
        optimizer.apply([None, None])
    optimizer.apply([])
    assert int(optimizer.iterations) == 0
    optimizer.apply_gradients([(one, variables[1])])
    assert int(optimizer.iterations) == 1


@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (4,)])
def test_a_gradient_of_another_shape_is_told(shape):
    variables = make_variables({"a": np.ones((2, 2), "float32"), "b": np.ones(3, "float32")})
    grads = [to_tensor(np.ones(s, "float32")) for s in ((2, 2), shape)]
    message = rf"the shapes of the variables, got {re.escape(str(shape))} for '.*b' of \(3,\)$"
    with pytest.raises(ValueError, match=message):
        sgd().apply(grads, variables)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's shapes")
def test_shapes_that_are_not_known_are_not_refused():
    import tensorflow as tf

    variables = make_variables({"a": np.ones((2, 2), "float32"), "b": np.ones(3, "float32")})
    optimizer = sgd()
    optimizer.build(variables)

    @tf.function(input_signature=[tf.TensorSpec([2, None]), tf.TensorSpec([None])])
    def step(a, b):
        optimizer.apply([a, b], variables)

    step(tf.ones((2, 2)), tf.ones(3))
    assert float(np.max(variables[1])) < 1


# Inside Keras' own loop and its loss scale


def test_fit_learns():
    keras.utils.set_random_seed(0)  # of the first weights, and of the order of batches
    x, y = data()
    model = small_model(ema={}, global_clipnorm=1.0)
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, batch_size=16, epochs=15, verbose=0)
    assert model.evaluate(x, y, verbose=0) < 0.3 * before
    assert int(model.optimizer.iterations) == 60
    with model.optimizer.averaged():
        assert model.evaluate(x, y, verbose=0) < 0.5 * before


def test_fit_takes_the_steps_that_apply_takes():
    x, y = data()
    initial, _ = problem({"w": (4, 1)}, steps=1)
    model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, use_bias=False)])
    model.set_weights([initial["w"]])
    model.compile(sgd(global_clipnorm=0.5), loss="mse")
    model.fit(x, y, batch_size=64, epochs=1, shuffle=False, verbose=0)
    gradient = 2 / len(x) * x.T.astype("float64") @ (x @ initial["w"] - y)
    expected = initial["w"] - RATE * gradient * min(1, 0.5 / np.linalg.norm(gradient))
    # One step; the gradient is a float32 sum over 64 rows.
    np.testing.assert_allclose(model.get_weights()[0], expected, rtol=1e-5)


def quadratic(optimizer, variables, scale, bad=False):
    grads = [keras.ops.convert_to_tensor(v.numpy() * np.float32(scale)) for v in variables]
    if bad:
        grads[0] = grads[0] * np.float32(np.inf)
    if BACKEND != "jax":
        optimizer.apply(grads, variables)
        return
    # On JAX Keras' LossScaleOptimizer can only do it without side effects.
    if not optimizer.built:
        optimizer.build(variables)
    values = [[v.value for v in group] for group in (optimizer.variables, variables)]
    weights, state = optimizer.stateless_apply(values[0], grads, values[1])
    for variable, value in zip([*variables, *optimizer.variables], [*weights, *state], strict=True):
        variable.assign(value)


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=tensorflow_only)])
def test_dynamic_loss_scale_around_it(jit):
    arguments = {"ema": {}, "global_clipnorm": 0.5, "jit_compile": jit}
    initial, _ = problem()
    plain = PipelineOptimizer(keras.optimizers.Adam(0.1), **arguments)
    scaled = keras.optimizers.LossScaleOptimizer(
        PipelineOptimizer(keras.optimizers.Adam(0.1), **arguments), initial_scale=256.0
    )
    expected, actual = make_variables(initial), make_variables(initial)
    for step in range(6):
        if step == 2:  # skipped: nothing moves, the scale is halved
            quadratic(scaled, actual, 256, bad=True)
            continue
        quadratic(plain, expected, 1)
        quadratic(scaled, actual, 256 if step < 2 else 128)
    assert int(scaled.iterations) == 5
    for a, b in zip(actual, expected, strict=True):
        # The scales are powers of two, so only XLA's or the conditional's fusing differs.
        np.testing.assert_allclose(a.numpy(), b.numpy(), rtol=1e-5, atol=1e-7)


@tensorflow_only
@pytest.mark.parametrize("jit", [False, True])
@pytest.mark.parametrize("wrapped", [False, True])
def test_inside_a_function_it_takes_the_same_steps(jit, wrapped):
    import tensorflow as tf

    initial, gradients = problem(steps=6)
    arguments = {"ema": {}, "global_clipnorm": 2.0, "jit_compile": jit}
    expected = final_weights(PipelineOptimizer(LAMB(0.1), **arguments), initial, gradients)
    optimizer = PipelineOptimizer(LAMB(0.1), **arguments)
    if wrapped:
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer, initial_scale=4.0)
    variables = make_variables(initial)

    @tf.function
    def train(grads):
        optimizer.apply([g * 4.0 if wrapped else g for g in grads], variables)

    for gradient in gradients:  # built on the first call, inside the function
        train([tf.constant(gradient[v.path]) for v in variables])
    actual = {v.path: v.numpy() for v in variables}
    assert relative_error(actual, expected) < 1e-6  # graph and XLA fuse the same operations


@tensorflow_only
@pytest.mark.parametrize("clip", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_clips_of_sparse_gradients_that_repeat_indices(clip):
    import tensorflow as tf

    indices = np.array([1, 3, 1, 1])
    values = np.random.default_rng(0).normal(size=(4, 2)).astype("float32")
    dense = np.zeros((5, 2), "float32")
    np.add.at(dense, indices, values)
    initial = {"table": np.ones((5, 2), "float32"), "kernel": np.ones(3, "float32")}
    kernel = np.float32([0.1, -0.2, 0.3])
    expected = final_weights(sgd(**{clip: 0.5}), initial, [{"table": dense, "kernel": kernel}])
    variables = make_variables(initial)
    slices = tf.IndexedSlices(tf.constant(values), tf.constant(indices), (5, 2))
    sgd(**{clip: 0.5}).apply([slices, tf.constant(kernel)], variables)
    actual = {v.path: v.numpy() for v in variables}
    assert relative_error(actual, expected) < 1e-6  # the same sums in another order
