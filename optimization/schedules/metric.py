"""The learning rates that follow a metric of the validation.

The rate is a constant until an evaluation says otherwise. After each evaluation the trainer steps
the state machine, of `optimization.schedules.followers`; in `model.fit`,
`optimization.MetricLearningRate` does.
"""

from collections.abc import Iterator, Sequence
from typing import Annotated, Any, Literal

from annotated_types import Interval

from optimization.configs.types import (
    REQUIRED,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
)
from optimization.schedules.base import Array, BaseLrConfig, Namespace, ScopeName
from optimization.schedules.followers import Greedy, MetricFollower, ReduceOnPlateau
from optimization.schedules.registry import LR_CLS


class MetricLrConfig(BaseLrConfig):
    """The base class of learning rates that follow a metric; a subclass has a method `follower`.

    Attributes:
        initial_learning_rate: The rate at the start.
        metric: What the validation reports: "loss" or the name of a metric.
        mode: Whether the least or the greatest value is the best.
        factor: What the rate is multiplied with.
        patience: Evaluations in a row, not better than the best, that are let pass.
        threshold: By how much a value must be better.
        threshold_mode: Whether that is relative to the best value.
        cooldown: Evaluations after a reduction that count for nothing.
        min_lr: The least rate.
        eps: Smaller changes are left out.
    """

    initial_learning_rate: PositiveFloat = REQUIRED
    metric: str = "loss"
    mode: Literal["min", "max"] = "min"
    factor: Annotated[float, Interval(gt=0, lt=1)] = 0.1
    patience: NonNegativeInt = 10
    threshold: NonNegativeFloat = 1e-4
    threshold_mode: Literal["rel", "abs"] = "rel"
    cooldown: NonNegativeInt = 0
    min_lr: NonNegativeFloat = 0.0
    eps: NonNegativeFloat = 1e-8

    def check(self) -> Iterator[tuple[str, str]]:
        if self.per != 1:
            yield "per", f"must be left out: the rate changes after evaluations, got {self.per!r}"

    def value(self, step: Array, xp: Namespace) -> Array:
        return xp.full_like(step, self.initial_learning_rate)

    def constant_value(self) -> float:
        return self.initial_learning_rate

    def warmup_conflicts(self) -> Iterator[tuple[str, str]]:
        yield "metric", "the rate follows a metric and can have no warmup"

    def settings(self) -> dict[str, Any]:
        others = ("name", "initial_learning_rate", "metric", "per")
        return {name: getattr(self, name) for name in self.field_names() if name not in others}

    def follower(self, rates: Sequence[float]) -> MetricFollower:
        """Returns the state machine, at its start."""
        raise NotImplementedError(f"{type(self).__name__} must define `follower`")


@LR_CLS.register("hf_reduce_lr_on_plateau")
class HfReduceLrOnPlateauLrConfig(MetricLrConfig):
    """transformers' `reduce_lr_on_plateau`: a rate that falls when a metric stops getting better.

        lr <- max(lr * factor, min_lr)

    after more than `patience` evaluations that were no better than the best. `ReduceOnPlateau` says
    more. Its curve over the steps is the initial rate.

    >>> follower = HfReduceLrOnPlateauLrConfig(
    ...     initial_learning_rate=1.0, patience=0, factor=0.5).follower([1.0]
    ... )
    >>> for loss in (0.9, 0.8, 0.8):
    ...     follower.step(loss)
    >>> follower.rates
    [0.5]

    Source: as in PyTorch's `ReduceLROnPlateau`, which transformers takes.
    """

    name: ScopeName = "ReduceLROnPlateau"

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.min_lr > self.initial_learning_rate:
            message = f"must be <= `initial_learning_rate` {self.initial_learning_rate}"
            yield "min_lr", f"{message}, got {self.min_lr}"

    def follower(self, rates: Sequence[float]) -> ReduceOnPlateau:
        return ReduceOnPlateau(rates, **self.settings())


@LR_CLS.register("hf_greedy")
class HfGreedyLrConfig(MetricLrConfig):
    """transformers' `greedy`: a rate that rises while a metric gets better, else falls.

        lr <- min(lr / factor, max_lr)    after more than `patience` that were the best so far
        lr <- max(lr * factor, min_lr)    after more than `patience` that were not

    `Greedy` says more. Its curve over the steps is the initial rate.

    >>> follower = HfGreedyLrConfig(
    ...     initial_learning_rate=1.0, patience=0, factor=0.5).follower([1.0]
    ... )
    >>> for loss in (0.9, 0.8, 0.8):
    ...     follower.step(loss)
    >>> follower.rates
    [0.5]

    Source: arXiv:2512.14527; as in transformers' `GreedyLR`.

    Attributes:
        factor: What the rate is multiplied with or divided by.
        patience: Evaluations in a row, all better or none, that are let pass.
        warmup: Evaluations after a raise that count for nothing.
        max_lr: The greatest rate.
        smooth: Whether the mean of the last values stands for each.
        window_size: The number of values in that mean.
        reset_start: Reductions at the least rate after which everything starts anew.
    """

    name: ScopeName = "GreedyLR"
    factor: Annotated[float, Interval(gt=0, lt=1)] = 0.95
    threshold: NonNegativeFloat = 1e-6
    threshold_mode: Literal["rel", "abs"] = "abs"
    warmup: NonNegativeInt = 0
    min_lr: NonNegativeFloat = 1e-3
    max_lr: PositiveFloat = 1.0
    smooth: bool = False
    window_size: PositiveInt = 50
    reset_start: PositiveInt = 500

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.min_lr > self.max_lr:
            yield "min_lr", f"must be <= `max_lr` {self.max_lr}, got {self.min_lr}"
        if self.window_size != 50 and not self.smooth:
            yield "window_size", "needs `smooth: true`"

    def follower(self, rates: Sequence[float]) -> Greedy:
        return Greedy(rates, **self.settings())
