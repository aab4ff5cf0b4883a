"""The variants of Adafactor against the Adafactors that they are named after."""

import json
from pathlib import Path

import keras
import numpy as np
import pytest

from optimization.optimizers import Adafactor
from optimization.rules.adafactor import VARIANTS, AdafactorConfig
from tests import adafactor_cases
from tests.adafactor_cases import PEER_CASES, RATES
from tests.golden_cases import make_variables
from tests.keras.common import TableSchedule, final_weights, relative_error

GOLDEN = Path(__file__).parent.parent / "golden" / "adafactor.json"
# Two float32 computations of one formula, up to 25 steps; about 4e-7 is what is seen at most.
TOLERANCE = 2e-6
MISSING = "the peers are installed for some of the tests only"


def optimizer(learning_rate=None, **section):
    """Returns the optimizer of a section; its rate is RATES where it takes one."""
    config = AdafactorConfig(section)
    if learning_rate is None and config.own_learning_rate() is None:
        learning_rate = TableSchedule(RATES)
    return Adafactor(learning_rate, **config.arguments())


# One of each sort; the golden figures are of all.
SORTS = ("scalar", "bias", "row", "dense_16", "dense_17", "dense_128", "heads", "torch_conv")


@pytest.fixture(scope="module")
def problem():
    shapes = {p: s for p, s in adafactor_cases.SHAPES.items() if p.split("/")[0] in SORTS}
    return adafactor_cases.inputs(steps=10, shapes=shapes)


# Keras tells of variables without a gradient.
pytestmark = [pytest.mark.filterwarnings("ignore:Gradients do not exist"), pytest.mark.slow]


def without_every_third(gradients, path="dense_17/kernel"):
    """Returns gradients of which one variable has none in every third step."""
    return [
        {p: g for p, g in step.items() if p != path or number % 3 != 1}
        for number, step in enumerate(gradients)
    ]


def trained(optimizer, initial, gradients):
    """Returns the weights after steps in which a variable may have no gradient."""
    variables = make_variables(initial)
    for step in gradients:
        grads = [step.get(v.path) for v in variables]
        tensors = [None if g is None else keras.ops.convert_to_tensor(g) for g in grads]
        optimizer.apply(tensors, variables)
    return {v.path: keras.ops.convert_to_numpy(v) for v in variables}


@pytest.mark.parametrize("name", PEER_CASES)
def test_equals_torch_and_timm(name):
    golden = json.loads(GOLDEN.read_text())
    problem = adafactor_cases.inputs()
    weights = final_weights(optimizer(**adafactor_cases.section(name)), *problem)
    expected = {path: np.array(row) for path, row in golden["weights"][name].items()}
    assert relative_error(adafactor_cases.sample(weights), expected) < TOLERANCE


def run_torch(cls, initial, gradients, rates=None, **arguments):
    torch = pytest.importorskip("torch", reason=MISSING)
    parameters = {p: torch.nn.Parameter(torch.tensor(w)) for p, w in initial.items()}
    theirs = cls(parameters.values(), **arguments)
    for number, step in enumerate(gradients):
        for path, parameter in parameters.items():
            parameter.grad = torch.tensor(step[path]) if path in step else None
        if rates is not None:
            theirs.param_groups[0]["lr"] = rates[number]
        theirs.step()
    return {path: p.detach().numpy() for path, p in parameters.items()}


HF_SETTINGS = {
    "relative, scaled": ({}, {}),
    "relative": ({"scale_parameter": False}, {"multiply_by_parameter_scale": False}),
    "warmup, scaled": ({"warmup_init": True}, {"warmup_init": True}),
    "absolute, scaled": ({"relative_step": False}, {"step_size": "absolute"}),
    "absolute": (
        {"relative_step": False, "scale_parameter": False},
        {"step_size": "absolute", "multiply_by_parameter_scale": False},
    ),
    "momentum, decay": (
        {"beta1": 0.9, "weight_decay": 0.1},
        {"beta1": 0.9, "weight_decay": 0.1},
    ),
    "absolute, momentum, decay": (
        {"relative_step": False, "beta1": 0.5, "weight_decay": 0.1, "clip_threshold": 0.5},
        {"step_size": "absolute", "beta1": 0.5, "weight_decay": 0.1, "clipping_threshold": 0.5},
    ),
    "epsilons": (
        {"relative_step": False, "eps": (1e-2, 0.2), "decay_rate": -0.6},
        {"step_size": "absolute", "epsilon1": 1e-2, "epsilon2": 0.2, "decay_rate": 0.6},
    ),
}


@pytest.mark.parametrize("left_out", [False, True], ids=["", "without a gradient at times"])
@pytest.mark.parametrize(("theirs", "ours"), HF_SETTINGS.values(), ids=HF_SETTINGS)
def test_equals_transformers(theirs, ours, left_out, problem):
    transformers = pytest.importorskip("transformers.optimization", reason=MISSING)
    initial, gradients = problem
    if left_out:
        gradients = without_every_third(gradients)
    rates = None if theirs.get("relative_step", True) else RATES
    arguments = {"lr": None if rates is None else 0.1, **theirs}
    expected = run_torch(transformers.Adafactor, initial, gradients, rates, **arguments)
    actual = trained(optimizer(variant="hf", **ours), initial, gradients)
    assert relative_error(actual, expected) < TOLERANCE


