import keras
import numpy as np
import pytest

from optimization.optimizers import Adafactor, ParamGroup, PipelineOptimizer
from optimization.rules.adafactor import AdafactorConfig
from optimization.rules.adafactor_formula import axes_to_factor
from tests.golden_cases import make_variable, make_variables
from tests.keras.common import (
    BACKEND,
    STEPS,
    TableSchedule,
    final_weights,
    problem,
    relative_error,
)
from tests.references import weights_of
from tests.references.adafactor import formula

pytestmark = pytest.mark.slow

# One of them above 1 / sqrt(t), so that a cap shows.
RATES = [(0.02, 0.04, 0.9, 0.08, 0.1)[step % 5] for step in range(STEPS)]
TENSORS = {
    "one/bias": (9,),
    "two/kernel": (8, 6),
    "three/kernel": (4, 9, 5),
    "four/kernel": (3, 2, 7, 6),
    "narrow/kernel": (9, 2),
    "square/kernel": (6, 6),
    "torch_conv/kernel": (6, 5, 2, 8),
}
SETTINGS = {
    "default": {},
    "absolute": {"multiply_by_parameter_scale": False},
    "momentum": {"beta1": 0.8},
    "unclipped": {"clipping_threshold": None, "decay_rate": 0.6},
    "whole": {"factored": False},
    "decay": {"weight_decay": 0.01, "beta1": 0.5, "clipping_threshold": 0.5},
    "epsilons": {"epsilon1": 1e-3, "epsilon2": 0.5},
    "capped": {"step_size": "capped"},
    "relative": {"step_size": "relative"},
    "warmup": {"step_size": "relative", "epsilon2": 1e3, "warmup_init": True},
    "clamp": {"epsilon1": 0.3, "epsilon1_mode": "clamp"},
    "last two": {"factored_axes": "last_two"},
    "cap of the decay": {"beta_2_cap": 0.4},
    "timm's axes": {"factored_axes": "timm"},
    "momentum of the update": {"beta1": 0.9, "momentum_of": "update"},
    "decay by the rate": {"weight_decay": 0.2, "weight_decay_kind": "learning_rate"},
    "decay by the step": {"weight_decay": 0.2, "weight_decay_kind": "step_size"},
    "capped, decay by the rate first": {
        "step_size": "capped",
        "weight_decay": 0.9,
        "weight_decay_kind": "learning_rate",
        "weight_decay_first": True,
    },
    "decay first": {"weight_decay": 0.1, "weight_decay_first": True},
}


def reference(**switches):
    return formula(lambda t: RATES[t - 1], **switches)


def ours(initial, gradients, **settings):
    rate = None if settings.get("step_size") == "relative" else TableSchedule(RATES)
    return final_weights(Adafactor(rate, **settings), initial, gradients)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_equals_the_formula(settings):
    settings = {"min_dim_size_to_factor": 4, **settings}
    initial, gradients = problem(TENSORS)
    expected = weights_of(reference(**settings), initial, gradients)
    # 10 float32 steps; the powers and roots of the second moment round at about 1e-7 each.
    assert relative_error(ours(initial, gradients, **settings), expected) < 2e-6


@pytest.mark.parametrize("name", [name for name in SETTINGS if name != "default"])
def test_each_switch_changes_the_weights(name):
    # Else the test above would not tell a switch from one that does nothing.
    initial, gradients = problem(TENSORS, steps=4)
    settings = {"min_dim_size_to_factor": 4, **SETTINGS[name]}
    *_, changed = settings
    usual = {key: value for key, value in settings.items() if key != changed}
    actual = ours(initial, gradients, **settings)
    assert relative_error(actual, ours(initial, gradients, **usual)) > 1e-4


def test_offset_holds_the_first_decay_until_it_is_passed():
    settings = {"min_dim_size_to_factor": 4, "step_offset": 4}
    initial, gradients = problem(TENSORS)
    expected = weights_of(reference(**settings), initial, gradients)
    assert relative_error(ours(initial, gradients, **settings), expected) < 2e-6


