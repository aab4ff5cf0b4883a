import itertools

import numpy as np
import pytest

from optimization import LrConfig
from optimization.configs.rate_curve import RateCurve
from optimization.plots.points import even_steps, telling_points
from optimization.schedules.warmups import LinearWarmupConfig

LAST = 50_000
RATES = {
    "cosine": {"initial_learning_rate": 0.1, "decay_steps": 30_001},
    "cosine_restarts": {"initial_learning_rate": 0.1, "first_decay_steps": 777, "t_mul": 1.5},
    "exponential": {
        "initial_learning_rate": 0.1,
        "decay_steps": 4999,
        "decay_rate": 0.5,
        "staircase": True,
    },
    "one_cycle": {"max_learning_rate": 1.0, "total_steps": 40_000},
    "stepwise": {"boundaries": [7, 20_011, 20_013], "values": [0.1, 0.5, 0.05, 0.3]},
}


@pytest.mark.parametrize("kind", RATES)
def test_straight_lines_between_the_points_are_the_curve(kind):
    curve = RateCurve(LrConfig(type=kind, **{kind: RATES[kind]}).get())
    steps, are_enough = telling_points(curve.values, even_steps(0, LAST))
    everywhere = np.arange(LAST + 1)
    exact = np.array(curve.values(list(everywhere)))
    drawn = np.interp(everywhere, steps, curve.values(steps))
    assert are_enough
    # Probes find what misses a line by a thousandth; beside them it may be somewhat more.
    assert np.abs(drawn - exact).max() <= 3e-3 * (exact.max() - exact.min())
    assert len(steps) < 4000


def test_logarithmic_heights_are_compared_as_such():
    rate = LrConfig(type="exponential", exponential={
        "initial_learning_rate": 0.1, "decay_steps": 100, "decay_rate": 0.5}).get()  # fmt: skip
    curve = RateCurve(rate, LinearWarmupConfig(warmup_steps=1000, warmup_learning_rate=1e-9))
    steps, _ = telling_points(curve.values, even_steps(0, LAST), log=True)
    exact = np.log10(curve.values(list(range(LAST + 1))))
    drawn = np.interp(np.arange(LAST + 1), steps, np.log10(curve.values(steps)))
    assert np.abs(drawn - exact).max() <= 3e-3 * (exact.max() - exact.min())


def test_a_jump_is_found_to_the_step():
    def jump(steps):
        return [float(step > 40_321) for step in steps]

    steps, _ = telling_points(jump, {0, LAST})
    assert {40_321, 40_322} <= set(steps)


def test_short_ranges_have_every_step():
    assert even_steps(10, 900) == set(range(10, 901))


@pytest.mark.parametrize("period", [3, 10, 100, 1000])
def test_waves_are_found_however_short_their_period(period):
    def waves(steps):
        return [float(step % period) for step in steps]

    steps, are_enough = telling_points(waves, even_steps(0, 10**6))
    assert not are_enough  # and it does not go on for ever
    assert 3000 < len(steps) <= 6001
    assert max(waves(steps)) > 0.3 * (period - 1)
    assert all(later > earlier for earlier, later in itertools.pairwise(steps))
