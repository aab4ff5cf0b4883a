import re

import pytest

from optimization.plots.drawing import picture_of
from optimization.plots.terminal import drawn
from tests.plots.test_picture import STEPWISE, config

pytest.importorskip("plotille")
ESCAPE = re.compile(r"\x1b\[[0-9;]*m")


@pytest.fixture(autouse=True)
def plain(monkeypatch):
    monkeypatch.delenv("FORCE_COLOR", raising=False)
    monkeypatch.delenv("NO_COLOR", raising=False)


@pytest.mark.parametrize("width", [60, 80, 200])
@pytest.mark.parametrize("count", [1, 3])
def test_it_fits(width, count):
    text = drawn(
        picture_of({f"file_{n}.yaml": config(1000 * n) for n in range(1, count + 1)}), width
    )
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert max(map(len, lines)) > width - 8
    assert not ESCAPE.search(text)
    assert "optimizer steps" in text
    assert len(lines) <= 24 + 12


def dots(text):
    """Returns the dots of the drawing, as columns from the left and rows from below."""
    rows = re.findall("^.*?[┤│](.*)$", text, re.MULTILINE)
    bits = [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (0, 3), (1, 3)]
    return {
        (2 * column + bits[bit][0], 4 * (len(rows) - row) - 1 - bits[bit][1])
        for row, line in enumerate(rows)
        for column, letter in enumerate(line)
        for bit in range(8)
        if letter >= "\u2800" and (ord(letter) - 0x2800) >> bit & 1
    }, len(rows)


def test_the_dots_are_the_curve():
    rate = {"type": "linear", "linear": {"initial_learning_rate": 1.0, "decay_steps": 100_000}}
    picture = picture_of({"a": config(learning_rate=rate, warmup={})}, steps=(0, 99_999))
    text = drawn(picture, 80)
    found, rows = dots(text)
    (axis,) = [line for line in text.splitlines() if "└" in line]
    columns = 2 * len(axis.split("└")[1])
    for column in range(columns):
        expected = (4 * rows - 1) * (1 - column / (columns - 1))
        assert any((column, round(expected) + off) in found for off in (-1, 0, 1)), column
    assert len(found) <= 1.5 * columns


def test_a_jump_is_upright():
    text = drawn(picture_of({"a": config(learning_rate=STEPWISE, warmup={})}), 80)
    found, rows = dots(text)
    heights = {}
    for column, row in found:
        heights.setdefault(column, set()).add(row)
    assert any(len(of_column) >= 0.85 * 4 * rows for of_column in heights.values())


def test_several_curves_carry_their_numbers():
    text = drawn(picture_of({"a": config(), "b": config(9000)}), 80)
    drawing, legend = text.split("optimizer steps")
    inside = "".join(re.findall(r"[┤│](.*)", drawing))
    assert {"1", "2"} == set(re.findall(r"\d", inside))
    assert "\n1 a: " in legend
    assert "\n2 b: " in legend


def test_colors_where_they_are_wanted(monkeypatch):
    picture = picture_of({"a": config(), "b": config(9000)})
    monkeypatch.setenv("FORCE_COLOR", "1")
    colored = drawn(picture, 80)
    assert len(set(ESCAPE.findall(colored))) >= 4  # two curves, marks, and back
    monkeypatch.setenv("NO_COLOR", "1")
    assert ESCAPE.sub("", colored) == drawn(picture, 80)


def test_the_width_of_the_terminal(monkeypatch):
    picture = picture_of({"a": config()})
    monkeypatch.setenv("COLUMNS", "70")
    assert str(picture) == drawn(picture, 70)
    assert drawn(picture, 5) == drawn(picture, 40)
    assert drawn(picture, 900) == drawn(picture, 200)
