"""How warmups count, against the schedules of others: their formulas in float64."""

import math

import numpy as np
import pytest

from optimization import OptimizationConfig
from optimization.configs.errors import ConfigError
from optimization.configs.optimization_config import resolved
from optimization.schedules import WARMUP_CLS, WarmupConfig
from optimization.schedules.keras_schedules import build_schedule
from optimization.schedules.metric import MetricLrConfig
from tests.schedules.common import (
    RTOL,
    keras_values,
    lr_config,
    lr_examples,
    rate,
    warmup_config,
)

W, N, PEAK, LOW = 8, 40, 0.5, 0.05
STEPS = [*range(N + 2), 10 * N, 10**6]


def cosine(done, length):
    return LOW + (PEAK - LOW) * 0.5 * (1 + math.cos(math.pi * min(done / length, 1)))


def torchtitan(s):
    """`linear_warmup_stable_decay`: its last step has the peak, and step 0 is the first."""
    return PEAK * (s + 1) / W if s < W else cosine(s - W, N - W)


def nanogpt(s):
    """`get_lr` of 2024 and after, which has `(it + 1) / (warmup_iters + 1)`."""
    return PEAK * (s + 1) / (W + 1) if s < W else cosine(s - W, N - W)


def nanogpt_before(s):
    return PEAK * s / W if s < W else cosine(s - W, N - W)


def mmengine(s):
    """`LinearLR(start_factor=0.001, begin=0, end=W)`, whose factor is 1 at step W - 1."""
    factor = 0.001 + (1 - 0.001) * min(s, W - 1) / (W - 1)
    return PEAK * factor if s < W else cosine(s - W, N - W)


def dino(s):
    """`cosine_scheduler` of DINO and DINOv2: an array, its start from linspace."""
    return np.linspace(0.001, PEAK, W)[s] if s < W else cosine(s - W, N - W)


def deepspeed(s):
    """`WarmupLR`, `warmup_type: log`, with the minimum 0.001; then `WarmupCosineLR`."""
    if s < W:
        return 0.001 + (PEAK - 0.001) * math.log(s + 1) / math.log(W)
    return cosine(s - W, N - W)


def timm(s):
    """`CosineLRScheduler` without a prefix: the cosine counts from step 0, the line goes to lr."""
    return 0.001 + s * (PEAK - 0.001) / W if s < W else cosine(s, N)


START = {"warmup_learning_rate": 0.001}
DELAY = {"mode": "delay"}
CASES = {
    torchtitan: ("linear", {**DELAY, "counts_from": 1, "ends_on": "last"}),
    nanogpt: ("linear", {**DELAY, "counts_from": 1}),
    nanogpt_before: ("linear", DELAY),
    mmengine: ("linear", {**DELAY, "ends_on": "last", "warmup_learning_rate": 0.001 * PEAK}),
    dino: ("linear", {**DELAY, **START, "ends_on": "last"}),
    deepspeed: ("logarithmic", {**DELAY, **START, "ends_on": "last"}),
    timm: ("linear", {**START, "leads_to": "peak"}),
}


def ours(their):
    kind, settings = CASES[their]
    settings = {"warmup_learning_rate": 0.0, **settings}
    length = N if settings.get("mode") != "delay" else N - W
    cosine = {"initial_learning_rate": PEAK, "decay_steps": length, "alpha": LOW / PEAK}
    return lr_config("cosine", **cosine), warmup_config(kind, warmup_steps=W, **settings)


@pytest.mark.parametrize("their", CASES, ids=lambda their: their.__name__)
def test_the_curve_is_theirs_at_every_step(their):
    config, warmup = ours(their)
    expected = [their(s) for s in STEPS]
    np.testing.assert_allclose(rate(config, STEPS, warmup), expected, rtol=1e-13)
    schedule = build_schedule(config, warmup)
    np.testing.assert_allclose(keras_values(schedule, STEPS), expected, rtol=RTOL, atol=1e-9)
    assert type(schedule).from_config(schedule.get_config()).config == warmup


