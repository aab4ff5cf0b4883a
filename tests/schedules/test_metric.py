import itertools
import json

import numpy as np
import pytest

from optimization import ConfigError, OptimizationConfig, OptimizerFactory
from optimization.schedules import LrConfig
from optimization.schedules.followers import Greedy, ReduceOnPlateau

RATES = [0.5, 0.05]


def sequence(seed, length=160):
    """Returns values that fall, stay, rise and repeat, and a NaN among them."""
    random = np.random.default_rng(seed)
    trend = np.concatenate([np.linspace(2, 1, length // 4), np.full(length // 4, 1.0)] * 2)
    values = trend + random.normal(size=len(trend)) * random.choice([0, 0.01, 0.3], len(trend))
    values[17] = np.nan
    return values.tolist()


PLATEAU = [
    {"mode": mode, "threshold_mode": threshold_mode, "patience": patience, **more}
    for mode, threshold_mode, patience, more in itertools.product(
        ("min", "max"),
        ("rel", "abs"),
        (0, 2),
        (
            {"factor": 0.5},
            {"factor": 0.3, "cooldown": 3, "min_lr": 0.01, "threshold": 0.05},
            {"factor": 0.5, "min_lr": [0.1, 0.001], "eps": 1e-3},
        ),
    )
]
GREEDY = [
    *PLATEAU,
    *(
        {"patience": 1, "factor": 0.7, "warmup": 2, "max_lr": [0.8, 2.0], **more}
        for more in (
            {"mode": "min", "cooldown": 1},
            {"mode": "max", "min_lr": 0.01, "reset_start": 2},
            {"smooth": True, "window_size": 4},
            {"smooth": True, "window_size": 3, "min_lr": 0.05, "reset_start": 1, "cooldown": 2},
        )
    ),
]


def torch_optimizer(torch):
    return torch.optim.SGD([{"params": [torch.zeros(1)], "lr": rate} for rate in RATES], lr=1.0)


@pytest.mark.parametrize("settings", PLATEAU, ids=str)
def test_every_step_is_that_of_torch(settings):
    torch = pytest.importorskip("torch", reason="PyTorch is installed for some of the tests only")
    optimizer = torch_optimizer(torch)
    theirs = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **settings)
    ours = ReduceOnPlateau(RATES, **settings)
    for value in sequence(1):
        theirs.step(value)
        ours.step(value)
        assert ours.rates == [group["lr"] for group in optimizer.param_groups]
        assert ours.num_bad_epochs == theirs.num_bad_epochs
        assert ours.cooldown_counter == theirs.cooldown_counter
        assert ours.best == theirs.best
    assert ours.rates != RATES


@pytest.mark.parametrize("settings", GREEDY, ids=str)
def test_every_step_is_that_of_transformers(settings):
    torch = pytest.importorskip("torch", reason="PyTorch is installed for some of the tests only")
    theirs_of = pytest.importorskip(
        "transformers", minversion="5", reason="transformers is installed for some tests only"
    ).get_greedy_schedule
    optimizer = torch_optimizer(torch)
    theirs, ours = theirs_of(optimizer, **settings), Greedy(RATES, **settings)
    for value in sequence(2):
        theirs.step(value)
        ours.step(value)
        assert ours.rates == [group["lr"] for group in optimizer.param_groups]
        for name in ("best", "num_bad_epochs", "num_good_epochs", "warmup_counter", "reset_start"):
            assert getattr(ours, name) == getattr(theirs, name)


def test_a_plateau_by_hand():
    machine = ReduceOnPlateau([1.0], factor=0.5, patience=1, threshold=0.0, cooldown=1)
    rates = []
    for value in [3.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 2.0, 1.0]:
        machine.step(value)
        rates += machine.rates
    # Two values after the best are one too many; the next counts for nothing.
    assert rates == [1.0, 1.0, 1.0, 0.5, 0.5, 0.5, 0.25, 0.25, 0.25]


def test_greedy_by_hand():
    machine = Greedy([0.5], factor=0.5, patience=0, min_lr=0.25, max_lr=1.0, reset_start=2)
    rates = []
    for value in [3.0, 2.0, 2.0, 2.0, 2.0, 9.0]:
        machine.step(value)
        rates += machine.rates
    # Up to the bound twice, down to the least, and from there anew; anew, anything is better.
    assert rates == [1.0, 1.0, 0.5, 0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReduceOnPlateau(RATES, factor=0.5, patience=1, cooldown=2),
        lambda: Greedy(RATES, patience=1, smooth=True, window_size=5, warmup=2, reset_start=3),
    ],
)
def test_the_state_goes_on_through_json(make):
    values = sequence(3)
    whole, first, second = make(), make(), make()
    for value in values[:50]:
        whole.step(value)
        first.step(value)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for value in values[50:]:
        whole.step(value)
        second.step(value)
        assert second.rates == whole.rates
    assert whole.rates != RATES
    part = make()
    part.load_state_dict({"best": 1.0})
    assert (part.best, part.rates, part.last_epoch) == (1.0, make().rates, 0)
    for other in ({"rates": [1.0]}, {"best": 1.0, "epoch": 3}):
        with pytest.raises(ValueError, match="`state` must be"):
            make().load_state_dict(other)


@pytest.mark.parametrize(
    ("wrong", "match"),
    [
        ({"factor": 1.0}, "factor"),
        ({"mode": "least"}, "mode"),
        ({"threshold_mode": "both"}, "threshold_mode"),
        ({"min_lr": [0.1]}, "min_lr"),
    ],
)
def test_wrong_arguments(wrong, match):
    for cls in (ReduceOnPlateau, Greedy):
        with pytest.raises(ValueError, match=f"`{match}`"):
            cls(RATES, **wrong)


KINDS = ("hf_reduce_lr_on_plateau", "hf_greedy")


def config(kind, rate=0.1, optimizer=None, **more):
    return OptimizationConfig(
        {
            "optimizer": optimizer or {"type": "sgd"},
            "learning_rate": {"type": kind, kind: {"initial_learning_rate": rate}},
            **more,
        }
    )


@pytest.mark.parametrize("kind", KINDS)
def test_a_config_has_a_constant_rate_and_a_machine_with_its_settings(kind):
    factory = OptimizerFactory(config(kind))
    assert factory.build_learning_rate() == 0.1
    np.testing.assert_array_equal(factory.learning_rate_curve([0, 7, 10**6]), 0.1)
    section = LrConfig({"type": kind, kind: {"initial_learning_rate": 0.1, "mode": "max"}}).get()
    machine = section.follower([0.3])
    assert machine.rates == [0.3]
    for name, value in section.settings().items():
        held = {"min_lr": "min_lrs", "max_lr": "max_lrs"}.get(name, name)
        assert getattr(machine, held) == ([value] if held != name else value)


def test_the_defaults_are_those_of_the_machines():
    for kind, cls in zip(KINDS, (ReduceOnPlateau, Greedy), strict=True):
        section = LrConfig({"type": kind, kind: {"initial_learning_rate": 0.1}}).get()
        assert vars(section.follower([0.1])) == vars(cls([0.1]))


@pytest.mark.parametrize("kind", KINDS)
def test_where_no_rate_can_follow_a_metric(kind):
    one = {"type": kind, kind: {"initial_learning_rate": 0.1}}
    adamw = {"type": "adamw", "adamw": {"weight_decay_rate": 0.1}}
    cases = [
        (
            {"warmup": {"type": "linear", "linear": {"warmup_steps": 5}}},
            rf"{kind}\.metric: .*no wa",
        ),
        ({"param_groups": [{"ndim": [1], "learning_rate": one}]}, r"\[0\]\.learning_rate\.type"),
        ({"schedules": {"weight_decay": one}, "optimizer": adamw}, r"weight_decay\.type"),
        ({"optimizer": {"type": "sgd", "sgd": {"decay": 0.1}}}, r"sgd\.decay: cannot act"),
    ]
    for more, message in cases:
        with pytest.raises(ConfigError, match=message):
            config(kind, **more).validate()


def test_a_least_rate_above_the_first_is_an_error():
    kind = "hf_reduce_lr_on_plateau"
    section = LrConfig({"type": kind, kind: {"initial_learning_rate": 0.1, "min_lr": 0.2}})
    with pytest.raises(ConfigError, match=r"min_lr: must be <= `initial_learning_rate` 0.1"):
        section.validate()


def test_greedy_contradictions():
    for wrong in ({"min_lr": 2.0}, {"window_size": 7}):
        section = LrConfig(
            {"type": "hf_greedy", "hf_greedy": {"initial_learning_rate": 1, **wrong}}
        )
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            section.validate()
