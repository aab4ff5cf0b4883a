"""Runs what the pages of the documentation show, and compares what it prints.

A page runs from its top to its end, in a folder and a process of its own, as readers type it:

- a `python` block is executed; the next `text` block is what it prints;
- a block whose first line is a comment with a file's name, `# groups.yaml`, is that file;
- other `yaml` blocks are sections of a config, which must be right;
- a `console` block has commands, `$ optfactory ...`, each with what it prints;
- a `bash` block has commands, whose output the next `text` block shows, if there is one. What
  installs something is not run: the extras that it names must exist.

A line `...` in an output stands for any lines. A comment before a block says more of it:

- `<!-- test: numbers differ -->` of an output: each number stands for any number;
- `<!-- test: not run, REASON -->`: it is only read, see `check_unrun`.
"""

import configparser
import functools
import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
SHELL = ("console", "bash")
RUN = ("python", "yaml", *SHELL)
FILES = re.compile(r"\s*(?:#|//) ([\w./-]+\.(?:py|ya?ml|json|toml|txt))\n")
CONSTANT = {
    "PYTHONPATH": str(ROOT),
    "PYTHONUNBUFFERED": "1",
    "PYTHONWARNINGS": "ignore::UserWarning:torch.distributed.tensor._dispatch",
    "COLUMNS": "80",
    "TERMINAL_WIDTH": "80",
    "NO_COLOR": "1",
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "OMP_NUM_THREADS": os.environ.get("OMP_NUM_THREADS", "1"),
}
"""The part of the environment that is the same for all pages."""
_FENCE = re.compile(
    r"^(?:<!-- test: (?P<note>.*?) -->\n+)?```(?P<language>\w*)\n(?P<text>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)


class Block(NamedTuple):
    """A fenced block of a page."""

    language: str
    text: str
    line: int  # of its fence, from 1
    section: str = ""  # the title above it, of the second level
    note: str = ""  # what a comment says of it

    @property
    def file(self) -> str | None:
        """The name of the file that it is, if it is one."""
        match = FILES.match(self.text)
        return match[1] if match and self.language not in SHELL else None

    @property
    def is_run(self) -> bool:
        return not self.note.startswith("not run")


class Command(NamedTuple):
    """A command, and what it prints."""

    text: str
    output: str


def pages() -> list[Path]:
    """Returns every page whose blocks are run, by its path."""
    own = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
    return own + sorted(DOCS.rglob("*.md"))


def name_of(page: Path) -> str:
    """Returns how a page is called: its path below the root, and below docs/ that there."""
    parent = DOCS if DOCS in page.parents else ROOT
    return page.relative_to(parent).as_posix()


def blocks(page: Path) -> list[Block]:
    """Returns the fenced blocks of a page."""
    text = page.read_text(encoding="utf-8")
    titles = [(m.start(), m[1]) for m in re.finditer(r"^## (.+)$", text, re.MULTILINE)]
    found = []
    for match in _FENCE.finditer(text):
        fence = match.start("language")
        title = next((title for start, title in reversed(titles) if start < fence), "")
        line = text[:fence].count("\n") + 1
        found.append(Block(match["language"], match["text"], line, title, match["note"] or ""))
    return found


def commands(block: Block) -> list[Command]:
    """Returns the commands of a `console` or `bash` block."""
    if block.language == "bash":
        lines = re.sub(r"\\\n\s*", "", block.text).splitlines()
        return [Command(line, "") for line in lines if line and not line.startswith("#")]
    parts = re.split(r"^\$ ", block.text, flags=re.MULTILINE)
    assert parts[0] == "", f"line {block.line}: a console block begins with `$ `"
    found = []
    for part in parts[1:]:
        command, _, output = re.sub(r"\\\n\s*", "", part, count=9).partition("\n")
        found.append(Command(command, output))
    return found


def installs(command: str) -> bool:
    """Says whether a command installs something, and so is not run."""
    return bool(re.search(r"pip install|-m venv|git clone", command))


def without_installing(command: str) -> str:
    """Returns a command without its parts, joined by `&&`, that install something."""
    return " && ".join(part for part in command.split(" && ") if not installs(part))


def script_of(page: Path, *sections: str) -> list[dict[str, Any]]:
    """Returns what is to be done for a page, or for some of its sections, as JSON."""
    found: list[dict[str, Any]] = []
    for block in blocks(page):
        if (sections and block.section not in sections) or not block.is_run:
            continue
        step = {"line": block.line, "note": block.note}
        if block.file:
            found.append({**step, "do": "write", "name": block.file, "text": block.text})
        elif block.language == "python":
            found.append({**step, "do": "python", "text": block.text})
        elif block.language in SHELL:
            for command in commands(block):
                text = without_installing(command.text)
                shown = command.output if block.language == "console" else None
                if text:
                    found.append({**step, "do": "shell", "text": text, "shown": shown})
        elif block.language == "text":
            found.append({**step, "do": "compare", "shown": block.text})
    return found


def run(page: Path, folder: Path, backend: str, sections: tuple[str, ...], then: str) -> dict:
    """Runs a page, or some of its sections, in a folder; returns what `page_session` reports."""
    for name in ("configs", "experiments"):
        if (ROOT / name).exists():
            (folder / name).symlink_to(ROOT / name)
    (folder / "docs" / "plot").mkdir(parents=True)  # to which plot.md writes its pictures
    steps = script_of(page, *sections)
    if then:
        steps.append({"line": 0, "note": "", "do": "python", "text": then})
    return run_steps(name_of(page), steps, folder, backend)


def run_steps(name: str, steps: list[dict[str, Any]], folder: Path, backend: str) -> dict:
    """Does what `script_of` returned, in a process of its own."""
    report, printed = (folder.parent / f"{folder.name}.{end}" for end in ("json", "log"))
    report.unlink(missing_ok=True)
    page = {
        "name": name,
        "steps": steps,
        "report": str(report),
        "printed": str(printed),
        "folder": str(folder),
        "environment": {**os.environ, **environment_of(folder), "KERAS_BACKEND": backend},
    }
    server = _server(backend)
    server.stdin.write(json.dumps(page) + "\n")
    server.stdin.flush()
    assert server.stdout.readline() == "done\n", "the server of pages ended"
    if not report.exists():
        raise AssertionError(f"{name}: the process ended\n{printed.read_text(encoding='utf-8')}")
    return json.loads(report.read_text(encoding="utf-8"))


@functools.cache
def _server(backend: str) -> Any:
    """Starts the process that runs pages, with the framework loaded; see `page_session`."""
    environment = {**os.environ, **CONSTANT, "KERAS_BACKEND": backend}
    command = [sys.executable, "-m", "tests.page_session"]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True, env=environment)