def test_fine_tuning_from_the_offset_decays_as_from_the_start():
    initial, gradients = problem(TENSORS)
    expected = final_weights(Adafactor(0.1, min_dim_size_to_factor=4), initial, gradients)
    later = Adafactor(0.1, min_dim_size_to_factor=4, step_offset=1000)
    later.iterations.assign(1000)
    assert relative_error(final_weights(later, initial, gradients), expected) == 0


@pytest.mark.parametrize("scale", [1e6, 1e12, 0.0])
@pytest.mark.parametrize("name", ["default", "clamp", "momentum"])
def test_rows_without_a_gradient_beside_large_ones(name, scale):
    # As of a table's entries that no example had; the quotients are below float32's range.
    initial, gradients = problem(TENSORS)
    for step in gradients:
        for gradient in step.values():
            gradient *= np.float32(scale)
            gradient[1] = 0
            gradient[..., 1] = 0
    settings = {"min_dim_size_to_factor": 4, **SETTINGS[name]}
    expected = weights_of(reference(**settings), initial, gradients)
    # As above.
    assert relative_error(ours(initial, gradients, **settings), expected) < 2e-6


@pytest.mark.parametrize("patterns", ["kernel", ["two", "kernel"]])
def test_included_patterns_alone_decay(patterns):
    settings = {"min_dim_size_to_factor": 4, "weight_decay": 0.05}
    initial, gradients = problem(TENSORS)
    update = reference(**settings, decays=lambda path: "kernel" in path)
    expected = weights_of(update, initial, gradients)
    actual = ours(initial, gradients, **settings, include_in_weight_decay=patterns)
    assert relative_error(actual, expected) < 2e-6


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((200,), None),
        ((128, 300), (1, 0)),
        ((300, 128), (0, 1)),
        ((127, 300), None),
        ((3, 3, 128, 256), (3, 2)),
        ((2, 512, 8, 128), (1, 3)),
        ((128, 128), (1, 0)),
    ],
)
def test_the_two_largest_axes_are_factored(shape, axes):
    assert axes_to_factor(shape, "two_largest", 128) == axes


def test_memory_is_sublinear_where_factored():
    shapes = {"large/kernel": (300, 200), "conv/kernel": (3, 130, 140), "small/bias": (7,)}
    variables = make_variables({path: np.zeros(s, "float32") for path, s in shapes.items()})
    optimizer = Adafactor()
    optimizer.build(variables)
    sizes = sorted(int(np.prod(v.shape)) for v in optimizer.variables)
    # Iterations and learning rate; the bias; rows and columns of each kernel.
    assert sizes == sorted([1, 1, 7, 300, 200, 3 * 130, 3 * 140])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"beta1": 1.0}, "beta1"),
        ({"decay_rate": 0.0}, "decay_rate"),
        ({"clipping_threshold": 0.0}, "clipping_threshold"),
        ({"include_in_weight_decay": "("}, r"include_in_weight_decay\[0\]"),
    ],
)
def test_wrong_arguments(arguments, named):
    with pytest.raises(ValueError, match=f"^{named}: "):
        Adafactor(**arguments)


def test_config_round_trip():
    optimizer = Adafactor(
        0.1, False, False, 0.9, 0.7, 3, None, 16, 1e-20, 1e-2, 0.01, "kernel", name="mine"
    )
    config = optimizer.get_config()
    assert config["weight_decay"] == 0.01
    assert Adafactor.from_config(config).get_config() == config


def paper(relative_step, epsilon_1=1e-30, epsilon_2=1e-3, d=1.0):
    """Returns algorithms 4 and 5 of the paper with the settings of algorithm 6, as printed."""

    def update(path, x, g, t, slots):
        beta_2t = 1 - t**-0.8
        alpha_t = max(epsilon_2, np.sqrt((x**2).mean())) * relative_step(t)
        squares = g**2 + epsilon_1
        if g.ndim == 2:
            n, m = g.shape
            slots["r"] = beta_2t * slots.get("r", 0) + (1 - beta_2t) * squares @ np.ones(m)
            slots["c"] = beta_2t * slots.get("c", 0) + (1 - beta_2t) * np.ones(n) @ squares
            v_hat = np.outer(slots["r"], slots["c"]) / (np.ones(n) @ slots["r"])
        else:
            v_hat = slots["v"] = beta_2t * slots.get("v", 0) + (1 - beta_2t) * squares
        u = g / np.sqrt(v_hat)
        return x - alpha_t * u / max(1, np.sqrt((u**2).mean()) / d)

    return update


