import numpy as np
import pytest

from optimization import ConfigError, OptimizationConfig, OptimizerFactory
from optimization.configs.durations import TrainingLength
from optimization.plots.curves import Mark, lines_of
from tests.references import averages

COSINE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}}
BASE = {
    "optimizer": {"type": "adamw", "adamw": {"weight_decay_rate": 0.05}},
    "learning_rate": COSINE,
    "warmup": {"type": "linear", "linear": {"warmup_steps": 10}},
}
GROUPS = [
    {"match": "bias$", "name": "biases", "learning_rate_multiplier": 2.0, "weight_decay": 0.0},
    {"match": "^head", "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.7}}},
    {"ndim": [1], "freeze": True},
    {"layer_type": "Embedding", "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}}},
]
STEPS = [0, 1, 9, 10, 11, 50, 99, 100]


def sized(*layers, train_steps=100, **sections):
    config = OptimizationConfig({**BASE, **sections})
    return config.sized(TrainingLength(train_steps))[0]


def values(config, *args, **kwargs):
    return {line.name: line.function(STEPS) for line in lines_of(config, *args, **kwargs)}


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"lr_scaling": {"base_batch_size": 256, "global_batch_size": 1024}},
        {"learning_rate": {"type": "linear", "linear": {"initial_learning_rate": 0.5,
                                                        "min_learning_rate": 0.1}},
         "lr_scaling": {"global_batch_size": 1024, "scales": ["peak"]}},
        {"optimizer": {"type": "sgd", "sgd": {"decay": 0.01}}},
        {"optimizer": {"type": "adafactor", "adafactor": {"step_size": "relative"}},
         "learning_rate": {}, "warmup": {}},
    ],
)  # fmt: skip
def test_the_rate_is_that_of_the_factory(sections):
    factory = OptimizerFactory(OptimizationConfig({**BASE, **sections}), train_steps=100)
    assert values(sized(**sections))[""] == pytest.approx(
        list(factory.learning_rate_curve(STEPS)), rel=1e-12
    )


def test_groups_have_their_own_rates():
    config = sized(param_groups=GROUPS)
    (of_all,) = values(config).values()
    found = values(config, groups=["all"])
    assert list(found) == ["default", "biases", "^head", "Embedding"]  # not the frozen one
    assert found["default"] == found["Embedding"] == of_all
    assert found["biases"] == [2 * value for value in of_all]
    assert found["^head"] == [0.7] * len(STEPS)
    assert list(values(config, groups=["biases", "default", "biases"])) == ["biases", "default"]


def test_layers_fall_by_their_distance_from_the_head():
    config = sized(layer_decay={"rate": 0.5, "min_multiplier": 0.1})
    (of_all,) = values(config).values()
    found = values(config, groups=["all"])
    assert list(found) == [f"layer L{rest}" for rest in ("", "-1", "-2", "-4", "-8", "-16")]
    for name, factor in {"layer L": 1, "layer L-2": 0.25, "layer L-4": 0.1}.items():
        assert found[name] == pytest.approx([factor * value for value in of_all])
    assert values(config, groups=["layer L-3"])["layer L-3"] == pytest.approx(
        [0.125 * value for value in of_all]
    )


def test_what_follows_a_schedule_and_what_is_constant():
    decay = {"type": "linear", "linear": {"initial_learning_rate": 0.05, "decay_steps": 100}}
    config = sized(schedules={"weight_decay": decay}, param_groups=GROUPS)
    for name in ("weight_decay", "weight_decay_rate"):
        found = values(config, name, ["all"])
        assert found["default"] == found["^head"]
        assert ("Embedding" in found) == (name == "weight_decay")  # which SGD calls so
        assert found["default"] == pytest.approx([0.05 * (1 - step / 100) for step in STEPS])
        assert set(found["biases"]) == {0.0}
    with pytest.raises(ConfigError, match="there is no number 'weight_decay_rate'"):
        lines_of(config, "weight_decay_rate", ["Embedding"])
    assert set(values(config, "beta_1")[""]) == {0.9}
    assert set(values(config, "momentum", ["Embedding"])["Embedding"]) == {0.9}


def test_the_decay_of_an_average():
    ema = {"average_decay": 0.6, "dynamic_decay": "cosine", "rise_steps": "100%"}
    found = values(sized(ema=ema), "average_decay")[""]
    np.testing.assert_allclose(found, [averages.dino(s + 1, 0.6, 100) for s in STEPS])
    rate = {"type": "linear", "linear": {"initial_learning_rate": 0.9, "end_learning_rate": 1.0}}
    config = sized(ema={"dynamic_decay": False}, schedules={"average_decay": rate})
    np.testing.assert_allclose(
        values(config, "average_decay")[""], [0.9 + 0.1 * s / 100 for s in STEPS]
    )
    with pytest.raises(ConfigError, match="before its steps are numbers: give `train_steps`"):
        lines_of(OptimizationConfig({**BASE, "ema": ema}), "average_decay")


def test_micro_batches_that_grow():
    config = sized(accumulation={"micro_batches": [1, 2, 4], "boundaries": [10, "50%"]})
    assert values(config, "micro_batches")[""] == [1, 1, 1, 2, 2, 4, 4, 4]
    (line,) = lines_of(config, "micro_batches")
    assert [mark.step for mark in line.marks] == [10, 50, 100]
    with pytest.raises(ConfigError, match="accumulation: is not set"):
        lines_of(sized(), "micro_batches")
    unknown = {"micro_batches": [1, 2], "until": "1k examples"}
    with pytest.raises(ConfigError, match="its steps are no numbers: give the lengths"):
        lines_of(sized(accumulation=unknown), "micro_batches")