def environment_of(folder: Path) -> dict[str, str]:
    """Returns the environment in which commands find this checkout, and print 80 columns."""
    programs = folder.parent / f"{folder.name}.bin"
    programs.mkdir(exist_ok=True)
    program = programs / "optfactory"
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m optimization "$@"\n')
    program.chmod(0o755)
    path = [str(programs), str(Path(sys.executable).parent), os.environ["PATH"]]
    return {**CONSTANT, "PATH": os.pathsep.join(path)}


def differs(shown: str, printed: str, note: str = "") -> bool:
    """Says whether what was printed is not what a page shows."""
    if note.startswith("numbers differ"):
        shown, printed = (_without_numbers(text) for text in (shown, printed))
    pattern = re.escape(shown.rstrip() + "\n")
    pattern = re.sub(r"(?m)^(\\ )*\\\.\\\.\\\.\\\n", r"(?:.*\n)*?", pattern)
    return re.fullmatch(pattern, printed.rstrip() + "\n") is None


def _without_numbers(text: str) -> str:
    """Returns text with # for each number, and one blank for several."""
    numbers = re.sub(r"\d[\d,]*(\.\d+)?(e-?\d+)?(:\d\d)*", "#", text)
    return re.sub(r"[ ─━]+", " ", numbers)


# What is not run


def check_unrun(block: Block) -> Iterator[str]:
    """Yields what is wrong with a block that is not run, as far as it can be read."""
    if block.language == "python":
        try:
            compile(block.text, f"line {block.line}", "exec")
        except SyntaxError as error:
            yield str(error)
    elif block.language in ("yaml", "json"):
        try:
            list(yaml.safe_load_all(block.text))
        except yaml.YAMLError as error:
            yield str(error)
    elif block.language in SHELL:
        for command in commands(block):
            yield from check_command(command.text)


def check_command(command: str) -> Iterator[str]:
    """Yields the files of the repository and the extras that a command names and that aren't."""
    extras = known_extras()
    for names in re.findall(r"\[([\w,-]+)\]", command if installs(command) else ""):
        yield from (f"no extra {name!r}" for name in names.split(",") if name not in extras)
    for word in shlex.split(command, comments=True):
        path = word.partition("=")[2] or word
        known = ("configs/", "docs/", "experiments/", "optimization/", "tests/", "tools/")
        is_name = path.startswith(known) and not any(c in path for c in "*{<$")
        if is_name and not (ROOT / path).exists():
            yield f"no file {path}"
    for module in re.findall(r"-m ((?:optimization|tools|experiments)[\w.]*)", command):
        if not any((ROOT / module.replace(".", "/")).parent.glob(f"{module.split('.')[-1]}*")):
            yield f"no module {module}"


def known_extras() -> set[str]:
    """Returns the names of the extras of this package."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg")
    return set(settings["options.extras_require"])
