"""Schedule-free optimizers: the authors' equations, their package, and how the average is used."""

import json

import keras
import numpy as np
import pytest

from optimization import ConfigError, ConfigWarning, OptimizationConfig, OptimizerFactory
from optimization.optimizers import (
    EvaluateAverages,
    ParamGroup,
    PipelineOptimizer,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
)
from tests.golden_cases import make_variables
from tests.keras.common import (
    BACKEND,
    TableSchedule,
    data,
    problem,
    relative_error,
)

STEPS = 20
RATES = [0.05 * (1 + step % 3) for step in range(STEPS)]
CASES = [
    (kind, switches)
    for kind in ("sgd", "adamw")
    for switches in (
        {},
        {"warmup_steps": 7, "weight_decay": 0.2},
        {"r": 1.5, "weight_lr_power": 1.0, "warmup_steps": 60},
        {"weight_lr_power": 0.0, "interpolation": 0.6},
    )
]
IDS = [f"{kind} {json.dumps(switches)}" for kind, switches in CASES]


def made(kind, rates=None, **switches):
    name = "momentum" if kind == "sgd" else "beta_1"
    if "interpolation" in switches:
        switches[name] = switches.pop("interpolation")
    cls = ScheduleFreeSGD if kind == "sgd" else ScheduleFreeAdamW
    return cls(TableSchedule(RATES) if rates is None else rates, **switches)


def reference(kind, initial, gradients, interpolation=0.9, warmup_steps=0, weight_decay=0.0, r=0.0,
              weight_lr_power=2.0):  # fmt: skip
    """The equations of arXiv:2405.15682, with x written out; float64. Returns y and x."""
    x = {path: value.astype("float64") for path, value in initial.items()}
    z, y = dict(x), dict(x)
    v = dict.fromkeys(x, 0.0)
    largest = total = 0.0
    for t, gradient in enumerate(gradients, start=1):
        rate = RATES[t - 1] * (min(1.0, t / warmup_steps) if warmup_steps else 1.0)
        largest = max(largest, rate)
        weight = t**r * largest**weight_lr_power
        total += weight
        c = weight / total
        for path in gradient:
            g = gradient[path].astype("float64")
            if kind == "adamw":
                v[path] = 0.999 * v[path] + 0.001 * g**2
                g = g / (np.sqrt(v[path] / (1 - 0.999**t)) + 1e-8)
            z[path] = z[path] - rate * (g + weight_decay * y[path])
            x[path] = (1 - c) * x[path] + c * z[path]
            y[path] = (1 - interpolation) * z[path] + interpolation * x[path]
    return y, x


def values(variables):
    return {v.path: v.numpy().copy() for v in variables}


def trained(optimizer, initial, gradients):
    variables = make_variables(initial)
    for gradient in gradients:
        grads = [gradient.get(v.path) for v in variables]
        tensors = [None if g is None else keras.ops.convert_to_tensor(g) for g in grads]
        optimizer.apply(tensors, variables)
    return variables


@pytest.mark.parametrize(("kind", "switches"), CASES, ids=IDS)
def test_it_equals_the_authors_equations(kind, switches):
    initial, gradients = problem(steps=STEPS)
    optimizer = PipelineOptimizer(made(kind, **switches))
    variables = trained(optimizer, initial, gradients)
    y, x = reference(kind, initial, gradients, **switches)
    # Roundings of 20 float32 steps.
    assert relative_error(values(variables), y) < 3e-6
    with optimizer.averaged():
        assert relative_error(values(variables), x) < 3e-6
    assert relative_error(y, x) > 1e-3


@pytest.mark.parametrize(("kind", "switches"), CASES, ids=IDS)
def test_it_equals_the_authors_package(kind, switches):
    torch = pytest.importorskip("torch", reason="PyTorch is installed for some of the tests only")
    schedulefree = pytest.importorskip("schedulefree", reason="the authors' package is not here")
    initial, gradients = problem(steps=STEPS)
    weights = {path: torch.nn.Parameter(torch.tensor(value)) for path, value in initial.items()}
    arguments = {**switches}
    share = arguments.pop("interpolation", 0.9)
    if kind == "sgd":
        theirs = schedulefree.SGDScheduleFree(weights.values(), momentum=share, **arguments)
    else:
        betas = (share, 0.999)
        theirs = schedulefree.AdamWScheduleFree(weights.values(), betas=betas, **arguments)
    theirs.train()
    for gradient, rate in zip(gradients, RATES, strict=True):
        theirs.param_groups[0]["lr"] = rate
        for path, weight in weights.items():
            weight.grad = torch.tensor(gradient[path])
        theirs.step()
    y = {path: weight.detach().numpy().copy() for path, weight in weights.items()}
    theirs.eval()
    x = {path: weight.detach().numpy().copy() for path, weight in weights.items()}
    optimizer = PipelineOptimizer(made(kind, **switches))
    variables = trained(optimizer, initial, gradients)
    # As above; theirs is float32 too.
    assert relative_error(values(variables), y) < 3e-6
    with optimizer.averaged():
        assert relative_error(values(variables), x) < 3e-6


