"""What the rules look at: one file, read alone or over an experiment."""

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from optimization.configs.base import Config
from optimization.configs.errors import Problem
from optimization.configs.experiment_config import ExperimentConfig, TrainerConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.rate_curve import RateCurve, curve_of, places


@dataclass(frozen=True)
class Subject:
    """One file that is right by itself.

    Attributes:
        config: Its optimization section, in which steps are numbers where the length is known.
        trainer: Its trainer section; the defaults where it has none.
        experiment: The whole of it over `base`; None where it is read alone.
        base: The registered experiment.
    """

    config: OptimizationConfig
    trainer: TrainerConfig
    experiment: ExperimentConfig | None = None
    base: ExperimentConfig | None = None

    @property
    def train_steps(self) -> int | None:
        """How long is trained, in optimizer steps; None where that is not known."""
        return self.config._train_steps

    @functools.cached_property
    def curves(self) -> list[RateCurve]:
        """The learning rates of the config and of its groups that NumPy can compute."""
        found = [curve_of(self.config, place) for place in places(self.config)]
        return [c for c in found if c is not None and c.is_computable(self.train_steps)]

    def optimizers(self) -> Iterator[Any]:
        """Yields the section of each optimizer: that of all variables, and those of groups."""
        for place in places(self.config):
            if place.optimizer.type is not None:
                yield place.optimizer.get()

    def is_share(self, section: Config, name: str) -> bool:
        """Whether a field was written as a share of the training, such as "10%"."""
        return section._join(name) in self.config._shares


def problem(code: str, section: Config, name: str, message: str) -> Problem:
    """Returns a problem of a field, at the line on which it was written."""
    return section._problem(code, name, message)
