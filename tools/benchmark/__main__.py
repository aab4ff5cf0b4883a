"""The command line; see the package."""

import argparse
import contextlib
import importlib.util
import pathlib
import sys
from collections.abc import Callable, Collection, Sequence
from typing import Any

from tools.benchmark import chart, machine, page, report
from tools.benchmark.contestants import CONTESTANTS
from tools.benchmark.lists import LISTS
from tools.benchmark.processes import Process, WorkerError
from tools.benchmark.turns import Result, Turns
from tools.benchmark.variants import VARIANTS

Facts = dict[str, Any]


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the options."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.benchmark", description="Measures updates, contestants in turns."
    )
    parser.add_argument(
        "--only",
        type=_some(CONTESTANTS),
        default=list(CONTESTANTS),
        metavar="NAME,...",
        help=f"contestants: {', '.join(CONTESTANTS)}; those that can't be loaded are left out",
    )
    parser.add_argument(
        "--lists",
        type=_some(LISTS),
        default=[name for name in LISTS if name != "check"],
        metavar="NAME,...",
        help=f"lists of parameters: {', '.join(LISTS)}; all but `check` unless given",
    )
    parser.add_argument(
        "--variants",
        type=_some(VARIANTS),
        default=list(VARIANTS),
        metavar="NAME,...",
        help=f"updates: {', '.join(VARIANTS)}",
    )
    parser.add_argument("--rounds", type=int, default=11, help="turns of each contestant")
    parser.add_argument("--quick", action="store_true", help="small lists, to find mistakes")
    parser.add_argument(
        "--python",
        type=_interpreter,
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="the interpreter of a contestant; `garden` also for `garden-jit`, and so on",
    )
    parser.add_argument(
        "--timeout", type=float, default=600, help="seconds that a first step may take"
    )
    parser.add_argument(
        "--output",
        type=pathlib.Path,
        metavar="DIR",
        help="where benchmark.json, benchmark.md and a chart for each list go",
    )
    parser.add_argument(
        "--page", type=pathlib.Path, metavar="FILE", help="a page whose section `updates` to fill"
    )
    options = parser.parse_args(arguments)
    if options.rounds < 1:
        parser.error(f"--rounds must be >= 1, got {options.rounds}")
    return options


def _some(known: Collection[str]) -> Callable[[str], list[str]]:
    def names(text: str) -> list[str]:
        result = text.split(",")
        unknown = [name for name in result if name not in known]
        if unknown:
            message = f"unknown: {', '.join(unknown)}; there are {', '.join(known)}"
            raise argparse.ArgumentTypeError(message)
        return result

    return names


def _interpreter(text: str) -> tuple[str, str]:
    name, _, path = text.partition("=")
    if not path or not any(_belongs(contestant, name) for contestant in CONTESTANTS):
        raise argparse.ArgumentTypeError(f"must be CONTESTANT=PATH, got {text!r}")
    return name, path


def _belongs(contestant: str, name: str) -> bool:
    return contestant == name or contestant.startswith(f"{name}-")


def interpreter_of(contestant: str, chosen: Sequence[tuple[str, str]]) -> str:
    """Returns the interpreter of a contestant: the longest name that it begins with decides."""
    fitting = [(name, path) for name, path in chosen if _belongs(contestant, name)]
    return max(fitting, key=lambda pair: len(pair[0]))[1] if fitting else sys.executable


def run(
    options: argparse.Namespace, keep: Callable[[Facts, list[Result]], None]
) -> tuple[Facts, list[Result]]:
    """Returns the facts of the run, and its results; `keep` gets those so far again and again."""
    with contextlib.ExitStack() as stack:
        processes, left_out = _started(options, stack)
        facts = machine.facts() | {
            "rounds": options.rounds,
            "quick": options.quick,
            "versions": {process.name: process.versions for process in processes},
            "left out": left_out,
        }
        turns = Turns(processes, options.rounds, options.quick, _say)
        results: list[Result] = []
        for parameter_list in options.lists:
            for variant in options.variants:
                if not VARIANTS[variant].is_for(parameter_list):
                    _say(f"{parameter_list}: without {variant}, which is measured on blocks")
                    continue
                results += turns.measure(parameter_list, variant)
                keep(facts, results)
    return facts, results


def _started(
    options: argparse.Namespace, stack: contextlib.ExitStack
) -> tuple[list[Process], dict[str, str]]:
    """Returns the contestants that can be loaded, and why the others can't."""
    processes, left_out = [], {}
    for name in options.only:
        python = interpreter_of(name, options.python)
        process = stack.enter_context(Process(name, python, options.timeout))
        try:
            process.start()
        except WorkerError as error:
            left_out[name] = str(error)
            _say(f"without {name}: {error}")
        else:
            processes.append(process)
    return processes, left_out


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the tables, and writes the files."""
    options = parse(arguments)
    folder = options.output
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)

    def keep(facts: Facts, results: list[Result]) -> None:
        # A run takes long: what there is survives its end.
        if folder is not None:
            (folder / "benchmark.json").write_text(report.as_json(facts, results))

    facts, results = run(options, keep)
    text = report.markdown(facts, results)
    print(text)
    if options.page is not None:
        page.fill(options.page, "updates", report.markdown(facts, results, details=False))
    if folder is not None:
        (folder / "benchmark.md").write_text(text)
        _draw(results, folder)


def _draw(results: list[Result], folder: pathlib.Path) -> None:
    if importlib.util.find_spec("matplotlib") is None:
        _say("no charts: matplotlib is not installed")
        return
    for name in dict.fromkeys(result.parameter_list for result in results):
        of_list = [result for result in results if result.parameter_list == name]
        chart.draw(of_list, folder / f"{name}.png")


if __name__ == "__main__":
    main()
