"""Runs the tests with the versions of Python and of frameworks that people have.

    python -m tools.versions                    lists the environments that can be made here
    python -m tools.versions 'tensorflow-*'     makes these, one after the other, and runs the tests
    python -m tools.versions '*' --write        the same, and writes the rows of docs/install.md
    python -m tools.versions --lowest           writes tests/lowest.txt from setup.cfg

An environment is named SIDE-VERSIONS-PYTHON. "lowest" has the lowest versions that setup.cfg
allows of what it names; "newest" has what an installer takes by itself.
"""

import argparse
import configparser
import datetime
import fnmatch
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ET
from collections.abc import Iterator, Mapping
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
PAGE = ROOT / "docs" / "install.md"
LOWEST = ROOT / "tests" / "lowest.txt"
PYTHONS = ("3.11", "3.12", "3.13", "3.14")
# The lowest NumPy has no wheels for Python 3.13, so no environment there has the lowest of all.
PYTHONS_OF_LOWEST = ("3.11", "3.12")


class Side(NamedTuple):
    """A part of the package that is tested by itself.

    Attributes:
        extra: What is installed of setup.cfg's extras; none: the core.
        backend: The backend of Keras.
        tests: The files and folders of tests.
        versions: By name, what is asked for between the lowest and the newest versions.
        shown: The packages whose versions are shown, by their titles.
    """

    extra: str
    backend: str
    tests: tuple[str, ...]
    versions: Mapping[str, tuple[str, ...]]
    shown: Mapping[str, str]


# What depends on Keras and TensorFlow most, and trainings from end to end.
TENSORFLOW_TESTS = (
    "tests/schedules/test_keras_schedules.py",
    "tests/test_optimizer_factory.py",
    *(f"tests/keras/test_{name}.py" for name in ("contracts", "groups", "muon", "saved_goldens")),
    *(f"tests/keras/test_{name}.py" for name in ("saving", "updates")),
    *(f"tests/training/test_{name}.py" for name in ("progress", "report", "run")),
)
SIDES = {
    "core": Side(
        extra="",
        backend="",
        tests=("tests/configs", "tests/cli", "tests/matching", "tests/test_import_guard.py"),
        versions={},
        shown={"NumPy": "numpy", "click": "click"},
    ),
    "tensorflow": Side(
        extra="tensorflow",
        backend="tensorflow",
        tests=TENSORFLOW_TESTS,
        versions={
            "keras3.11": ("tensorflow==2.19.*", "keras==3.11.*"),
            "keras3.12": ("tensorflow==2.20.*", "keras==3.12.*"),
            "keras3.13": ("tensorflow==2.20.*", "keras==3.13.*"),
            "keras3.14": ("tensorflow==2.21.*", "keras==3.14.*"),
        },
        shown={"TensorFlow": "tensorflow", "Keras": "keras", "NumPy": "numpy"},
    ),
    "torch": Side(
        extra="torch",
        backend="torch",
        tests=("tests/torch",),
        versions={f"torch{v}": (f"torch=={v}.*",) for v in ("2.8", "2.10")},
        shown={"PyTorch": "torch", "NumPy": "numpy"},
    ),
    "jax": Side(
        extra="jax",
        backend="jax",
        tests=("tests/jax",),
        versions={f"jax{v}": (f"jax=={v}.*",) for v in ("0.8", "0.9")},
        shown={"JAX": "jax", "optax": "optax", "NumPy": "numpy"},
    ),
}


class Environment(NamedTuple):
    """What is installed, where which tests run."""

    side: str
    versions: str
    python: str

    @property
    def name(self) -> str:
        return f"{self.side}-{self.versions}-py{self.python}"

    def requirements(self, home: pathlib.Path) -> list[str]:
        """Returns what the installer is asked for; `home` is where a file may lie."""
        side = SIDES[self.side]
        package = f"{ROOT}[{side.extra}]" if side.extra else str(ROOT)
        wanted = ["-e", package, *side.versions.get(self.versions, ()), "pytest"]
        if self.versions == "lowest":
            pins = home / "lowest.txt"
            pins.write_text(constraints(side.extra), encoding="utf-8")
            wanted += ["-c", str(pins)]
        return wanted


def environments() -> Iterator[Environment]:
    """Yields all environments: what lies between is tried on the first Python only."""
    for side, (_, _, _, versions, _) in SIDES.items():
        for python in PYTHONS:
            if python in PYTHONS_OF_LOWEST:
                yield Environment(side, "lowest", python)
            if python == PYTHONS[0]:
                yield from (Environment(side, name, python) for name in versions)
            yield Environment(side, "newest", python)


def interpreter(version: str) -> str | None:
    """Returns a Python of this version on this machine; None if there is none."""
    of_pyenv = sorted(pathlib.Path.home().glob(f".pyenv/versions/{version}.*/bin/python"))
    for found in (shutil.which(f"python{version}"), *map(str, of_pyenv)):
        # What pyenv puts on the path is there for versions that are not selected, too.
        if found and not subprocess.run([found, "--version"], capture_output=True).returncode:
            return found
    return None


