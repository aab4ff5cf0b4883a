"""The paths of a model's variables, kept the same through saving and loading.

Keras derives a path from the scopes that were open when the variable was made, and a loaded model
makes its variables in fewer of them: `model/encoder/dense/kernel` comes back as `dense/kernel`, and
two encoders come back with the same paths. So paths are stored with the optimizer, and used again.
"""

from collections.abc import Sequence
from typing import Any


def path_of(variable: Any) -> str:
    """Returns a variable's own path, or the name of a `tf.Variable`."""
    return getattr(variable, "path", None) or variable.name


def settled(variables: Sequence[Any], saved: Sequence[str] | None) -> list[str]:
    """Returns the variables' paths: the saved ones if these are the same variables.

    They are if each path is, position by position, the saved one or the end of it, by whole parts.
    Otherwise the optimizer has been given another model, and the present paths hold.
    """
    paths = [path_of(variable) for variable in variables]
    if saved is None or len(saved) != len(paths):
        return paths
    same = all(f"/{old}".endswith(f"/{new}") for old, new in zip(saved, paths, strict=True))
    return list(saved) if same else paths
