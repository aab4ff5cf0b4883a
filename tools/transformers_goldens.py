"""Computes `tests/golden/transformers_*` with transformers itself, each part with its last version.

Each part runs in an environment of its own:

    python3 -m venv adamw
    adamw/bin/pip install transformers==4.49.0 torch==2.13.0
    adamw/bin/python tools/transformers_goldens.py adamw          # compares, changes nothing
    adamw/bin/python tools/transformers_goldens.py adamw --write  # rewrites the figures

- `adamw` (4.49.0): 25 updates of the PyTorch `AdamW`, in float64.

The files hold the inputs too. Exits 1 if a figure differs.
"""

import argparse
import json
import pathlib
import sys

import numpy as np

GOLDEN = pathlib.Path(__file__).parent.parent / "tests" / "golden"
STEPS = 25
SHAPES = {
    "encoder/dense/kernel": (6, 5),
    "encoder/dense/bias": (5,),
    "encoder/layer_norm/gamma": (5,),
    "head/kernel": (5, 2),
}


def inputs():
    """Returns initial values, the gradients of each step, and the learning rates."""
    random = np.random.RandomState(11)
    figures = {f"initial|{path}": random.randn(*shape) * 0.3 for path, shape in SHAPES.items()}
    for path, shape in SHAPES.items():
        # Steps of very different sizes: the clip acts at some, epsilon is felt at others.
        scale = np.where(np.arange(STEPS) % 4, 0.1, 3.0).reshape(-1, *(1 for _ in shape))
        figures[f"gradients|{path}"] = random.randn(STEPS, *shape) * scale
    figures["rates"] = 0.01 * (1 + np.arange(STEPS) % 5)
    return {name: value.astype("float32") for name, value in figures.items()}


ADAMW = [
    {"correct_bias": correct_bias, "weight_decay": decay, "eps": epsilon}
    for correct_bias in (True, False)
    for decay, epsilon in ((0.0, 1e-6), (0.3, 1e-6), (0.3, 1e-2))
]


def adamw():
    """Returns the version, and the weights after 25 updates of each case of `ADAMW`."""
    import torch
    import transformers
    from transformers.optimization import AdamW

    figures = inputs()
    for case in ADAMW:
        weights = {
            path: torch.nn.Parameter(torch.tensor(figures[f"initial|{path}"].astype("float64")))
            for path in SHAPES
        }
        optimizer = AdamW(weights.values(), betas=(0.85, 0.99), no_deprecation_warning=True, **case)
        for step, rate in enumerate(figures["rates"]):
            optimizer.param_groups[0]["lr"] = float(rate)
            for path, weight in weights.items():
                weight.grad = torch.tensor(figures[f"gradients|{path}"][step].astype("float64"))
            optimizer.step()
        for path, weight in weights.items():
            figures[f"{json.dumps(case)}|{path}"] = weight.detach().numpy()
    return {"version": np.array(transformers.__version__), **figures}


PARTS = {"adamw": adamw}


def differing(figures, stored):
    """Returns the names of the figures that are not as stored."""
    return sorted(
        name
        for name in {*figures, *stored}
        if name not in figures
        or name not in stored
        or (
            not np.array_equal(figures[name], stored[name])
            if figures[name].dtype.kind == "U"
            # Machines may round a float64 operation differently.
            else not np.allclose(figures[name], stored[name], rtol=1e-9, atol=1e-12)
        )
    )


def main():
    """Compares or writes the figures of a part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=PARTS)
    parser.add_argument("--write", action="store_true", help="rewrite the figures")
    arguments = parser.parse_args()
    path = GOLDEN / f"transformers_{arguments.part}.npz"
    figures = PARTS[arguments.part]()
    if arguments.write:
        np.savez_compressed(path, **figures)
        return
    with np.load(path) as stored:
        names = differing(figures, dict(stored))
    if names:
        sys.exit(f"{path.name} differs in {', '.join(names)}")


if __name__ == "__main__":
    main()
