"""docs/state_precision.md has a row for each way that its tool compares."""

from tests import pages
from tools import state_precision


def test_every_way_has_its_row():
    text = (pages.DOCS / "state_precision.md").read_text()
    table = text.split("| state | held-out loss |")[1].split("\n\n")[0]
    names = [line.split("|")[1].strip() for line in table.splitlines()[2:]]
    assert names == [way.name for way in state_precision.WAYS]


def test_the_page_says_with_which_arguments_it_was_made():
    arguments = state_precision.parse([])
    text = " ".join((pages.DOCS / "state_precision.md").read_text().split())
    assert f"for {arguments.steps:,} steps of AdamW" in text
    assert f"one block of width {arguments.width} on {arguments.length} characters" in text
    assert f"{arguments.batch} sequences" in text
