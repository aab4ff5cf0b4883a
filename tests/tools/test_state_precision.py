"""docs/state_precision.md says what its tool does."""

from tests import pages
from tools import state_precision


def test_the_page_says_with_which_arguments_it_was_made():
    arguments = state_precision.parse([])
    text = " ".join((pages.DOCS / "state_precision.md").read_text().split())
    assert f"for {arguments.steps:,} steps of AdamW" in text
    assert f"one block of width {arguments.width} on {arguments.length} characters" in text
    assert f"{arguments.batch} sequences" in text