def test_the_warmup_of_espnet():
    # Its `WarmupLR` counts from 1, so that step W - 1 has the peak.
    expected = [PEAK * W**0.5 * min((s + 1) ** -0.5, (s + 1) * W**-1.5) for s in STEPS]
    warmup = warmup_config(
        "linear", warmup_steps=W, warmup_learning_rate=0.0, counts_from=1, ends_on="last"
    )
    # An offset of -1 has the root count from 1 too.
    root = lr_config("inverse_sqrt", initial_learning_rate=PEAK, timescale=float(W), offset=-1)
    np.testing.assert_allclose(rate(root, STEPS, warmup), expected, rtol=1e-13)


@pytest.mark.parametrize("mode", ["replace", "delay", "multiply"])
@pytest.mark.parametrize("counts_from", [0, 1])
@pytest.mark.parametrize("ends_on", ["next", "last"])
@pytest.mark.parametrize("name", [name for name in WARMUP_CLS if name != "constant"])
def test_every_warmup_comes_to_the_rate_where_it_says(name, ends_on, counts_from, mode):
    counting = {"ends_on": ends_on, "counts_from": counts_from, "mode": mode}
    warmup = warmup_config(name, warmup_steps=W, **counting)
    level = lr_config("constant", learning_rate=PEAK)
    values = rate(level, range(W + 2), warmup)
    end = W if ends_on == "next" else W - 1
    np.testing.assert_allclose(values[end:], PEAK, rtol=1e-14)
    assert values[end - 1] < 0.99 * PEAK
    # As a warmup of as many counts has it that starts at 0 and ends at its length.
    plain = warmup_config(name, warmup_steps=end + counts_from, mode=mode)
    expected = rate(level, range(W + 2), plain)[counts_from:][:end]
    np.testing.assert_allclose(values[:end], expected, rtol=1e-14)


def test_the_warmup_meets_a_falling_rate_where_it_ends():
    line = lr_config("linear", initial_learning_rate=1.0, decay_steps=16)
    warmup = warmup_config("linear", warmup_steps=4, warmup_learning_rate=0.0, ends_on="last")
    np.testing.assert_allclose(
        rate(line, range(5), warmup), [0, *(13 / 48, 26 / 48), 13 / 16, 0.75]
    )


def test_a_warmup_to_the_peak_starts_the_decay_at_once():
    line = lr_config("linear", initial_learning_rate=1.0, decay_steps=16)
    for name in (name for name in WARMUP_CLS if name != "constant"):
        warmup = warmup_config(name, warmup_steps=4, leads_to="peak")
        at_peak = rate(lr_config("constant", learning_rate=1.0), range(4), warmup)
        assert rate(line, range(6), warmup) == [*at_peak, 0.75, 0.6875]


E = 5  # optimizer steps of an epoch


def mmengine_by_epoch(s):
    """`LinearLR(0.1, end=3)` and then `CosineAnnealingLR`, both by epochs."""
    epoch = s // E
    if epoch < 3:
        return PEAK * (0.1 + 0.9 * epoch / 2)
    return cosine(epoch - 3, 5)


