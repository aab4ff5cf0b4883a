"""docs/gallery/: in step with the types, and drawn from their numbers."""

import numpy as np
import pytest

from tools import gallery


@pytest.fixture(scope="module")
def pictures():
    return gallery.pictures()


def test_the_pages_are_in_step():
    for path, text in gallery.pages().items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m tools.gallery`"


def test_the_pictures_show_the_numbers_of_today(pictures):
    stale = [picture.name for picture in pictures if not picture.is_drawn()]
    assert stale == [], "run `python -m tools.gallery`"
    assert {p.path for p in pictures} == set(gallery.FOLDER.glob("*.svg"))


def test_the_digest_is_that_of_the_numbers(pictures):
    picture = pictures[1]
    moved = {name: points * 1.001 for name, points in picture.curves.items()}
    assert picture._replace(curves=moved).digest != picture.digest
    nearly = {name: points * (1 + 1e-12) for name, points in picture.curves.items()}
    assert picture._replace(curves=nearly).digest == picture.digest


def test_every_path_goes_down():
    for kind in gallery.own_types(gallery.OPTIMIZERS_CLS):
        points, _ = gallery.path_of(kind)
        assert len(points) == gallery.UPDATES + 1
        assert gallery.height(points[-1]) < 0.3 * gallery.height(points[0]), kind
        assert np.array_equal(points[0], gallery.START)


def test_sgd_is_what_one_computes_by_hand():
    points, rate = gallery.path_of("sgd")
    away = gallery.START - gallery.BOTTOM
    decay = np.eye(2) - rate * gallery._HESSIAN
    expected = gallery.BOTTOM + np.linalg.matrix_power(decay, gallery.UPDATES) @ away
    np.testing.assert_allclose(points[-1], expected, rtol=1e-12)


def test_pictures_are_small(pictures):
    assert max(picture.path.stat().st_size for picture in pictures) < 20_000
    assert all("digest" in picture.path.read_text() for picture in pictures)


def test_it_draws(pictures, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.setattr(gallery, "FOLDER", tmp_path)
    gallery.save(pictures[0])
    assert pictures[0].is_drawn()
