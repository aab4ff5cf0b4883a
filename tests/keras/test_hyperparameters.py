import keras
import numpy as np
import pytest

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.optimizers import LARS, AdamWeightDecay, ParamGroup, PipelineOptimizer, SGDTorch
from tests.golden_cases import make_variables
from tests.keras.common import (
    BACKEND,
    TableSchedule,
    final_weights,
    problem,
    relative_error,
)
from tests.keras.stages.test_finite_check import compiled, eager
from tests.references import weights_of

# A value of 0 among them: Keras must not then leave out what belongs to the momentum.
VALUES = [0.5, 0.0, 0.9, 0.3, 0.8]
RATE, STEPS = 0.05, 5


def at(t):
    return VALUES[t - 1]


def keras_momentum(path, w, g, t, slots):
    slots["m"] = at(t) * slots.get("m", 0) - RATE * g
    return w + slots["m"]


def nesterov(path, w, g, t, slots):
    slots["m"] = at(t) * slots.get("m", 0) - RATE * g
    return w + at(t) * slots["m"] - RATE * g


def decay(path, w, g, t, slots):
    return w * (1 - RATE * at(t)) - RATE * g


def adam_with_decay(path, w, g, t, slots):
    m = slots["m"] = slots.get("m", 0) + (g - slots.get("m", 0)) * 0.1
    v = slots["v"] = slots.get("v", 0) + (g * g - slots.get("v", 0)) * 0.001
    correction = np.sqrt(1 - 0.999**t) / (1 - 0.9**t)
    return w - RATE * (correction * m / (np.sqrt(v) + 1e-7) + at(t) * w)


def adam_with_beta_1(path, w, g, t, slots):
    m = slots["m"] = slots.get("m", 0) + (g - slots.get("m", 0)) * (1 - at(t))
    v = slots["v"] = slots.get("v", 0) + (g * g - slots.get("v", 0)) * 0.001
    correction = np.sqrt(1 - 0.999**t) / (1 - at(t) ** t)
    return w - RATE * correction * m / (np.sqrt(v) + 1e-7)


def torch_momentum(path, w, g, t, slots):
    slots["b"] = at(t) * slots.get("b", 0) + g
    return w - RATE * slots["b"]


def torch_decay(path, w, g, t, slots):
    slots["b"] = 0.9 * slots.get("b", 0) + g + at(t) * w * ("kernel" in path)
    return w - RATE * slots["b"]


SGD = keras.optimizers.SGD
CASES = {
    "momentum": (lambda: SGD(RATE, momentum=0.9), "momentum", keras_momentum),
    "nesterov": (lambda: SGD(RATE, momentum=0.9, nesterov=True), "momentum", nesterov),
    "decay": (lambda: SGD(RATE, weight_decay=0.1), "weight_decay", decay),
    "own decay": (
        lambda: AdamWeightDecay(RATE, weight_decay_rate=0.1),
        "weight_decay",
        adam_with_decay,
    ),
    "beta_1": (lambda: keras.optimizers.Adam(RATE), "beta_1", adam_with_beta_1),
    "own beta_1": (lambda: AdamWeightDecay(RATE), "beta_1", adam_with_beta_1),
    "torch momentum": (lambda: SGDTorch(RATE, momentum=0.9), "momentum", torch_momentum),
    "torch decay": (lambda: SGDTorch(RATE, weight_decay=0.1), "weight_decay", torch_decay),
}


@pytest.mark.parametrize("mode", [eager, compiled])
@pytest.mark.parametrize(("inner", "name", "update"), CASES.values(), ids=CASES)
def test_every_update_sees_the_scheduled_value(mode, inner, name, update):
    initial, gradients = problem(steps=STEPS)
    optimizer = PipelineOptimizer(inner(), schedules={name: TableSchedule(VALUES)})
    variables = make_variables(initial)
    optimizer.build(variables)
    before = optimizer.get_config()
    step = mode(optimizer, variables)
    for gradient in gradients:
        step([keras.ops.convert_to_tensor(gradient[v.path]) for v in variables])
    expected = weights_of(update, initial, gradients)
    # Five steps in float32; Adam's quotient magnifies its rounding.
    assert relative_error({v.path: v.numpy() for v in variables}, expected) < 5e-6
    assert optimizer.get_config() == before


@pytest.mark.parametrize("name", sorted(OPTIMIZERS_CLS))
def test_a_constant_schedule_changes_nothing_in_any_registered_optimizer(name):
    """Over every number that the constructor takes, so that none is missed or breaks the step."""
    initial, gradients = problem(steps=3)
    optimizer = OPTIMIZERS_CLS[name](learning_rate=0.01)
    for hyperparameter in ("momentum", "beta_1", "beta_2", "rho", "epsilon", "weight_decay"):
        value = getattr(optimizer, hyperparameter, None)
        if not isinstance(value, float) or not value:
            continue
        plain = PipelineOptimizer(OPTIMIZERS_CLS[name](learning_rate=0.01))
        scheduled = PipelineOptimizer(
            OPTIMIZERS_CLS[name](learning_rate=0.01),
            schedules={hyperparameter: TableSchedule([value])},
        )
        expected = final_weights(plain, initial, gradients)
        actual = final_weights(scheduled, initial, gradients)
        # The value is rounded to float32: 1 - 0.999 by 6e-5 of itself, its root by half of that.
        assert relative_error(actual, expected) < 5e-5, hyperparameter


