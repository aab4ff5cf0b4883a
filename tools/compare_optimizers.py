"""Compares optimizers on the language model, each at the rate that is best for it.

    KERAS_BACKEND=torch python -m tools.compare_optimizers  # goes on where it was stopped
    KERAS_BACKEND=torch python -m tools.compare_optimizers --time
    python -m tools.compare_optimizers --write

Each type trains the model of `experiments.language_model` from its YAML file, made smaller by
`SMALLER`, with the same number of steps: once at each rate of its grid, in which rates double, and
then at the best of these with other seeds. Where the best is the first or the last of its grid,
the grid goes on beyond it. Every training adds a line to docs/optimizers_compared/records.jsonl;
those that are there already are not run again. `--time` adds what a step takes and the state that
is kept. `--write` makes of the records the sections and the picture of docs/optimizers_compared.md.

Trainings run on PyTorch, in one thread. Kernels of attentions, of three axes in Keras, are given
to the optimizers as the matrices that they are.
"""

import argparse
import copy
import dataclasses
import functools
import hashlib
import itertools
import json
import math
import statistics
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from tools.benchmark import machine, page

ROOT = Path(__file__).parent.parent
FILE = "configs/experiments/language_model.yaml"
FOLDER = ROOT / "docs" / "optimizers_compared"
PAGE = ROOT / "docs" / "optimizers_compared.md"

SMALLER = {
    "task": {
        **{"sequence_length": 64, "stride": 32, "width": 64, "layers": 1, "heads": 2},
        **{"dropout_rate": 0.0, "train_data": {"global_batch_size": 16}},
    }
}

_ADAMW = {"beta_2": 0.98, "weight_decay_rate": 0.1}
_COSINE = {
    "learning_rate": {"type": "cosine", "cosine": {}},
    "warmup": {"type": "linear", "linear": {"warmup_steps": "10%"}},
}
_CONSTANT = {
    "learning_rate": {"type": "constant", "constant": {}},
    "warmup": {"type": None},
}
_SECTIONS: dict[str, dict[str, Any]] = {
    "adamw": {**_ADAMW, "exclude_from_weight_decay": None, "gradient_clip_norm": 1.0},
    "muon": {"weight_decay": 0.1, "auxiliary": {"type": "adamw", "adamw": _ADAMW}},
    "soap": {"weight_decay": 0.1},
    "ademamix": {
        **{"beta_2": 0.98, "weight_decay": 0.1, "alpha_warmup": "100%", "beta_3_warmup": "100%"}
    },
    "schedule_free_adamw": {"beta_2": 0.98, "weight_decay": 0.1, "warmup_steps": "10%"},
    "lion": {"weight_decay": 0.1},
}
FIRST_RATES = {
    "adamw": 0.004,
    "muon": 0.004,
    "soap": 0.004,
    "ademamix": 0.001,
    "schedule_free_adamw": 0.008,
    "lion": 0.0005,
}
NOTES = {
    "adamw": "betas 0.9, 0.98",
    "muon": "momentum 0.95, steps as large as AdamW's; AdamW for the rest",
    "soap": "betas 0.95, 0.95, bases every 10 updates",
    "ademamix": "betas 0.9, 0.98, 0.9999, alpha 5, both grow all along",
    "schedule_free_adamw": "betas 0.9, 0.98, a constant rate",
    "lion": "betas 0.9, 0.99",
}
BASE = "adamw"
"""The type that the others are compared with."""


@dataclasses.dataclass(frozen=True)
class Plan:
    """What is run.

    Attributes:
        types: The types of optimizers.
        steps: The optimizer steps of each training.
        points: How often the loss on the held-out text is taken, at equal distances.
        rates: How many rates a grid has at first.
        seeds: The seeds of the trainings at the best rate; those of the grid have seed 0.
    """

    types: tuple[str, ...] = tuple(_SECTIONS)
    steps: int = 300
    points: int = 6
    rates: int = 4
    seeds: tuple[int, ...] = (1, 2, 3)


# What is trained