@pytest.mark.parametrize("name", [name for name in PEER_CASES if name.startswith("torch")])
@pytest.mark.parametrize("foreach", [False, True])
def test_equals_the_installed_torch(name, foreach, problem):
    torch = pytest.importorskip("torch", reason=MISSING)
    initial, gradients = problem[0], without_every_third(problem[1])
    _, arguments, section = PEER_CASES[name]
    expected = run_torch(
        torch.optim.Adafactor, initial, gradients, RATES, **arguments, foreach=foreach
    )
    assert relative_error(trained(optimizer(**section), initial, gradients), expected) < TOLERANCE


@pytest.mark.parametrize(
    ("learning_rate", "theirs", "ours"),
    [
        (TableSchedule(RATES), {}, {}),
        (0.3, {}, {}),
        (0.3, {"relative_step": False, "weight_decay": 0.1}, {"weight_decay": 0.1}),
        (
            TableSchedule(RATES),
            {"beta_2_decay": -0.6, "epsilon_1": 1e-2, "epsilon_2": 0.2, "clip_threshold": 0.5},
            {"decay_rate": 0.6, "epsilon1": 1e-2, "epsilon2": 0.2, "clipping_threshold": 0.5},
        ),
    ],
    ids=["schedule", "constant", "decay", "settings"],
)
def test_equals_keras(learning_rate, theirs, ours, problem):
    expected = final_weights(keras.optimizers.Adafactor(learning_rate, **theirs), *problem)
    actual = final_weights(optimizer(learning_rate, variant="keras", **ours), *problem)
    assert relative_error(actual, expected) < TOLERANCE


OPTAX_SETTINGS = {
    "default": ({}, {}),
    "momentum, decay": (
        {"momentum": 0.9, "weight_decay_rate": 0.01, "min_dim_size_to_factor": 16},
        {"beta1": 0.9, "weight_decay": 0.01, "min_dim_size_to_factor": 16},
    ),
    "absolute": (
        {"multiply_by_parameter_scale": False, "clipping_threshold": None, "decay_rate": 0.6},
        {"multiply_by_parameter_scale": False, "clipping_threshold": None, "decay_rate": 0.6},
    ),
    "whole": ({"factored": False, "eps": 1e-2}, {"factored": False, "epsilon1": 1e-2}),
    "small axes": ({"min_dim_size_to_factor": 4}, {"min_dim_size_to_factor": 4}),
}


@pytest.mark.parametrize(("theirs", "ours"), OPTAX_SETTINGS.values(), ids=OPTAX_SETTINGS)
def test_equals_optax(theirs, ours, problem):
    optax = pytest.importorskip("optax", reason=MISSING)
    jax = pytest.importorskip("jax", reason=MISSING)
    initial, gradients = problem
    transformation = optax.adafactor(
        learning_rate=lambda step: jax.numpy.asarray(RATES)[step], **theirs
    )
    params = {path: jax.numpy.asarray(w) for path, w in initial.items()}
    state = transformation.init(params)
    update = jax.jit(transformation.update)
    for step in gradients:
        grads = {path: jax.numpy.asarray(g) for path, g in step.items()}
        updates, state = update(grads, state, params)
        params = optax.apply_updates(params, updates)
    expected = {path: np.asarray(w) for path, w in params.items()}
    actual = final_weights(optimizer(variant="optax", **ours), initial, gradients)
    assert relative_error(actual, expected) < TOLERANCE


def state_bytes(optimizer):
    """Returns the bytes of the state, but for the rate and the count of updates."""
    return sum(
        int(np.prod(v.shape)) * np.dtype(v.dtype).itemsize
        for v in optimizer.variables
        if v is not optimizer.iterations and v is not optimizer._learning_rate
    )


@pytest.mark.parametrize("variant", VARIANTS)
def test_state_is_rows_and_columns_alone(variant):
    shapes = {"a/kernel": (256, 384), "b/bias": (7,)}
    built = optimizer(0.1 if variant not in ("paper", "hf", "timm") else None, variant=variant)
    built.build(make_variables({p: np.zeros(s, "float32") for p, s in shapes.items()}))
    numbers = 256 + 384 + 7
    if built.beta1 is not None:
        numbers += 256 * 384 + 7
    counts = len(shapes) if built.step_count == "per_parameter" else 0
    of_count = np.dtype(built.iterations.dtype).itemsize
    assert state_bytes(built) == 4 * numbers + of_count * counts


def test_the_default_variant_is_what_the_switches_are():
    config = AdafactorConfig()
    assert config.variant == "t5x"
    switches = config.as_dict()
    assert {name: switches[name] for name in VARIANTS["t5x"]} == VARIANTS["t5x"]
    defaults = Adafactor(0.1).get_config()
    assert {name: defaults[name] for name in VARIANTS["t5x"]} == VARIANTS["t5x"]
