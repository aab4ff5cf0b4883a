"""Runs pages of the documentation, and writes into them what their blocks print.

    python -m tools.page_outputs docs/quickstart/keras.md ...

An output that is right stays as it is, also one with lines `...`. Read what has changed.
"""

import pathlib
import re
import sys
import tempfile

from tests import pages
from tests.test_docs import RUNS, Run


def main(arguments: list[str]) -> int:
    """Rewrites the pages with these names; returns the exit status."""
    failed = False
    for argument in arguments:
        page = pathlib.Path(argument).resolve()
        for run in RUNS.get(pages.name_of(page), [Run()]):
            failed |= _rewrite(page, run)
    return int(failed)


def _rewrite(page: pathlib.Path, run: Run) -> bool:
    """Rewrites the outputs of a run; says whether it failed."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = pathlib.Path(scratch) / "page"
        folder.mkdir()
        report = pages.run(page, folder, run.backend, run.sections, run.then)
    # From the last on, so that what comes before keeps its line.
    for output in reversed(report["outputs"]):
        shown, printed = output["shown"], output["printed"]
        if pages.differs(shown, printed, output["note"]):
            print(f"{page.name}:{output['line']}")
            _replace(page, output, re.sub(r" +$", "", printed.rstrip(), flags=re.MULTILINE))
    if "failed" in report:
        print(f"{page.name}:{report['line']}\n{report['failed']}")
    return "failed" in report


def _replace(page: pathlib.Path, output: dict, printed: str) -> None:
    """Replaces one output in its block."""
    lines = page.read_text(encoding="utf-8").splitlines(keepends=True)
    before, after = "".join(lines[: output["line"]]), "".join(lines[output["line"] :])
    block, fence, rest = after.partition("```\n")
    command = f"$ {output['text']}\n" if output["do"] == "shell" else ""
    place = block.find(command + output["shown"])
    if place < 0:
        print(f"  by hand, after {command}{printed}")
        return
    end = place + len(command + output["shown"])
    block = f"{block[:place]}{command}{printed}\n{block[end:]}" if printed else block
    page.write_text(before + block + fence + rest, encoding="utf-8")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
