"""The numbers that formulas compute with."""

from typing import Any

from optimization.configs.errors import nearest_or_all


class Numbers:
    """What a formula calls `h`: numbers by name.

    These are the fields of the rule, the settings of the variable (`Rule.settings`), what the rule
    shares (`Rule.shared`), and those that are annotated here.
    """

    lr: Any  # the learning rate
    done: Any  # the updates before this one, an integer
    t: Any  # the updates, this one included, a float
    # Where they are known:
    means: Any  # those of the gradient's squares; see `LayerwiseRule.averaged_axes`
    multiplier: Any  # of a group, which is in `lr`; where that is made, or compared with its peak
    constant_rate: Any  # whether the rate is a constant; on Keras
    inputs: Any  # the axes of a variable's inputs, where gradients are centralized; not natively

    def __init__(self, **values: Any):
        vars(self).update(values)

    # What a formula asks for whose step has more in it than the update.

    @staticmethod
    def modified(u: Any, rate: Any = 1.0) -> Any:
        """Returns an update as modifiers make it, in which `rate` is a factor."""
        return u

    @staticmethod
    def decay(d: Any, u: Any) -> Any:
        """Returns what decays beside an update: d, kept, or a part of it."""
        return d

    def __getattr__(self, name: str) -> Any:
        near = nearest_or_all(name, [key for key in vars(self) if not key.startswith("_")])
        raise AttributeError(f"there is no number {name!r}{near}")


def given(number: Any) -> bool:
    """Says whether a number acts: 0 and None do not, one that follows a schedule does."""
    return number is not None and not (isinstance(number, int | float) and number == 0)
