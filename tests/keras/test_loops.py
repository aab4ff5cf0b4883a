"""docs/loops.md: Keras' own `fit`, on each backend."""

import pytest

from tests.test_docs import DOCS, run_examples


@pytest.mark.slow
def test_the_page_is_right(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (output,) = run_examples(DOCS / "loops.md", tmp_path, "", "Keras' fit")
    assert output[1] == output[0].text
