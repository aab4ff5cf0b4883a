import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from optimization.plots.drawing import picture_of
from optimization.plots.svg import COLORS, document
from tests.plots.test_picture import STEPWISE, config

SVG = "{http://www.w3.org/2000/svg}"


def places(line):
    return np.array([[float(x) for x in pair.split(",")] for pair in line.get("points").split()])


@pytest.mark.parametrize("rate", [config(), config(learning_rate=STEPWISE)])
def test_the_line_is_the_curve(rate):
    picture = picture_of({"a": rate})
    root = ElementTree.fromstring(document(picture))
    (line,) = root.iter(f"{SVG}polyline")
    drawn = places(line)
    points = np.array(picture.points(picture.curves[0]))
    # From data to places: by the first and the last step, and the lowest and highest value.
    across = np.interp(points[:, 0], points[[0, -1], 0], drawn[[0, -1], 0])
    low, high = points[:, 1].min(), points[:, 1].max()
    up = np.interp(points[:, 1], [low, high], [drawn[:, 1].max(), drawn[:, 1].min()])
    upright = np.diff(drawn[:, 0]) < 0.5
    for x, y in zip(across, up, strict=True):
        if not (upright & (drawn[:-1, 0] - 0.5 <= x) & (x <= drawn[1:, 0] + 0.5)).any():
            assert np.interp(x, drawn[:, 0], drawn[:, 1]) == pytest.approx(y, abs=0.3)


def test_texts():
    root = ElementTree.fromstring(document(picture_of({"a": config(), "b": config(9000)})))
    texts = [text.text for text in root.iter(f"{SVG}text")]
    assert {"learning rate", "optimizer steps", "a", "b", "0", "0.08", "2k"} <= set(texts)
    assert "warmup ends 100" in texts
    titles = [title.text for title in root.iter(f"{SVG}title")]
    assert "decay ends at step 9,000" in titles
    assert "`train_steps` is not known: drawn as far as it bends" in texts


def test_names_are_no_markup():
    text = document(picture_of({"<script>&": config()}))
    assert "<script>" not in text
    ElementTree.fromstring(text)


def test_many_curves_differ_in_color_or_dashes():
    root = ElementTree.fromstring(document(picture_of({f"{n}": config() for n in range(12)})))
    kinds = {
        (line.get("stroke"), line.get("stroke-dasharray")) for line in root.iter(f"{SVG}polyline")
    }
    assert len(kinds) == 12
    assert {color for color, _ in kinds} == set(COLORS)


def test_it_is_the_same_each_time():
    assert document(picture_of({"a": config()})) == document(picture_of({"a": config()}))
