"""What programs write: files of figures, and sections of a page.

A section lies between two comments, which stay:

    <!-- updates: written by `python -m tools.benchmark --page docs/performance.md` -->
    ...
    <!-- end of updates -->

What is around them is written by hand.
"""

import argparse
import json
import pathlib
import re
from typing import Any

from tools.benchmark import machine


def add_options(parser: argparse.ArgumentParser, section: str) -> None:
    """Adds the options that say where a program writes; see `write`."""
    parser.add_argument("--output", type=pathlib.Path, metavar="DIR")
    parser.add_argument(
        "--page",
        type=pathlib.Path,
        metavar="FILE",
        help=f"a page whose section `{section}` to fill",
    )


def write(
    options: argparse.Namespace, section: str, name: str, text: str, record: dict[str, Any]
) -> None:
    """Prints a text, and writes it where the options say.

    Args:
        options: With those of `add_options`.
        section: Of the page.
        name: Of the files in the folder, `name`.json and `name`.md.
        text: What the section and `name`.md hold.
        record: What `name`.json holds; the machine's facts are added to its "facts".
    """
    print(text)
    if options.page is not None:
        fill(options.page, section, text)
    if options.output is not None:
        options.output.mkdir(parents=True, exist_ok=True)
        record = record | {"facts": machine.facts() | record["facts"]}
        (options.output / f"{name}.json").write_text(json.dumps(record, indent=1) + "\n")
        (options.output / f"{name}.md").write_text(text)


def fill(page: pathlib.Path, section: str, text: str) -> None:
    """Replaces what is between the comments of a section.

    Raises:
        ValueError: If the page does not have the section exactly once.
    """
    name = re.escape(section)
    pattern = rf"(<!-- {name}:[^\n]* -->\n).*?(<!-- end of {name} -->)"
    old = page.read_text()
    new, count = re.subn(
        pattern, lambda found: f"{found[1]}\n{text.strip()}\n\n{found[2]}", old, flags=re.DOTALL
    )
    if count != 1:
        raise ValueError(f"{page} must have one section {section!r}, has {count}")
    page.write_text(new)
