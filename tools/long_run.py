"""Trains for long, and shows whether memory, open files and speed stay what they are.

    python -m tools.long_run

A small network, with averages, takes `--steps` training steps with summaries, checkpoints and
validation. What the process has is looked at after each evaluation, and shown in ten rows of equal
length. The first is the warm-up; then, compared with the second, the memory that is resident may
grow by 1 %, the processor's least time for a step by 10 %, and the open files and threads by none.
The exit status is 1 if something grows more. It reads /proc, which Linux has.
"""

import argparse
import itertools
import os
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

ROWS = 10
_INTERVALS = {"summary_interval": 100, "validation_interval": 1000, "checkpoint_interval": 1000}
# What may grow, and by how much after the warm-up.
LIMITS = {"memory": 0.01, "files": 0.0, "threads": 0.0, "time": 0.1}


class Sample(NamedTuple):
    """What the process has at a step."""

    step: int
    memory: float  # MB
    files: int
    threads: int
    time: float  # of the processor, in s


class Row(NamedTuple):
    """What it has on average over some samples, the last of them at a step.

    `time` is that of a step in us, the least between two samples: other programs only add to it.
    """

    step: int
    memory: float
    files: float
    threads: float
    time: float


def look(step: int) -> Sample:
    """Returns what this process has."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return Sample(
        step,
        pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
        len(os.listdir("/proc/self/fd")),
        len(os.listdir("/proc/self/task")),
        time.process_time(),
    )


def table(samples: Sequence[Sample], rows: int = ROWS) -> list[Row]:
    """Returns so many rows of as many samples each; the first samples that are left over go."""
    each = (len(samples) - 1) // rows
    found = []
    for first in range(len(samples) - each * rows, len(samples), each):
        part = samples[first : first + each]
        means = [
            statistics.fmean(getattr(sample, name) for sample in part)
            for name in ("memory", "files", "threads")
        ]
        pairs = itertools.pairwise([samples[first - 1], *part])
        times = [(b.time - a.time) / (b.step - a.step) * 1e6 for a, b in pairs]
        found.append(Row(part[-1].step, *means, min(times)))
    return found


def growth(rows: Sequence[Row]) -> dict[str, float]:
    """Returns by which part each grows after the warm-up, at most."""
    before, after = rows[1], rows[2:]
    return {
        name: max(getattr(row, name) for row in after) / getattr(before, name) - 1
        for name in LIMITS
    }


def train(steps: int, directory: str) -> list[Sample]:
    """Trains; returns what there was after each evaluation."""
    from rich.console import Console

    from optimization import ConfigWarning
    from optimization.training import run_experiment
    from tools.kills.trainer import experiment

    config: Any = experiment("adamw")
    config.override(
        {
            "trainer": {"train_steps": steps, **_INTERVALS},
            "runtime": {"mixed_precision_dtype": None, "loss_scale": None},
        }
    )
    samples: list[Sample] = []
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)
        run_experiment(
            config,
            "train_and_eval",
            directory,
            console=Console(quiet=True),
            on_evaluation=lambda step, _: samples.append(look(step)),
        )
    return samples


def report(rows: Sequence[Row]) -> tuple[str, bool]:
    """Returns the table with what grows, and whether all stays below the limits."""
    lines = [
        "| steps | memory, MB | open files | threads | processor, us a step |",
        "|---|---|---|---|---|",
    ]
    for row in rows:
        cells = f"{row.step:,}", f"{row.memory:.1f}", f"{row.files:g}", f"{row.threads:g}"
        lines.append(f"| {' | '.join(cells)} | {row.time:.0f} |")
    lines.append("")
    grown = growth(rows)
    for name, part in grown.items():
        wrong = "" if part <= LIMITS[name] else ": TOO MUCH"
        lines.append(f"{name}: {part:+.2%} at most, of {LIMITS[name]:.0%}{wrong}")
    return "\n".join(lines), all(part <= LIMITS[name] for name, part in grown.items())


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.long_run",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--steps", type=int, default=200_000, help="default: 200000")
    options = parser.parse_args(argv)
    least = (ROWS + 1) * _INTERVALS["validation_interval"]
    if options.steps < least:
        parser.error(f"--steps must be at least {least}, got {options.steps}")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as directory:
        samples = train(options.steps, directory)
    text, flat = report(table(samples))
    print(f"{time.strftime('%Y-%m-%d')}, {options.steps:,} steps\n\n{text}")
    print(f"{options.steps / (time.monotonic() - started):,.0f} steps a second, everything counted")
    return int(not flat)


if __name__ == "__main__":
    sys.exit(main())