def mmengine_mixed(s):
    """A warmup by iterations before a decay by epochs that counts meanwhile, as of detectors."""
    return PEAK * 0.1 + (PEAK - PEAK * 0.1) * s / 7 if s < 8 else cosine(s // E, 8)


def by_epoch_from_one(s):
    """Four epochs of warmup, the last of which has the peak and none of which has 0."""
    epoch = s // E
    return PEAK * (epoch + 1) / 4 if epoch < 4 else cosine(epoch - 4, 4)


BY_EPOCH = {
    mmengine_by_epoch: (
        {"decay_steps": "5 epochs"},
        {"warmup_steps": "3 epochs", "per": "epoch", "mode": "delay", "ends_on": "last"},
    ),
    mmengine_mixed: (
        {"decay_steps": "8 epochs"},
        {"warmup_steps": 8, "leads_to": "peak", "ends_on": "last"},
    ),
    by_epoch_from_one: (
        {"decay_steps": "4 epochs"},
        {
            "warmup_steps": "4 epochs",
            **{"per": "epoch", "mode": "delay", "ends_on": "last", "counts_from": 1},
            "warmup_learning_rate": 0.0,
        },
    ),
}


@pytest.mark.parametrize("their", BY_EPOCH, ids=lambda their: their.__name__)
def test_once_an_epoch(their):
    decay, warmup = BY_EPOCH[their]
    decay = {"initial_learning_rate": PEAK, "alpha": LOW / PEAK, "per": "epoch", **decay}
    config = OptimizationConfig(
        optimizer={"type": "sgd"},
        learning_rate={"type": "cosine", "cosine": decay},
        warmup={"type": "linear", "linear": {"warmup_learning_rate": 0.1 * PEAK, **warmup}},
    )
    sized = resolved(config, train_steps=8 * E, steps_per_epoch=E)
    rate_, warmup_ = sized.learning_rate.get(), sized.warmup.get()
    assert rate_.per == E
    steps = [*range(8 * E + 2), 10**6, 10**6 + E - 1]
    expected = [their(s) for s in steps]
    np.testing.assert_allclose(rate(rate_, steps, warmup_), expected, rtol=1e-13)
    schedule = build_schedule(rate_, warmup_)
    np.testing.assert_allclose(keras_values(schedule, steps), expected, rtol=RTOL, atol=1e-9)
    for other in (schedule, type(schedule).from_config(schedule.get_config())):
        assert other.after_warmup_lr_sched.config == rate_
        assert other.config == warmup_


@pytest.mark.parametrize("config", [config for _, config in lr_examples()])
def test_every_rate_changes_only_after_whole_periods(config):
    if isinstance(config, MetricLrConfig):
        with pytest.raises(ConfigError, match=r"per: must be left out"):
            config.replace(per=7).validate()
        return
    steps = np.asarray([0, 1, 6, 7, 8, 13, 14, 99, 104, 105, 999, 10**6, 10**12])
    expected = rate(config, steps - steps % 7)
    held = config.replace(per=7)
    np.testing.assert_array_equal(rate(held, steps), expected)
    if config.constant_value() is None:
        values = keras_values(build_schedule(held), steps[:-1])
        np.testing.assert_allclose(values, expected[:-1], rtol=RTOL, atol=1e-8)


def test_an_epoch_whose_length_is_not_known_is_told():
    config = OptimizationConfig(
        optimizer={"type": "sgd"},
        learning_rate={"type": "linear", "linear": {"initial_learning_rate": 1.0, "per": "epoch"}},
    )
    with pytest.raises(ConfigError, match=r"linear\.per: .* takes `steps_per_epoch`, which is not"):
        resolved(config, train_steps=100)


@pytest.mark.parametrize("value", ["step", 1, 1.0])
def test_each_step_is_the_default(value):
    rate_ = lr_config("cosine", per=value)
    assert rate_ == lr_config("cosine")
    assert "per" not in rate_.as_dict()


def test_one_step():
    level = lr_config("constant", learning_rate=PEAK)
    alone = warmup_config("linear", warmup_steps=1, counts_from=1, ends_on="last")
    assert rate(level, [0, 1], alone) == [PEAK, PEAK]
    half = warmup_config("linear", warmup_steps=1, counts_from=1, warmup_learning_rate=0.0)
    assert rate(level, [0, 1], half) == [PEAK / 2, PEAK]


def test_what_is_not_asked_for_is_not_written():
    settings = {"warmup_steps": 3, "counts_from": 1, "leads_to": "peak", "ends_on": "last"}
    written = WarmupConfig(type="linear", linear=settings).linear
    assert settings.items() <= written.as_dict().items()
    assert WarmupConfig(type="linear", linear=written.as_dict()).linear == written
    assert not {"counts_from", "leads_to", "ends_on"} & {*warmup_config("linear").as_dict()}


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("linear", {"counts_from": 2}, "counts_from: must be <= 1, got 2"),
        ("linear", {"ends_on": "first"}, "ends_on: must be one of 'next' or 'last'"),
        ("linear", {"leads_to": "top"}, "leads_to: must be one of 'rate' or 'peak'"),
        ("linear", {"leads_to": "peak", "mode": "delay"}, "leads_to: needs `mode: replace`"),
        ("cosine", {"ends_on": "last", "warmup_steps": 1}, "ends_on: .* `warmup_steps` is 1"),
        ("constant", {"ends_on": "last"}, "ends_on: has no meaning for a rate that is the same"),
        ("linear", {"per": 0}, "per: must be > 0, got 0"),
        ("linear", {"per": "week"}, "per: expected 'step', 'epoch' or a number of steps, got 'we"),
        ("linear", {"per": "remaining"}, "per: 'remaining' is for the steps of a learning rate"),
        ("linear", {"per": 4, "ends_on": "last"}, "ends_on: .* `warmup_steps` 4 are not two of"),
        ("constant", {"per": 7}, "per: has no meaning for a rate"),
        ("constant", {"leads_to": "peak"}, "leads_to: has no meaning"),
    ],
)
def test_errors(name, settings, message):
    config = {"type": name, name: {"warmup_steps": 4, **settings}}
    with pytest.raises(ConfigError, match=rf"{name}\.{message}"):
        WarmupConfig(config).validate()


