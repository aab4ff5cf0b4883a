"""What XLA compiles on TensorFlow, when, and where."""

from collections.abc import Callable, Sequence
from typing import Any

import keras

from optimization.keras.control import local_copies, tf

if tf is not None:
    # Of which the public API has nothing.
    from tensorflow.python.autograph.core import ag_ctx
    from tensorflow.python.ops import control_flow_util

_SMALL = 2**14  # Fewer entries are copied in less time than a call takes.


def in_xla() -> bool:
    """Says whether XLA compiles the graph that is being made as a whole."""
    return control_flow_util.GraphOrParentsInXlaContext(tf.compat.v1.get_default_graph())


def translation() -> Any:
    """Returns whether `tf.function` translates Python here, for `translated`; None elsewhere."""
    if tf is None:
        return None
    context = tf.__internal__.autograph.control_status_ctx()
    return context if context.status.name == "ENABLED" else None


def translated(function: Callable[..., Any], translation: Any) -> Callable[..., Any]:
    """Returns a user's function, translated as it would be where `translation()` was called."""
    if translation is None:
        return function
    return tf.__internal__.autograph.tf_convert(function, translation)


def traceable(function: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a user's function that is translated wherever it is traced, whatever calls it."""
    return translated(function, ag_ctx.ControlStatusCtx(ag_ctx.Status.ENABLED))


def unconverted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Spares a function the translation of `tf.function`, which takes its time."""
    if tf is None:
        return function
    return tf.autograph.experimental.do_not_convert(function)


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns a function for XLA, traced outside of all graphs and for any device."""

    def specification(value: Any) -> Any:
        as_it_is = value is None or isinstance(value, tf.Variable)
        return value if as_it_is else tf.TensorSpec(value.shape, value.dtype)

    specifications = tf.nest.map_structure(specification, arguments)
    with tf.init_scope(), tf.device(None):
        jitted = tf.function(function, jit_compile=True, autograph=False)
        return jitted.get_concrete_function(*specifications)


def is_small(variable: Any) -> bool:
    """Says whether a call of a compiled function takes longer than what it does to a variable."""
    return (variable.shape.num_elements() or 0) < _SMALL


def copies_of(variable: keras.Variable) -> tuple[Any, ...]:
    """Returns the `tf.Variable` of each device of this process."""
    copies = local_copies(variable)
    return tuple(getattr(copy, "_value", copy) for copy in copies)


def by_device(variables: Sequence[Any]) -> list[list[Any]]:
    """Returns the copies of variables on each device of this process."""
    return [list(copies) for copies in zip(*map(copies_of, variables), strict=True)]


class Clearing:
    """Sets variables to 0 in place, where `assign` would make another tensor first."""

    def __init__(self) -> None:
        # With one variable of each kind: a function is bound to the life of that it was traced by.
        self._functions: dict[tuple, tuple[Any, Any]] = {}

    @unconverted
    def __call__(self, variables: Sequence[keras.Variable]) -> None:
        for copy in (copy for variable in variables for copy in copies_of(variable)):
            with tf.device(copy.device):
                self._function(copy)(copy)

    def _function(self, copy: Any) -> Callable[[Any], Any]:
        if is_small(copy):
            return _clear
        key = (tuple(copy.shape), copy.dtype, copy.trainable)
        if key not in self._functions:
            self._functions[key] = (compiled(_clear, copy), copy)
        return self._functions[key][0]


def _clear(variable: Any) -> None:
    variable.assign(tf.zeros_like(variable))
