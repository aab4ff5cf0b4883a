"""Computes `tests/golden/transformers_*` with transformers itself, each part with its last version.

Each part runs in an environment of its own:

    python3 -m venv adamw
    adamw/bin/pip install transformers==4.49.0 torch==2.13.0
    adamw/bin/python tools/transformers_goldens.py adamw          # compares, changes nothing
    adamw/bin/python tools/transformers_goldens.py adamw --write  # rewrites the figures

- `adamw` (4.49.0): 25 updates of the PyTorch `AdamW`, in float64.
- `tensorflow` (4.57.6, with tensorflow==2.20.0 and tf_keras==2.20.1): 25 updates of what
  `create_optimizer` returns, and its learning rates, in float32.
- `schedules` (5.23.0): the factors on the learning rate of every schedule, around its joints.

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


CREATE = [
    {"init_lr": 0.02, "num_train_steps": 20, "num_warmup_steps": 5, **more}
    for more in (
        {},
        {"weight_decay_rate": 0.3},
        {
            "weight_decay_rate": 0.3,
            "include_in_weight_decay": ["norm/gamma", "absent"],
            "min_lr_ratio": 0.1,
            "power": 2.0,
            "adam_global_clipnorm": 1.0,
        },
        {
            "num_warmup_steps": 0,
            "weight_decay_rate": 0.3,
            "adam_clipnorm": 0.5,
            "adam_beta1": 0.8,
            "adam_beta2": 0.95,
            "adam_epsilon": 1e-3,
        },
    )
]


def tensorflow():
    """Returns the version, and of each case of `CREATE` the weights and the learning rates."""
    import tensorflow as tf
    import transformers
    from transformers import create_optimizer

    figures = inputs()
    for case in CREATE:
        name = json.dumps(case)
        optimizer, schedule = create_optimizer(**case)
        weights = [tf.Variable(figures[f"initial|{path}"], name=path) for path in SHAPES]
        for step in range(STEPS):
            grads = [tf.constant(figures[f"gradients|{path}"][step]) for path in SHAPES]
            optimizer.apply_gradients(zip(grads, weights, strict=True))
        rates = [float(schedule(tf.constant(step, tf.int64))) for step in range(STEPS)]
        figures[f"{name}|rates"] = np.array(rates, "float32")
        for path, weight in zip(SHAPES, weights, strict=True):
            figures[f"{name}|{path}"] = weight.numpy()
    return {"version": np.array(transformers.__version__), **figures}


RATE = 0.02
LENGTHS = [(0, 100), (10, 100), (7, 97), (10, 10)]  # of the warmup, and in all
WSD = {"num_decay_steps": 30, "min_lr_ratio": 0.1}
SCHEDULES = [
    ("linear", {}),
    ("cosine", {}),
    ("cosine", {"num_cycles": 1.75}),
    ("cosine", {"num_cycles": 0.0}),
    ("cosine_with_restarts", {}),
    ("cosine_with_restarts", {"num_cycles": 4}),
    ("polynomial", {}),
    ("polynomial", {"lr_end": 0.004, "power": 2.5}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("inverse_sqrt", {}),
    ("inverse_sqrt", {"timescale": 400}),
    ("cosine_with_min_lr", {"min_lr": 0.002}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.25, "num_cycles": 1.5}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1}),
    ("cosine_warmup_with_min_lr", {"min_lr": 0.002, "warmup_lr_rate": 0.3}),
    *(
        ("warmup_stable_decay", {**WSD, "warmup_type": up, "decay_type": down})
        for up, down in (("linear", "linear"), ("cosine", "1-sqrt"), ("1-sqrt", "cosine"))
    ),
    ("warmup_stable_decay", {"num_decay_steps": 25, "num_stable_steps": 20, "num_cycles": 1.5}),
]


def steps_around(warmup, total, settings):
    """Returns steps before, at and after every joint of a schedule, and far past its end."""
    decay = settings.get("num_decay_steps", 0)
    stable = settings.get("num_stable_steps", total - warmup - decay)
    joints = {1, warmup, (warmup + total) // 2, total, warmup + stable, warmup + stable + decay}
    cycles = int(settings.get("num_cycles", 1)) or 1
    joints |= {warmup + (total - warmup) * i // cycles for i in range(cycles)}
    around = {joint + shift for joint in joints for shift in (-1, 0, 1)}
    return sorted(step for step in around | {10 * total, 12345} if step >= 0)


def schedules():
    """Returns the version, and the factor of each schedule at each of its steps."""
    import torch
    import transformers
    from transformers import get_scheduler

    cases = []
    for name, settings in SCHEDULES:
        for warmup, total in LENGTHS:
            if total < warmup + settings.get("num_decay_steps", 0):
                continue
            optimizer = torch.optim.SGD([torch.zeros(1)], lr=RATE)
            kwargs = dict(settings)
            if "num_stable_steps" in settings:
                kwargs["num_training_steps"] = None
            scheduler = get_scheduler(
                name,
                optimizer,
                num_warmup_steps=warmup,
                num_training_steps=kwargs.pop("num_training_steps", total),
                scheduler_specific_kwargs=kwargs,
            )
            steps = steps_around(warmup, total, settings)
            if name == "polynomial" and total == warmup:
                steps.remove(total)  # they divide by 0 there
            cases.append(
                {
                    "type": name,
                    "num_warmup_steps": warmup,
                    "num_training_steps": total,
                    "settings": settings,
                    "steps": steps,
                    "factors": [float(scheduler.lr_lambdas[0](step)) for step in steps],
                }
            )
    return {"transformers": transformers.__version__, "rate": RATE, "cases": cases}


ARRAYS = {"adamw": adamw, "tensorflow": tensorflow}
TEXTS = {"schedules": schedules}


def as_text(golden):
    """Returns JSON with a line for each case."""
    head = {key: value for key, value in golden.items() if key != "cases"}
    lines = ",\n".join(f"  {json.dumps(case)}" for case in golden["cases"])
    return f'{json.dumps(head, indent=1)[:-2]},\n "cases": [\n{lines}\n ]\n}}\n'


TOLERANCES = {8: (1e-9, 1e-12), 4: (1e-5, 1e-7)}
"""Relative and absolute, of float64 and float32."""


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
            # Machines may round an operation differently.
            else not np.allclose(
                figures[name], stored[name], *TOLERANCES[stored[name].dtype.itemsize]
            )
        )
    )


def main():
    """Compares or writes the figures of a part."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("part", choices=[*ARRAYS, *TEXTS])
    parser.add_argument("--write", action="store_true", help="rewrite the figures")
    arguments = parser.parse_args()
    part = arguments.part
    if part in TEXTS:
        path, text = GOLDEN / f"transformers_{part}.json", as_text(TEXTS[part]())
        if arguments.write:
            path.write_text(text)
        elif text != path.read_text():
            sys.exit(f"{path.name} differs from what transformers computes")
        return
    path, figures = GOLDEN / f"transformers_{part}.npz", ARRAYS[part]()
    if arguments.write:
        np.savez_compressed(path, **figures)
        return
    with np.load(path) as stored:
        names = differing(figures, dict(stored))
    if names:
        sys.exit(f"{path.name} differs in {', '.join(names)}")


if __name__ == "__main__":
    main()