@pytest.mark.parametrize("offset", [0, 3])
def test_a_boundary_may_have_the_new_value(offset):
    values, edges = [0.1, 0.02, 0.005], [5, 2**24 + 1]
    settings = {"boundaries": edges, "values": values, "offset": offset}
    old, new = (
        lr_config("stepwise", **settings),
        lr_config("stepwise", at_boundary="new", **settings),
    )
    steps = [e + offset + d for e in edges for d in (-1, 0, 1)] + [0, 10**12]
    for config, passed in ((old, np.greater), (new, np.greater_equal)):
        expected = [values[sum(passed(s - offset, e) for e in edges)] for s in steps]
        assert rate(config, steps) == expected
        schedule = build_schedule(config)
        assert keras_values(schedule, steps[:-1]).tolist() == np.float32(expected[:-1]).tolist()
        assert type(schedule).from_config(schedule.get_config()).config == config
    assert "at_boundary" not in old.as_dict()


def test_new_values_at_boundaries_are_those_of_torch():
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 7], gamma=0.5)
    rates = []
    for _ in range(10):
        rates.append(theirs.get_last_lr()[0])
        optimizer.step()
        theirs.step()
    values = {"boundaries": [3, 7], "values": [0.1, 0.05, 0.025], "at_boundary": "new"}
    assert rate(lr_config("stepwise", **values), range(10)) == rates


def test_the_weight_decay_of_dino_rises_along_a_cosine():
    # DINO's `cosine_scheduler(0.04, 0.4)`, without a warmup.
    cosine_ = {"initial_learning_rate": 0.04, "alpha": 10.0}
    config = OptimizationConfig(
        optimizer={"type": "adamw", "adamw": {"weight_decay_rate": 0.04}},
        learning_rate={"type": "constant", "constant": {"learning_rate": 1e-3}},
        schedules={"weight_decay": {"type": "cosine", "cosine": cosine_}},
    )
    decay = resolved(config, train_steps=N).schedules["weight_decay"].get()
    expected = [0.4 + 0.5 * (0.04 - 0.4) * (1 + math.cos(math.pi * s / N)) for s in range(N)]
    np.testing.assert_allclose(rate(decay, range(N)), expected, rtol=1e-12)
    assert rate(decay, [N, 10**9]) == [0.4, 0.4]