def optimization_of(kind: str, rate: float) -> dict[str, Any]:
    """Returns what is changed in the optimization section of the file."""
    changes = copy.deepcopy(_CONSTANT if kind.startswith("schedule_free") else _COSINE)
    learning_rate: dict[str, Any] = changes["learning_rate"]
    name = "learning_rate" if learning_rate["type"] == "constant" else "initial_learning_rate"
    learning_rate[learning_rate["type"]] = {name: rate}
    clip = {} if kind == "adamw" else {"global_clipnorm": 1.0}
    return {
        "optimizer": {"type": kind, kind: {**copy.deepcopy(_SECTIONS[kind]), **clip}},
        **changes,
        "param_groups": [{"match": "layer_norm|bias", "weight_decay": 0.0}],
    }


def experiment_of(plan: Plan, kind: str, rate: float) -> Any:
    """Returns the experiment: that of the file with the changes, as a training reads them."""
    from experiments import language_model as lm
    from optimization.configs import yaml_file

    config = lm.language_model()
    config.override(yaml_file.read_file(ROOT / FILE)[0])
    trainer = {"train_steps": plan.steps, "optimizer_config": optimization_of(kind, rate)}
    config.override({**SMALLER, "trainer": trainer})
    return config


@functools.cache
def digest(plan: Plan, kind: str) -> str:
    """Returns a digest of all that makes a training, but for its rate and its seed."""
    file = yaml.safe_load((ROOT / FILE).read_text(encoding="utf-8"))
    parts = (file, SMALLER, optimization_of(kind, 1.0), plan.steps, plan.points)
    text = json.dumps(parts, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:12]


class Training:
    """A training that goes step by step.

    Attributes:
        parameters: By path; matrices have two axes, vectors one.
    """

    def __init__(self, plan: Plan, kind: str, rate: float, seed: int):
        import keras
        import torch

        from experiments import language_model as lm
        from optimization.torch import OptimizerFactory

        if keras.backend.backend() != "torch":
            raise SystemExit("it trains on PyTorch: set KERAS_BACKEND=torch")
        torch.set_num_threads(1)
        keras.utils.set_random_seed(seed)
        config = experiment_of(plan, kind, rate)
        self.task = lm.LanguageModelTask(config.task)
        self.model = self.task.build_model()
        variables = self.model.trainable_variables
        self.shapes = [tuple(v.shape) for v in variables]
        self.parameters = {
            v.path: torch.nn.Parameter(_seen(v.path, v.value.detach().clone())) for v in variables
        }
        factory = OptimizerFactory(config.trainer.optimizer_config, train_steps=plan.steps)
        self.optimizer = factory.build_optimizer(self.parameters.items())
        self.scheduler = factory.build_scheduler(self.optimizer)
        self.batches = self._batches(config.task, seed)
        length = config.task.sequence_length
        self.held_out = lm.sequences(lm.read_text().held_out, length, length)

    @staticmethod
    def _batches(task: Any, seed: int) -> Iterator[tuple[Any, Any]]:
        """Yields batches without an end; each pass over the text has an order of its own."""
        import numpy as np

        from experiments import language_model as lm

        tokens, targets = lm.sequences(lm.read_text().training, task.sequence_length, task.stride)
        size, order = task.train_data.global_batch_size, np.random.default_rng(seed)
        while True:
            places = order.permutation(len(tokens))
            for start in range(0, len(places) - size + 1, size):
                chosen = places[start : start + size]
                yield tokens[chosen], targets[chosen]

    def _loss(self, tokens: Any, targets: Any, training: bool) -> Any:
        import torch

        pairs = zip(self.parameters.values(), self.shapes, strict=True)
        weights = [parameter.reshape(shape) for parameter, shape in pairs]
        fixed = self.model.non_trainable_variables
        outputs, _ = self.model.stateless_call(
            weights, fixed, torch.from_numpy(tokens), training=training
        )
        return self.task.build_losses(torch.from_numpy(targets), outputs)

    def step(self) -> None:
        """Takes one optimizer step."""
        self.optimizer.zero_grad()
        self._loss(*next(self.batches), training=True).backward()
        self.optimizer.step()
        self.scheduler.step()

    def held_out_loss(self) -> float | None:
        """Returns the mean loss on the held-out text; None where it isn't finite."""
        import torch

        averages = hasattr(self.optimizer, "eval")
        if averages:
            self.optimizer.eval()
        tokens, targets = self.held_out
        total = 0.0
        with torch.no_grad():
            for start in range(0, len(tokens), 64):
                part = slice(start, start + 64)
                loss = self._loss(tokens[part], targets[part], training=False)
                total += float(loss) * len(tokens[part])
        if averages:
            self.optimizer.train()
        loss = total / len(tokens)
        return loss if math.isfinite(loss) else None

    def state_numbers(self) -> int:
        """Returns how many numbers the state has."""
        kept = [x for state in self.optimizer.state.values() for x in state.values()]
        return sum(x.numel() for x in kept if hasattr(x, "numel"))


