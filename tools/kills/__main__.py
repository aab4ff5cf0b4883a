"""`python -m tools.kills`: see the package."""

import argparse
import functools
import importlib.metadata
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

from tools.kills import __doc__ as about
from tools.kills import loops
from tools.kills.comparing import differences
from tools.kills.processes import EndedError, Steps, draw, run
from tools.kills.sections import TOGETHER, types

Work = Callable[[Path, Steps], None]
_SHOWN = 5


class Case(NamedTuple):
    """A training: what it does in a directory, and how many steps it takes before a kill."""

    work: Work
    most_steps: int


class Result(NamedTuple):
    """What became of a case."""

    kills: int
    runs: int
    halfway: int
    differences: list[str]


def cases(eager: bool = False) -> dict[str, Case]:
    """Returns every training by its name, after what they need has been imported."""
    from tools.kills import trainer

    kinds = (*types(), *TOGETHER)
    return {
        kind: Case(functools.partial(trainer.train, kind, eager), trainer.MOST_STEPS)
        for kind in kinds
    } | {
        f"{side}, {kind}": Case(functools.partial(loop, kind), loops.MOST_STEPS)
        for side, loop in loops.LOOPS.items()
        for kind in kinds
    }


def kill_until(case: Case, kills: int, seed: str, directory: Path) -> Result:
    """Trains and kills, until there were so many kills and the last run has ended.

    A run that ends before is compared, and another one begins in a new directory.
    """
    chance = random.Random(seed)
    whole = directory / "whole"
    run(functools.partial(case.work, whole))
    left, runs, halfway, wrong = kills, 0, 0, []
    while left or not runs:
        runs += 1
        killed = directory / f"killed-{runs}"
        alive = True
        while alive:
            kill, before = draw(chance, case.most_steps) if left else None, _unfinished(killed)
            alive = run(functools.partial(case.work, killed), kill)
            left -= alive
            halfway += alive and not _unfinished(killed) <= before
        wrong += [f"run {runs}: {text}" for text in _compared(whole, killed)]
    return Result(kills, runs, halfway, wrong)


def _unfinished(directory: Path) -> set[tuple[str, int]]:
    """Returns the files of which the writing was begun and not ended, with their times."""
    names = (path for path in directory.rglob("*") if "_temp" in path.name or path.suffix == ".tmp")
    return {(str(path), path.stat().st_mtime_ns) for path in names}


def _compared(whole: Path, killed: Path) -> list[str]:
    """Returns what differs; a process of its own reads it, since this one has yet to fork."""
    with tempfile.NamedTemporaryFile("r", encoding="utf-8") as file:

        def compare(_: Steps) -> None:
            Path(file.name).write_text("\n".join(differences(whole, killed)), encoding="utf-8")

        run(compare)
        return file.read().splitlines()


def row(name: str, result: Result) -> str:
    """Returns a row of the table."""
    told = "none" if not result.differences else f"{len(result.differences)}"
    cells = [f"`{name}`", result.kills, result.halfway, result.runs, told]
    return "| " + " | ".join(map(str, cells)) + " |"


HEAD = (
    "| training | kills | of these in the writing of a checkpoint | runs | differences |\n"
    "|---|---|---|---|---|"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.kills",
        description=about,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--kills", type=int, default=25, help="of each training (default: 25)")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="which trainings; --list has all")
    parser.add_argument("--list", action="store_true", help="lists the trainings")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--keep", type=Path, help="where the runs stay that differ")
    parser.add_argument("--eager", action="store_true", help="the trainer's without compiled steps")
    options = parser.parse_args(argv)
    if options.kills < 1:
        parser.error(f"--kills must be at least 1, got {options.kills}")
    known = cases(options.eager)
    if options.list:
        print("\n".join(known))
        return 0
    if unknown := [name for name in options.only or () if name not in known]:
        parser.error(f"--only: there is no training {unknown[0]!r}; there are {', '.join(known)}")
    return _run_all({name: known[name] for name in options.only or known}, options)


def _run_all(chosen: dict[str, Case], options: argparse.Namespace) -> int:
    started, failed = time.monotonic(), False
    versions = ("tensorflow", "keras", "torch", "jax")
    named = ", ".join(f"{name} {importlib.metadata.version(name)}" for name in versions)
    print(f"{time.strftime('%Y-%m-%d')}, {named}, seed {options.seed}\n\n{HEAD}", flush=True)
    for name, case in chosen.items():
        directory = Path(tempfile.mkdtemp(prefix=f"kills-{name}-"))
        try:
            result = kill_until(case, options.kills, f"{options.seed} {name}", directory)
        except EndedError as error:
            result = Result(0, 0, 0, [str(error)])
        print(row(name, result), flush=True)
        for text in result.differences[:_SHOWN]:
            print(f"{name}: {text}", file=sys.stderr, flush=True)
        if result.differences and options.keep:
            shutil.copytree(directory, options.keep / name, dirs_exist_ok=True)
        shutil.rmtree(directory)
        failed = failed or bool(result.differences)
    print(f"\n{(time.monotonic() - started) / 60:.0f} minutes")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
