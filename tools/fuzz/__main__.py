"""The command line of the fuzzer: see `tools.fuzz`."""

import argparse
import contextlib
import json
import pathlib
import sys
import time
import traceback
from collections.abc import Sequence
from typing import Any

ENGINES = ("hypothesis", "atheris")


def main(argv: Sequence[str] | None = None) -> int:
    """Runs targets; returns 1 where a fault was found."""
    options = _options(argv)
    steered = options.engine == "atheris"
    with _instrumented() if steered else contextlib.nullcontext():
        from tools.fuzz import texts
        from tools.fuzz.guard import cap_memory
        from tools.fuzz.running import run, run_steered, told
        from tools.fuzz.targets import TARGETS, prepare
    unknown = [name for name in options.targets if name not in TARGETS]
    if unknown:
        print(f"there is no target {unknown[0]!r}; there are {', '.join(TARGETS)}", file=sys.stderr)
        return 2
    texts.SEEDS += options.files
    prepare()
    if steered:
        if len(options.targets) != 1 or not options.corpus:
            print("--engine atheris takes one target and a --corpus", file=sys.stderr)
            return 2
        options.corpus.mkdir(parents=True, exist_ok=True)
        target = TARGETS[options.targets[0]]
        run_steered(target, options.inputs, options.seeds[0], str(options.corpus))
        return 0
    cap_memory()
    done, faults = _done(options.record), 0
    for seed in options.seeds:
        for name in options.targets or TARGETS:
            if (name, seed) in done:
                continue
            line: dict[str, Any] = {"target": name, "seed": seed, "date": time.strftime("%Y-%m-%d")}
            try:
                count = run(TARGETS[name], options.inputs, seed, limits=True)
                line |= count._asdict()
                print(f"{name}, seed {seed}: {told(count)}", flush=True)
            except BaseException as error:
                if isinstance(error, KeyboardInterrupt):
                    return 130
                faults += 1
                line["fault"] = "".join(traceback.format_exception(error))
                print(f"{name}, seed {seed}: a fault\n{line['fault']}", flush=True)
            if options.record:
                with open(options.record, "a", encoding="utf-8") as file:
                    print(json.dumps(line), file=file)
    return int(faults > 0)


def _options(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tools.fuzz",
        description="Feeds readers with what nobody trusts, and checks what SECURITY.md promises.",
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="which; all if left out")
    parser.add_argument(
        "--seeds", type=_seeds, default=range(1), metavar="FIRST:END", help="0:10 for 0 to 9"
    )
    parser.add_argument("--inputs", type=int, default=1000, help="of each target, for each seed")
    parser.add_argument("--engine", choices=ENGINES, default=ENGINES[0], help="what makes inputs")
    parser.add_argument(
        "--files", action="append", default=[], metavar="FOLDER", help="more files to damage"
    )
    parser.add_argument(
        "--record", type=pathlib.Path, help="a file of results; seeds that are in it are left out"
    )
    parser.add_argument("--corpus", type=pathlib.Path, help="of Atheris: what reached new code")
    return parser.parse_args(argv)


def _seeds(text: str) -> range:
    first, _, end = text.partition(":")
    return range(int(first), int(end) if end else int(first) + 1)


def _done(record: pathlib.Path | None) -> set[tuple[str, int]]:
    """Returns the targets and seeds that were run already."""
    if record is None or not record.exists():
        return set()
    lines = map(json.loads, record.read_text(encoding="utf-8").splitlines())
    return {(line["target"], line["seed"]) for line in lines}


def _instrumented() -> Any:
    import atheris

    return atheris.instrument_imports(include=["optimization"])


if __name__ == "__main__":
    sys.exit(main())
