"""The oneof of the optimizer sections, and the section of weight averaging."""

import importlib
import pkgutil
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

from optimization import rules
from optimization.configs.branches import OptimizerBranches
from optimization.configs.fields import Steps, field
from optimization.configs.float32 import Float32Config, in_float32
from optimization.configs.types import FirstSteps, PositiveFloat, PositiveSteps, Share, Unit
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.base import BaseOptimizerConfig as BaseOptimizerConfig
from optimization.schedules.averages import Growth

# This registers the types of optimizers: those of all files of the package.
for _module in pkgutil.iter_modules(rules.__path__):
    importlib.import_module(f"{rules.__name__}.{_module.name}")


class EMAConfig(Float32Config):
    """Keeps an exponential moving average of the weights, for evaluation and export.

    After update n, counted from 1, with m = n - start_step and d0 = average_decay:

        average <- average + (1 - d) * (w - average),  d = 0 for n < start_step, else

        d = d0                                                 with `dynamic_decay: false`
        d = min(d0, (1 + m) / (10 + m))                        `true`
        d = min(d0, 1 - (1 + m / gamma)^-power)                `power`
        d = d0 * (1 - exp(-m / time_constant))                 `exponential`
        d = 1 - (1 - d0) * (1 + cos(pi * u)) / 2               `cosine`, of
        u = min(n - 1, rise_steps) / rise_steps

    The average starts from the weights. `true` is as in Model Garden and TensorFlow, `power` as in
    timm's ModelEmaV3 and diffusers, `exponential` as in Ultralytics' YOLO, `cosine` as in DINO.
    Beside `ema`, `schedules: {average_decay: ...}` has d0 follow a schedule.

    >>> EMAConfig(average_decay=0.999, start_step="10%").dynamic_decay
    True

    Source: Polyak and Juditsky 1992, doi:10.1137/0330046; as in Model Garden, which starts from 0.

    Attributes:
        name: The name of the average; it prefixes the names of its variables.
        trainable_weights_only: Whether batch normalization's statistics and the like are left
            out.
        average_decay: The decay d0 per update: at its largest, with `cosine` at its start.
        start_step: Before this many updates the average is the weights themselves.
        dynamic_decay: How d grows: true as (1 + m) / (10 + m) up to `average_decay`, where m = n
            - start_step; by a `power`, by an `exponential`, or along a `cosine` up to 1, as above;
            false for not at all.
        time_constant: With `exponential`, the updates after which 63 % of the decay are there.
        gamma: With `power`, the updates that count as one.
        power: With `power`, the exponent.
        rise_steps: With `cosine`, after how many updates the decay is 1; "100%" is at the end.
        clipnorm: Stands in Model Garden's section and was never read: an average clips nothing.
            Null is all that is accepted.
        clipvalue: Null is all that is accepted, as for `clipnorm`.
        global_clipnorm: Null is all that is accepted, as for `clipnorm`.
    """

    _MAIN: ClassVar[str] = "average_decay"
    _LEFT_OUT: ClassVar[tuple[str, ...]] = ("time_constant", "gamma", "power", "rise_steps")

    clipnorm: None = None
    clipvalue: None = None
    global_clipnorm: None = None
    name: str = "ExponentialMovingAverage"
    trainable_weights_only: bool = True
    average_decay: Share = 0.99
    start_step: Steps[FirstSteps] = field(default=0)
    dynamic_decay: Growth = True
    time_constant: Annotated[PositiveFloat, Unit("updates")] = 2000.0
    gamma: Annotated[PositiveFloat, Unit("updates")] = 1.0
    power: PositiveFloat = 2 / 3
    rise_steps: Steps[PositiveSteps | None] = field(default=None)

    def check(self) -> Iterator[tuple[str, str]]:
        uses = {"time_constant": "exponential", "gamma": "power", "power": "power"}
        for name, growth in {**uses, "rise_steps": "cosine"}.items():
            is_usual = getattr(self, name) == self._spec_of(name).default()
            if not is_usual and self.dynamic_decay != growth:
                yield name, f"needs `dynamic_decay: {growth}`, which is {self.dynamic_decay!r}"
            elif name in uses and not in_float32(getattr(self, name)):
                yield name, f"must be > 0 in float32, got {getattr(self, name)!r}"
        if self.dynamic_decay == "cosine" and self.rise_steps is None:
            yield "rise_steps", "is needed with `dynamic_decay: cosine`; '100%' is at the end"

    def arguments(self) -> dict[str, Any]:
        return {k: v for k, v in self.as_dict().items() if "clip" not in k}


class OptimizerConfig(OptimizerBranches):
    """Chooses the optimizer: `type` names it, and the section of that name has its settings.

    >>> OptimizerConfig(type="sgd", sgd={"momentum": 0.9}).as_dict()["sgd"]["momentum"]
    0.9
    """

    registry = OPTIMIZERS_CLS
