"""The oneof of the optimizer sections, and the section of weight averaging."""

import importlib
import pkgutil
from typing import Any, ClassVar

from optimization import rules
from optimization.configs.base import Config
from optimization.configs.branches import OptimizerBranches
from optimization.configs.fields import Steps, field
from optimization.configs.types import FirstSteps, Share
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.base import BaseOptimizerConfig as BaseOptimizerConfig

# This registers the types of optimizers: those of all files of the package.
for _module in pkgutil.iter_modules(rules.__path__):
    importlib.import_module(f"{rules.__name__}.{_module.name}")


class EMAConfig(Config):
    """Keeps an exponential moving average of the weights, for evaluation and export.

    After update n, counted from 1, with m = n - start_step:

        average <- average + (1 - d) * (w - average),  d = 0 for n < start_step
        d = min(average_decay, (1 + m) / (10 + m))     with `dynamic_decay`, else average_decay

    The average starts from the weights.

    >>> EMAConfig(average_decay=0.999, start_step="10%").dynamic_decay
    True

    Source: Polyak and Juditsky 1992, doi:10.1137/0330046; as in Model Garden, which starts from 0.

    Attributes:
        name: The name of the average; it prefixes the names of its variables.
        trainable_weights_only: Whether batch normalization's statistics and the like are left
            out.
        average_decay: The decay d per update, at its largest.
        start_step: Before this many updates the average is the weights themselves.
        dynamic_decay: Whether d grows as (1 + m) / (10 + m) up to `average_decay`, where m = n
            - start_step.
        clipnorm: Stands in Model Garden's section and was never read: an average clips nothing.
            Null is all that is accepted.
        clipvalue: Null is all that is accepted, as for `clipnorm`.
        global_clipnorm: Null is all that is accepted, as for `clipnorm`.
    """

    _MAIN: ClassVar[str] = "average_decay"

    clipnorm: None = None
    clipvalue: None = None
    global_clipnorm: None = None
    name: str = "ExponentialMovingAverage"
    trainable_weights_only: bool = True
    average_decay: Share = 0.99
    start_step: Steps[FirstSteps] = field(default=0)
    dynamic_decay: bool = True

    def arguments(self) -> dict[str, Any]:
        return {k: v for k, v in self.as_dict().items() if "clip" not in k}


class OptimizerConfig(OptimizerBranches):
    """Chooses the optimizer: `type` names it, and the section of that name has its settings.

    >>> OptimizerConfig(type="sgd", sgd={"momentum": 0.9}).as_dict()["sgd"]["momentum"]
    0.9
    """

    registry = OPTIMIZERS_CLS
