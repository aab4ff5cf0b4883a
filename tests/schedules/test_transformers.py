import json

import numpy as np
import pytest

from optimization import ConfigError, OptimizationConfig, OptimizerFactory
from optimization.schedules import LR_CLS, curve
from optimization.schedules.keras_schedules import build_schedule
from tests.golden_cases import GOLDEN
from tests.schedules.common import FLOAT32, keras_values, lr_config, rate, warmup_config

STORED = json.loads((GOLDEN / "transformers_schedules.json").read_text())
RATE = STORED["rate"]
CASES = [
    pytest.param(
        case,
        id="-".join([case["type"], str(case["num_warmup_steps"]), str(case["num_training_steps"])])
        + str(list(case["settings"].values())),
    )
    for case in STORED["cases"]
]
# Far past the end theirs takes the cosine of up to 1e5: its rounding shifts the phase by 1e-11.
FLOAT64 = {"rtol": 1e-12, "atol": 1e-11 * RATE}


def config_of(case):
    name = f"hf_{case['type']}"
    given = {"initial_learning_rate": RATE, **case["settings"]}
    for length in ("num_warmup_steps", "num_training_steps"):
        if length in LR_CLS.config_class(name).field_names():
            given[length] = case[length]
    if "num_stable_steps" in given:
        given["num_training_steps"] = None
    if not case["num_warmup_steps"]:  # a config refuses what is not used
        given = {k: v for k, v in given.items() if k not in ("warmup_type", "warmup_lr_rate")}
    return LR_CLS.config_class(name)(given)


@pytest.mark.parametrize("case", CASES)
def test_the_curve_is_that_of_transformers(case):
    expected = np.multiply(RATE, case["factors"])
    np.testing.assert_allclose(rate(config_of(case), case["steps"]), expected, **FLOAT64)


@pytest.mark.parametrize("case", CASES)
def test_the_keras_schedule_is_that_of_transformers(case):
    schedule = build_schedule(config_of(case))
    if isinstance(schedule, float):
        assert case["type"] == "constant"
        assert set(case["factors"]) == {schedule / RATE}
        return
    # Past the end, waves that are no whole numbers of steps lose digits with each wave.
    near = np.less_equal(case["steps"], 2 * case["num_training_steps"])
    actual = keras_values(schedule, np.array(case["steps"])[near])
    expected = RATE * np.array(case["factors"])[near]
    # Float32 rounds where a cosine ends near 0: relative to a tenth of the highest rate there.
    np.testing.assert_allclose(actual, expected, rtol=8 * FLOAT32, atol=0.8 * FLOAT32 * RATE)


@pytest.mark.parametrize("case", CASES)
def test_the_installed_transformers_computes_the_same(case):
    torch = pytest.importorskip("torch", reason="PyTorch is installed for some of the tests only")
    transformers = pytest.importorskip(
        "transformers", minversion="5", reason="transformers is installed for some tests only"
    )
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=RATE)
    stable = "num_stable_steps" in case["settings"]
    theirs = transformers.get_scheduler(
        case["type"],
        optimizer,
        num_warmup_steps=case["num_warmup_steps"],
        num_training_steps=None if stable else case["num_training_steps"],
        scheduler_specific_kwargs=case["settings"],
    )
    expected = [RATE * theirs.lr_lambdas[0](step) for step in case["steps"]]
    np.testing.assert_allclose(rate(config_of(case), case["steps"]), expected, **FLOAT64)


def test_the_golden_cases_have_every_type_that_follows_no_metric():
    types = {f"hf_{case['type']}" for case in STORED["cases"]}
    followers = {"hf_reduce_lr_on_plateau", "hf_greedy"}
    assert types == {name for name in LR_CLS if name.startswith("hf_")} - followers


def test_a_restart_is_at_its_step():
    config = lr_config(
        "hf_cosine_with_restarts",
        initial_learning_rate=RATE,
        num_training_steps=49,
        num_cycles=49,
    )
    # In theirs 49 * (1 / 49) is below 1.
    np.testing.assert_array_equal(rate(config, range(49)), np.full(49, RATE))


