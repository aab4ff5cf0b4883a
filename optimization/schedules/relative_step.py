"""Adafactor's relative step size, a learning rate of its own."""

from optimization.configs.base import config_dataclass
from optimization.schedules.base import Array, BaseLrConfig, Namespace, ScopeName
from optimization.schedules.registry import LR_CLS


@LR_CLS.register("relative_step")
@config_dataclass
class RelativeStepLrConfig(BaseLrConfig):
    """The relative step size of Adafactor.

        lr(s) = min(1e-2, 1 / sqrt(s + 1))
        lr(s) = min(1e-6 * (s + 1), 1 / sqrt(s + 1))   with `warmup_init`

    It is 1e-2 up to step 9999 and falls from then on; with `warmup_init` it starts from 1e-6, and
    reaches 1e-2 at step 9999 too. `adafactor` with `step_size: relative` has it without being
    told: there a learning rate is an error.

    >>> from optimization.schedules import curve
    >>> rate = RelativeStepLrConfig()
    >>> curve(rate, None, [0, 9999, 39999]).round(4)
    array([0.01 , 0.01 , 0.005])

    Source: Shazeer and Stern 2018, arXiv:1804.04235.

    Attributes:
        warmup_init: Whether the rate comes up from 1e-6.
    """

    name: ScopeName = "RelativeStep"
    warmup_init: bool = False

    def value(self, step: Array, xp: Namespace) -> Array:
        t = step + 1.0
        bound = 1e-6 * t if self.warmup_init else 1e-2
        return xp.minimum(bound, 1.0 / xp.sqrt(t))
