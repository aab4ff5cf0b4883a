"""`SweepConfig`: which settings of an experiment a sweep tries, and how many times."""

import builtins
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Literal

from annotated_types import Ge

from optimization.configs.base import Config
from optimization.configs.errors import describe
from optimization.configs.experiment_config import TrainerConfig
from optimization.configs.fields import Sections, field
from optimization.configs.overrides import PATH
from optimization.configs.task_config import Seed
from optimization.configs.types import (
    REQUIRED,
    Check,
    NonNegativeFloat,
    PositiveInt,
    ReadOnlyDict,
)

KINDS = ("log_uniform", "uniform", "int", "choice", "grid")


def _path(text: str) -> str:
    if not PATH.fullmatch(text):
        raise ValueError(f"expected a path, as trainer.train_steps is one, got {describe(text)}")
    return text


def _range(values: tuple) -> tuple:
    if len(values) != 2:
        raise ValueError(f"expected [lowest, highest], got {describe([*values])}")
    low, high = values
    if low > high:
        raise ValueError(f"the lowest must be < the highest, got {low} > {high}")
    if low == high:
        raise ValueError(f"the range is empty: both ends are {low}; leave the parameter out")
    return values


def _log_range(values: tuple) -> tuple:
    if len(values) == 2 and min(values) <= 0:
        raise ValueError(f"has no logarithm: must be > 0, got {min(values)}")
    return _range(values)


def _several(values: tuple) -> tuple:
    if not values:
        raise ValueError("must name at least one value, got none")
    for index, value in enumerate(values):
        if any(value == v and type(value) is type(v) for v in values[:index]):
            raise ValueError(f"names {describe(value)} twice")
    return values


LogRange = Annotated[tuple[float, ...], Check(_log_range)]
Range = Annotated[tuple[float, ...], Check(_range)]
IntRange = Annotated[tuple[int, ...], Check(_range)]
Values = Annotated[tuple[Any, ...], Check(_several)]


