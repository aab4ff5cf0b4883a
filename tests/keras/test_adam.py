import json

import keras
import numpy as np
import pytest

from optimization import ConfigError, OptimizationConfig, OptimizerFactory
from optimization.optimizers import Adam, AdamWeightDecay, PipelineOptimizer
from tests.golden_cases import GOLDEN
from tests.keras.common import (
    TableSchedule,
    final_weights,
    problem,
    relative_error,
)

BETA_1, BETA_2, EPSILON, DECAY = 0.85, 0.99, 1e-2, 0.3
SMALL = {"dense/kernel": (6, 5), "dense/bias": (5,)}


def test_the_default_is_keras_adam():
    initial, gradients = problem()
    arguments = {"epsilon": EPSILON, "amsgrad": True, "weight_decay": 0.1}
    expected = final_weights(keras.optimizers.Adam(0.01, **arguments), initial, gradients)
    actual = final_weights(Adam(0.01, **arguments), initial, gradients)
    # Keras computes 1 - beta^t in float32, which rounds it by up to 6e-5 of its value at step 1.
    assert relative_error(actual, expected) < 3e-6


@pytest.mark.parametrize("amsgrad", [False, True])
@pytest.mark.parametrize(("decay", "name"), [(0.0, "Adam"), (DECAY, "AdamW")])
def test_the_corrected_form_is_that_of_torch(amsgrad, decay, name):
    torch = pytest.importorskip("torch", reason="PyTorch is installed for some of the tests only")
    initial, gradients = problem()
    weights = {path: torch.nn.Parameter(torch.tensor(value)) for path, value in initial.items()}
    theirs = getattr(torch.optim, name)(
        weights.values(),
        lr=0.01,
        betas=(BETA_1, BETA_2),
        eps=EPSILON,
        weight_decay=decay,
        amsgrad=amsgrad,
    )
    for gradient in gradients:
        for path, weight in weights.items():
            weight.grad = torch.tensor(gradient[path])
        theirs.step()
    ours = AdamWeightDecay(
        0.01,
        BETA_1,
        BETA_2,
        EPSILON,
        amsgrad,
        weight_decay_rate=decay,
        epsilon_placement="corrected",
    )
    expected = {path: weight.detach().numpy() for path, weight in weights.items()}
    # Both are float32; PyTorch computes the bias corrections in float64.
    assert relative_error(final_weights(ours, initial, gradients), expected) < 3e-6


def _golden():
    with np.load(GOLDEN / "transformers_adamw.npz") as stored:
        return dict(stored)


FIGURES = _golden()
PATHS = [name.removeprefix("initial|") for name in FIGURES if name.startswith("initial|")]
CASES = sorted({name.split("|")[0] for name in FIGURES if name.startswith("{")})


@pytest.mark.parametrize("case", CASES)
def test_updates_equal_those_of_transformers_adamw(case):
    settings = json.loads(case)
    optimizer = AdamWeightDecay(
        TableSchedule(FIGURES["rates"].tolist()),
        0.85,
        0.99,
        settings["eps"],
        weight_decay_rate=settings["weight_decay"],
        correct_bias=settings["correct_bias"],
        weight_decay_order="after",
    )
    initial = {path: FIGURES[f"initial|{path}"] for path in PATHS}
    gradients = [{path: FIGURES[f"gradients|{path}"][step] for path in PATHS} for step in range(25)]
    expected = {path: FIGURES[f"{case}|{path}"] for path in PATHS}
    # Theirs is float64; 25 float32 steps, whose bias corrections are rounded at 1e-5 at first.
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < 5e-6


def test_the_golden_cases_cover_the_switches():
    assert len(CASES) == 6
    assert {json.loads(case)["correct_bias"] for case in CASES} == {True, False}


@pytest.mark.parametrize(
    "wrong",
    [
        {"epsilon_placement": "inside"},
        {"epsilon_placement": "corrected", "correct_bias": False},
    ],
)
def test_what_makes_no_sense_is_refused(wrong):
    with pytest.raises(ValueError, match="epsilon_placement"):
        Adam(**wrong)
    with pytest.raises(ConfigError, match=r"adam\.epsilon_placement"):
        OptimizationConfig({"optimizer": {"type": "adam", "adam": wrong}}).validate()


def test_an_unknown_order_is_refused():
    with pytest.raises(ValueError, match="weight_decay_order"):
        AdamWeightDecay(weight_decay_order="never")


@pytest.mark.parametrize("kind", ["adam", "adam_experimental", "adamw", "adamw_experimental"])
def test_a_config_reaches_the_switches(kind):
    config = {
        "optimizer": {"type": kind, kind: {"epsilon": EPSILON, "epsilon_placement": "corrected"}},
        "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.01}},
    }
    factory = OptimizerFactory(OptimizationConfig(config))
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    initial, gradients = problem(SMALL, steps=3)
    if kind.startswith("adamw"):  # their sections clip by default
        gradients = [{path: 0.01 * g for path, g in step.items()} for step in gradients]
    plain = Adam(0.01, epsilon=EPSILON, epsilon_placement="corrected")
    expected = final_weights(plain, initial, gradients)
    assert relative_error(final_weights(optimizer, initial, gradients), expected) == 0


def test_an_optimizer_saved_by_an_older_version_loads():
    config = AdamWeightDecay(weight_decay_rate=0.1).get_config()
    for name in ("correct_bias", "epsilon_placement", "weight_decay_order"):
        del config[name]
    saved = {
        "module": "optimization.optimizers.adam_weight_decay",
        "class_name": "AdamWeightDecay",
        "registered_name": "optimization>AdamWeightDecay",
        "config": config,
    }
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == AdamWeightDecay(weight_decay_rate=0.1).get_config()


def test_the_state_has_the_names_of_keras_adam():
    # So that a checkpoint of an `adam` that was Keras' own restores.
    initial, gradients = problem(SMALL, steps=1)
    ours = PipelineOptimizer(Adam(amsgrad=True))
    theirs = PipelineOptimizer(keras.optimizers.Adam(amsgrad=True))
    for optimizer in (ours, theirs):
        final_weights(optimizer, initial, gradients)
    assert list(ours.variables_by_path()) == list(theirs.variables_by_path())