# Keras tells of variables without a gradient.
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("kind", ["sgd", "adamw"])
def test_variables_without_a_gradient_at_first_or_ever(kind):
    initial, gradients = problem(steps=STEPS)
    late, never, *_ = initial
    gradients = [
        {p: g for p, g in step.items() if p != never and not (p == late and number < 3)}
        for number, step in enumerate(gradients)
    ]
    optimizer = PipelineOptimizer(made(kind))
    variables = trained(optimizer, initial, gradients)
    y, x = reference(kind, initial, gradients)
    # As above.
    assert relative_error(values(variables), y) < 3e-6
    np.testing.assert_array_equal(values(variables)[never], initial[never])
    with optimizer.averaged():
        assert relative_error(values(variables), x) < 3e-6
        np.testing.assert_array_equal(values(variables)[never], initial[never])


def test_a_rate_of_zero_gives_no_weight():
    rates = [0.0, 0.0, 0.1, 0.1]
    initial, gradients = problem(steps=4)
    optimizer = PipelineOptimizer(made("sgd", TableSchedule(rates)))
    variables = trained(optimizer, initial, gradients)
    z = x = {path: value.astype("float64") for path, value in initial.items()}
    z = {path: z[path] - 0.1 * gradients[2][path] for path in z}
    x = z  # the first with a weight
    z = {path: z[path] - 0.1 * gradients[3][path] for path in z}
    x = {path: (x[path] + z[path]) / 2 for path in x}
    with optimizer.averaged():
        # float32 roundings of four steps, and of the division by beta.
        assert relative_error(values(variables), x) < 1e-6


def test_the_sum_of_equal_weights_does_not_stall():
    """A sum of a million equal float32 numbers is wrong by percents; their number is exact."""
    optimizer = made("sgd", 0.003)
    variable = keras.Variable(np.zeros(1, "float32"), name="w")
    optimizer.build([variable])
    optimizer._largest_rate.assign(0.003)
    optimizer._sum_of_weights.assign(1_000_000.0)
    optimizer.iterations.assign(1_000_000)
    optimizer.apply([keras.ops.zeros(1)], [variable])
    assert float(keras.ops.convert_to_numpy(optimizer._sum_of_weights)) == 1_000_001.0


def test_swapping_restores_the_weights_bit_for_bit():
    initial, gradients = problem(steps=5)
    optimizer = PipelineOptimizer(made("adamw"))
    variables = trained(optimizer, initial, gradients)
    before = values(variables)
    optimizer.swap()
    assert optimizer.is_swapped()
    assert relative_error(values(variables), before) > 1e-3
    with pytest.raises(RuntimeError, match="swapped"):
        optimizer.apply([keras.ops.ones(v.shape) for v in variables], variables)
    optimizer.swap()
    for path, value in values(variables).items():
        np.testing.assert_array_equal(value, before[path])


def test_weights_loaded_after_build_are_the_start():
    initial, gradients = problem(steps=3)
    optimizer = PipelineOptimizer(made("sgd"))
    variables = make_variables({path: value * 0 for path, value in initial.items()})
    optimizer.build(variables)
    for variable in variables:
        variable.assign(initial[variable.path])
    with optimizer.averaged():
        for path, value in values(variables).items():
            np.testing.assert_array_equal(value, initial[path])
    for gradient in gradients:
        optimizer.apply(
            [keras.ops.convert_to_tensor(gradient[v.path]) for v in variables], variables
        )
    y, x = reference("sgd", initial, gradients)
    # float32 roundings of three steps.
    assert relative_error(values(variables), y) < 1e-6
    with optimizer.averaged():
        assert relative_error(values(variables), x) < 1e-6


