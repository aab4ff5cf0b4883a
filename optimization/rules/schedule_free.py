"""Schedule-free SGD and AdamW."""

from collections.abc import Iterator
from typing import Annotated, ClassVar

from annotated_types import Interval

from optimization.configs.base import config_dataclass
from optimization.configs.types import (
    Decay,
    FirstSteps,
    NonNegativeFloat,
    PositiveFloat,
)
from optimization.rules.base import OPTIMIZERS_CLS, BaseOptimizerConfig

Interpolation = Annotated[float, Interval(gt=0, lt=1)]
"""A share of two sequences, both of which count."""


@config_dataclass
class ScheduleFreeFields(BaseOptimizerConfig):
    """What the schedule-free optimizers share.

    Attributes:
        weight_decay: Times the weight that trains, y, part of the direction of the step.
        warmup_steps: Optimizer steps in which the rate grows linearly, to the learning rate at the
            last of them; instead of a `warmup` section, of which both would warm up twice.
        r: Power of the step in the weights of the average.
        weight_lr_power: Power of the largest rate so far in them.
    """

    schedule_free: ClassVar[bool] = True

    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: FirstSteps = 0
    r: NonNegativeFloat = 0.0
    weight_lr_power: NonNegativeFloat = 2.0

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields also: a second average."""
        yield from super().check()
        if self.use_ema:
            yield "use_ema", "the method averages by itself: evaluation and export use its average"

    def numbers(self) -> list[str]:
        """Returns the arguments of the class that can change while it trains."""
        fixed = ("beta_1", "momentum", "r", "weight_lr_power")  # the average is made of them
        return [name for name in super().numbers() if name not in fixed]


@OPTIMIZERS_CLS.register(
    "schedule_free_adamw",
    "optimization.optimizers.schedule_free:ScheduleFreeAdamW",
    torch="optimization.torch.recipes:schedule_free_adamw",
)
@config_dataclass
class ScheduleFreeAdamWConfig(ScheduleFreeFields):
    """Schedule-free AdamW: an average of the weights in the place of a falling rate.

    With b = beta_1, t the updates, this one included, and u the direction of the step at y:

        rate = lr * min(1, t / warmup_steps)
        weight = t^r * (largest rate so far)^weight_lr_power
        c = weight / (sum of the weights so far)
        z <- z - rate * u
        x <- (1 - c) x + c z
        y <- (1 - b) z + b x

    u is g / (sqrt(v / (1 - beta_2^t)) + epsilon) + weight_decay * y, v the mean of g^2.
    The model's weights are y while it trains, and x, the average, in evaluation and export.

    Source: Defazio et al. 2024, arXiv:2405.15682.

    Attributes:
        beta_1: The share of the average in the weights that train, in (0, 1).
        beta_2: The decay of the second moment, the mean of the squared gradient.
        epsilon: Keeps the divisor from 0.
    """

    name: str | None = "ScheduleFreeAdamW"
    beta_1: Interpolation = 0.9
    beta_2: Decay = 0.999
    epsilon: PositiveFloat = 1e-8


@OPTIMIZERS_CLS.register(
    "schedule_free_sgd",
    "optimization.optimizers.schedule_free:ScheduleFreeSGD",
    torch="optimization.torch.recipes:schedule_free_sgd",
)
@config_dataclass
class ScheduleFreeSGDConfig(ScheduleFreeFields):
    """Schedule-free SGD: an average of the weights in the place of a falling rate.

    With b = momentum, t the updates, this one included, and u the direction of the step at y:

        rate = lr * min(1, t / warmup_steps)
        weight = t^r * (largest rate so far)^weight_lr_power
        c = weight / (sum of the weights so far)
        z <- z - rate * u
        x <- (1 - c) x + c z
        y <- (1 - b) z + b x

    u is g + weight_decay * y.
    The model's weights are y while it trains, and x, the average, in evaluation and export.

    Source: Defazio et al. 2024, arXiv:2405.15682.

    Attributes:
        momentum: The share of the average in the weights that train, in (0, 1).
    """

    name: str | None = "ScheduleFreeSGD"
    momentum: Interpolation = 0.9
