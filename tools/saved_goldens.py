"""Saves optimizers of every kind to `tests/golden/saved`, for later versions to load.

    python tools/saved_goldens.py keras          # compares, changes nothing
    python tools/saved_goldens.py torch
    python tools/saved_goldens.py jax
    python tools/saved_goldens.py schedules
    python tools/saved_goldens.py keras --write  # saves the cases without files, and these alone

The cases are those of `tests/saved_cases.py`, and the schedules those of the contract tests. A file
that was written once is never written again: that a later version loads what an earlier one has
saved is what it is for. So `--write` adds the cases that are new, and every case says which
versions wrote it. To save a case anew, take it out of the JSON file first.

Each side runs in a process of its own, with Keras on TensorFlow, or with PyTorch or JAX alone.
Exits 1 if what is computed now differs from what is stored by more than a case allows, which is
float32 rounding, but for those that magnify it.
"""

import argparse
import importlib.metadata
import json
import os
import pathlib
import shutil
import sys
import tempfile

import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

from tests.saved_cases import CASES, KERAS_CLASSES
from tests.saved_goldens import (
    STEPS,
    TOLERANCE,
    Goldens,
    as_lines,
    kinds,
    largest_error,
    tolerance_of,
)

PACKAGES = {
    "keras": ("optimizer-factory", "keras", "tensorflow", "numpy"),
    "torch": ("optimizer-factory", "torch", "numpy"),
    "jax": ("optimizer-factory", "jax", "optax", "numpy"),
    "schedules": ("optimizer-factory", "keras", "tensorflow", "numpy"),
}


def keras_cases():
    """Returns what is saved by Keras and by the trainer."""
    return KERAS_CLASSES | {n: case for n, case in CASES.items() if case.get("keras", True)}


def torch_cases():
    """Returns what is saved natively."""
    from tests.torch.saved import class_cases

    return class_cases() | {n: case for n, case in CASES.items() if case.get("native", True)}


def save_keras(case, directory):
    """Saves a model with its optimizer and the trainer's checkpoint.

    Returns:
        What the JSON file says of it, and the values then and after more steps.
    """
    import tensorflow as tf

    from tests.keras import saved
    from tests.training.saved import trainer_of

    if case.get("follows"):
        return save_followed(case, directory)
    if "class" in case:
        return save_class(case, directory)
    trainer = trainer_of(case, directory / "run")
    model, optimizer = trainer.model, trainer.optimizer
    saved.take_steps(model, optimizer, case, 0)
    values = {"saved": saved.state(model, optimizer)}
    trainer.global_step.assign(STEPS)
    trainer.save()
    tf.train.Checkpoint(model=model, optimizer=optimizer).write(str(directory / "plain"))
    model.compile(optimizer)
    if case.get("swapped"):
        with optimizer.averaged():
            model.save(directory / "model.keras")
    else:
        model.save(directory / "model.keras")
    told = {"variables": kinds(values["saved"]), "optimizer": saved.serialized(optimizer)}
    saved.take_steps(model, optimizer, case, STEPS)
    return told, {**values, "trained": saved.state(model, optimizer)}


def save_class(case, directory):
    """Does the same with a model alone."""
    from tests.keras import saved

    model = saved.compiled_model(case)
    saved.take_steps(model, model.optimizer, case, 0)
    values = {"saved": saved.state(model, model.optimizer)}
    told = {"variables": kinds(values["saved"]), "optimizer": saved.serialized(model.optimizer)}
    model.save(directory / "model.keras")
    saved.take_steps(model, model.optimizer, case, STEPS)
    return told, {**values, "trained": saved.state(model, model.optimizer)}


def save_followed(case, directory):
    """Does the same where the rate follows evaluations, which the trainer's loop makes."""
    from tests.keras import saved
    from tests.training.saved import trainer_of

    def trained(steps):
        trainer = trainer_of(case, directory / "run", steps)
        trainer.train(evaluate=True)
        return saved.state(trainer.model, trainer.optimizer), trainer.optimizer

    values, optimizer = trained(STEPS)
    told = {"variables": kinds(values), "optimizer": saved.serialized(optimizer)}
    files = {p: p.read_bytes() for p in (directory / "run").rglob("*") if p.is_file()}
    final, _ = trained(2 * STEPS)
    for path in [p for p in (directory / "run").rglob("*") if p.is_file()]:
        path.unlink()
    for path, content in files.items():
        if path.name == "checkpoint" or path.name.startswith("ckpt-"):
            path.write_bytes(content)
    return told, {"saved": values, "trained": final}


def save_torch(case, directory):
    """Saves a model, its optimizer, scheduler and average natively; returns the same."""
    from tests.torch import saved

    return saved.save(case, directory)


def jax_cases():
    """Returns what is saved natively on JAX."""
    from tests.jax.saved import cases

    return cases()


def save_jax(case, directory):
    """Does the same on JAX."""
    from tests.jax import saved

    return saved.save(case, directory)


SIDES = {
    "keras": (keras_cases, save_keras),
    "torch": (torch_cases, save_torch),
    "jax": (jax_cases, save_jax),
}


def main():
    """Compares, or with --write adds what is not there."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("side", choices=PACKAGES)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    packages = PACKAGES[arguments.side]
    versions = {name: importlib.metadata.version(name) for name in packages}
    print(", ".join(f"{name} {version}" for name, version in versions.items()))
    run = of_schedules if arguments.side == "schedules" else of_side
    return 1 if run(arguments.side, versions, arguments.write) else 0


def of_side(side, versions, write):
    """Saves or compares the cases of a side; returns the names of those that differ."""
    goldens = Goldens(side)
    cases, save = SIDES[side]
    different = []
    with tempfile.TemporaryDirectory() as scratch, tempfile.TemporaryDirectory() as kept:
        if goldens.archive.exists():
            goldens.unpack(pathlib.Path(kept))
        for name, case in cases().items():
            is_new = name not in goldens.cases
            if is_new != write:
                if is_new:
                    print(f"{name}: has no files yet")
                continue
            directory = pathlib.Path(kept if is_new else scratch) / name
            shutil.rmtree(directory, ignore_errors=True)
            directory.mkdir()
            told, values = save(case, directory)
            if is_new:
                goldens.add(name, {**case, **told, "versions": versions}, values)
                continue
            stored = goldens.cases[name]
            for when, found in values.items():
                error, variable = largest_error(found, goldens.values(name, when))
                if error:
                    print(f"{name}, {when}: {variable} differs by {error:.1e}")
                if error and error > tolerance_of(stored, stored["variables"][variable][0]):
                    different.append(name)
        if write:
            goldens.write(pathlib.Path(kept))
    print(f"{len(goldens.cases)} cases, {len(different)} differ by more than they may")
    return different


def of_schedules(side, versions, write):
    """Does the same for the schedules."""
    from tests.schedules import saved

    cases = json.loads(saved.FILE.read_text()) if saved.FILE.exists() else {}
    different = []
    for name, schedule in saved.schedules().items():
        told = saved.told(schedule)
        if name in cases:
            error, _ = largest_error(
                {side: np.array(told["values"])}, {side: np.array(cases[name]["values"])}
            )
            if error > TOLERANCE:
                print(f"{name} differs by {error:.1e}")
                different.append(name)
        elif write:
            cases[name] = {**told, "versions": versions}
        else:
            print(f"{name}: has no values yet")
    if write:
        saved.FILE.write_text(as_lines(cases))
    print(f"{len(cases)} schedules, {len(different)} differ by more than they may")
    return different


if __name__ == "__main__":
    sys.exit(main())
