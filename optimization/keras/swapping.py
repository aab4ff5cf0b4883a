"""A model that holds the weights to evaluate for a while, instead of those that train."""

import contextlib
from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from optimization.keras.control import is_traced
from optimization.keras.renumbering import saved_names

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

KEPT = "kept/"
SWAPPED = (
    "The weights are swapped with their averages: call `swap()` before the next step, or give "
    "`fit` the callback `EvaluateAverages`."
)


class Swappable:
    """Mixin that knows, in a variable that is saved too, whether the weights are swapped."""

    swapped: Any = None  # the variable, once there is one
    # What a second swap restores that no variable can hold, by number.
    _aside: dict[int, Any]

    def _places(self) -> dict[str, list[int]]:
        """Returns under which numbers something may be kept aside, by the path of a weight."""
        raise NotImplementedError

    def kept(self) -> dict[str, Any]:
        """Returns what is kept aside while the weights are swapped, by `kept/` and path."""
        places = self._places().items()
        found = {f"{KEPT}{path}": self._aside.get(numbers[0]) for path, numbers in places}
        return {
            name: ops.convert_to_numpy(value) for name, value in found.items() if value is not None
        }

    def keep(self, values: Mapping[str, Any], paths: Sequence[str]) -> None:
        """Takes what `kept` returned, of a model with these paths, instead of what is kept."""
        places = {f"{KEPT}{path}": numbers for path, numbers in self._places().items()}
        names = saved_names(places, values, paths)
        self._aside = {
            number: ops.convert_to_tensor(values[names[name]])
            for name, numbers in places.items()
            for number in numbers
            if names[name] in values
        }

    def add_flag(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Creates the variable, as one of `optimizer`."""
        self.swapped = optimizer.add_variable((), dtype="bool", name="swapped")

    def is_swapped(self) -> bool:
        """Says whether the weights are swapped with their averages at present."""
        return self.swapped is not None and bool(ops.convert_to_numpy(self.swapped))

    def unswapped(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context for a step, which raises where weights are swapped.

        Raises:
            RuntimeError: If they are. In a `tf.function` it is an `InvalidArgumentError`, when the
                function runs, and no weight is changed; inside a function compiled by XLA or JAX
                nothing can be raised.
        """
        if keras.backend.backend() == "tensorflow" and not tf.executing_eagerly():
            # The flag is read in the graph, which may have been traced before the swap.
            not_swapped = tf.logical_not(tf.convert_to_tensor(self.swapped))
            return tf.control_dependencies([tf.debugging.Assert(not_swapped, [SWAPPED])])
        if not is_traced(self.swapped.value) and self.is_swapped():
            raise RuntimeError(SWAPPED)
        return contextlib.nullcontext()

    def check_eager(self) -> None:
        """Checks that weights can be swapped here.

        Raises:
            RuntimeError: Inside a `tf.function`, where it would run once, while tracing.
        """
        if keras.backend.backend() == "tensorflow" and not tf.executing_eagerly():
            raise RuntimeError("`swap()` must be called eagerly, outside any `tf.function`.")


def copied(variable: Any) -> Any:
    """Returns a variable's value, not its own buffer, which JAX may donate and PyTorch changes."""
    return ops.copy(ops.convert_to_tensor(variable))
