"""Which variables of a training are infinite or not a number, where they must not be."""

import re
from collections.abc import Collection, Mapping
from typing import Any

import tensorflow as tf

Sections = Mapping[str, Mapping[str, tf.Variable]]
"""Variables by section ("model", "optimizer", ...) and path."""

HELP = "a smaller learning rate, a warmup or a gradient clip may help"
"""What there is to do where numbers are not finite."""

# Nothing is computed with the norm of the last gradient, which may have been that of an update
# that was skipped.
_REPORTED = re.compile(r"optimizer: (inner/)*gradient_norm")


def must_be_finite(name: str) -> bool:
    """Says whether a variable, named as "section: path", must be finite for a training to go on."""
    return name.startswith(("model: ", "optimizer: ")) and not _REPORTED.fullmatch(name)


def nonfinite(sections: Sections, exempt: Collection[str] = ()) -> list[str]:
    """Returns the names of variables that must be finite and are not.

    Each is reduced where it is, and only one flag of each is fetched.
    """
    named = {
        name: variable
        for section, variables in sections.items()
        for path, variable in variables.items()
        if must_be_finite(name := f"{section}: {path}") and name not in exempt
    }
    checked = {name: v for name, v in named.items() if v.dtype.is_floating or v.dtype.is_complex}
    if not checked:
        return []
    # Without a graph: to trace one takes seconds for hundreds of variables.
    flags = tf.stack([_is_finite(tf.convert_to_tensor(v)) for v in checked.values()]).numpy()
    return [name for name, finite in zip(checked, flags, strict=True) if not finite]


def _is_finite(value: Any) -> tf.Tensor:
    if value.dtype.is_complex:
        return _is_finite(tf.stack([tf.math.real(value), tf.math.imag(value)]))
    if value.dtype.size < 2:  # float8
        value = tf.cast(value, tf.float32)
    return tf.reduce_all(tf.math.is_finite(value))


def infinite_on_purpose(sections: Sections) -> set[str]:
    """Returns what is not finite before a training begins and is not trained, such as a mask."""
    fixed = {path: v for path, v in sections.get("model", {}).items() if not v.trainable}
    return set(nonfinite({"model": fixed}))