class ParameterConfig(Config):
    """One setting that a sweep varies: its path, and one kind of values.

    >>> ParameterConfig(path="trainer.train_steps", int=[10, 100], step=10).edges()
    [10, 100]

    Attributes:
        path: The setting, as `--params_override` names it.
        log_uniform: A number in [lowest, highest], as often in one order of magnitude as in the
            next.
        uniform: A number in [lowest, highest].
        int: A whole number in [lowest, highest], both included.
        choice: One of these values.
        grid: Each of these values in turn, with each of those of the other grids.
        step: Of `int`: from one value to the next, the first being the lowest.
        log: Whether an `int` is drawn as `log_uniform` draws.
        when: Values of other parameters, a `choice` or `grid`, by their path: one, or a list of
            those that count. With other values this setting stays as it is. What is in a branch of
            a oneof needs none: it counts when its `type` is chosen.
    """

    path: Annotated[str, Check(_path)] = REQUIRED
    log_uniform: LogRange | None = None
    uniform: Range | None = None
    int: IntRange | None = None
    choice: Values | None = None
    grid: Values | None = None
    step: PositiveInt | None = None
    log: bool = False
    when: dict[str, Any] = field(default_factory=ReadOnlyDict)

    @property
    def kind(self) -> str:
        """The name of the kind that is given; "" if none is."""
        return next((kind for kind in KINDS if getattr(self, kind) is not None), "")

    @property
    def values(self) -> tuple:
        """The values of a choice or a grid; none of what is drawn from a range."""
        return self.choice or self.grid or ()

    def check(self) -> Iterator[tuple[str, str]]:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if not given:
            yield "path", f"says no values; write one of {', '.join(KINDS)}"
        for kind in given[1:]:
            yield kind, f"`{given[0]}` is given too; a parameter has one kind"
        if self.int is None:
            for name in ("step", "log"):
                if getattr(self, name):
                    yield name, "is for `int`"
        elif self.log and self.step:
            yield "step", "can't be combined with `log`"
        elif self.log and self.int[0] < 1:
            yield "int", f"has no logarithm: must be > 0, got {self.int[0]}"
        elif self.step and (self.int[1] - self.int[0]) % self.step:
            low, high = self.int
            last = high - (high - low) % self.step
            yield "step", f"does not lead from {low} to {high}; write `[{low}, {last}]`"

    def edges(self) -> list:
        """Returns the values by which a parameter is checked: all of a list, both ends of a range.

        Of a range of numbers with a fraction there is one such number too.
        """
        if self.values:
            return [*self.values]
        bounds = self.log_uniform or self.uniform
        if bounds is None:
            return [*(self.int or ())]
        low, high = bounds
        return [low, high, low + 0.381966 * (high - low)]

    def draw(self, random: Callable[[], float]) -> Any:
        """Returns a value; `random` returns numbers in [0, 1)."""
        if self.values:
            return self.values[builtins.int(random() * len(self.values))]
        if self.int is not None:
            low, high = self.int
            if self.log:
                return min(high, builtins.int(low * ((high + 1) / low) ** random()))
            step = self.step or 1
            return low + step * builtins.int(random() * ((high - low) // step + 1))
        if self.log_uniform is not None:
            least, most = self.log_uniform
            return min(most, max(least, least * (most / least) ** random()))
        assert self.uniform is not None  # as `check` has seen to
        least, most = self.uniform
        return least + (most - least) * random()


class SweepConfig(Config):
    """What a sweep tries, with which engine, and what makes one trial better than another.

    >>> SweepConfig(parameters=[{"path": "runtime.seed", "grid": [0, 1, 2]}]).parameters[0].kind
    'grid'

    Attributes:
        parameters: What is varied.
        engine: `optuna`, one trial after another in this process, chosen by what the trials before
            came to (TPE); `ray`, at random on Ray Tune, as many at once as there is room for.
        trials: How many; None for each point of the grids once.
        metric: The metric of the validation that decides, "loss" for the loss; "" for
            `trainer.best_checkpoint_eval_metric`, or else the loss.
        metric_comp: Whether a `higher` or a `lower` value is better; None for what
            `trainer.best_checkpoint_metric_comp` says where the metric is that one, `lower` for
            the loss.
        prune: Whether trials that fall behind are stopped, by successive halving (ASHA): after
            `grace_steps` steps, and each time when there are `reduction_factor` times as many, only
            the best 1 in `reduction_factor` of those that came there go on.
        grace_steps: Training steps before a trial may be stopped; None for
            `trainer.validation_interval`.
        reduction_factor: See `prune`.
        seed: Of what is drawn. The same seed gives the same trials.
        concurrent_trials: On Ray, the most trials at once; None for as many as there is room for.
        resources: On Ray, what a trial takes, such as `{cpu: 4, gpu: 1}`; one CPU if nothing.
    """

    parameters: Sections[ParameterConfig] = field(default=())
    engine: Literal["optuna", "ray"] = "optuna"
    trials: PositiveInt | None = None
    metric: str = ""
    metric_comp: Literal["higher", "lower"] | None = None
    prune: bool = True
    grace_steps: PositiveInt | None = None
    reduction_factor: Annotated[int, Ge(2)] = 4
    seed: Seed = 0
    concurrent_trials: PositiveInt | None = None
    resources: dict[str, NonNegativeFloat] = field(default_factory=ReadOnlyDict)

    def check(self) -> Iterator[tuple[str, str]]:
        if not self.parameters:
            yield "parameters", "must name at least one setting to vary, names none"
        elif self.trials is None and not any(p.grid for p in self.parameters):
            yield "trials", "must be given: there is no grid that would say how many"
        if self.engine != "ray":
            for name in ("concurrent_trials", "resources"):
                if getattr(self, name):
                    yield name, f"is for `engine: ray`, which is {self.engine}"

    def decides(self, trainer: TrainerConfig) -> str:
        """Returns the name of the metric that decides."""
        return self.metric or trainer.best_checkpoint_eval_metric or "loss"

    def direction(self, trainer: TrainerConfig) -> str | None:
        """Returns whether a "higher" or a "lower" value of it is better; None if nothing says."""
        name = self.decides(trainer)
        if self.metric_comp is None and name == trainer.best_checkpoint_eval_metric:
            return trainer.best_checkpoint_metric_comp
        return self.metric_comp or ("lower" if name == "loss" else None)
