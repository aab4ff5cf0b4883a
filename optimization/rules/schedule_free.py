"""Schedule-free SGD and AdamW: averages in the place of a learning rate schedule."""

import abc
from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any, ClassVar

from annotated_types import Interval

from optimization.configs.types import FirstSteps, NonNegativeFloat, PositiveFloat
from optimization.rules.adam import MOMENTS, AdamFields, corrected_root
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.modifiers import OF_STEP
from optimization.rules.rule import Rule, Slot, given

Interpolation = Annotated[float, Interval(gt=0, lt=1)]
"""A share of two sequences, both of which count."""


class ScheduleFreeFields(Rule):
    """What the schedule-free optimizers share: the sequences x, y and z of Defazio et al. 2024.

    Weights are y, where gradients are taken. Beside it d = z - x is kept, which is 0 at the start,
    whatever the weights are and whenever a variable has its first gradient. With b the share of x
    in y, and u the direction of the step:

        y <- y + c b d - rate (1 - b (1 - c)) u
        d <- (1 - c) (d - rate u)

    PyTorch's class keeps z itself, as the authors' package does: it makes its state at the first
    gradient, when z is y. b d is z - y.

    x, which is to be evaluated, is y - (1 - b) d. The sum of the weights of the average is kept in
    units of the last weight, which float32 counts without rounding while the weights are equal.

    Attributes:
        weight_decay: Times the weight that trains, y, part of the direction of the step.
        warmup_steps: Optimizer steps in which the rate grows linearly, to the learning rate at the
            last of them; instead of a `warmup` section, of which both would warm up twice.
        r: Power of the step in the weights of the average.
        weight_lr_power: Power of the largest rate so far in them.
    """

    schedule_free = True
    elementwise = True
    native_note = "`eval()` before evaluation and saving, `train()` before training"
    fixed_numbers = ("beta_1", "momentum", "r", "weight_lr_power")  # the average is made of them
    # PyTorch keeps z itself.
    slots: ClassVar[tuple[Slot, ...]] = (
        Slot("distance", "distances", "", exact="a sum of steps"),
        Slot("z", "", "z", of_weight=True),
    )
    shared = (
        Slot("largest_rate", "largest_rate", "lr_max"),
        Slot("sum_of_weights", "sum_of_weights", "weight_sum"),
    )
    moves_last = ("distance",)
    share_of_average = "beta_1"  # the field that is b
    unmodifiable: ClassVar = dict.fromkeys(
        OF_STEP, "a schedule-free type can't have it: y is between z and x, whatever the step"
    )

    weight_decay: NonNegativeFloat = 0.0
    warmup_steps: FirstSteps = 0
    r: NonNegativeFloat = 0.0
    weight_lr_power: NonNegativeFloat = 2.0

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.use_ema:
            yield "use_ema", "the method averages by itself: evaluation and export use its average"

    def decay_before(self, h: Any) -> Any:
        return 0.0

    def prepare(self, c: Any, h: Any, xp: Any) -> None:
        before, now = c.largest_rate, xp.maximum(c.largest_rate, _rate(h, xp))
        some = xp.where(now > 0, now, 1.0)
        # The last step's weight over this one's.
        ratio = xp.power((h.t - 1) / h.t, h.r) * xp.power(before / some, h.weight_lr_power)
        total = c.sum_of_weights * ratio + 1
        if h.weight_lr_power:  # without a rate so far, all weights were 0
            total = xp.where(now > 0, total, 0.0)
        c.largest_rate, c.sum_of_weights = now, total

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        u = self.gradient_step(g, s, h, xp)
        if given(h.weight_decay):
            u = u + h.weight_decay * w
        u, rate = xp.keep(u), _rate(h, xp)
        total, b = h.sum_of_weights, getattr(h, self.share_of_average)
        c = xp.where(total > 0, 1 / xp.maximum(total, 1.0), 0.0)
        share = rate * (1 - b * (1 - c))
        if "z" in s:
            step = c * (w - s.z) + share * u
            s.scale_add("z", 1.0, -rate * u)
        else:
            step = share * u - c * b * s.distance
            s.distance = (1 - c) * (s.distance - rate * u)
        return step

    @abc.abstractmethod
    def gradient_step(self, g: Any, s: Any, h: Any, xp: Any) -> Any:
        """Returns the step along the gradient, and moves its state."""

    def to_evaluate(self, y: Any, s: Any, h: Any) -> Any:
        """Returns x, given y; before the first gradient it is y."""
        b = getattr(h, self.share_of_average)
        return y - (1 - b) * ((s.z - y) / b if "z" in s else s.distance)

    def to_train(self, x: Any, s: Any, h: Any) -> Any:
        """Returns y, given x: the inverse of `to_evaluate`, but for rounding."""
        return x + (1 - getattr(h, self.share_of_average)) * (s.z - x if "z" in s else s.distance)


def _rate(h: Any, xp: Any) -> Any:
    """Returns the learning rate of this step, warmed up."""
    return h.lr * xp.minimum(h.t / h.warmup_steps, 1.0) if h.warmup_steps else h.lr


@OPTIMIZERS_CLS.register("schedule_free_adamw")
class ScheduleFreeAdamWConfig(ScheduleFreeFields, AdamFields):
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
    """

    class_name = "ScheduleFreeAdamW"
    usual_rate = 0.0025
    argument_order = ("beta_1", "beta_2", "epsilon", "weight_decay")
    slots = (*ScheduleFreeFields.slots, replace(MOMENTS[1], turn=1))

    name: str | None = "ScheduleFreeAdamW"
    beta_1: Interpolation = 0.9
    epsilon: PositiveFloat = 1e-8

    def gradient_step(self, g: Any, s: Any, h: Any, xp: Any) -> Any:
        squared = xp.bounded(g, self.largest_gradient, tells=False)
        g = xp.bounded(g, self.largest_gradient)
        v = s.lerp_square("velocity", squared, 1 - h.beta_2)
        return g / (corrected_root(v, h, xp) + h.epsilon)


@OPTIMIZERS_CLS.register("schedule_free_sgd")
class ScheduleFreeSGDConfig(ScheduleFreeFields):
    """Schedule-free SGD: an average of the weights in the place of a falling rate.

    With b = momentum, u = g + weight_decay * y, and the rate and c of `schedule_free_adamw`:

        z <- z - rate * u;  x <- (1 - c) x + c z;  y <- (1 - b) z + b x

    The model's weights are y while it trains, and x, the average, in evaluation and export.

    Source: Defazio et al. 2024, arXiv:2405.15682.

    Attributes:
        momentum: The share of the average in the weights that train, in (0, 1).
    """

    class_name = "ScheduleFreeSGD"
    usual_rate = 1.0
    argument_order = ("momentum", "weight_decay")
    share_of_average = "momentum"

    name: str | None = "ScheduleFreeSGD"
    momentum: Interpolation = 0.9

    def gradient_step(self, g: Any, s: Any, h: Any, xp: Any) -> Any:
        return g