def lower_bounds(extra: str = "") -> dict[str, str]:
    """Returns the lower bounds of setup.cfg: those of the package, and of an extra."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    extras = settings["options.extras_require"]

    def bounds(text: str) -> Iterator[tuple[str, str]]:
        for line in text.split():
            if others := re.fullmatch(r"optimizer-factory\[(.*)\]", line):
                yield from (each for name in others[1].split(",") for each in bounds(extras[name]))
            else:
                name, _, version = line.partition(">=")
                yield name, version

    # An extra may need a later version of what the package needs.
    package = settings["options"]["install_requires"]
    return dict([*bounds(package), *(bounds(extras[extra]) if extra else ())])


def constraints(extra: str = "") -> str:
    """Returns the lower bounds as the versions themselves, a file for `pip install -c`."""
    lines = sorted(f"{name}=={version}\n" for name, version in lower_bounds(extra).items())
    return "# The lowest versions, by `python -m tools.versions --lowest`.\n" + "".join(lines)


def counts(report: pathlib.Path) -> dict[str, int]:
    """Returns how many tests passed, failed and were skipped, of a JUnit file."""
    totals = dict.fromkeys(("tests", "failures", "errors", "skipped"), 0)
    for suite in ET.parse(report).getroot().iter("testsuite"):
        for name in totals:
            totals[name] += int(suite.get(name, 0))
    failed = totals["failures"] + totals["errors"]
    passed = totals["tests"] - failed - totals["skipped"]
    return {"passed": passed, "failed": failed, "skipped": totals["skipped"]}


def tried(environment: Environment, folder: pathlib.Path) -> list[str]:
    """Makes an environment and runs its tests; returns the cells of its row."""
    side, home = SIDES[environment.side], folder / environment.name
    python = home / "bin" / "python"
    subprocess.run([interpreter(environment.python) or "", "-m", "venv", home], check=True)
    uv = shutil.which("uv")
    words = [uv, "pip", "install", "--python", python] if uv else [python, "-m", "pip", "install"]
    installed = subprocess.run(
        [*words, "--quiet", *environment.requirements(home)], capture_output=True, text=True
    )
    today = datetime.date.today().isoformat()
    if installed.returncode:
        print(installed.stderr[-2000:], file=sys.stderr)
        return [f"`{environment.name}`", "cannot be installed", "", "", "", today]
    report = home / "report.xml"
    settings = {**os.environ, "KERAS_BACKEND": side.backend, "PYTHONPATH": str(ROOT)}
    if not side.backend:
        del settings["KERAS_BACKEND"]
    words = [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"--junitxml={report}"]
    subprocess.run([*words, *side.tests], cwd=ROOT, env=settings)
    numbers = counts(report).values()
    shown = "import importlib.metadata as m, sys; print(*map(m.version, sys.argv[1:]))"
    versions = subprocess.run(
        [python, "-c", shown, *side.shown.values()], capture_output=True, text=True, check=True
    ).stdout.split()
    text = ", ".join(f"{name} {v}" for name, v in zip(side.shown, versions, strict=True))
    return [f"`{environment.name}`", text, *(str(number) for number in numbers), today]


def with_row(page: str, cells: list[str]) -> str:
    """Returns a page whose table has this row, at the place of that with the same first cell."""
    row = f"| {' | '.join(cells)} |\n"
    own = rf"^\| {re.escape(cells[0])} \|.*\n"
    if re.search(own, page, re.MULTILINE):
        return re.sub(own, lambda _: row, page, flags=re.MULTILINE)
    head = r"(\| environment \|.*\n\|-.*\n(?:\|.*\n)*)"
    return re.sub(head, lambda table: table[0] + row, page, count=1)


def main(arguments: list[str]) -> int:
    """Does what the arguments say; returns 1 if a test failed, or an environment can't be made."""
    parser = argparse.ArgumentParser(prog="python -m tools.versions", description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("patterns", nargs="*", help="names of environments, such as 'jax-*'")
    parser.add_argument("--write", action="store_true", help="write the rows of docs/install.md")
    parser.add_argument("--lowest", action="store_true", help="write tests/lowest.txt")
    parser.add_argument("--folder", type=pathlib.Path, help="where to keep the environments")
    flags = parser.parse_args(arguments)
    if flags.lowest:
        LOWEST.write_text(constraints("test"), encoding="utf-8")
        return 0
    there = {python for python in PYTHONS if interpreter(python)}
    chosen = []
    for environment in environments():
        if flags.patterns:
            if not any(fnmatch.fnmatchcase(environment.name, p) for p in flags.patterns):
                continue
            chosen += [environment] if environment.python in there else []
        else:
            missing = "" if environment.python in there else "  (this Python is not here)"
            print(f"{environment.name}{missing}")
    if flags.patterns and not chosen:
        parser.error("no environment that can be made here has such a name")
    good = True
    for environment in chosen:
        with tempfile.TemporaryDirectory() as scratch:
            cells = tried(environment, flags.folder or pathlib.Path(scratch))
        print("|", " | ".join(cells), "|", flush=True)
        good &= cells[3] == "0"
        if flags.write:
            text = with_row(PAGE.read_text(encoding="utf-8"), cells)
            PAGE.write_text(text, encoding="utf-8")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
