import itertools
import json

import keras
import numpy as np
import pytest

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.optimizers import PipelineOptimizer
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
from tests.rules import contracts

pytestmark = pytest.mark.slow

K = 4
PIPELINES = {
    "plain": {},
    "clipnorm": {"clipnorm": 0.5},
    "clipvalue": {"clipvalue": 0.3},
    "global_clipnorm": {"global_clipnorm": 1.0, "ema": {"average_decay": 0.9}},
    "skip": {"on_nonfinite": "skip", "max_consecutive_nonfinite": 2},
    "transformers": {"gradient_transformers": [lambda pairs: [(g * g, v) for g, v in pairs]]},
}
# FTRL computes each weight anew as a difference of large sums; Adadelta and Adam-like steps of
# near-zero gradients magnify the rounding of the mean.
TOLERANCE = 1e-5


def micro_batches(gradients):
    """Splits each gradient into K unequal ones with that mean."""
    random = np.random.default_rng(4)
    for step in gradients:
        parts = [{p: random.normal(size=g.shape) for p, g in step.items()} for _ in range(K)]
        for path, gradient in step.items():
            mean = sum(part[path] for part in parts) / K
            for part in parts:
                part[path] = (part[path] - mean + gradient).astype("float32")
        yield from parts


def state_of(optimizer):
    return {
        path: v.numpy().astype("float32")  # a flag has no difference
        for path, v in optimizer.variables_by_path().items()
        if not path.startswith(("accumulator/", "micro_step"))
    }


@pytest.mark.parametrize("arguments", PIPELINES.values(), ids=PIPELINES)
def test_micro_batches_equal_one_batch(arguments):
    def make(**more):
        inner = keras.optimizers.AdamW(TableSchedule([0.1, 0.05, 0.02, 0.01]), weight_decay=0.1)
        return PipelineOptimizer(inner, **arguments, **more)

    initial, gradients = problem(steps=6)
    whole, accumulated = make(), make(gradient_accumulation_steps=K)
    expected = final_weights(whole, initial, gradients)
    actual = final_weights(accumulated, initial, list(micro_batches(gradients)))
    # Six steps; the mean of four is rounded to float32, and Adam divides by its size.
    assert relative_error(actual, expected) < TOLERANCE
    assert int(accumulated.iterations) == int(whole.iterations) == 6
    assert float(accumulated.learning_rate) == float(whole.learning_rate)
    assert relative_error(state_of(accumulated), state_of(whole)) < TOLERANCE


@pytest.mark.parametrize("name", contracts.ONE_OF_EACH_KIND)
def test_micro_batches_equal_one_batch_for_a_rule_of_each_kind(name):
    initial, gradients = problem(steps=3)

    def make(**more):
        return PipelineOptimizer(OPTIMIZERS_CLS[name](learning_rate=0.01), **more)

    expected = final_weights(make(), initial, gradients)
    micro = list(micro_batches(gradients))
    actual = final_weights(make(gradient_accumulation_steps=K), initial, micro)
    # The mean is rounded to float32; signs and quotients of small gradients magnify that.
    assert relative_error(actual, expected) < TOLERANCE


def test_nothing_moves_between_updates():
    optimizer = PipelineOptimizer(
        keras.optimizers.AdamW(0.1, weight_decay=0.1),
        gradient_accumulation_steps=3,
        ema={},
        global_clipnorm=1.0,
    )
    initial, gradients = problem(steps=3)
    variables = make_variables(initial)
    optimizer.build(variables)
    before = state_of(optimizer)
    for micro_step in (1, 2, 0):
        grads = [keras.ops.convert_to_tensor(gradients[0][v.path]) for v in variables]
        optimizer.apply(grads, variables)
        assert int(optimizer.micro_step) == micro_step
        if micro_step:
            assert int(optimizer.iterations) == 0
            for path, value in state_of(optimizer).items():
                np.testing.assert_array_equal(value, before[path], err_msg=path)
            for variable in variables:
                np.testing.assert_array_equal(variable.numpy(), initial[variable.path])
    assert int(optimizer.iterations) == 1
    for variable in variables:
        assert not np.array_equal(variable.numpy(), initial[variable.path])


def test_sums_are_float32_and_without_a_gradient_a_micro_batch_counts_as_zero():
    initial = {"a": np.zeros(2, "float32"), "b": np.zeros(2, "float32")}
    variables = [keras.Variable(v, name=k, dtype="bfloat16") for k, v in initial.items()]
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), gradient_accumulation_steps=2)
    one = keras.ops.ones(2, "bfloat16")
    optimizer.apply([one, one], variables)
    with pytest.warns(UserWarning, match="do not exist"):
        optimizer.apply([one, None], variables)
    np.testing.assert_array_equal(variables[0].numpy().astype("float32"), [-1, -1])
    np.testing.assert_array_equal(variables[1].numpy().astype("float32"), [-0.5, -0.5])
    named = optimizer.variables_by_path()
    assert named["accumulator/a"].dtype == "float32"
    np.testing.assert_array_equal(named["accumulator/b"].numpy(), [0, 0])


