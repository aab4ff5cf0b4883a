"""Trains the language model with state of several precisions, and compares with float32.

    KERAS_BACKEND=jax python -m tools.state_precision

The model of `experiments.language_model`, made smaller by the arguments, takes `--steps` steps of
AdamW from the same weights on the same batches: with float32 state, with moments in bfloat16 that
are rounded to the nearest or stochastically, and with weights in bfloat16, through float32 copies
or without. It prints a table: the loss on the held-out text, how far the weights are from those of
float32, over how far these have come, and the bytes of weights, copies and moments for each
parameter. The row "float32, other batches" says how far two float32 runs are apart by the order of
their batches alone.
"""

import argparse
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple


class Way(NamedTuple):
    """One row: its name, the dtype of the weights, the `state` section, the order of batches."""

    name: str
    dtype: str = "float32"
    state: Mapping[str, Any] | None = None
    seed: int = 0


NEAREST = {"dtype": "bfloat16", "rounding": "nearest"}
STOCHASTIC = {"dtype": "bfloat16"}
WAYS = (
    Way("float32"),
    Way("float32, other batches", seed=1),
    Way("moments bfloat16, nearest", state=NEAREST),
    Way("moments bfloat16, stochastic", state=STOCHASTIC),
    Way("weights bfloat16 with copies", "bfloat16"),
    Way("weights bfloat16, nearest", "bfloat16", {"weights": "nearest"}),
    Way("weights bfloat16, stochastic", "bfloat16", {"weights": "stochastic"}),
    Way("both bfloat16, stochastic", "bfloat16", {**STOCHASTIC, "weights": "stochastic"}),
)


class Result(NamedTuple):
    """The weights before and after a run, the loss, and the bytes for each parameter."""

    start: Any
    weights: Any
    loss: float
    bytes: float


def config_of(state: Mapping[str, Any] | None, steps: int, rate: float) -> Any:
    """Returns the optimization section: that of the experiment, with more memory in `beta_2`."""
    from optimization import OptimizationConfig

    adamw = {"beta_2": 0.999, "weight_decay_rate": 0.1, "state": state}
    cosine = {"initial_learning_rate": rate, "decay_steps": steps}
    return OptimizationConfig(
        {
            "optimizer": {"type": "adamw", "adamw": adamw},
            "learning_rate": {"type": "cosine", "cosine": cosine},
            "warmup": {"type": "linear", "linear": {"warmup_steps": max(steps // 10, 1)}},
        }
    )


def flat(weights: Sequence[Any]) -> Any:
    """Returns all weights as one float64 array."""
    import numpy as np

    return np.concatenate([np.asarray(w, "float32").ravel() for w in weights]).astype("float64")


def run(way: Way, start: Sequence[Any] | None, arguments: argparse.Namespace) -> Result:
    """Trains in one way; `start` are the weights to start from, None for new ones."""
    import keras
    import numpy as np

    from experiments import language_model as lm
    from optimization import OptimizerFactory

    keras.utils.set_random_seed(0)
    keras.config.set_dtype_policy(way.dtype)
    sizes = {"sequence_length": arguments.length, "width": arguments.width, "layers": 1}
    config = lm.LanguageModelConfig(**sizes, heads=2, dropout_rate=0.0)
    model = lm.LanguageModelTask(config).build_model()
    if start is None:
        start = model.get_weights()
    model.set_weights(start)
    factory = OptimizerFactory(config_of(way.state, arguments.steps, arguments.rate))
    optimizer = factory.build_optimizer(factory.build_learning_rate(), model=model)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(optimizer, loss)
    texts = lm.read_text()
    tokens, targets = lm.sequences(texts.training, arguments.length, arguments.length // 2)
    order = np.random.default_rng(way.seed)
    count = arguments.steps * arguments.batch
    rounds = math.ceil(count / len(tokens))
    places = np.concatenate([order.permutation(len(tokens)) for _ in range(rounds)])[:count]
    model.fit(
        *(tokens[places], targets[places]),
        batch_size=arguments.batch,
        shuffle=False,
        verbose=0,
    )
    held_out = lm.sequences(texts.held_out, arguments.length, arguments.length)
    found = float(model.evaluate(*held_out, batch_size=64, verbose=0))
    kept = [*model.trainable_variables, *_slots(optimizer)]
    size = sum(math.prod(v.shape) * (2 if "16" in str(v.dtype) else 4) for v in kept)
    return Result(start, model.get_weights(), found, size / model.count_params())


def _slots(optimizer: Any) -> list[Any]:
    """Returns the state that is as large as weights: moments and copies."""
    return [v for v in optimizer.variables_by_path().values() if v.shape]


def table(arguments: argparse.Namespace, ways: Sequence[Way] = WAYS) -> list[str]:
    """Returns the lines of the table; the first of `ways` is what the others are compared with."""
    import numpy as np

    lines = ["| state | held-out loss | distance from float32 | bytes per parameter |"]
    lines.append("|---|---|---|---|")
    print(*lines, sep="\n", flush=True)
    first: Result | None = None
    for way in ways:
        result = run(way, first and first.start, arguments)
        first = first or result
        from_start = np.linalg.norm(flat(first.weights) - flat(first.start))
        apart = np.linalg.norm(flat(result.weights) - flat(first.weights)) / from_start
        row = f"| {way.name} | {result.loss:.4f} | {apart:.3f} | {result.bytes:.0f} |"
        lines.append(row)
        print(row, flush=True)
    return lines


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Returns the arguments."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=1000)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--length", type=int, default=64)
    parser.add_argument("--width", type=int, default=64)
    parser.add_argument("--rate", type=float, default=0.004)
    return parser.parse_args(argv)


if __name__ == "__main__":
    table(parse())
