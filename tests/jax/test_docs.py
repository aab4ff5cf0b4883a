import keras
import pytest

from tests.jax.common import jax  # noqa: F401  skips where it is not installed
from tests.test_docs import DOCS, run_examples

PAGE = DOCS / "jax.md"


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="the page has Keras on JAX")
def test_the_examples_print_what_the_page_says(tmp_path):
    outputs = run_examples(PAGE, tmp_path)
    assert len(outputs) == 3
    for block, printed in outputs:
        assert printed == block.text, f"{PAGE.name}:{block.line}"
