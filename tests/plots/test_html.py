import json
import re

import pytest

from optimization import OptimizationConfig
from optimization.plots.drawing import picture_of
from optimization.plots.html import page
from tests.plots import browser

STEPWISE = {"boundaries": [3000, 6000], "values": [0.3, 0.03, 0.003]}
COSINE = {"initial_learning_rate": 0.1, "decay_steps": 10_000}


def config(kind, rate):
    return OptimizationConfig(
        optimizer={"type": "sgd"},
        learning_rate={"type": kind, kind: rate},
        warmup={"type": "linear", "linear": {"warmup_steps": 500}},
    )


@pytest.fixture
def picture():
    configs = {"a.yaml": config("cosine", COSINE), "b.yaml": config("stepwise", STEPWISE)}
    return picture_of(configs)


def data_of(text):
    return json.loads(re.search(r'<script id="data"[^>]*>(.*?)</script>', text, re.DOTALL)[1])


def test_the_page_holds_the_values_of_every_step(picture):
    data = data_of(page(picture))
    assert tuple(data["steps"]) == picture.steps
    for shown, curve in zip(data["curves"], picture.curves, strict=True):
        for value, exact in zip(shown["values"], curve.values, strict=True):
            assert value == (exact if exact is None else pytest.approx(exact, rel=1e-8))


def test_the_page_needs_nothing_beside_it_and_is_small(picture):
    text = page(picture)
    assert not re.search(
        r"""(?:src|href)=["'](?!data:)|url\((?!#)|@import|https?://(?!www\.w3)""", text
    )
    assert len(text) < 100_000


def test_names_are_no_code():
    text = page(picture_of({"</script><b>$&{{data}}": config("cosine", COSINE)}))
    assert data_of(text)["curves"][0]["name"] == "</script><b>$&{{data}}"
    assert "<b>" not in text


PROGRAM = browser.find()
needs_browser = pytest.mark.skipif(PROGRAM is None, reason="no Chromium is installed")


@pytest.fixture
def opened(picture, tmp_path):
    picture.save(tmp_path / "picture.html")
    with browser.Browser(PROGRAM, tmp_path / "profile") as opened:
        opened.open((tmp_path / "picture.html").as_uri())
        yield opened
        assert opened.errors == []
        assert [url for url in opened.requests if not url.startswith(("file:", "data:"))] == []


def place(opened, step):
    """Returns where a step is in the window."""
    left = opened.value("drawing.getBoundingClientRect().left")
    top = opened.value("drawing.getBoundingClientRect().top")
    return left + opened.value(f"toX({step})"), top + 150


def shown(opened):
    """Returns the step and each curve's value that the page shows beside the mouse."""
    first, *rows = opened.value("[...tip.querySelectorAll('tr')].map(row => row.innerText)")
    step = int(first.removeprefix("step ").replace(",", ""))
    return step, {name: float(value) for _, name, value in (row.split("\t") for row in rows)}


@pytest.mark.slow
@needs_browser
def test_hovering_shows_the_values_of_the_curves(opened, picture):
    for step in (0, 250, 500, 2999, 5500, 9990):
        opened.mouse("moved", *place(opened, step))
        found, values = shown(opened)
        assert abs(found - step) <= 10
        index = picture.steps.index(found)
        expected = {c.name: c.values[index] for c in picture.curves if c.values[index] is not None}
        assert values == pytest.approx(expected, rel=1e-5)
    opened.mouse("moved", 1, 1)
    assert opened.value("tip.hidden")


def drag(opened, start, end):
    opened.mouse("moved", *start)
    opened.mouse("pressed", *start)
    opened.mouse("moved", *end)
    opened.mouse("released", *end)


@pytest.mark.slow
@needs_browser
def test_dragging_zooms_and_a_double_click_resets(opened, picture):
    range_shown = "[+drawing.dataset.from, +drawing.dataset.to]"
    whole = [picture.steps[0], picture.steps[-1]]
    assert opened.value(range_shown) == whole
    drag(opened, place(opened, 2900), place(opened, 3100))
    first, last = opened.value(range_shown)
    assert (first, last) == (pytest.approx(2900, abs=12), pytest.approx(3100, abs=12))
    # The jump is upright: the steps at which it is are known, and a pixel is less than a step.
    opened.mouse("moved", *place(opened, 3000.2))
    assert shown(opened) == (3000, pytest.approx({"a.yaml": 0.0794, "b.yaml": 0.3}, rel=1e-3))
    opened.mouse("moved", *place(opened, 3000.9))
    assert shown(opened)[1]["b.yaml"] == 0.03
    drag(opened, place(opened, last), place(opened, first))  # from right to left too
    assert opened.value(range_shown) == [first, last]
    drag(opened, place(opened, first), place(opened, first))  # a click is no drag
    for clicks in (1, 2):
        opened.mouse("pressed", *place(opened, first), clicks)
        opened.mouse("released", *place(opened, first), clicks)
    assert opened.value(range_shown) == whole


@pytest.mark.slow
@needs_browser
def test_a_click_on_a_name_hides_its_curve(opened):
    count = "drawing.querySelectorAll('polyline').length"
    assert opened.value(count) == 2
    assert opened.value("document.querySelectorAll('#legend button')[1].click(), " + count) == 1
    opened.mouse("moved", *place(opened, 5000))
    assert list(shown(opened)[1]) == ["a.yaml"]


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize("log", [False, True])
def test_dark_and_light_are_both_readable(picture, tmp_path, log):
    picture = picture_of({"a.yaml": config("cosine", COSINE)}, log=log)
    picture.save(tmp_path / "picture.html")
    colors = {}
    for scheme in ("light", "dark"):
        with browser.Browser(PROGRAM, tmp_path / scheme, scheme=scheme) as opened:
            opened.open((tmp_path / "picture.html").as_uri())
            style = "getComputedStyle(document.body)"
            colors[scheme] = opened.value(f"[{style}.color, {style}.backgroundColor]")
            assert opened.errors == []
            texts = opened.value("[...drawing.querySelectorAll('text')].map(t => t.textContent)")
            assert "optimizer steps" in texts
            assert "NaN" not in opened.value("drawing.outerHTML")
    assert colors["light"] == ["rgb(51, 51, 51)", "rgb(255, 255, 255)"]
    assert colors["dark"] == ["rgb(204, 204, 204)", "rgb(21, 24, 28)"]