def test_a_momentum_that_the_optimizer_itself_warms_up():
    torch_sgd = {"momentum": 0.9, "momentum_start": 0.5, "warmup_steps": 50}
    (line,) = lines_of(sized(optimizer={"type": "sgd_torch", "sgd_torch": torch_sgd}), "momentum")
    assert line.function([0, 25, 50, 100]) == pytest.approx([0.5, 0.7, 0.9, 0.9])
    assert line.marks == [Mark(50, "warmup ends"), Mark(100, "training ends")]


def test_warmups_that_a_formula_computes_by_itself():
    section = {"alpha": 8.0, "alpha_warmup": 10, "beta_3_warmup": 20, "beta_3": 0.999}
    config = sized(optimizer={"type": "ademamix", "ademamix": section})
    (alpha,), (beta,) = lines_of(config, "alpha"), lines_of(config, "beta_3")
    # Update t is of step t - 1.
    assert alpha.function([0, 4, 9, 50]) == pytest.approx([0.8, 4.0, 8.0, 8.0])
    first, middle, last = beta.function([0, 9, 19])
    inverse = 0.5 / np.log(0.9) + 0.5 / np.log(0.999)
    assert (middle, last) == pytest.approx((np.exp(1 / inverse), 0.999), rel=1e-12)
    assert 0.9 < first < middle


STEPWISE = {"type": "stepwise", "stepwise": {"boundaries": [30, 60], "values": [1.0, 0.1, 0.01]}}
WSD = {"type": "warmup_stable_decay", "warmup_stable_decay": {
    "initial_learning_rate": 1.0, "stable_steps": 50, "decay_steps": 20}}  # fmt: skip
HF_WSD = {"type": "hf_warmup_stable_decay", "hf_warmup_stable_decay": {
    "initial_learning_rate": 1.0, "num_warmup_steps": 5, "num_decay_steps": 20}}  # fmt: skip
DELAY = {"type": "linear", "linear": {"warmup_steps": 10, "mode": "delay"}}


@pytest.mark.parametrize(
    ("rate", "warmup", "marks"),
    [
        (COSINE, {}, {"training ends": [100]}),
        (STEPWISE, DELAY, {"warmup ends": [10], "boundary": [40, 70], "training ends": [100]}),
        (WSD, {}, {"decay starts": [50], "decay ends": [70], "training ends": [100]}),
        (HF_WSD, {}, {"warmup ends": [5], "decay starts": [80], "training ends": [100]}),
    ],
)
def test_marks(rate, warmup, marks):
    (line,) = lines_of(sized(learning_rate=rate, warmup=warmup))
    found = {}
    for step, text in line.marks:
        found.setdefault(text, []).append(step)
    assert found == marks
    assert line.last == 100
    assert line.has_end


EXPONENTIAL = {"initial_learning_rate": 0.7, "decay_steps": 100}
RESTARTS = {"initial_learning_rate": 0.1, "first_decay_steps": 100, "t_mul": 1.5, "m_mul": 0.9}


@pytest.mark.parametrize(
    ("kind", "rate", "last"),
    [
        ("cosine", {"initial_learning_rate": 0.1, "decay_steps": 1000}, 1050),
        ("stepwise", STEPWISE["stepwise"], 63),
        ("constant", {}, 100),
        # 0.5 ** 4 and 0.9 ** 32 are below a tenth, 0.9 ** 16 is not; and a 20th more is drawn.
        ("exponential", {**EXPONENTIAL, "decay_rate": 0.5}, 420),
        ("exponential", {**EXPONENTIAL, "decay_rate": 0.9}, 3360),
        ("cosine_restarts", RESTARTS, 840),
        ("relative_step", {}, 100_000),
    ],
)
def test_without_a_length_it_is_drawn_as_far_as_it_bends(kind, rate, last):
    config = sized(learning_rate={"type": kind, kind: rate}, warmup={}, train_steps=None)
    (line,) = lines_of(config)
    assert line.last == last
    assert line.has_end == (kind == "constant")


@pytest.mark.parametrize(
    ("sections", "what", "group", "message"),
    [
        ({}, "learning_rat", "default", "there is no number 'learning_rat'.*mean 'learning_rate'"),
        ({}, "momentum", "default", "no number 'momentum' that may change; there are"),
        ({}, "learning_rate", "biase", "there is no group 'biase'; did you mean 'biases'"),
        ({}, "learning_rate", "layer L-1", "there is no group 'layer L-1'"),
        ({}, "learning_rate", "ndim 1", "is frozen: nothing is updated"),
        ({"learning_rate": {}}, "learning_rate", "default", "learning_rate.type: is not set"),
        ({"optimizer": {}}, "momentum", "default", "optimizer.type: is not set"),
    ],
)
def test_what_cannot_be_drawn_is_said(sections, what, group, message):
    with pytest.raises(ConfigError, match=message):
        lines_of(sized(param_groups=GROUPS, **sections), what, [group])


def test_a_length_that_is_needed_and_not_known():
    with pytest.raises(ConfigError, match="'remaining' takes `train_steps`, which is not known"):
        lines_of(sized(train_steps=None))


def test_a_batch_that_is_not_known():
    (line,) = lines_of(sized(lr_scaling={"base_batch_size": 256}))
    assert line.notes == ["`global_batch_size` is not known: drawn without `lr_scaling`"]


def test_a_rate_that_follows_a_metric():
    rate = {"initial_learning_rate": 0.1, "metric": "accuracy", "mode": "max"}
    kind = "hf_reduce_lr_on_plateau"
    (line,) = lines_of(sized(learning_rate={"type": kind, kind: rate}, warmup={}))
    assert line.notes == ["it follows `accuracy`: only where it starts is known before"]
    assert set(line.function(STEPS)) == {0.1}
