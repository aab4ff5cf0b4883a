import csv
import math
import random
import xml.etree.ElementTree

import pytest

from optimization import RangeTest, find_learning_rate
from optimization.range_test import repeated

CURVATURES = (8.0, 1.0, 0.1)


class Parabola:
    """Gradient descent on a parabola: it diverges above 2 / the largest curvature."""

    def __init__(self, offset=0.0):
        self.w, self.offset, self.rates = [1.0] * len(CURVATURES), offset, []

    def __call__(self, rate):
        self.rates.append(rate)
        loss = self.offset + sum(h * w**2 / 2 for h, w in zip(CURVATURES, self.w, strict=True))
        self.w = [w - rate * h * w for h, w in zip(CURVATURES, self.w, strict=True)]
        return loss


def test_the_rates_grow_by_one_factor_and_each_is_given_once():
    parabola = Parabola()
    found = find_learning_rate(parabola, lowest=1e-4, highest=1e-2, steps=5)
    assert found.rates == pytest.approx([1e-4, 10**-3.5, 1e-3, 10**-2.5, 1e-2])
    assert parabola.rates == found.rates
    assert not found.diverged


@pytest.mark.parametrize("smoothing", [0.0, 0.9])
def test_it_diverges_above_two_over_the_curvature(smoothing):
    found = find_learning_rate(
        Parabola(), lowest=1e-4, highest=100.0, steps=200, smoothing=smoothing
    )
    bound = 2 / max(CURVATURES)
    assert found.diverged
    assert found.rates[-1] > bound
    # What is suggested does not diverge, and is not so small that nothing happens.
    assert bound / 100 < found.steepest < bound
    assert bound / 100 < found.tenth < bound
    assert found.tenth == found.lowest / 10


def test_the_average_is_corrected_for_its_start():
    losses = iter([4.0, 2.0, 1.0])
    found = find_learning_rate(lambda rate: next(losses), steps=3, smoothing=0.5)
    assert found.losses == [4.0, 2.0, 1.0]
    expected = [4.0, (0.5 * 2 + 0.25 * 4) / 0.75, (0.5 * 1 + 0.25 * 2 + 0.125 * 4) / 0.875]
    assert found.smoothed == pytest.approx(expected)


@pytest.mark.parametrize("last", [math.inf, math.nan, 9.0])
def test_it_stops_at_a_loss_that_is_not_finite_or_too_high(last):
    losses = iter([3.0, 2.0, last, 0.0])
    found = find_learning_rate(lambda rate: next(losses), steps=10, smoothing=0.0)
    assert len(found.rates) == 3
    assert found.diverged
    assert found.lowest == found.rates[1]


def test_noise_at_the_start_is_not_the_steepest_descent():
    found = find_learning_rate(noisy(Parabola()), lowest=1e-4, highest=100.0)
    assert found.steepest > found.rates[9]
    assert found.steepest < 2 / max(CURVATURES)


def noisy(step):
    noise = random.Random(0)
    return lambda rate: step(rate) + noise.gauss(0, 1)


def test_a_loss_below_0_does_not_end_it():
    losses = iter([-1.0, -2.0, -0.5, -3.0])
    assert not find_learning_rate(lambda rate: next(losses), steps=4, smoothing=0.0).diverged


def test_a_loss_that_never_falls_has_no_suggestion():
    found = RangeTest([0.1, 1.0, 10.0], [1.0, 2.0, 9.0], [1.0, 2.0, 9.0], diverged=True, planned=5)
    assert found.steepest is None
    assert "the loss never fell: begin with a lower rate (the loss diverged at 10)" in str(found)


def test_the_table_has_the_rates_and_the_conclusions():
    lines = str(find_learning_rate(Parabola(1.0), lowest=1e-3)).splitlines()
    assert lines[0].split() == ["rate", "smoothed", "loss"]
    assert lines[1].split()[:2] == ["0.001", "5.55"]
    assert lines[17] == ""
    assert [line.rstrip(".0123456789e-").strip() for line in lines[18:]] == [
        "steepest descent",
        "a tenth of the lowest point's",
        "lowest loss",
        "the loss diverged at",
    ]
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lowest": 0.0}, "0 < lowest < highest, received: lowest=0.0"),
        ({"lowest": 1.0, "highest": 1.0}, "0 < lowest < highest"),
        ({"highest": math.inf}, "0 < lowest < highest"),
        ({"steps": 2}, "`steps` must be >= 3"),
        ({"smoothing": 1.0}, "`smoothing` must be >= 0 and < 1"),
        ({"divergence": 1.0}, "`divergence` must be > 1"),
    ],
)
def test_arguments_out_of_range_are_told(arguments, message):
    with pytest.raises(ValueError, match=message):
        find_learning_rate(Parabola(), **arguments)


def test_a_table_as_a_file(tmp_path):
    found = find_learning_rate(Parabola(), lowest=1e-3)
    found.save(tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as file:
        head, *rows = csv.reader(file)
    assert head == ["learning_rate", "loss", "smoothed_loss"]
    assert [float(row[0]) for row in rows] == found.rates
    assert [float(row[2]) for row in rows] == found.smoothed


@pytest.mark.parametrize("diverged", [True, False])
def test_a_picture(tmp_path, diverged):
    pytest.importorskip("matplotlib")
    found = find_learning_rate(Parabola(), lowest=1e-3, highest=10.0 if diverged else 0.01)
    found.save(tmp_path / "x.svg")
    text = (tmp_path / "x.svg").read_text()
    assert xml.etree.ElementTree.fromstring(text).tag.endswith("svg")
    found.save(tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes().startswith(b"\x89PNG")


def test_another_ending_is_told(tmp_path):
    with pytest.raises(ValueError, match=r"must be one of .png, .svg, .pdf, .csv"):
        find_learning_rate(Parabola(), lowest=1e-3).save(tmp_path / "x.gif")


def test_batches_that_end_for_good_are_told():
    with pytest.raises(ValueError, match="there are no batches"):
        next(repeated([]))
    batches = repeated(iter([1]))
    assert next(batches) == 1
    with pytest.raises(ValueError, match="there are no more batches"):
        next(batches)
