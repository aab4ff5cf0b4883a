"""The sections of a page that are written by programs.

A section lies between two comments, which stay:

    <!-- updates: written by `python -m tools.benchmark --page docs/performance.md` -->
    ...
    <!-- end of updates -->

What is around them is written by hand.
"""

import pathlib
import re


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
