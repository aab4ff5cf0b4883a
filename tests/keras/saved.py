"""Models of Keras that are saved: how they are made and take steps, and what is compared.

`python -m tests.keras.saved FOLDER` loads each model of a folder, takes steps, and writes the state
beside it.
"""

import importlib
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import keras
import numpy as np

from tests.saved_goldens import STEPS, Values, gradients


def build_model(dtype: str | None = None) -> keras.Model:
    """Returns a tiny network with a layer of each kind that rules and exclusions tell apart."""
    layers = keras.layers
    return keras.Sequential(
        [
            keras.Input((3, 3, 2)),
            layers.Conv2D(3, 2, use_bias=False, name="conv", dtype=dtype),
            layers.GlobalAveragePooling2D(name="pool", dtype=dtype),
            layers.Dense(4, name="layer_0", dtype=dtype),
            layers.BatchNormalization(name="norm", dtype=dtype),
            layers.Dense(2, name="head", dtype=dtype),
        ],
        name="saved",
    )


def compiled_model(case: dict[str, Any]) -> keras.Model:
    """Returns the network with an optimizer of a class by itself, not from a config."""
    keras.utils.clear_session()
    keras.utils.set_random_seed(0)
    model = build_model()
    optimizer = getattr(importlib.import_module(case["module"]), case["class"])
    rate = case["arguments"].get("learning_rate", 0.05)
    if isinstance(rate, dict):
        rate = keras.saving.deserialize_keras_object(rate)
    model.compile(optimizer(**{**case["arguments"], "learning_rate": rate}))
    return model


def take_steps(model: keras.Model, optimizer: Any, case: dict[str, Any], first: int) -> None:
    """Takes the steps of a case from number `first` on, with its gradients."""
    variables = model.trainable_variables
    for step in range(first, first + STEPS):
        found = gradients([variable.shape for variable in variables], step, case)
        pairs = zip(found, variables, strict=True)
        found = [None if g is None else keras.ops.cast(g, v.dtype) for g, v in pairs]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "Gradients do not exist")
            optimizer.apply(found, variables)


def state(model: keras.Model, optimizer: Any) -> Values:
    """Returns the values of all variables of the model and the optimizer, by name."""
    # Keras forgets the model's own name in the paths of one that it loads.
    named = {f"model/{v.path.removeprefix('saved/')}": v for v in model.variables}
    prefix, own = "optimizer", optimizer
    if hasattr(optimizer, "inner_optimizer"):  # a dynamic loss scale
        for name in ("dynamic_scale", "step_counter"):
            named[f"optimizer/{name}"] = getattr(optimizer, name)
        prefix, own = "optimizer/inner", optimizer.inner_optimizer
    if hasattr(own, "variables_by_path"):
        variables = own.variables_by_path().items()
    else:  # Keras saves the variables of a class by itself by their positions.
        variables = enumerate(own.variables)
    for name, variable in variables:
        named[f"{prefix}/{name}"] = variable
    return {name: variable.numpy() for name, variable in named.items()}


def serialized(optimizer: Any) -> Any:
    """Returns an optimizer as Keras' files have it."""
    return json.loads(json.dumps(keras.saving.serialize_keras_object(optimizer)))


def main(folder: str) -> None:
    """Trains on from the models of a folder."""
    import optimization  # noqa: F401  all that a user imports

    for file in sorted(Path(folder).glob("*.keras")):
        model = keras.models.load_model(file)
        take_steps(model, model.optimizer, {}, STEPS)
        np.savez(file.with_suffix(".npz"), **state(model, model.optimizer))


if __name__ == "__main__":
    main(*sys.argv[1:])