def test_the_paper_as_printed():
    section = AdafactorConfig(variant="paper")
    shapes = {path: shape for path, shape in TENSORS.items() if len(shape) <= 2}
    initial, gradients = problem(shapes)
    expected = weights_of(paper(lambda t: min(1e-2, t**-0.5)), initial, gradients)
    actual = final_weights(Adafactor(**section.arguments()), initial, gradients)
    assert relative_error(actual, expected) < 2e-6


def test_the_default_is_the_paper_with_a_learning_rate_of_ones_own():
    # T5X's is, where no axis is too small.
    shapes = {path: shape for path, shape in TENSORS.items() if len(shape) <= 2}
    initial, gradients = problem(shapes)
    expected = weights_of(paper(lambda t: RATES[t - 1]), initial, gradients)
    actual = ours(initial, gradients, min_dim_size_to_factor=1)
    assert relative_error(actual, expected) < 2e-6


def steps_with_gaps(optimizer, initial, gradients, absent):
    """Returns the weights where one variable has no gradient in the steps `absent`."""
    variables = make_variables(initial)
    for number, step in enumerate(gradients):
        grads = [keras.ops.convert_to_tensor(step[v.path]) for v in variables]
        if number in absent:
            grads[1] = None
        optimizer.apply(grads, variables)
    return {v.path: keras.ops.convert_to_numpy(v) for v in variables}


# Keras tells of variables without a gradient.
@pytest.mark.filterwarnings("ignore:Gradients do not exist")
@pytest.mark.parametrize("wrapped", [False, True])
@pytest.mark.parametrize("step_size", ["relative", "capped"])
def test_steps_count_per_parameter_or_for_all(wrapped, step_size):
    shapes = {"always/kernel": (5, 6), "sometimes/kernel": (6, 5)}
    initial, gradients = problem(shapes)
    absent = {0, 3, 4, 8}
    present = [g for number, g in enumerate(gradients) if number not in absent]

    def make(step_count):
        inner = Adafactor(
            None if step_size == "relative" else 2.0,
            min_dim_size_to_factor=1,
            step_size=step_size,
            warmup_init=step_size == "relative",
            multiply_by_parameter_scale=False,
            step_count=step_count,
        )
        return PipelineOptimizer(inner, global_clipnorm=1e9) if wrapped else inner

    own = steps_with_gaps(make("per_parameter"), initial, gradients, absent)
    # As if the steps without a gradient had not been.
    without = final_weights(make("per_parameter"), initial, present)
    assert relative_error(
        {"w": own["sometimes/kernel"]}, {"w": without["sometimes/kernel"]}
    ) == pytest.approx(0, abs=1e-7)
    # The other one is not concerned.
    shared = steps_with_gaps(make("global"), initial, gradients, absent)
    np.testing.assert_allclose(shared["always/kernel"], own["always/kernel"], atol=1e-7)
    moved = np.abs(own["sometimes/kernel"] - initial["sometimes/kernel"]).max()
    difference = np.abs(shared["sometimes/kernel"] - own["sometimes/kernel"]).max()
    assert difference > 0.05 * moved


@pytest.mark.parametrize("learning_rate", [0.1, TableSchedule([0.1])])
def test_a_relative_step_takes_no_learning_rate(learning_rate):
    with pytest.raises(ValueError, match='must be None with step_size="relative"'):
        Adafactor(learning_rate, step_size="relative")


def test_a_relative_step_is_the_learning_rate_that_is_seen():
    optimizer = Adafactor(step_size="relative", warmup_init=True)
    optimizer.iterations.assign(2499)
    assert float(optimizer.learning_rate) == pytest.approx(2.5e-3)
    again = Adafactor.from_config(optimizer.get_config())
    again.iterations.assign(99)
    assert float(again.learning_rate) == pytest.approx(1e-4)