@pytest.mark.parametrize("swapped", [False, True])
def test_a_resumed_training_goes_on_as_if_never_stopped(swapped):
    initial, gradients = problem(steps=10)
    whole = trained(PipelineOptimizer(made("adamw")), initial, gradients)
    first = PipelineOptimizer(made("adamw"))
    variables = trained(first, initial, gradients[:6])
    if swapped:
        first.swap()
    saved = {path: v.numpy() for path, v in first.variables_by_path().items()}
    second = PipelineOptimizer.from_config(first.get_config())
    others = make_variables(values(variables))
    second.build(others)
    for path, variable in second.variables_by_path().items():
        variable.assign(saved[path])
    if swapped:
        second.swap()
    for gradient in gradients[6:]:
        second.apply([keras.ops.convert_to_tensor(gradient[v.path]) for v in others], others)
    error = relative_error(values(others), values(whole))
    # In another process y is computed from x and z - x, rounded.
    assert error < 1e-6 if swapped else error == 0


def test_low_precision_trains_through_float32_copies():
    initial, gradients = problem(steps=30)
    optimizer = PipelineOptimizer(made("adamw", 1e-4))
    variables = [
        keras.Variable(value, dtype="bfloat16", name=path.replace("/", "_"))
        for path, value in initial.items()
    ]
    expected = PipelineOptimizer(made("adamw", 1e-4))
    exact = [keras.Variable(v.numpy().astype("float32"), name=v.name) for v in variables]
    for gradient in gradients:
        for each, weights in ((optimizer, variables), (expected, exact)):
            each.apply([keras.ops.convert_to_tensor(g) for g in gradient.values()], weights)
    named = optimizer.variables_by_path()
    for variable, other in zip(variables, exact, strict=True):
        # Steps of 1e-4 next to weights of 0.3, whose own spacing in bfloat16 is 2e-3.
        copy = named[f"master/{variable.path}"].numpy()
        np.testing.assert_allclose(copy, other.numpy(), rtol=0, atol=1e-6)
    before = [v.numpy().copy() for v in variables]
    with optimizer.averaged(), expected.averaged():
        for variable, other in zip(variables, exact, strict=True):
            wanted = np.asarray(keras.ops.convert_to_numpy(keras.ops.cast(other, "bfloat16")))
            # One last bit where float32 roundings meet the middle between two numbers.
            np.testing.assert_allclose(
                variable.numpy().astype("float32"), wanted.astype("float32"), rtol=2.0**-7
            )
    for variable, value in zip(variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_groups_with_their_own_rate_have_their_own_average():
    initial, gradients = problem({"a/kernel": (3, 2), "b/kernel": (3, 2)}, steps=10)
    groups = [ParamGroup(match="^b/", learning_rate_multiplier=0.5)]
    optimizer = PipelineOptimizer(made("sgd", 0.1), param_groups=groups)
    variables = trained(optimizer, initial, gradients)
    alone = PipelineOptimizer(made("sgd", 0.05))
    only = trained(alone, {"b/kernel": initial["b/kernel"]}, gradients)
    # The rate is 0.1 * 0.5 in float32, and 0.05.
    np.testing.assert_allclose(variables[1].numpy(), only[0].numpy(), rtol=1e-5, atol=1e-6)
    with optimizer.averaged(), alone.averaged():
        np.testing.assert_allclose(variables[1].numpy(), only[0].numpy(), rtol=1e-5, atol=1e-6)


def test_only_the_weights_of_schedule_free_groups_are_swapped():
    initial, gradients = problem({"a/kernel": (3, 2), "b/kernel": (3, 2)}, steps=3)
    groups = [ParamGroup(match="^b/", optimizer=made("adamw", 0.1))]
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1), param_groups=groups)
    variables = trained(optimizer, initial, gradients)
    before = values(variables)
    with optimizer.averaged():
        np.testing.assert_array_equal(variables[0].numpy(), before["a/kernel"])
        assert np.abs(variables[1].numpy() - before["b/kernel"]).max() > 1e-3
    assert [row.averaged for row in optimizer.group_table()] == [False, True]


def model():
    result = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)]
    )
    random = np.random.default_rng(1)
    for variable in result.trainable_variables:
        variable.assign(random.normal(size=variable.shape) * 0.5)
    result.compile(PipelineOptimizer(made("adamw", 0.05)), loss="mse")
    return result


ORDER = {"batch_size": 16, "shuffle": False, "verbose": 0}


