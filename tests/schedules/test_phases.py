import math

import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.schedules import LrConfig
from tests.schedules.common import lr_config, rate

# ---- warmup_stable_decay -----------------------------------------------------------------------

_DECAYED = {
    "linear": lambda u: u,
    "cosine": lambda u: 0.5 * (1 - math.cos(math.pi * u)),
    "1-sqrt": math.sqrt,
}
_BY_RATIO = {
    "exponential": lambda u, r: math.exp(u * math.log(r)),
    "inverse": lambda u, r: 1 / ((1 - u) / 1 + u / r),  # a line of 1 / lr
}


@pytest.mark.parametrize("ratio", [0.0, 0.1])
@pytest.mark.parametrize("kind", list(_DECAYED))
def test_stable_decay(kind, ratio):
    config = lr_config(
        "warmup_stable_decay",
        initial_learning_rate=0.3,
        stable_steps=100,
        decay_steps=50,
        decay_type=kind,
        min_lr_ratio=ratio,
    )

    def reference(s):
        u = min(max(s - 100, 0) / 50, 1)
        return 0.3 * (ratio + (1 - ratio) * (1 - _DECAYED[kind](u)))

    steps = [0, 1, 99, 100, 101, 125, 149, 150, 151, 1500]
    np.testing.assert_allclose(
        rate(config, steps), [reference(s) for s in steps], rtol=1e-13, atol=1e-16
    )
    assert rate(config, 150) == 0.3 * ratio
    moved = config.replace(offset=10)
    assert rate(moved, [0, 110, 135, 160]) == rate(config, [0, 100, 125, 150])


@pytest.mark.parametrize(
    "settings", [{"min_lr_ratio": 0.1}, {"min_lr_ratio": 0.0, "min_learning_rate": 0.03}]
)
@pytest.mark.parametrize("kind", list(_BY_RATIO))
def test_stable_decay_to_a_ratio(kind, settings):
    lengths = {"initial_learning_rate": 0.3, "stable_steps": 100, "decay_steps": 50}
    config = lr_config("warmup_stable_decay", **lengths, decay_type=kind, **settings)
    steps = [0, 1, 99, 100, 101, 125, 149, 150, 151, 1500]
    expected = [0.3 * _BY_RATIO[kind](min(max(s - 100, 0) / 50, 1), 0.1) for s in steps]
    np.testing.assert_allclose(rate(config, steps), expected, rtol=1e-13)
    zero = {**lengths, "initial_learning_rate": 0.0, "min_lr_ratio": 0.1}
    assert rate(lr_config("warmup_stable_decay", **zero, decay_type=kind), [0, 125]) == [0, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"decay_type": "sqrt"},
            "decay_type: must be one of 'linear', 'cosine', '1-sqrt', 'exponential' or 'inverse'",
        ),
        (
            {
                "decay_type": "exponential",
                "initial_learning_rate": 1.0,
                "stable_steps": 1,
                "decay_steps": 1,
            },
            "decay_type: `exponential` needs `min_lr_ratio` > 0, and comes to it",
        ),
        ({"min_lr_ratio": 1.5}, "min_lr_ratio: must be <= 1"),
        ({"stable_steps": -1}, "stable_steps: must be >= 0"),
        ({"decay_steps": 0}, "decay_steps: must be > 0"),
        ({}, "stable_steps: a value is required"),
    ],
)
def test_stable_decay_errors(settings, message):
    with pytest.raises(ConfigError, match=rf"warmup_stable_decay\.{message}"):
        LrConfig({"type": "warmup_stable_decay", "warmup_stable_decay": settings}).validate()


# ---- one_cycle ---------------------------------------------------------------------------------


def _one_cycle(s, top, total, pct_start, div, final_div, anneal, three_phase):
    """Transcribed from the definition of torch.optim.lr_scheduler.OneCycleLR."""
    first = top / div
    last = first / final_div
    peak = float(pct_start * total) - 1
    if three_phase:
        phases = [(peak, first, top), (2 * peak, top, first), (total - 1, first, last)]
    else:
        phases = [(peak, first, top), (total - 1, top, last)]
    start = 0.0
    for end, low, high in phases:
        if s <= end or end == total - 1:
            part = (s - start) / (end - start)
            if anneal == "cos":
                return high + (low - high) / 2.0 * (math.cos(math.pi * part) + 1)
            return (high - low) * part + low
        start = end
    raise AssertionError


ONE_CYCLES = [
    {},
    {"anneal_strategy": "linear"},
    {"three_phase": True},
    {"three_phase": True, "anneal_strategy": "linear", "pct_start": 0.4},
    {"pct_start": 0.25, "div_factor": 10, "final_div_factor": 100},
    {"total_steps": 97, "pct_start": 0.13},  # a peak between two steps
]


@pytest.mark.parametrize("settings", ONE_CYCLES)
def test_one_cycle(settings):
    config = lr_config("one_cycle", **{"max_learning_rate": 0.4, "total_steps": 200, **settings})
    steps = range(config.total_steps)
    expected = [
        _one_cycle(
            s,
            0.4,
            config.total_steps,
            config.pct_start,
            config.div_factor,
            config.final_div_factor,
            config.anneal_strategy,
            config.three_phase,
        )
        for s in steps
    ]
    # float64; the end of the cycle is a difference of numbers a million times as large.
    np.testing.assert_allclose(rate(config, steps), expected, rtol=1e-13, atol=1e-16)
    assert rate(config, config.total_steps + 1000) == rate(config, config.total_steps - 1)


@pytest.mark.parametrize("settings", ONE_CYCLES)
def test_one_cycle_against_torch(settings):
    torch = pytest.importorskip("torch")
    config = lr_config("one_cycle", **{"max_learning_rate": 0.4, "total_steps": 200, **settings})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    arguments = config.as_dict()
    for name in ("name", "offset"):
        del arguments[name]
    scheduler = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, arguments.pop("max_learning_rate"), **arguments
    )
    theirs = [scheduler.get_last_lr()[0]]
    for _ in range(config.total_steps - 1):
        optimizer.step()
        scheduler.step()
        theirs.append(scheduler.get_last_lr()[0])
    ours = rate(config, range(config.total_steps))
    np.testing.assert_allclose(ours, theirs, rtol=1e-13, atol=1e-16)


def test_one_cycle_at_its_ends():
    config = lr_config("one_cycle", max_learning_rate=1.0, total_steps=100, pct_start=0.3)
    np.testing.assert_allclose(rate(config, [0, 29, 99]), [1 / 25, 1.0, 1 / 25e4], rtol=1e-14)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pct_start": 0.01}, "pct_start: must be > 1 / `total_steps`, 0.01, got 0.01"),
        (
            {"pct_start": 0.6, "three_phase": True},
            "pct_start: must leave steps for the last of the phases, got 0.6",
        ),
        ({"pct_start": 1}, "pct_start: must be < 1, got 1"),
        ({"total_steps": 1}, "total_steps: must be > 1, got 1"),
        ({"anneal_strategy": "cosine"}, "anneal_strategy: must be one of 'cos' or 'linear'"),
        ({"max_learning_rate": 0}, "max_learning_rate: must be > 0"),
        ({"div_factor": 0}, "div_factor: must be > 0"),
    ],
)
def test_one_cycle_errors(settings, message):
    settings = {"max_learning_rate": 0.1, "total_steps": 100, **settings}
    with pytest.raises(ConfigError, match=rf"one_cycle\.{message}"):
        LrConfig({"type": "one_cycle", "one_cycle": settings}).validate()