def test_groups_that_replace_it_or_lack_it_keep_theirs():
    groups = [
        ParamGroup(match="bias$", hyperparameters={"momentum": 0.5}),
        ParamGroup(match="embeddings", optimizer=keras.optimizers.Adagrad(RATE)),
        ParamGroup(match="norm", learning_rate_multiplier=0.5),
    ]
    optimizer = PipelineOptimizer(
        SGD(RATE, momentum=0.9), param_groups=groups, schedules={"momentum": TableSchedule(VALUES)}
    )
    initial, gradients = problem(steps=STEPS)
    actual = final_weights(optimizer, initial, gradients)

    def update(path, w, g, t, slots):
        momentum = 0.5 if "bias" in path else at(t)
        rate = RATE * (0.5 if "norm" in path else 1)
        slots["m"] = momentum * slots.get("m", 0) - rate * g
        return w + slots["m"]

    expected = weights_of(update, initial, gradients)
    alone = {"embedding/embeddings"}
    adagrad = final_weights(
        PipelineOptimizer(keras.optimizers.Adagrad(RATE)),
        {p: initial[p] for p in alone},
        [{p: g[p] for p in alone} for g in gradients],
    )
    assert relative_error(actual, {**expected, **adagrad}) < 2e-6  # five steps in float32


def test_the_values_now():
    optimizer = PipelineOptimizer(
        SGD(RATE, momentum=0.9), schedules={"momentum": TableSchedule(VALUES)}
    )
    final_weights(optimizer, *problem(steps=2))
    assert float(optimizer.scheduled_values()["momentum"]) == pytest.approx(VALUES[2])
    assert optimizer.momentum == 0.9


def test_the_inner_optimizer_alone_has_the_plain_number():
    inner = AdamWeightDecay(RATE, weight_decay_rate=0.5)
    pipeline = PipelineOptimizer(inner, schedules={"weight_decay_rate": TableSchedule(VALUES)})
    initial, gradients = problem(steps=1)
    final_weights(pipeline, initial, gradients)
    ones = [keras.ops.ones(v.shape) for v in pipeline._trainable_variables]
    before = [keras.ops.convert_to_numpy(v) for v in pipeline._trainable_variables]
    inner.apply(ones, pipeline._trainable_variables)
    for variable, start in zip(pipeline._trainable_variables, before, strict=True):
        assert (keras.ops.convert_to_numpy(variable) != start).all()


def test_a_step_that_fails_leaves_the_plain_number():
    class Failing(SGD):
        def update_step(self, gradient, variable, learning_rate):
            raise RuntimeError("failed")

        _parallel_update_step = update_step

    optimizer = PipelineOptimizer(
        Failing(RATE, momentum=0.9), schedules={"momentum": TableSchedule(VALUES)}
    )
    with pytest.raises(RuntimeError, match="failed"):
        final_weights(optimizer, *problem(steps=1))
    assert type(optimizer.momentum) is float


def test_serialization_keeps_schedules():
    optimizer = PipelineOptimizer(
        SGD(RATE, momentum=0.9), schedules={"momentum": TableSchedule(VALUES)}
    )
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    initial, gradients = problem(steps=STEPS)
    expected = final_weights(optimizer, initial, gradients)
    assert relative_error(final_weights(again, initial, gradients), expected) == 0


@pytest.mark.parametrize(
    ("inner", "name", "error", "message"),
    [
        (lambda: SGD(RATE, momentum=0.9), "momentun", ValueError, "did you mean 'momentum'"),
        (lambda: SGD(RATE), "momentum", ValueError, "other than 0"),
        (lambda: keras.optimizers.AdamW(RATE, weight_decay=0.0), "weight_decay", ValueError, "0"),
        (lambda: SGD(RATE, momentum=0.9), "nesterov", ValueError, "numbers"),
        (lambda: SGD(RATE, momentum=0.9), "learning_rate", ValueError, "learning rate"),
        (lambda: LARS(RATE), "weight_decay", ValueError, "other than 0"),
    ],
)
def test_what_can_not_follow_a_schedule(inner, name, error, message):
    with pytest.raises(error, match=message):
        PipelineOptimizer(inner(), schedules={name: TableSchedule(VALUES)})


def test_a_schedule_is_a_function():
    with pytest.raises(TypeError, match="momentum=0.5"):
        PipelineOptimizer(SGD(RATE, momentum=0.9), schedules={"momentum": 0.5})


@pytest.mark.skipif(BACKEND != "tensorflow", reason="XLA by TensorFlow")
def test_a_compiled_update_follows_the_schedule():
    schedules = {"momentum": TableSchedule(VALUES)}
    initial, gradients = problem(steps=STEPS)
    optimizer = PipelineOptimizer(SGD(RATE, momentum=0.9), schedules=schedules, jit_compile=True)
    expected = weights_of(keras_momentum, initial, gradients)
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < 2e-6