def test_fit_ends_with_the_averages_and_goes_on_from_the_weights():
    x, y = data()
    whole, parts = model(), model()
    whole.fit(x, y, epochs=4, **ORDER, callbacks=[EvaluateAverages()])
    parts.fit(x, y, epochs=2, **ORDER, callbacks=[EvaluateAverages()])
    assert parts.optimizer.is_swapped()
    parts.fit(x, y, epochs=2, **ORDER, callbacks=[EvaluateAverages()])
    for actual, expected in zip(parts.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)
    plain = model()
    plain.fit(x, y, epochs=4, **ORDER)  # without the callback it ends so too
    for actual, expected in zip(plain.get_weights(), whole.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_validation_in_fit_sees_the_averages():
    x, y = data()
    one = model()
    history = one.fit(
        x, y, epochs=3, validation_data=(x, y), **ORDER, callbacks=[EvaluateAverages()]
    )
    other = model()
    other.fit(x, y, epochs=3, **ORDER)
    for actual, expected in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_array_equal(actual, expected)
    # The same float32 sums over the same batches.
    expected = other.evaluate(x, y, batch_size=16, verbose=0)
    assert history.history["val_loss"][-1] == pytest.approx(expected, rel=1e-6)


def test_a_second_fit_without_the_callback():
    x, y = data()
    one = model()
    one.fit(x, y, **ORDER)
    if BACKEND == "jax":  # nothing can be raised: the weights become y again
        one.fit(x, y, **ORDER)
        assert one.optimizer.is_swapped()
        assert int(one.optimizer.iterations) == 8
    else:
        with pytest.raises(Exception, match="EvaluateAverages"):
            one.fit(x, y, **ORDER)


def test_the_callback_needs_an_average():
    x, y = data()
    one = model()
    one.compile("sgd", loss="mse")
    with pytest.raises(TypeError, match="`EvaluateAverages` needs an optimizer that averages"):
        one.fit(x, y, callbacks=[EvaluateAverages()], verbose=0)


@pytest.mark.parametrize(
    ("switches", "named"),
    [
        ({"interpolation": 0.0}, "(momentum|beta_1): must be > 0"),
        ({"interpolation": 1.0}, "(momentum|beta_1): must be < 1"),
        ({"warmup_steps": -1}, "warmup_steps: must be >= 0"),
        ({"r": -1.0}, "r: must be >= 0"),
        ({"weight_lr_power": -1.0}, "weight_lr_power: must be >= 0"),
    ],
)
def test_wrong_arguments(switches, named):
    for kind in ("sgd", "adamw"):
        with pytest.raises(ValueError, match=named):
            made(kind, 0.1, **switches)


CONSTANT = {"type": "constant", "constant": {"learning_rate": 0.1}}
COSINE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 100}}


def config(section=None, rate=CONSTANT, **more):
    optimizer = {"type": "schedule_free_sgd", "schedule_free_sgd": section or {}}
    return OptimizationConfig({"optimizer": optimizer, "learning_rate": rate, **more})


def test_a_config_builds_it():
    section = {"momentum": 0.8, "warmup_steps": "10%", "r": 1.0, "weight_decay": 0.1}
    factory = OptimizerFactory(config(section), train_steps=200)
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    inner = optimizer.optimizer
    assert (inner.momentum, inner.warmup_steps, inner.r, inner.weight_decay) == (0.8, 20, 1.0, 0.1)
    assert optimizer.averages_weights
    assert optimizer.ema is None


@pytest.mark.parametrize(
    ("made_config", "message"),
    [
        (lambda: config(ema={}), "ema: `ScheduleFreeSGD` averages the weights by itself"),
        (lambda: config({"use_ema": True}), "use_ema: the method averages by itself"),
        (
            lambda: config(
                {"warmup_steps": 5},
                warmup={"type": "linear", "linear": {"warmup_steps": 5}},
            ),
            "schedule_free_sgd.warmup_steps: there is a `warmup` section too",
        ),
        (lambda: config({"momentum": 0.0}), "momentum: must be > 0"),
        (lambda: config(schedules={"momentum": CONSTANT}), "has no number of that name"),
    ],
)
def test_contradictions(made_config, message):
    with pytest.raises(ConfigError, match=message):
        OptimizerFactory(made_config())


def test_a_falling_rate_is_a_warning():
    with pytest.warns(ConfigWarning, match="learning_rate.type: falls"):
        config(rate=COSINE).validate()
    warmup = {"type": "linear", "linear": {"warmup_steps": 5}}
    assert config(warmup=warmup).validate() == []


def test_a_rate_that_falls_over_the_length_of_the_training_is_a_warning():
    unsized = config(rate={"type": "cosine", "cosine": {"initial_learning_rate": 0.1}})
    with pytest.warns(ConfigWarning, match="learning_rate.type: falls"):
        factory = OptimizerFactory(unsized, train_steps=100)
    OptimizerFactory(factory.config)  # no second one, which would be an error here


def test_an_average_of_another_kind_is_an_error():
    with pytest.raises(ValueError, match="`ema` must be None with a schedule-free optimizer"):
        PipelineOptimizer(made("sgd", 0.1), ema={})