def _seen(path: str, value: Any) -> Any:
    """Returns a parameter as the matrix or vector that it is: heads side by side."""
    if path.endswith("bias"):
        return value.reshape(-1)
    if value.ndim < 3:
        return value
    outputs = value.shape[-1] if "attention_output" in path else -1
    return value.reshape(-1, outputs) if outputs > 0 else value.reshape(value.shape[0], -1)


# The records


def read(path: Path, plan: Plan) -> list[dict[str, Any]]:
    """Returns the records of a file, none if there is no file.

    Raises:
        SystemExit: If some are of other settings.
    """
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    records = [json.loads(line) for line in lines]
    for record in records:
        kind = record["type"]
        if kind in plan.types and record["digest"] != digest(plan, kind):
            message = f"{path} has trainings of `{kind}` with other settings than those of now"
            raise SystemExit(f"{message}: move it away, or set them back")
    return records


def trainings(
    records: Sequence[dict[str, Any]], kind: str, rate: float | None = None
) -> list[dict[str, Any]]:
    """Returns the records of the trainings of a type: at a rate, or else of its grid."""
    own = [r for r in records if r["type"] == kind and "losses" in r]
    if rate is None:
        return [r for r in own if r["seed"] == 0]
    return [r for r in own if r["rate"] == rate and r["seed"] != 0]


def final_loss(record: dict[str, Any]) -> float:
    """Returns the last loss of a training, infinity if it isn't finite."""
    loss = record["losses"][-1][1]
    return math.inf if loss is None else loss


def grid(plan: Plan, records: Sequence[dict[str, Any]], kind: str) -> list[float]:
    """Returns the rates of a type; one more than were tried where the best is at an end."""
    tried = {r["rate"]: final_loss(r) for r in trainings(records, kind)}
    rates = [float(f"{FIRST_RATES[kind] * 2**i:.6g}") for i in range(plan.rates)]
    rates = sorted({*rates, *tried})
    if not tried.keys() >= set(rates):
        return rates
    best = min(rates, key=lambda rate: tried[rate])
    if best == rates[-1]:
        return [*rates, float(f"{2 * best:.6g}")]
    return [float(f"{best / 2:.6g}"), *rates] if best == rates[0] else rates


def best_rate(records: Sequence[dict[str, Any]], kind: str) -> float:
    """Returns the rate of the lowest loss of the grid."""
    return min(trainings(records, kind), key=final_loss)["rate"]


def missing(plan: Plan, records: Sequence[dict[str, Any]]) -> tuple[str, float, int] | None:
    """Returns the type, the rate and the seed of the next training; None when all are done."""
    done = {(r["type"], r["rate"], r["seed"]) for r in records if "losses" in r}
    for kind in plan.types:
        for rate in grid(plan, records, kind):
            if (kind, rate, 0) not in done:
                return kind, rate, 0
    for seed, kind in itertools.product(plan.seeds, plan.types):
        run = (kind, best_rate(records, kind), seed)
        if run not in done:
            return run
    return None


def train(plan: Plan, kind: str, rate: float, seed: int) -> dict[str, Any]:
    """Returns the record of a training."""
    start, training = time.process_time(), Training(plan, kind, rate, seed)
    losses = [[0, training.held_out_loss()]]
    for step in range(1, plan.steps + 1):
        training.step()
        if step * plan.points // plan.steps > (step - 1) * plan.points // plan.steps:
            losses.append([step, training.held_out_loss()])
    record = {"type": kind, "rate": rate, "seed": seed, "digest": digest(plan, kind)}
    rounded = [[step, loss and round(loss, 5)] for step, loss in losses]
    seconds = round(time.process_time() - start, 1)
    return {**record, "losses": rounded, "processor_seconds": seconds, "facts": _facts()}


