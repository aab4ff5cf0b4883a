"""How long configs take: to import, to load, to parse, and to draw as curves.

    python -m tools.benchmark.config [--runs 15] [--output DIR]

Prints a table, and writes config.json and config.md. Nothing here needs TensorFlow.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

import optimization
from tools.benchmark import page
from tools.benchmark.processes import ROOT
from tools.benchmark.report import table

FILE = ROOT / "configs" / "optimization" / "bert_pretraining.yaml"
OVERRIDE = {"learning_rate": {"polynomial": {"initial_learning_rate": 2e-4}}}
PARAMS = {
    "optimizer": {
        "type": "adamw",
        "adamw": {"weight_decay_rate": 0.01, "exclude_from_weight_decay": ["layer_norm", "bias"]},
    },
    "learning_rate": {
        "type": "polynomial",
        "polynomial": {"initial_learning_rate": 1e-4, "decay_steps": 990_000},
    },
    "warmup": {"type": "linear", "linear": {"warmup_steps": 10_000}},
    "ema": {"average_decay": 0.999},
}
STEPS = 1_000_000
_WARMUP = 10_000
_HEAVY = ("keras", "tensorflow", "torch", "jax")

_FRESH = f"""
import time
start = time.perf_counter()
import optimization
imported = time.perf_counter()
config = optimization.load_optimization_config({str(FILE)!r})
config.override({OVERRIDE!r})
config.validate()
done = time.perf_counter()
import json, sys
heavy = [name for name in {_HEAVY!r} if name in sys.modules]
print(json.dumps({{"import": imported - start, "all": done - start, "heavy": heavy}}))
"""

_VALUES = {
    "initial_learning_rate": 0.1,
    "max_learning_rate": 0.1,
    "decay_steps": STEPS,
    "decay_rate": 0.9,
    "first_decay_steps": STEPS // 5,
    "stable_steps": STEPS // 2,
    "total_decay_steps": STEPS,
    "total_steps": STEPS,
    "num_training_steps": STEPS,
    "num_decay_steps": STEPS // 4,
    "num_warmup_steps": _WARMUP,
    "boundaries": [STEPS // 4, STEPS // 2, STEPS],
    "values": [0.1, 0.03, 0.01, 0.003],
}
_SETTINGS = {
    "step_cosine_with_offset": {"boundaries": [0, STEPS // 2, STEPS], "values": [0.1, 0.03, 0.01]},
    "sequence": {
        "phases": [
            {"until": STEPS // 2, "type": "constant", "constant": {"learning_rate": 0.1}},
            {"until": STEPS, "type": "cosine", "join": True},
        ]
    },
    "power_law": {"batch_size": 1024, "tokens_per_step": 100_000},
    "hf_cosine_with_min_lr": {"min_lr": 0.01},
    "hf_cosine_warmup_with_min_lr": {"min_lr": 0.01},
}


def fresh_process() -> dict[str, Any]:
    """Returns what a new process took to import, load, override and validate.

    Seconds since its first statement; `process` is all of it, the interpreter's start included;
    `heavy` are the frameworks that it imported.
    """
    start = time.perf_counter()
    command = [sys.executable, "-c", _FRESH]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return {**json.loads(done.stdout), "process": time.perf_counter() - start}


def curves() -> Iterator[tuple[str, optimization.OptimizerFactory]]:
    """Yields the learning rates that are functions of the step, each with a linear warmup."""
    for name in optimization.LR_CLS:
        fields = optimization.LR_CLS.config_class(name).field_names()
        if "metric" in fields:
            continue  # it follows what happens, and is no curve
        section = {n: _VALUES[n] for n in fields if n in _VALUES} | _SETTINGS.get(name, {})
        params = {
            "optimizer": {"type": "sgd"},
            "learning_rate": {"type": name, name: section},
        }
        if "num_warmup_steps" not in fields:
            warmup = {"warmup_steps": _WARMUP, "warmup_learning_rate": 0.0}
            params["warmup"] = {"type": "linear", "linear": warmup}
        yield name, optimization.OptimizerFactory(optimization.OptimizationConfig(params))


def best(function: Callable[[], Any], runs: int) -> tuple[float, float]:
    """Returns the median and the least of the seconds of calls, one before not counting."""
    function()
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        function()
        times.append(time.perf_counter() - start)
    return statistics.median(times), min(times)


def measure(runs: int) -> dict[str, Any]:
    """Returns all figures, in milliseconds: pairs of the median and the least."""
    fresh_process()  # so that bytecode is there
    processes = [fresh_process() for _ in range(runs)]
    figures: dict[str, Any] = {"heavy": sorted({n for p in processes for n in p["heavy"]})}
    titles = {
        "import": "import optimization",
        "all": "import, load a YAML file, override, validate",
        "process": "the same, with the interpreter's start",
    }
    for key, title in titles.items():
        times = [process[key] for process in processes]
        figures[title] = [1e3 * statistics.median(times), 1e3 * min(times)]

    def parse() -> None:
        optimization.OptimizationConfig(PARAMS).validate()

    figures["parse and validate a dictionary"] = _milliseconds(best(parse, 40 * runs))
    steps = np.arange(STEPS)
    for name, factory in curves():
        drawn = best(lambda factory=factory: factory.learning_rate_curve(steps), runs)
        figures[f"a million steps of `{name}`, with warmup"] = _milliseconds(drawn)
        if name == "cosine":
            one = best(lambda factory=factory: factory.learning_rate_curve([7]), 40 * runs)
            figures["one step of `cosine`, with warmup"] = _milliseconds(one)
    return figures


def _milliseconds(seconds: tuple[float, float]) -> list[float]:
    return [1e3 * each for each in seconds]


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures, prints the table, and writes the files."""
    parser = argparse.ArgumentParser(prog="python -m tools.benchmark.config")
    parser.add_argument("--runs", type=int, default=15)
    page.add_options(parser, "configs")
    options = parser.parse_args(arguments)
    figures = measure(options.runs)
    heavy = ", ".join(figures["heavy"]) or "none"
    rows = [(n, f"{f[0]:.3g}", f"{f[1]:.3g}") for n, f in figures.items() if n != "heavy"]
    text = table(("", "ms, median", "least"), rows)
    text += f"\n\nFrameworks imported by the fresh process: {heavy}.\n"
    record = {"facts": {"runs": options.runs}, "milliseconds": figures}
    page.write(options, "configs", "config", text, record)


if __name__ == "__main__":
    main()
