import pytest

from optimization.plots.ticks import limits, number, short_step, ticks


@pytest.mark.parametrize(
    ("low", "high", "log"),
    [(0, 1, False), (0, 3.2, False), (37, 41, False), (0, 1e-9, False), (0, 12_345_678, False),
     (1e-6, 1e-3, True), (0.2, 0.3, True), (3e-9, 2.0, True)],
)  # fmt: skip
@pytest.mark.parametrize("most", [3, 6, 12])
def test_ticks_are_few_round_and_inside(low, high, log, most):
    found = ticks(low, high, most, log)
    assert 1 <= len(found) <= most + 1
    assert all(low <= tick * (1 + 1e-9) and tick <= high * (1 + 1e-9) for tick in found)
    assert all(
        len(f"{tick:.12g}".strip("0.").split("e")[0].replace(".", "")) <= 8 for tick in found
    )
    assert found == sorted(set(found))


def test_an_axis_starts_at_0_where_that_leaves_room():
    assert limits([0.3, 1.0], log=False) == (0, 1)
    assert limits([0.9, 0.95], log=False) == (0.9, 0.95)
    assert limits([0.9, 0.9], log=False) == (0, 0.9)
    assert limits([0.0, 0.0], log=False) == (0, 1)
    assert limits([0.1, 0.1], log=True) == pytest.approx((0.01, 1))


def test_numbers():
    values = [0, 0.1, 3.2, 1e-4, 2.5e-5, 1 / 3, 1e10]
    assert [number(v) for v in values] == ["0", "0.1", "3.2", "0.0001", "2.5e-5", "0.3333", "1e+10"]
    assert [short_step(s) for s in (0, 7, 12_480, 1.5e6)] == ["0", "7", "12.48k", "1.5M"]
