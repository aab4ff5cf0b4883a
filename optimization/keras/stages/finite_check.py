"""The stage that decides what a step does when a gradient is infinite or NaN."""

import contextlib
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from keras import ops

from optimization.keras import gradients
from optimization.keras.compiling import in_xla
from optimization.keras.control import conditionally, is_traced, tf
from optimization.keras.stages.clip import most_after, owners_of
from optimization.keras.stages.stage import Batch, Rest, Stage, argument
from optimization.keras.stages.update import Update
from optimization.rules.base import bound_before, bounds_text

CHOICES = ("propagate", "skip", "raise")
_MESSAGE = "The gradients of these variables are not finite:"


class NonFiniteGradientError(ArithmeticError):
    """A gradient is infinite or NaN; the message names the variables.

    >>> optimizer = PipelineOptimizer(keras.optimizers.SGD(0.5), on_nonfinite="raise")
    >>> weight = keras.Variable([1.0], name="weight")
    >>> optimizer.apply([keras.ops.convert_to_tensor([float("nan")])], [weight])
    Traceback (most recent call last):
        ...
    optimization.keras.stages.finite_check.NonFiniteGradientError: ... not finite: weight
    """


class FiniteCheck(Stage):
    """Looks at all gradients of an update, before anything is made of them.

    The error is a `NonFiniteGradientError`. Inside a `tf.function` it is a
    `tf.errors.InvalidArgumentError` with the same words; inside a function compiled by JAX its
    words are in the runtime error that JAX raises. XLA under TensorFlow leaves out assertions, so
    there it is a `ValueError` when the function is traced.
    """

    title = "finite check"
    sees = "what is trained"
    set_by = "`on_nonfinite`"
    shows = ("nonfinite_steps", "consecutive_nonfinite")
    settable = False

    on_nonfinite: str = argument(
        "propagate",
        'What happens if a gradient of an update is infinite or NaN: "propagate" does not look; '
        '"skip" leaves weights, moments, average and `iterations` as they are and counts in '
        '`nonfinite_steps` and `consecutive_nonfinite`; "raise" raises what `FiniteCheck` says.',
    )
    max_consecutive_nonfinite: int | None = argument(
        None, 'With "skip", one more skip in a row raises; None: none does.'
    )

    def __post_init__(self) -> None:
        choice, most = self.on_nonfinite, self.max_consecutive_nonfinite
        if choice not in CHOICES:
            raise ValueError(
                f"Argument `on_nonfinite` must be one of {CHOICES}, received: on_nonfinite="
                f"{choice!r}"
            )
        if most is not None and (choice != "skip" or most < 0):
            raise ValueError(
                "Argument `max_consecutive_nonfinite` must be >= 0 and needs on_nonfinite='skip', "
                f"received: max_consecutive_nonfinite={most}, on_nonfinite={choice!r}"
            )

    @property
    def may_raise(self) -> bool:
        """Whether an update may end in an error."""
        return self.on_nonfinite == "raise" or self.max_consecutive_nonfinite is not None

    @property
    def nonfinite_steps(self) -> Any:
        """Updates skipped so far because of a gradient that was not finite."""
        return self.made.get("nonfinite_steps", 0)

    @property
    def consecutive_nonfinite(self) -> Any:
        """Those of them since the last update that was taken."""
        return self.made.get("consecutive_nonfinite", 0)

    def build(self, variables: Sequence[Any]) -> None:
        if self.on_nonfinite == "skip":
            self.make("nonfinite_steps", "int")
            self.make("consecutive_nonfinite", "int")

    def _largest(self, variables: Sequence[Any]) -> list[float]:
        """Returns the largest gradient that each variable may have here."""
        if self.pipeline.gradient_transformers:  # what they make of it is not known
            return [math.inf] * len(variables)
        found = self.pipeline.stage(Update).largest_gradients(variables)
        owners = owners_of(self.pipeline, variables)
        pairs = zip(owners, found, strict=True)
        return [bound_before(most_after(self.pipeline, owner), most) for owner, most in pairs]

    def __call__(self, batch: Batch, rest: Rest) -> None:
        if self.on_nonfinite == "propagate":
            rest(batch)
            return
        bounds = self._largest(batch.variables)
        flags, message = gradients.are_within(batch.grads, bounds), bounds_text(bounds) + _MESSAGE
        finite = ops.all(flags)
        paths = [self.pipeline.path_of(variable) for variable in batch.variables]
        if self.on_nonfinite == "raise":
            with _raising(ops.logical_not(finite), flags, paths, message):
                rest(batch)
            return

        def update(grads: list[Any], flags: Any) -> None:
            self.consecutive_nonfinite.assign(0)
            rest(batch.with_grads(grads))

        def skip(grads: list[Any], flags: Any) -> None:
            self.nonfinite_steps.assign_add(1)
            self.consecutive_nonfinite.assign_add(1)
            if self.max_consecutive_nonfinite is not None:
                too_many = ops.greater(self.consecutive_nonfinite, self.max_consecutive_nonfinite)
                with _raising(too_many, flags, paths, message):
                    pass

        args = (list(batch.grads), flags)
        conditionally(finite, update, args, self.pipeline.all_variables(), otherwise=skip)


def _raising(
    wrong: Any, flags: Any, paths: Sequence[str], message: str
) -> contextlib.AbstractContextManager[Any]:
    """Raises if `wrong`; in a graph, returns a context in which operations wait for the check."""

    def check(wrong: Any, flags: Any) -> None:
        if wrong:
            bad = np.flatnonzero(~np.asarray(flags)).tolist()
            raise NonFiniteGradientError(f"{message} {', '.join(paths[i] for i in bad)}")

    if tf is not None and not tf.executing_eagerly():
        if in_xla():  # which leaves out every assertion
            raise ValueError(
                "on_nonfinite='raise' and `max_consecutive_nonfinite` cannot act inside a function "
                "that XLA compiles: use on_nonfinite='skip', or `model.compile(jit_compile=False)`."
            )
        bad = tf.boolean_mask(tf.constant(list(paths)), tf.logical_not(flags))
        right = tf.logical_not(wrong)
        assertion = tf.debugging.Assert(right, [message, bad], summarize=len(paths))
        return tf.control_dependencies([assertion])
    if is_traced(wrong):
        import jax

        jax.debug.callback(check, wrong, flags)
    else:
        check(bool(wrong), ops.convert_to_numpy(flags))
    return contextlib.nullcontext()
