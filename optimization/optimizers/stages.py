"""Updates that need norms halfway: one formula, which runs at once or part by part.

`update_stages` of such an optimizer is a generator. Where it needs sums of squares, or norms, it
yields the tensors that it goes on with, and what is to be summed; it gets both back, the tensors
and the sums:

    def update_stages(self, gradient, variable, learning_rate):
        u = ...
        (u,), (squares,) = yield (u,), [SquareSum(u)]
        self.assign_sub(variable, learning_rate / ops.sqrt(squares) * u)

`update_step` runs it at once. `fused.FusedUpdates` compiles the parts between by XLA, and has
TensorFlow compute the sums, at which XLA's code for processors is five times slower. Therefore what
is computed before a `yield` and used after it must pass through it, apart from plain numbers;
`gradient`, `variable`, `learning_rate` and the optimizer's own variables may be used anywhere.
"""

import dataclasses
from collections.abc import Callable, Generator
from typing import Any

from keras import ops

from optimization.optimizers.norms import norm, sum_of_squares
from optimization.optimizers.slots import as_dense, compute_dtype

Stages = Generator[tuple[tuple[Any, ...], list["SquareSum | Length"]], tuple[Any, list[Any]], None]


@dataclasses.dataclass(frozen=True)
class SquareSum:
    """A sum of squares that an update needs.

    Attributes:
        of: A tensor, a variable, or the gradient as `update_stages` got it.
        axis: The axis to sum over, None for all.
    """

    of: Any
    axis: int | None = None

    def value(self) -> Any:
        """Returns the sum, in float32 at least."""
        return square_sum(self.of, self.axis)


@dataclasses.dataclass(frozen=True)
class Length:
    """An L2 norm that an update needs of entries whose squares may be 0 or infinite in float32.

    Attributes:
        of: As in `SquareSum`.
    """

    of: Any
    axis = None

    def value(self) -> Any:
        """Returns the norm, in float32 at least."""
        return norm(ops.cast(self.of, compute_dtype(self.of))).value


def square_sum(x: Any, axis: int | None = None) -> Any:
    """Returns sum(x^2) over an axis, or over all, of a tensor or variable, in float32 at least."""
    return sum_of_squares(ops.cast(x, compute_dtype(x)), axis)


class Staged:
    """Mixin for a Keras optimizer: takes its update step from `update_stages`."""

    update_stages: Callable[[Any, Any, Any], Stages]

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        """Updates one variable and its state."""
        gradient = as_dense(gradient, compute_dtype(variable))
        self.take_stages(gradient, variable, learning_rate, lambda each: each.value())

    def take_stages(
        self,
        gradient: Any,
        variable: Any,
        learning_rate: Any,
        sum_of: Callable[[SquareSum | Length], Any],
    ) -> None:
        """Runs all stages, with sums that `sum_of` returns."""
        stages = self.update_stages(gradient, variable, learning_rate)
        try:
            carried, wanted = next(stages)
            while True:
                carried, wanted = stages.send((carried, [sum_of(each) for each in wanted]))
        except StopIteration:
            return
