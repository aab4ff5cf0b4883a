"""Formulas of ZClip and of what is skipped, against transcriptions in float64."""

import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.spike_config import SkipSpikesConfig, ZClipConfig
from tests.references import spikes

MODES = [
    {},
    {"mode": "mean"},
    {"mode": "threshold"},
    {"clip_factor": 0.7, "z_threshold": 2.0, "decay": 0.9},
    {"learns_from_spikes": False, "warmup_steps": 1},
]


def reference_of(config):
    return spikes.ZClip(
        config.z_threshold, config.decay, config.mode, config.clip_factor, config.warmup_steps
    )


@pytest.mark.parametrize("fields", MODES, ids=str)
def test_zclip_is_that_of_the_paper(fields):
    config, kept = ZClipConfig(fields), np.zeros(ZClipConfig.SIZE)
    reference = reference_of(config)
    for norm in spikes.norms():
        bound, kept = config.clip(np.float64(norm), kept, np)
        expected = reference.bound(norm, config.learns_from_spikes)
        assert bound == pytest.approx(np.inf if expected is None else expected, rel=1e-12)
        if reference.mean is not None:
            assert kept[1] == pytest.approx(reference.mean, rel=1e-12)
            assert kept[2] == pytest.approx(reference.variance, rel=1e-9, abs=1e-15)
    assert kept[ZClipConfig.CLIPPED] == reference.clipped > 2


def test_what_is_not_finite_is_not_learned():
    config, kept = ZClipConfig(warmup_steps=2), np.zeros(ZClipConfig.SIZE)
    for norm in (1.0, np.inf, np.nan, 2.0, np.nan, np.inf):
        with np.errstate(invalid="ignore"):
            bound, kept = config.clip(np.float64(norm), kept, np)
        assert bound == np.inf
    assert kept.tolist() == [2.0, 1.5, 0.25, 0.0]


SKIPS = [
    {"sigma": 3.0, "window": 40},
    {"sigma": 6.0, "window": 20},
    {"quantile": 0.9, "window": 16},
    {"quantile": 1.0, "window": 10, "warmup_steps": 10},
    {"quantile": 0.0, "window": 2},
]


@pytest.mark.parametrize("fields", SKIPS, ids=str)
def test_spikes_are_what_is_above_the_recent_values(fields):
    config = SkipSpikesConfig(fields)
    values = spikes.norms()
    values[[50, 90]] = np.nan, np.inf
    found, kept = [], np.zeros(config.size)
    for value in values:
        with np.errstate(invalid="ignore"):
            spike, kept = config.judge(value, kept, np)
        found.append(bool(spike))
    warmup = config.warmup_steps or max(config.window // 2, 2)
    expected = spikes.are_spikes(values, config.window, warmup, config.sigma, config.quantile)
    assert found == expected
    assert 2 < sum(found) < len(found)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"zclip": {"z_threshold": 0.0}}, "zclip.z_threshold: must be > 0"),
        ({"zclip": {"decay": 1.0}}, "zclip.decay: must be < 1"),
        ({"zclip": {"mode": "median"}}, "zclip.mode: "),
        ({"zclip": {"clip_factor": 1.5}}, "zclip.clip_factor: must be <= 1"),
        (
            {"zclip": {"clip_factor": 0.5, "mode": "mean"}},
            "needs `mode: reciprocal`, got mode mean",
        ),
        ({"zclip": {}, "clipvalue": 1.0}, "optimizer.sgd.clipvalue: may not act beside `zclip`"),
        ({"skip_spikes": {}}, "exactly one of `sigma` and `quantile` must be set, got none"),
        ({"skip_spikes": {"sigma": 6.0, "quantile": 0.9}}, "got sigma and quantile"),
        ({"skip_spikes": {"quantile": 1.5}}, "skip_spikes.quantile: must be <= 1"),
        ({"skip_spikes": {"sigma": 6.0, "window": 1}}, "skip_spikes.window: must be >= 2"),
        ({"skip_spikes": {"sigma": 6.0, "warmup_steps": 200}}, "must be at most `window`, 128"),
        ({"skip_spikes": {"sigma": 6.0, "of": ["norm"]}}, "gradient_norm"),
        ({"skip_spikes": {"sigma": 6.0, "of": ["loss", "loss"]}}, "must have each name once"),
    ],
)
def test_refusals(sections, message):
    clip = {"clipvalue": sections.pop("clipvalue")} if "clipvalue" in sections else {}
    with pytest.raises(ConfigError, match=message):
        OptimizationConfig(
            {
                "optimizer": {"type": "sgd", "sgd": clip},
                "learning_rate": {"type": "constant"},
                **sections,
            }
        ).validate()
