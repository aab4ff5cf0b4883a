"""Models that earlier versions have saved load, and their optimizers train on."""

import json
import subprocess
import sys
import zipfile
from pathlib import Path

import keras
import pytest

from tests.keras.common import BACKEND, tensorflow_only
from tests.keras.saved import serialized, state, take_steps
from tests.saved_goldens import (
    STEPS,
    Goldens,
    assert_close,
    assert_same,
    assert_still_there,
    kinds,
)

GOLDENS = Goldens("keras")
# A rate that follows a metric is the trainer's, or a callback's, and not in a model's file.
CASES = {name: case for name, case in GOLDENS.cases.items() if not case.get("follows")}
ROOT = Path(__file__).parents[2]
LOAD_ALL = """
import pathlib, sys, warnings
import keras
import optimization
warnings.simplefilter("error")
files = sorted(pathlib.Path(sys.argv[1]).glob("*/model.keras"))
for file in files:
    optimizer = keras.models.load_model(file).optimizer
    assert type(optimizer).__module__.startswith("optimization."), file
print(len(files))
"""


# Arguments of layers that Keras 3.15 writes, here as they are by default, and an older one refuses.
NEWER = {"input_axes", "output_axes", "quantization_config"}
NEWER |= {"renorm", "renorm_clipping", "renorm_momentum"}


def for_this_keras(file):
    """Takes out of a model's file what only the Keras that wrote it can read: not the optimizer."""
    with zipfile.ZipFile(file) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    if json.loads(members["metadata.json"])["keras_version"] == keras.__version__:
        return
    config = json.loads(
        members["config.json"],
        object_hook=lambda each: {name: value for name, value in each.items() if name not in NEWER},
    )
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in (members | {"config.json": json.dumps(config)}).items():
            archive.writestr(name, content)


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = GOLDENS.unpack(tmp_path_factory.mktemp("saved"))
    for file in folder.glob("*/model.keras"):
        for_this_keras(file)
    return folder


@pytest.mark.filterwarnings("error::UserWarning")
@pytest.mark.parametrize("name", CASES)
def test_a_saved_model_trains_on(files, name):
    case = CASES[name]
    if BACKEND == "jax" and case.get("all_weights"):
        pytest.skip("averages of all weights are an error on JAX")
    if BACKEND == "jax" and "dynamic loss scale" in name:
        pytest.skip("the scale is the trainer's, which is TensorFlow's")
    model = keras.models.load_model(files / name / "model.keras")
    optimizer = model.optimizer
    if case.get("all_weights"):
        optimizer.shadow_copy(model)
    assert_still_there(case["optimizer"], serialized(optimizer))
    if case.get("swapped"):
        optimizer.swap()
    assert_same(state(model, optimizer), GOLDENS.values(name, "saved"))
    take_steps(model, optimizer, case, STEPS)
    trained = state(model, optimizer)
    if BACKEND == "tensorflow":  # JAX and PyTorch have other integers for counts
        assert kinds(trained) == {n: tuple(kind) for n, kind in case["variables"].items()}
    assert_close(trained, GOLDENS.values(name, "trained"), case)


@tensorflow_only
@pytest.mark.slow
def test_all_load_in_a_fresh_process(files):
    run = subprocess.run(
        [sys.executable, "-c", LOAD_ALL, str(files)], cwd=ROOT, capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    assert int(run.stdout) == len(CASES)