def test_without_accumulation_there_is_no_state_for_it():
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1), gradient_accumulation_steps=1)
    final_weights(optimizer, *problem(steps=1))
    assert optimizer.micro_step == 0
    assert sorted(optimizer.variables_by_path()) == ["iteration", "optimizer/learning_rate"]


@pytest.mark.parametrize("steps", [0, -1, 2.0, True])
def test_wrong_steps(steps):
    with pytest.raises(ValueError, match="`gradient_accumulation_steps`"):
        PipelineOptimizer(keras.optimizers.SGD(0.1), gradient_accumulation_steps=steps)


def test_fit_with_micro_batches_equals_fit_with_whole_batches():
    def trained(batch_size, **more):
        # No batch normalization: its statistics belong to one batch.
        model = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
        model.set_weights([np.ones((4, 1), "float32"), np.zeros(1, "float32")])
        inner = keras.optimizers.AdamW(TableSchedule([0.1, 0.05, 0.02, 0.01]), weight_decay=0.1)
        model.compile(PipelineOptimizer(inner, global_clipnorm=0.5, ema={}, **more), loss="mse")
        x, y = data()
        model.fit(x, y, batch_size=batch_size, epochs=3, shuffle=False, verbose=0)
        return model

    whole, accumulated = trained(16), trained(4, gradient_accumulation_steps=4)
    assert int(accumulated.optimizer.iterations) == int(whole.optimizer.iterations) == 12
    ours, theirs = (dict(enumerate(m.get_weights())) for m in (accumulated, whole))
    # Means over 4 of means over 4 against means over 16, in float32, through 12 steps of Adam.
    assert relative_error(ours, theirs) < TOLERANCE


def test_training_goes_on_exactly_from_between_two_updates(tmp_path):
    whole = small_model(gradient_accumulation_steps=3, on_nonfinite="skip", clipnorm=0.5)
    x, y = data()

    def train(model):
        model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)

    train(whole)
    assert int(whole.optimizer.micro_step) == 1
    whole.save(tmp_path / "model.keras")
    train(whole)
    resumed = keras.models.load_model(tmp_path / "model.keras")
    assert resumed.optimizer.get_config() == whole.optimizer.get_config()
    train(resumed)
    for ours, theirs in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    theirs = resumed.optimizer.variables_by_path()
    for path, variable in whole.optimizer.variables_by_path().items():
        np.testing.assert_array_equal(variable.numpy(), theirs[path].numpy(), err_msg=path)


@tensorflow_only
def test_sparse_gradients_accumulate():
    import tensorflow as tf

    initial = {"table": np.ones((5, 2), "float32")}
    variables = make_variables(initial)
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), gradient_accumulation_steps=2)

    @tf.function
    def step(indices, values):
        optimizer.apply([tf.IndexedSlices(values, indices, (5, 2))], variables)

    step(tf.constant([1, 3, 1]), tf.ones((3, 2)))
    step(tf.constant([0, 3, 3]), tf.ones((3, 2)))
    expected = 1 - np.array([1, 2, 0, 3, 0]) / 2
    np.testing.assert_allclose(variables[0].numpy(), np.stack([expected] * 2, 1), rtol=1e-6)


def test_values_that_overwrite_keep_the_largest():
    variables = make_variables({"scale": np.ones(2, "float32"), "w": np.ones(2, "float32")})
    variables[0].overwrite_with_gradient = True
    optimizer = PipelineOptimizer(
        keras.optimizers.SGD(1.0), gradient_accumulation_steps=2, loss_scale_factor=2.0
    )
    for value in (3.0, 2.0):
        grads = [keras.ops.convert_to_tensor(np.full(2, value, "float32"))] * 2
        optimizer.apply(grads, variables)
    np.testing.assert_array_equal(variables[0].numpy(), [3.0, 3.0])
    np.testing.assert_array_equal(variables[1].numpy(), [1 - 1.25] * 2)


@pytest.mark.skipif(BACKEND == "torch", reason="its own loop is the test above")
@pytest.mark.parametrize("arguments", [{}, {"on_nonfinite": "skip"}], ids=["plain", "skip"])
def test_a_dynamic_loss_scale_around_it(arguments):
    """A micro-batch that overflows is left out: the update waits for another."""
    scale = 256.0
    inner = PipelineOptimizer(
        keras.optimizers.Adam(0.1), gradient_accumulation_steps=2, ema={}, **arguments
    )
    optimizer = keras.optimizers.LossScaleOptimizer(inner, initial_scale=scale)
    initial, gradients = problem(steps=4)
    variables = make_variables(initial)
    optimizer.build(variables)
    expected = final_weights(
        PipelineOptimizer(keras.optimizers.Adam(0.1), gradient_accumulation_steps=2),
        initial,
        gradients,
    )

    def step(grads):
        if BACKEND == "tensorflow":
            optimizer.apply(grads, variables)
            return
        values = [[v.value for v in group] for group in (optimizer.variables, variables)]
        weights, state = optimizer.stateless_apply(values[0], grads, values[1])
        for v, value in zip([*variables, *optimizer.variables], [*weights, *state], strict=True):
            v.assign(value)

    for index, gradient in enumerate(gradients):
        if index == 1:
            step([keras.ops.convert_to_tensor(gradient[v.path] * np.inf) for v in variables])
            scale /= 2
        step([keras.ops.convert_to_tensor(gradient[v.path] * scale) for v in variables])
    assert int(optimizer.iterations) == 2
    # The scales are powers of two; the conditional fuses differently.
    assert relative_error({v.path: v.numpy() for v in variables}, expected) < TOLERANCE


