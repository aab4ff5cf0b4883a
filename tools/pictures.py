"""Writes the pictures and the output of commands that docs/plot.md shows.

python -m tools.pictures
"""

import contextlib
import io
import os
import re
import shlex
from pathlib import Path

from optimization.cli.app import main

ROOT = Path(__file__).parent.parent
PAGE = Path("docs/plot.md")
BLOCK = re.compile(r"^```console\n\$ optfactory (.*)\n(?s:.*?)^```$", re.MULTILINE)


def run(command: str) -> str:
    """Runs a command of the page, on a terminal of 80 columns; returns what it prints."""
    os.environ["COLUMNS"] = "80"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(printed):
        main(shlex.split(command))
    return printed.getvalue()


def page(text: str) -> str:
    """Returns the text of the page with what its commands print now; they write the pictures."""
    return BLOCK.sub(lambda m: f"```console\n$ optfactory {m[1]}\n{run(m[1])}```", text)


if __name__ == "__main__":
    os.chdir(ROOT)
    PAGE.write_text(page(PAGE.read_text()))
