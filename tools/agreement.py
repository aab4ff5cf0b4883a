"""Writes docs/agreement.md: how far the five sides are apart after the same training.

Every optimizer x every learning rate of tests/agreement.py, 50 steps from the same weights on the
same gradients, in Keras on TensorFlow, on JAX and on PyTorch, and natively on PyTorch and
on JAX. Fails if a figure is above its limit, or if a registered type is in no case.

    python tools/agreement.py
    python tools/agreement.py --only soap prodigy "cosine, linear warmup"   # prints these rows

It needs tensorflow, jax, optax and torch, and takes about an hour on two cores. Each side runs in
a process of its own; `--results` keeps what they computed row by row, and takes what an earlier
run kept, so that the same command goes on where one was stopped.
"""

import argparse
import importlib.metadata
import itertools
import os
import pathlib
import subprocess
import sys
import tempfile

import numpy as np

ROOT = pathlib.Path(__file__).parents[1]
sys.path.insert(0, str(ROOT))
from optimization import OPTIMIZERS_CLS  # noqa: E402  found on the path that was just set
from tests import agreement  # noqa: E402

SIDES = {
    "tensorflow": "TensorFlow",
    "jax": "JAX",
    "torch": "PyTorch",
    "native_torch": "native PyTorch",
    "native_jax": "native JAX",
}
PAIRS = list(itertools.combinations(SIDES, 2))
PACKAGES = ("keras", "tensorflow", "jax", "optax", "torch", "numpy")

INTRODUCTION = """# Agreement

The same config is the same training everywhere. The figures are max |difference| / max |w| after
{steps} float32 steps from the same weights on the same gradients (six tensors of one to four
dimensions), the largest over the learning rates of the second table, in Keras on TensorFlow, on
JAX and on PyTorch, and natively on PyTorch (`optimization.torch`) and on JAX (`optimization.jax`).
The limit is {updates:.0e}.
Rows that differ in their switches are the forms in which implementations truly differ.

Written by `tools/agreement.py` with {versions}; each side in a process of its own, on the CPU,
without compilation, but for native JAX, all of whose steps are one compiled function.

## Optimizers

{optimizers}

FTRL divides by the learning rate, so it runs under those that are never 0; `one_cycle` ends at a
hundredth of its first rate here, since at its default, a ten thousandth, FTRL's weights collapse
and the sides are 2e-5 apart. Adafactor's relative step is its own learning rate.{restricted}

## Learning rates

Value by value over the {steps} steps, max |difference| / max rate; the limit is {rates:.0e}.
{following} follow a metric: between two evaluations they are constants, and their tests compare
them with torch's and transformers' step by step.

{schedules}
"""


def compute(folder: pathlib.Path, only: list[str]) -> None:
    """Has each side write what is not there yet into a folder, all at the same time."""
    processes = {}
    for side in SIDES:
        backend = side.removeprefix("native_")
        processes[side] = subprocess.Popen(
            [sys.executable, "-m", "tests.agreement", side, str(folder / f"{side}.npz"), *only],
            cwd=ROOT,
            env={**os.environ, "KERAS_BACKEND": backend, "TF_CPP_MIN_LOG_LEVEL": "3"},
        )
    failed = [side for side, process in processes.items() if process.wait()]
    if failed:
        sys.exit(f"no results of {failed}")


def load(folder: pathlib.Path) -> dict[str, dict[str, np.ndarray]]:
    """Returns the results of each side."""
    results = {}
    for side in SIDES:
        with np.load(folder / f"{side}.npz") as stored:
            results[side] = dict(stored)
    return results


def figures(results: dict[str, dict[str, np.ndarray]], keys: list[str]) -> list[float | None]:
    """Returns for each pair of sides the largest figure over some cases; None where one lacks."""
    row: list[float | None] = []
    for one, other in PAIRS:
        both = [key for key in keys if key in results[one] and key in results[other]]
        values = [agreement.figure(results[one][key], results[other][key]) for key in both]
        row.append(max(values, default=None))
    return row


def restricted(results: dict[str, dict[str, np.ndarray]]) -> str:
    """Returns which sides trained under some of the learning rates only, as sentences."""
    trained = {
        side: {key.split("|")[1] for key in result if not key.startswith("rate|")}
        for side, result in results.items()
    }
    most = max(map(len, trained.values()))
    return "".join(
        f" {SIDES[side]} trained under {', '.join(f'`{rate}`' for rate in sorted(rates))}."
        for side, rates in trained.items()
        if len(rates) < most
    )


def table(first: str, rows: dict[str, list[float | None]]) -> str:
    """Returns a Markdown table."""
    pairs = [f"{SIDES[one]}, {SIDES[other]}" for one, other in PAIRS]
    lines = [f"| {first} | {' | '.join(pairs)} |", "|---" * (len(PAIRS) + 1) + "|"]
    for name, row in rows.items():
        cells = ["-" if value is None else f"{value:.1e}" for value in row]
        lines.append(f"| `{name}` | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    """Computes what is not there yet, writes the page, and fails above a limit."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--results", type=pathlib.Path, help="keep or take results here")
    parser.add_argument(
        "--only",
        nargs="+",
        default=[],
        choices=[*agreement.ours(OPTIMIZERS_CLS), *agreement.learning_rates()],
        metavar="NAME",
        help="optimizers, learning rates: print their rows, and leave the page as it is",
    )
    options = parser.parse_args()
    folder = options.results or pathlib.Path(tempfile.mkdtemp())
    folder.mkdir(parents=True, exist_ok=True)
    compute(folder, options.only)
    results = load(folder)

    cases: dict[str, list[str]] = {}
    chosen, types = agreement.told_apart(options.only)
    for row, rate, _ in agreement.configs(chosen, types):
        cases.setdefault(row, []).append(f"{row}|{rate}")
    updates = {row: figures(results, keys) for row, keys in cases.items()}
    rates = {n: figures(results, [f"rate|{n}"]) for n in chosen or agreement.learning_rates()}
    if not options.only:
        write(results, updates, rates)
    else:
        print(table("optimizer", updates))
    limits = ((updates, agreement.UPDATES_LIMIT), (rates, agreement.RATES_LIMIT))
    above = [
        name
        for rows, limit in limits
        for name, row in rows.items()
        if not all(value is None or value <= limit for value in row)
    ]
    unlisted = agreement.unlisted()
    if above or unlisted:
        sys.exit(f"above the limit: {above}; in no case: {unlisted}")


def write(
    results: dict[str, dict[str, np.ndarray]],
    updates: dict[str, list[float | None]],
    rates: dict[str, list[float | None]],
) -> None:
    """Writes the page."""
    page = INTRODUCTION.format(
        steps=agreement.STEPS,
        updates=agreement.UPDATES_LIMIT,
        rates=agreement.RATES_LIMIT,
        restricted=restricted(results),
        versions=", ".join(f"{name} {importlib.metadata.version(name)}" for name in PACKAGES),
        optimizers=table("optimizer", updates),
        following=" and ".join(f"`{name}`" for name in agreement.FOLLOWING_A_METRIC),
        schedules=table("learning rate", rates),
    )
    (ROOT / "docs" / "agreement.md").write_text(page)


if __name__ == "__main__":
    main()