def _facts() -> dict[str, Any]:
    import torch

    known = machine.facts()
    kept = {name: known[name] for name in ("date", "processor", "sources")}
    return {**kept, "torch": torch.__version__}


def measure(plan: Plan, rounds: int, steps: int) -> Iterator[dict[str, Any]]:
    """Yields for each type what a step takes beside `BASE`, and the state; types take turns."""
    running = {kind: Training(plan, kind, FIRST_RATES[kind], 0) for kind in plan.types}
    seconds: dict[str, list[float]] = {kind: [] for kind in running}
    for _ in range(rounds + 1):  # the first is to warm up
        for kind, training in running.items():
            start = time.process_time()
            for _ in range(steps):
                training.step()
            seconds[kind].append((time.process_time() - start) / steps)
    for kind, training in running.items():
        pairs = zip(seconds[kind][1:], seconds[BASE][1:], strict=True)
        weights = sum(p.numel() for p in training.parameters.values())
        yield {
            "type": kind,
            "digest": digest(plan, kind),
            "to_base": round(statistics.median(own / base for own, base in pairs), 3),
            "milliseconds": round(1e3 * statistics.median(seconds[kind][1:]), 1),
            "weights": weights,
            "state": training.state_numbers(),
            "facts": _facts(),
        }


# What is shown


def curve(records: Sequence[dict[str, Any]], kind: str) -> list[tuple[int, list[float]]]:
    """Returns the losses of the seeds at the best rate, by step."""
    runs = trainings(records, kind, best_rate(records, kind))
    columns = zip(*(run["losses"] for run in runs), strict=True)
    return [
        (points[0][0], [math.nan if p[1] is None else p[1] for p in points]) for points in columns
    ]


def steps_to(points: Sequence[tuple[int, Sequence[float]]], loss: float) -> float | None:
    """Returns the step at which a mean falls to a loss, on straight lines; None if it doesn't."""
    means = [(step, statistics.fmean(values)) for step, values in points]
    for (before, high), (after, low) in itertools.pairwise(means):
        if low <= loss:
            share = (high - loss) / (high - low) if high > low else 1.0
            return before + min(max(share, 0.0), 1.0) * (after - before)
    return None


