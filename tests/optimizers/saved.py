"""How a Keras optimizer of `golden/saved` takes its steps, and what is compared."""

import json
import warnings
from typing import Any

import keras

from tests.saved_goldens import STEPS, Values, gradients


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
    for name, variable in own.variables_by_path().items():
        named[f"{prefix}/{name}"] = variable
    return {name: variable.numpy() for name, variable in named.items()}


def serialized(optimizer: Any) -> Any:
    """Returns an optimizer as Keras' files have it."""
    return json.loads(json.dumps(keras.saving.serialize_keras_object(optimizer)))
