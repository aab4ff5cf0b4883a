import pytest


@pytest.fixture(autouse=True)
def wide(monkeypatch):
    """Messages are on one line, as on a wide terminal."""
    monkeypatch.setenv("COLUMNS", "400")
