import keras
import numpy as np
import pytest

from optimization.optimizers import NonFiniteGradientError, PipelineOptimizer
from tests.golden_cases import make_variables
from tests.keras.common import BACKEND, TableSchedule, problem, tensorflow_only

PATH = "block/dense/kernel"


def make(on_nonfinite, **kwargs):
    inner = keras.optimizers.AdamW(TableSchedule([0.1, 0.2, 0.3]), weight_decay=0.1)
    return PipelineOptimizer(inner, on_nonfinite=on_nonfinite, ema={}, **kwargs)


def compiled(optimizer, variables):
    """Returns a step that the backend compiles, as `fit` has it compiled."""
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.function(lambda grads: optimizer.apply(grads, variables))
    if BACKEND == "torch":
        return lambda grads: optimizer.apply(grads, variables)
    import jax

    function = jax.jit(optimizer.stateless_apply)

    def step(grads):
        state = [v.value for v in optimizer.variables]
        weights, state = function(state, grads, [v.value for v in variables])
        jax.effects_barrier()
        for v, value in zip([*variables, *optimizer.variables], [*weights, *state], strict=True):
            v.assign(value)

    return step


def eager(optimizer, variables):
    return lambda grads: optimizer.apply(grads, variables)


def gradients_of(variables, bad=None, value=np.nan):
    _, gradients = problem(steps=1)
    grads = []
    for variable in variables:
        gradient = gradients[0][variable.path].copy()
        if variable.path == bad:
            gradient.flat[1] = value
        grads.append(keras.ops.convert_to_tensor(gradient))
    return grads


def started(optimizer, mode):
    variables = make_variables(problem(steps=1)[0])
    optimizer.build(variables)
    return variables, mode(optimizer, variables)


@pytest.mark.parametrize("mode", [eager, compiled])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("steps", [1, 2])
def test_skip_changes_nothing_and_counts(mode, value, steps):
    optimizer = make("skip", gradient_accumulation_steps=steps)
    variables, step = started(optimizer, mode)

    def update(bad=None):
        for _ in range(steps):
            step(gradients_of(variables, bad, value))

    update()
    watched = {**optimizer.variables_by_path(), **{v.path: v for v in variables}}
    counts = ("nonfinite_steps", "consecutive_nonfinite")
    before = {path: v.numpy().copy() for path, v in watched.items() if path not in counts}
    for expected in (1, 2):
        update(PATH)
        assert int(optimizer.nonfinite_steps) == int(optimizer.consecutive_nonfinite) == expected
    for path, old in before.items():
        np.testing.assert_array_equal(watched[path].numpy(), old, err_msg=path)
    assert float(optimizer.learning_rate) == pytest.approx(0.2)
    update()
    assert int(optimizer.iterations) == 2
    assert (int(optimizer.nonfinite_steps), int(optimizer.consecutive_nonfinite)) == (2, 0)
    assert np.isfinite(variables[0].numpy()).all()


@pytest.mark.parametrize("mode", [eager, compiled])
def test_good_steps_are_those_without_the_check(mode):
    finals = []
    for choice in ("propagate", "skip", "raise"):
        optimizer = make(choice)
        variables, step = started(optimizer, mode)
        for _ in range(3):
            step(gradients_of(variables))
        finals.append([v.numpy() for v in variables])
    for others in finals[1:]:
        for a, b in zip(others, finals[0], strict=True):
            # Compilers fuse a branch on its own.
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


def expected_error(mode):
    if mode is eager or BACKEND == "torch":
        return NonFiniteGradientError
    if BACKEND == "tensorflow":
        import tensorflow as tf

        return tf.errors.InvalidArgumentError
    import jax

    return jax.errors.JaxRuntimeError


@pytest.mark.parametrize("mode", [eager, compiled])
def test_raise_names_the_variables_and_leaves_the_weights(mode):
    optimizer = make("raise")
    variables, step = started(optimizer, mode)
    step(gradients_of(variables))
    before = {v.path: v.numpy().copy() for v in variables}
    with pytest.raises(expected_error(mode), match=PATH) as raised:
        step(gradients_of(variables, PATH))
    assert "not finite" in str(raised.value)
    assert "conv" not in str(raised.value).split("not finite")[-1]
    if BACKEND != "jax" or mode is eager:
        for variable in variables:
            np.testing.assert_array_equal(variable.numpy(), before[variable.path])


@pytest.mark.parametrize("mode", [eager, compiled])
def test_too_many_in_a_row_raise(mode):
    optimizer = make("skip", max_consecutive_nonfinite=2)
    variables, step = started(optimizer, mode)
    bad, good = gradients_of(variables, PATH), gradients_of(variables)
    for grads in (bad, bad, good, bad, bad):
        step(grads)
    with pytest.raises(expected_error(mode), match=PATH):
        step(bad)


def test_propagate_is_the_default():
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1))
    variables, step = started(optimizer, eager)
    step(gradients_of(variables, PATH))
    assert sum(np.isnan(v.numpy()).sum() for v in variables) == 1
    assert int(optimizer.iterations) == 1
    assert optimizer.nonfinite_steps == optimizer.consecutive_nonfinite == 0


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_nonfinite": "ignore"}, "`on_nonfinite` must be one of"),
        ({"max_consecutive_nonfinite": 3}, "needs on_nonfinite='skip'"),
        ({"on_nonfinite": "skip", "max_consecutive_nonfinite": -1}, "must be >= 0"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        PipelineOptimizer(keras.optimizers.SGD(0.1), **arguments)


@tensorflow_only
def test_a_sparse_gradient_is_looked_at():
    import tensorflow as tf

    table = make_variables({"table": np.ones((5, 2), "float32")})
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1), on_nonfinite="skip")
    for value in (np.inf, 1.0):
        values = tf.constant([[value, 1.0]], tf.float32)
        optimizer.apply([tf.IndexedSlices(values, tf.constant([1]), (5, 2))], table)
    assert (int(optimizer.iterations), int(optimizer.nonfinite_steps)) == (1, 1)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="TensorFlow's XLA")
@pytest.mark.parametrize(
    "arguments",
    [{"on_nonfinite": "raise"}, {"on_nonfinite": "skip", "max_consecutive_nonfinite": 3}],
)
def test_a_check_that_xla_would_leave_out_is_refused(arguments):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1), **arguments)
    model.compile(optimizer, loss="mse", jit_compile=True)
    with pytest.raises(ValueError, match="cannot act inside a function that XLA compiles"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    model.compile(optimizer, loss="mse", jit_compile=False)
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    assert int(optimizer.iterations) == 1
