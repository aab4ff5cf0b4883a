"""The warmups: how the rate comes up. `compose` says what that does to the learning rate."""

import math
from collections.abc import Iterator

from optimization.configs.types import REQUIRED, NonNegativeFloat, PositiveFloat
from optimization.schedules.base import Array, BaseWarmupConfig, Namespace, ScopeName
from optimization.schedules.formulas import half_cosine
from optimization.schedules.registry import WARMUP_CLS


@WARMUP_CLS.register("linear")
class LinearWarmupConfig(BaseWarmupConfig):
    """Raises the rate along a line, from `warmup_learning_rate` to the target.

        warmup(s) = w0 + (target - w0) * s / W

    Model Garden's schedule cannot be rebuilt from its own `get_config()`; this one can.

    >>> warmup = LinearWarmupConfig(warmup_steps=100)
    >>> curve(ConstantLrConfig(learning_rate=1.0), warmup, [0, 50, 100]).round(4)
    array([0. , 0.5, 1. ])

    Source: Goyal et al. 2017, arXiv:1706.02677; as in Model Garden's LinearWarmup.

    Attributes:
        warmup_learning_rate: w0, the rate at step 0, >= 0.
    """

    name: ScopeName = "linear"
    warmup_learning_rate: NonNegativeFloat = 0.0

    def value(self, step: Array, target: float, xp: Namespace) -> Array:
        start = self.warmup_learning_rate
        return start + (target - start) * (step / self.warmup_steps)


@WARMUP_CLS.register("polynomial")
class PolynomialWarmupConfig(BaseWarmupConfig):
    """Raises the rate as a power of the steps done.

        warmup(s) = target * (max(s, 1) / W) ** power

    Steps 0 and 1 have the same rate, as in Model Garden, unless `counts_from` is 1. The quadratic
    warmup of others is this one with `power: 2`.

    >>> warmup = PolynomialWarmupConfig(warmup_steps=100, power=2.0)
    >>> curve(ConstantLrConfig(learning_rate=1.0), warmup, [50, 100]).round(4)
    array([0.25, 1.  ])

    Source: as in Model Garden's PolynomialWarmUp.

    Attributes:
        power: The power, > 0.
    """

    name: ScopeName = "polynomial"
    power: PositiveFloat = 1.0

    def value(self, step: Array, target: float, xp: Namespace) -> Array:
        return target * xp.power(xp.maximum(step, 1.0) / self.warmup_steps, self.power)


@WARMUP_CLS.register("constant")
class ConstantWarmupConfig(BaseWarmupConfig):
    """Keeps the rate constant during the warmup, whatever the target.

        warmup(s) = w0

    There is nothing to count: `leads_to`, `counts_from`, `ends_on` and `per` are refused.

    >>> warmup = ConstantWarmupConfig(warmup_steps=100, warmup_learning_rate=0.1)
    >>> curve(ConstantLrConfig(learning_rate=1.0), warmup, [0, 99, 100]).round(4)
    array([0.1, 0.1, 1. ])

    Source: He et al. 2016, arXiv:1512.03385, section 4.2.

    Attributes:
        warmup_learning_rate: w0, the rate for s < W, >= 0.
    """

    name: ScopeName = "constant"
    warmup_learning_rate: NonNegativeFloat = 0.0

    def check(self) -> Iterator[tuple[str, str]]:
        for name in ("leads_to", "counts_from", "ends_on", "per"):
            if getattr(self, name) != self._spec_of(name).default():
                yield name, "has no meaning for a rate that is the same in each step: leave it out"

    def value(self, step: Array, target: float, xp: Namespace) -> Array:
        return xp.full_like(step, self.warmup_learning_rate)


@WARMUP_CLS.register("cosine")
class CosineWarmupConfig(BaseWarmupConfig):
    """Raises the rate along half a cosine to the target, flat at both ends.

        warmup(s) = w0 + (target - w0) * (1 - cos(pi * s / W)) / 2

    >>> warmup = CosineWarmupConfig(warmup_steps=100)
    >>> curve(ConstantLrConfig(learning_rate=1.0), warmup, [0, 50, 100]).round(4)
    array([0. , 0.5, 1. ])

    Source: as the first phase of PyTorch's OneCycleLR.

    Attributes:
        warmup_learning_rate: w0, the rate at step 0, >= 0.
    """

    name: ScopeName = "cosine"
    warmup_learning_rate: NonNegativeFloat = 0.0

    def value(self, step: Array, target: float, xp: Namespace) -> Array:
        start = self.warmup_learning_rate
        return start + (target - start) * half_cosine(step / self.warmup_steps, xp)


@WARMUP_CLS.register("exponential")
class ExponentialWarmupConfig(BaseWarmupConfig):
    """Raises the rate by the same factor in each step, from `warmup_learning_rate` to the target.

        warmup(s) = w0 * (target / w0) ** (s / W)

    >>> warmup = ExponentialWarmupConfig(warmup_steps=100, warmup_learning_rate=0.01)
    >>> curve(ConstantLrConfig(learning_rate=1.0), warmup, [0, 50, 100]).round(4)
    array([0.01, 0.1 , 1.  ])

    Source: as PyTorch's ExponentialLR, with a factor above 1.

    Attributes:
        warmup_learning_rate: w0, the rate at step 0, > 0.
    """

    name: ScopeName = "exponential"
    warmup_learning_rate: PositiveFloat = REQUIRED

    def value(self, step: Array, target: float, xp: Namespace) -> Array:
        start = self.warmup_learning_rate
        ratio = xp.full_like(step, target / start)
        return start * xp.power(ratio, step / self.warmup_steps)


@WARMUP_CLS.register("logarithmic")
class LogarithmicWarmupConfig(BaseWarmupConfig):
    """Raises the rate as the logarithm of the steps done: fast first, then ever slower.

        warmup(s) = w0 + (target - w0) * log(1 + s) / log(1 + W)

    DeepSpeed, whose warmups have this form by default, has the target at the last step of the
    warmup: write `ends_on: last`, which makes it log(1 + s) / log(W).

    >>> warmup = LogarithmicWarmupConfig(warmup_steps=100)
    >>> curve(ConstantLrConfig(learning_rate=1.0), warmup, [0, 10, 50, 100]).round(4)
    array([0.    , 0.5196, 0.8519, 1.    ])

    Source: as in DeepSpeed's WarmupLR with `warmup_type: log`.

    Attributes:
        warmup_learning_rate: w0, the rate at step 0, >= 0.
    """

    name: ScopeName = "logarithmic"
    warmup_learning_rate: NonNegativeFloat = 0.0

    def value(self, step: Array, target: float, xp: Namespace) -> Array:
        start = self.warmup_learning_rate
        return start + (target - start) * (xp.log(step + 1.0) / math.log(self.warmup_steps + 1))