def test_a_gradient_counts_whichever_micro_batch_gives_it(tmp_path):
    def built():
        optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), gradient_accumulation_steps=2)
        variables = [
            keras.Variable(np.zeros(1, "float32"), name="a"),
            keras.Variable(np.zeros(1, "float32"), name="b"),
        ]
        optimizer.build(variables)
        return optimizer, variables

    one = keras.ops.ones(1)
    optimizer, variables = built()
    optimizer.apply([one, one], variables)
    state = {path: v.numpy() for path, v in optimizer.variables_by_path().items()}
    resumed, variables = built()
    for path, variable in resumed.variables_by_path().items():
        variable.assign(state[path])
    with pytest.warns(UserWarning, match="Gradients do not exist"):
        resumed.apply([None, one], variables)
    assert [float(v[0]) for v in variables] == [-0.5, -1.0]
    assert all(
        float(keras.ops.sum(v)) == 0
        for path, v in resumed.variables_by_path().items()
        if path.startswith("accumulator/")
    )


RAMP = {"micro_batches": [1, 3, 2], "boundaries": [1, 2]}
RAMP_COUNTS = [1, 3, 2, 2]


def test_a_ramp_takes_the_mean_of_more_and_more():
    _, gradients = problem(steps=sum(RAMP_COUNTS))
    initial, _ = problem(steps=1)
    places = np.cumsum([0, *RAMP_COUNTS])
    means = [
        {p: np.mean([g[p] for g in gradients[a:b]], axis=0, dtype="float64") for p in initial}
        for a, b in itertools.pairwise(places)
    ]
    means = [{p: g.astype("float32") for p, g in mean.items()} for mean in means]

    def make(**more):
        inner = keras.optimizers.AdamW(TableSchedule([0.1, 0.05, 0.02, 0.01]), weight_decay=0.1)
        return PipelineOptimizer(inner, global_clipnorm=1.0, ema={}, **more)

    whole, ramped = make(), make(accumulation=RAMP)
    expected = final_weights(whole, initial, means)
    actual = final_weights(ramped, initial, gradients)
    assert relative_error(actual, expected) < TOLERANCE
    assert int(ramped.iterations) == 4
    assert int(ramped.micro_step) == 0
    assert int(ramped.micro_batches) == 2


def test_a_ramp_counts_updates_that_are_skipped_and_is_saved():
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), accumulation=RAMP, on_nonfinite="skip")
    weight = keras.Variable([1.0], name="w")

    def apply(optimizer, value):
        optimizer.apply([keras.ops.convert_to_tensor([value], "float32")], [weight])

    optimizer.build([weight])
    assert int(optimizer.micro_batches) == 1
    apply(optimizer, np.nan)
    assert (int(optimizer.iterations), int(optimizer.micro_batches)) == (0, 3)
    for value in (3.0, 6.0):
        apply(optimizer, value)
    other = PipelineOptimizer.from_config(json.loads(json.dumps(optimizer.get_config())))
    other.build([weight])
    for path, variable in other.variables_by_path().items():
        variable.assign(optimizer.variables_by_path()[path])
    before = float(weight.numpy()[0])
    apply(other, 0.0)
    assert float(weight.numpy()[0]) == before - 3.0
    assert (int(other.iterations), int(other.micro_batches)) == (1, 2)


@pytest.mark.parametrize(
    "arguments",
    [
        {"accumulation": {"micro_batches": [1, 2], "until": 3}},
        {"accumulation": {"micro_batches": [1, 2], "boundaries": ["10%"]}},
        {"accumulation": RAMP, "gradient_accumulation_steps": 2},
    ],
)
def test_a_ramp_needs_numbers_and_is_alone(arguments):
    with pytest.raises(ValueError, match="must have `boundaries` that are numbers of updates"):
        PipelineOptimizer(keras.optimizers.SGD(1.0), **arguments)


@tensorflow_only
def test_a_ramp_in_a_compiled_fit():
    x, y = data()
    model = small_model(accumulation={"micro_batches": [1, 2, 4], "boundaries": [2, 3]})
    steps = len(x) // 8
    model.fit(x, y, batch_size=8, epochs=1, verbose=0)
    count, seen = 0, 0
    while seen + [1, 1, 2, 4][min(count, 3)] <= steps:
        seen += [1, 1, 2, 4][min(count, 3)]
        count += 1
    assert int(model.optimizer.iterations) == count
    assert int(model.optimizer.micro_step) == steps - seen
