"""What a step does when a gradient is infinite or NaN."""

import contextlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from optimization.optimizers import gradients
from optimization.optimizers.control import conditionally, is_traced

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util  # the public API has no such question

GradsAndVars = list[tuple[Any, Any]]
CHOICES = ("propagate", "skip", "raise")
_MESSAGE = "The gradients of these variables are not finite:"


class NonFiniteGradientError(ArithmeticError):
    """A gradient is infinite or NaN; the message names the variables."""


class FiniteCheck:
    """Looks at all gradients of an update, before anything is made of them.

    The error is a `NonFiniteGradientError`. Inside a `tf.function` it is a
    `tf.errors.InvalidArgumentError` with the same words; inside a function compiled by JAX its
    words are in the runtime error that JAX raises. XLA under TensorFlow leaves out assertions, so
    there it is a `ValueError` when the function is traced.

    Args:
        on_nonfinite: "skip" leaves out the update and counts it, "raise" raises at the first,
            "propagate" is for whoever takes no check at all.
        max_consecutive: With "skip", how many updates in a row may be left out; one more raises.
            None: any number.

    Raises:
        ValueError: For another choice, or a maximum that is < 0 or comes without "skip".
    """

    def __init__(self, on_nonfinite: str, max_consecutive: int | None):
        if on_nonfinite not in CHOICES:
            raise ValueError(
                f"Argument `on_nonfinite` must be one of {CHOICES}, received: {on_nonfinite=}"
            )
        if max_consecutive is not None and (on_nonfinite != "skip" or max_consecutive < 0):
            raise ValueError(
                "Argument `max_consecutive_nonfinite` must be >= 0 and needs on_nonfinite='skip', "
                f"received: max_consecutive_nonfinite={max_consecutive}, {on_nonfinite=}"
            )
        self.on_nonfinite = on_nonfinite
        self.max_consecutive = max_consecutive
        self.total: keras.Variable | None = None
        self.consecutive: keras.Variable | None = None

    @property
    def may_raise(self) -> bool:
        """Whether an update may end in an error."""
        return self.on_nonfinite == "raise" or self.max_consecutive is not None

    def build(self, optimizer: keras.optimizers.Optimizer) -> None:
        """Creates the counters, as variables of `optimizer`."""
        if self.on_nonfinite == "skip":
            self.total = optimizer.add_variable((), dtype="int", name="nonfinite_steps")
            self.consecutive = optimizer.add_variable((), dtype="int", name="consecutive_nonfinite")

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns its variables under their names."""
        if self.total is None:
            return {}
        return {"nonfinite_steps": self.total, "consecutive_nonfinite": self.consecutive}

    def take(
        self,
        pairs: GradsAndVars,
        paths: Sequence[str],
        then: Callable[[GradsAndVars], None],
        variables: Sequence[keras.Variable],
    ) -> None:
        """Calls `then` with the pairs, unless a gradient is not finite.

        Args:
            pairs: (gradient, variable) pairs.
            paths: The variables' paths, for the error.
            then: Takes the update.
            variables: All variables that `then` may assign.

        Raises:
            NonFiniteGradientError: As the class says.
        """
        targets = [variable for _, variable in pairs]
        grads = [gradient for gradient, _ in pairs]
        flags = ops.stack([gradients.is_finite(gradient) for gradient in grads])
        finite = ops.all(flags)
        if self.on_nonfinite == "raise":
            with _raising(ops.logical_not(finite), flags, paths):
                then(pairs)
            return

        def update(grads: list[Any], flags: Any) -> None:
            self.consecutive.assign(0)
            then(list(zip(grads, targets, strict=True)))

        def skip(grads: list[Any], flags: Any) -> None:
            self.total.assign_add(1)
            self.consecutive.assign_add(1)
            if self.max_consecutive is not None:
                too_many = ops.greater(self.consecutive, self.max_consecutive)
                with _raising(too_many, flags, paths):
                    pass

        conditionally(finite, update, (grads, flags), variables, otherwise=skip)


def _refuse_xla() -> None:
    """Raises inside a function that XLA compiles: it leaves out every assertion."""
    if control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph()):
        raise ValueError(
            "on_nonfinite='raise' and `max_consecutive_nonfinite` cannot act inside a function "
            "that XLA compiles: use on_nonfinite='skip', or `model.compile(jit_compile=False)`."
        )


def _raising(
    wrong: Any, flags: Any, paths: Sequence[str]
) -> contextlib.AbstractContextManager[Any]:
    """Raises if `wrong`; in a graph, returns a context in which operations wait for the check."""

    def check(wrong: Any, flags: Any) -> None:
        if wrong:
            bad = np.flatnonzero(~np.asarray(flags))
            raise NonFiniteGradientError(f"{_MESSAGE} {', '.join(paths[i] for i in bad)}")

    if keras.backend.backend() == "tensorflow" and not tf.executing_eagerly():
        _refuse_xla()
        bad = tf.boolean_mask(tf.constant(list(paths)), tf.logical_not(flags))
        right = tf.logical_not(wrong)
        assertion = tf.debugging.Assert(right, [_MESSAGE, bad], summarize=len(paths))
        return tf.control_dependencies([assertion])
    if is_traced(wrong):
        import jax

        jax.debug.callback(check, wrong, flags)
    else:
        check(bool(wrong), ops.convert_to_numpy(flags))
    return contextlib.nullcontext()