def test_relative_steps_are_multiplied_for_a_group():
    section = AdafactorConfig(variant="hf", warmup_init=False).arguments()
    initial, gradients = problem({"a/kernel": (5, 6), "b/kernel": (5, 6)}, steps=1)
    for step_count in ("global", "per_parameter"):
        groups = [ParamGroup(match="b/", learning_rate_multiplier=0.25)]
        inner = Adafactor(**{**section, "step_count": step_count})
        weights = final_weights(
            PipelineOptimizer(inner, param_groups=groups),
            dict.fromkeys(initial, initial["a/kernel"]),
            [dict.fromkeys(initial, gradients[0]["a/kernel"])],
        )
        moved = {path: w - initial["a/kernel"] for path, w in weights.items()}
        # Steps of 1e-3 on weights of 1 keep four digits.
        np.testing.assert_allclose(moved["b/kernel"], moved["a/kernel"] / 4, atol=2e-7)
        assert np.abs(moved["a/kernel"]).max() > 1e-3


@pytest.mark.skipif(BACKEND == "jax", reason="JAX has no float64 unless it is told to")
def test_float64_weights_are_computed_in_float64():
    initial = {"a/kernel": np.full((3, 4), 0.1)}
    variable = make_variable("a/kernel", initial["a/kernel"], dtype="float64")
    optimizer = Adafactor(**AdafactorConfig(variant="torch").arguments())
    gradient = np.full((3, 4), 1e-12)
    optimizer.apply([keras.ops.convert_to_tensor(gradient, "float64")], [variable])
    # u = g / max(sqrt(V), eps) is 1 with float64's eps of 2e-16, with float32's it is 1e-5. The
    # rate is 0.001, of which float32 keeps 7 digits, and the scale 0.1.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(variable), 0.1 - 0.001 * 0.1, rtol=1e-7)


@pytest.mark.parametrize("epsilon1_mode", ["added", "clamp"])
def test_every_number_may_follow_a_schedule(epsilon1_mode):
    numbers = {
        "beta1": 0.5,
        "decay_rate": 0.6,
        "clipping_threshold": 0.5,
        "epsilon1": 0.25,
        "epsilon2": 0.5,
        "weight_decay": 0.125,
        "beta_2_cap": 0.75,
    }
    switches = {
        "epsilon1_mode": epsilon1_mode,
        "min_dim_size_to_factor": 4,
        "weight_decay_kind": "step_size",
    }
    initial, gradients = problem(TENSORS, steps=3)
    expected = ours(initial, gradients, **switches, **numbers)
    # Other numbers than those of the schedules: what counts are the schedules'.
    inner = Adafactor(
        TableSchedule(RATES), **switches, **{name: v / 2 for name, v in numbers.items()}
    )
    schedules = {name: TableSchedule([value]) for name, value in numbers.items()}
    actual = final_weights(PipelineOptimizer(inner, schedules=schedules), initial, gradients)
    # Float32 numbers in place of Python's, three steps.
    assert relative_error(actual, expected) < 1e-6


@pytest.mark.parametrize("step_count", ["global", "per_parameter"])
def test_steps_that_float32_does_not_have(step_count):
    late = 2**24 + 1
    optimizer = Adafactor(0.1, step_count=step_count, step_offset=late)
    variable = make_variable("w", np.ones(3, "float32"))
    optimizer.build([variable])
    counts = getattr(optimizer, "_counts", None)
    for count in counts or [optimizer.iterations]:
        count.assign(late)
    values = []
    for gradient in (1.0, 3.0, 2.0):
        optimizer.apply([gradient * keras.ops.ones(3)])
        values.append(float(optimizer._velocities[0][0]))
    # The shares of the new square are 1, 2^-0.8 and 3^-0.8, as from step 1 on.
    expected, v = [], 0.0
    for t, gradient in enumerate((1.0, 3.0, 2.0), start=1):
        v += (gradient**2 - v) * t**-0.8
        expected.append(v)
    np.testing.assert_allclose(values, expected, rtol=1e-6)
    assert int((counts or [optimizer.iterations])[0]) == late + 3
