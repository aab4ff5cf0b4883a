"""docs/plot.md: its commands print and draw what the page shows."""

import pytest

from tools import pictures


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "configs").symlink_to(pictures.ROOT / "configs")
    (tmp_path / "docs/plot").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")  # which the tool sets
    return tmp_path


def test_the_page_and_its_pictures_are_those_that_the_tool_writes(folder):
    pytest.importorskip("plotille")
    text = (pictures.ROOT / pictures.PAGE).read_text()
    assert pictures.page(text) == text, "run `python -m tools.pictures`"
    kept = {path.name: path.read_text() for path in (pictures.ROOT / "docs/plot").iterdir()}
    drawn = {path.name: path.read_text() for path in (folder / "docs/plot").iterdir()}
    assert drawn == kept
    assert all(f"(plot/{name})" in text for name in kept)
