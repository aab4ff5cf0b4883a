"""Schedulers whose rate follows a metric: GreedyLR, and those that the factory builds."""

import operator
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, SupportsFloat

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from optimization.configs import printing
from optimization.schedules.followers import Greedy, StreamingAverage
from optimization.schedules.metric import HfGreedyLrConfig, MetricLrConfig
from optimization.torch.resume import STEP, changes, report
from optimization.torch.schedule import set_rate

SETTINGS = (
    *("factor", "min_lrs", "max_lrs", "patience", "cooldown", "warmup", "mode", "threshold"),
    *("threshold_mode", "eps", "smooth", "window_size", "reset_start_original"),
)


def _same_as(name: str) -> Any:
    def sets(self: Any, value: Any) -> None:
        setattr(self, name, value)

    return property(operator.attrgetter(name), sets)


class GreedyLR(Greedy, LRScheduler):
    """Raises the learning rates while a metric gets better, and reduces them when it stops.

    The interface is that of transformers' `GreedyLR`, of which it loads the state too, and the
    behavior that of `optimization.schedules.followers.Greedy`. `step` takes the metric of each
    evaluation. A change of a rate by hand is what the next step changes.

    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], lr=0.5)
    >>> scheduler = GreedyLR(optimizer, factor=0.5, patience=0, warmup=0)
    >>> for loss in (3.0, 4.0, 5.0):
    ...     scheduler.step(loss)
    >>> optimizer.param_groups[0]["lr"]
    0.25

    Args:
        optimizer: The optimizer.
        mode: Whether the least ("min") or the greatest ("max") value is the best.
        factor: Rates are multiplied with it on a plateau, and divided by it on progress; below 1.
        patience: Values in a row, all better or none, that are let pass.
        threshold: By how much a value must be better.
        threshold_mode: "rel" or "abs".
        cooldown: Values after a reduction that count for nothing.
        warmup: Values after a raise that count for nothing.
        min_lr: The least rate, or one for each group.
        max_lr: The greatest rate, or one for each group.
        eps: Smaller changes are left out.
        verbose: Whether changes are printed.
        smooth: Whether the mean of the last values stands for each.
        window_size: The number of values in that mean.
        reset_start: Reductions at the least rates after which everything starts anew.

    Raises:
        TypeError: If `optimizer` is none.
        ValueError: As `Greedy`.
    """

    # As transformers' class calls it.
    _last_lr = _same_as("rates")
    _init_lrs = _same_as("initial_rates")
    _STATE = (
        *(each for each in Greedy._STATE if each not in ("initial_rates", "window", "window_sum")),
        *("_init_lrs", *SETTINGS, "verbose"),
    )

    # As in torch's ReduceLROnPlateau, nothing is set before the first metric: the constructor of
    # the base class would take a step.
    def __init__(
        self,
        optimizer: Optimizer,
        mode: str = "min",
        factor: float = 0.95,
        patience: int = 10,
        threshold: float = 1e-6,
        threshold_mode: str = "abs",
        cooldown: int = 0,
        warmup: int = 0,
        min_lr: float | list[float] = 1e-3,
        max_lr: float | list[float] = 1.0,
        eps: float = 1e-8,
        verbose: bool = False,
        smooth: bool = False,
        window_size: int = 50,
        reset_start: int = 500,
    ):
        settings = dict(locals())
        for name in ("self", "optimizer", "verbose", "__class__"):
            del settings[name]
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        self.verbose = verbose
        super().__init__(self._rates(), **settings)

    def __repr__(self) -> str:
        settings = {k: v for k, v in vars(self).items() if k not in ("optimizer", "rates")}
        changed = printing.differing(self, settings)
        return printing.call(type(self).__name__, last_lr=self.get_last_lr(), **changed)

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _set_rates(self, rates: list[float]) -> None:
        groups = self.optimizer.param_groups
        for number, (group, rate) in enumerate(zip(groups, rates, strict=True)):
            if self.verbose and float(group["lr"]) != rate:
                print(f"GreedyLR: learning rate of group {number} is now {rate:.4e}")
            set_rate(group, rate)
        self.rates = self._rates()  # a tensor may be of float32

    # As torch's own scheduler that follows a metric: others need none.
    def step(  # type: ignore[override, unused-ignore]
        self, metrics: SupportsFloat, epoch: int | None = None
    ) -> None:
        """Takes the next value of the metric, and sets the rates; `epoch` is for `last_epoch`."""
        self.rates = self._rates()
        super().step(float(metrics))
        if epoch is not None:
            self.last_epoch = epoch
        self._set_rates(self.rates)

    def get_last_lr(self) -> list[Any]:
        return list(self.rates)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state and the settings as numbers and lists, in the form of transformers'."""
        state = super().state_dict()
        state["_last_lr"] = state.pop("rates")
        if self._streaming_avg is not None:
            state["_streaming_avg"] = self._streaming_avg.state_dict()
        return state

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned, or a part of it, settings and rates too."""
        state = dict(state_dict)
        self.average.load_state_dict(state.pop("_streaming_avg", {}))
        if "_last_lr" in state:
            state["rates"] = state.pop("_last_lr")
        super().load_state_dict(state)
        if "rates" in state:
            self._set_rates(self.rates)

    @property
    def _streaming_avg(self) -> StreamingAverage | None:
        return self.average if self.smooth else None


class _Configured(LRScheduler):
    """Has the settings of the config, also where state with others is loaded."""

    settings: ClassVar[tuple[str, ...]] = SETTINGS

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        if "num_bad_epochs" not in state_dict and "base_lrs" in state_dict:
            raise ValueError(
                "The loaded state is that of a scheduler that follows the steps; this one follows "
                "a metric. Set the `learning_rate` that was saved, or start without the state."
            )
        own = self.state_dict()
        known = {*own, "verbose"}  # which old versions of torch have; it changes nothing
        unknown = [name for name in state_dict if name not in known]
        if unknown:
            raise ValueError(
                f"The loaded state is that of another scheduler than `{type(self).__name__}`, "
                f"which has no {', '.join(map(repr, unknown))}. Set the `learning_rate` that was "
                "saved, or start without the state."
            )
        own = {name: value for name, value in own.items() if name in self.settings}
        report(changes(state_dict, own), "learning_rate")
        super().load_state_dict({**state_dict, **own})


class ConfiguredPlateau(_Configured, ReduceLROnPlateau):
    """torch's scheduler, which keeps the settings of the config when state is loaded."""

    settings = (
        *("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "eps"),
        *("min_lrs", "default_min_lr"),
    )

    def __repr__(self) -> str:
        values = {name: value for name, value in vars(self).items() if name in self.settings}
        changed = printing.differing(self, values)
        return printing.call(type(self).__name__, last_lr=self.get_last_lr(), **changed)


class ConfiguredGreedyLR(_Configured, GreedyLR):
    """`GreedyLR`, which keeps the settings of the config when state is loaded."""


def following(config: MetricLrConfig, optimizer: Optimizer, last_epoch: int) -> LRScheduler:
    """Returns the scheduler of a rate that follows a metric."""
    if last_epoch != -1:
        raise ValueError(
            "Argument `last_epoch` must be -1 for a rate that follows a metric: load the "
            f"scheduler's state, received: last_epoch={last_epoch}"
        )
    settings = config.settings()
    # The rates of groups are multiples of the one that is followed, and so are their bounds.
    for bound in ("min_lr", "max_lr"):
        if bound in settings:
            multipliers = [group.get("lr_multiplier", 1.0) for group in optimizer.param_groups]
            settings[bound] = [settings[bound] * multiplier for multiplier in multipliers]
    if isinstance(config, HfGreedyLrConfig):
        return ConfiguredGreedyLR(optimizer, **settings)
    return ConfiguredPlateau(optimizer, **settings)


def go_on(group: dict[str, Any], saved: Mapping[str, Any]) -> Iterator[str]:
    """Gives a group the saved rate, where no scheduler of ours had counted; yields what to tell."""
    if saved.get(STEP) is not None or "lr" not in saved:
        return
    ratio = group.get("lr_multiplier", 1.0) / (saved.get("lr_multiplier", 1.0) or 1.0)
    set_rate(group, float(saved["lr"]) * ratio)
    if saved.get("first_lr", group.get("first_lr")) != group.get("first_lr"):
        yield f"the rate follows a metric, and goes on from the saved one ({float(group['lr'])})"