def table(plan: Plan, records: Sequence[dict[str, Any]]) -> str:
    """Returns the table of the types, in Markdown."""
    measured = {r["type"]: r for r in records if "to_base" in r}
    base = statistics.fmean(curve(records, BASE)[-1][1])
    lines = [
        f"| type | tuned rate | of so many | settings | loss | steps to `{BASE}`'s loss "
        "| time of a step | state per weight |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for kind in plan.types:
        points = curve(records, kind)
        values = points[-1][1]
        found = steps_to(points, base)
        cells = [
            f"`{kind}`",
            f"{best_rate(records, kind):g}",
            f"{len(trainings(records, kind))}",
            NOTES[kind],
            f"{statistics.fmean(values):.3f} ± {statistics.stdev(values):.3f}",
            "not reached" if found is None else f"{found / plan.steps:.2f}",
            f"{measured[kind]['to_base']:.2f}" if kind in measured else "-",
            _per_weight(measured[kind]) if kind in measured else "-",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _per_weight(record: dict[str, Any]) -> str:
    return f"{record['state'] / record['weights']:.2f}"


def grids(plan: Plan, records: Sequence[dict[str, Any]]) -> str:
    """Returns the losses of all rates, in Markdown."""
    lines = ["| type | rate: loss, of one training each |", "|---|---|"]
    for kind in plan.types:
        best, cells = best_rate(records, kind), []
        for record in sorted(trainings(records, kind), key=lambda r: r["rate"]):
            loss = final_loss(record)
            told = f"{record['rate']:g}: " + (f"{loss:.3f}" if loss < math.inf else "diverged")
            cells.append(f"**{told}**" if record["rate"] == best else told)
        lines.append(f"| `{kind}` | {', '.join(cells)} |")
    return "\n".join(lines)


def settings(plan: Plan, records: Sequence[dict[str, Any]]) -> str:
    """Returns what is changed in the file, as blocks of YAML."""
    blocks = []
    for kind in plan.types:
        changes = optimization_of(kind, best_rate(records, kind))
        changes = {k: v for k, v in changes.items() if v != {"type": None}}
        text = yaml.safe_dump(changes, sort_keys=False, default_flow_style=None, width=90)
        blocks.append(f"```yaml\n{text}```")
    return "\n\n".join(blocks)


def scale(plan: Plan, records: Sequence[dict[str, Any]]) -> str:
    """Returns the sizes and the number of trainings, in words."""
    task = SMALLER["task"]
    batch, length = task["train_data"]["global_batch_size"], task["sequence_length"]
    weights = next(r["weights"] for r in records if "weights" in r)
    runs = [r for r in records if "losses" in r]
    dates = sorted({r["facts"]["date"] for r in records})
    first = dates[0] if len(dates) == 1 else f"{dates[0]} to {dates[-1]}"
    facts = records[-1]["facts"]
    minutes = sum(r["processor_seconds"] for r in runs) / 60
    return "\n".join(
        [
            f"- {weights:,} weights, in {task['layers']} block of width {task['width']}.",
            f"- {plan.steps:,} steps of {batch} sequences of {length} characters: "
            f"{plan.steps * batch * length:,} characters.",
            f"- {len(runs)} trainings, {minutes:.0f} minutes of one core of {facts['processor']}, "
            f"PyTorch {facts['torch']}.",
            f"- Trained {first}.",
        ]
    )


def picture(plan: Plan, records: Sequence[dict[str, Any]]) -> Any:
    """Returns the picture of the losses over the steps, with the spread of the seeds."""
    import numpy as np

    from tools import gallery

    class Losses(gallery.Picture):
        @property
        def path(self) -> Path:
            return FOLDER / f"{self.name}.svg"

    curves = {}
    for kind in plan.types:
        points = [(step, statistics.fmean(v), min(v), max(v)) for step, v in curve(records, kind)]
        curves[kind] = np.array(points[1:])  # what all start from is far above
    return Losses("losses", curves, draw_losses, (7.0, 3.6))


def draw_losses(axes: Any, curves: dict[str, Any]) -> None:
    """Draws means as lines, and from the least to the largest as bands."""
    for name, points in curves.items():
        steps, mean, low, high = points.T
        axes.fill_between(steps, low, high, alpha=0.2, linewidth=0)
        axes.plot(steps, mean, label=name, linewidth=1.5)
    axes.legend(frameon=False, fontsize=8)
    axes.set_xlabel("optimizer steps", fontsize=8)
    axes.set_ylabel("loss on the held-out text", fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


def write(plan: Plan, records: Sequence[dict[str, Any]]) -> None:
    """Writes the sections of the page, and the picture."""
    from tools import gallery

    for name, text in sections(plan, records).items():
        page.fill(PAGE, name, text)
    gallery.save(picture(plan, records))


def sections(plan: Plan, records: Sequence[dict[str, Any]]) -> dict[str, str]:
    """Returns the text of each section of the page."""
    made = {"scale": scale, "table": table, "grids": grids, "settings": settings}
    return {name: function(plan, records) for name, function in made.items()}


def main(argv: Sequence[str] | None = None) -> None:
    """Runs what is missing, or measures, or writes."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--records", type=Path, default=FOLDER / "records.jsonl")
    what = parser.add_mutually_exclusive_group()
    what.add_argument("--time", action="store_true", help="measure a step of each type")
    what.add_argument("--write", action="store_true", help="write the page and its picture")
    options = parser.parse_args(argv)
    plan, path = Plan(), options.records
    if options.write:
        write(plan, read(path, plan))
    elif options.time:
        for record in measure(plan, rounds=10, steps=10):
            add(path, record)
    else:
        run(plan, path)


def run(plan: Plan, path: Path) -> None:
    """Trains what is missing, and adds a record after each training."""
    while (following := missing(plan, read(path, plan))) is not None:
        add(path, train(plan, *following))


def add(path: Path, record: dict[str, Any]) -> None:
    """Prints a record, and adds it to a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    told = {name: value for name, value in record.items() if name not in ("facts", "digest")}
    print(told, flush=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(record) + "\n")


if __name__ == "__main__":
    main()