def test_the_length_is_that_of_the_training_with_the_warmup_in_it():
    config = OptimizationConfig(
        {
            "optimizer": {"type": "sgd"},
            "learning_rate": {
                "type": "hf_linear",
                "hf_linear": {"initial_learning_rate": 1.0, "num_warmup_steps": "10%"},
            },
        }
    )
    factory = OptimizerFactory(config, train_steps=200)
    values = factory.learning_rate_curve([19, 20, 110, 200])
    np.testing.assert_allclose(values, [0.95, 1.0, 0.5, 0.0], rtol=1e-12)
    assert factory.config.learning_rate.get().num_training_steps == 200


@pytest.mark.parametrize(
    ("name", "settings", "field", "message"),
    [
        ("hf_linear", {"num_warmup_steps": 101}, "num_warmup_steps", "<= `num_training_steps` 100"),
        ("hf_polynomial", {"lr_end": 1.0}, "lr_end", "< `initial_learning_rate`"),
        ("hf_cosine_with_min_lr", {}, "min_lr", "exactly one"),
        ("hf_cosine_with_min_lr", {"min_lr": 0.01, "min_lr_rate": 0.1}, "min_lr", "exactly one"),
        ("hf_cosine_with_min_lr", {"min_lr": 2.0}, "min_lr", "<= `initial_learning_rate`"),
        (
            "hf_warmup_stable_decay",
            {"num_decay_steps": 101},
            "num_training_steps",
            "sum of its parts, 101",
        ),
        (
            "hf_warmup_stable_decay",
            {"num_decay_steps": 10, "num_training_steps": None},
            "num_stable_steps",
            "needs a number",
        ),
        (
            "hf_cosine_warmup_with_min_lr",
            {"min_lr": 0.01, "warmup_lr_rate": 0.1},
            "warmup_lr_rate",
            "needs `num_warmup_steps` > 0",
        ),
        (
            "hf_warmup_stable_decay",
            {"num_decay_steps": 10, "warmup_type": "cosine"},
            "warmup_type",
            "needs `num_warmup_steps` > 0",
        ),
        (
            "hf_warmup_stable_decay",
            {"num_decay_steps": 10, "decay_type": "linear", "num_cycles": 1.0},
            "num_cycles",
            "needs `decay_type: cosine`",
        ),
    ],
)
def test_contradictions_are_errors(name, settings, field, message):
    config = LR_CLS.config_class(name)(
        {"initial_learning_rate": 1.0, "num_training_steps": 100, **settings}
    )
    with pytest.raises(ConfigError, match=message) as caught:
        config.validate()
    assert [problem.path for problem in caught.value.problems] == [field]


def test_parts_that_end_early_leave_the_least_rate():
    config = lr_config(
        "hf_warmup_stable_decay",
        initial_learning_rate=1.0,
        num_training_steps=100,
        num_decay_steps=10,
        num_stable_steps=20,
        min_lr_ratio=0.25,
    )
    assert rate(config, [20, 30, 31, 99]) == [1.0, 0.25, 0.25, 0.25]


@pytest.mark.parametrize("name", [name for name in LR_CLS if name.startswith("hf_")])
def test_two_warmups_are_an_error(name):
    if "num_warmup_steps" not in LR_CLS.config_class(name).field_names():
        pytest.skip("it has no warmup of its own")
    config = lr_config(name, num_warmup_steps=10)
    warmup = warmup_config("linear", warmup_steps=20)
    with pytest.raises(ConfigError, match="num_warmup_steps: .*use one"):
        curve(config, warmup, [0])
    nothing = warmup_config("linear", warmup_steps=0)
    assert curve(config, nothing, [5]) == curve(config, None, [5])
    assert curve(config.replace(num_warmup_steps=0), warmup, [20]) > 0
