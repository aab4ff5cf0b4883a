import numpy as np
import pytest

from optimization.schedules.averages import AverageDecay
from optimization.schedules.scalars import SCALARS
from tests.references import averages

UPDATES = [1, 2, 3, 4, 5, 7, 8, 9, 50, 10**4, 10**9]


@pytest.mark.parametrize("xp", [SCALARS, np], ids=["scalars", "numpy"])
@pytest.mark.parametrize("name", averages.FORMS)
def test_every_form_is_its_origin_s(name, xp):
    settings, expected = averages.FORMS[name]
    decay = AverageDecay(**settings)
    shares = [float(decay.moved_share(n, n - decay.start_step, xp)) for n in UPDATES]
    # Of float64; a share of 1e-9 is more exact than 1 less the decay.
    np.testing.assert_allclose(1 - np.array(shares), [*map(expected, UPDATES)], rtol=1e-14)


def test_a_cosine_comes_to_1_and_stays():
    decay = AverageDecay(average_decay=0.996, dynamic_decay="cosine", rise_steps=100)
    assert [decay.moved_share(n, n, SCALARS) for n in (101, 102, 10**6)] == [0.0, 0.0, 0.0]
    assert decay.moved_share(100, 100, SCALARS) == pytest.approx(0.004 * 2.4672e-4, rel=1e-4)


def test_a_schedule_sees_the_updates_done_before():
    seen = []
    decay = AverageDecay(average_decay=lambda done: seen.append(done) or 0.75, start_step=2)
    # What grows acts too: (1 + 3) / (10 + 3) is less.
    assert decay.moved_share(5, 3, SCALARS) == pytest.approx(9 / 13)
    assert decay.moved_share(1, -1, SCALARS) == 1.0
    assert seen == [4, 0]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"average_decay": 1.0}, "`average_decay` must be in \\[0, 1\\)"),
        ({"start_step": -1}, "`start_step` must be >= 0"),
        ({"dynamic_decay": "sine"}, "`dynamic_decay` must be True, False, 'power'"),
        ({"gamma": 0.0}, "`gamma` must be > 0"),
        ({"power": -1.0}, "`power` must be > 0"),
        ({"time_constant": float("nan")}, "`time_constant` must be > 0"),
        ({"dynamic_decay": "cosine"}, "`rise_steps` must be > 0 with"),
    ],
)
def test_values_out_of_range_are_errors(settings, message):
    with pytest.raises(ValueError, match=message):
        AverageDecay(**settings)
