"""State machines that follow a metric of the validation and change rates, in plain numbers.

`optimization.schedules.metric` has their configs.
"""

import copy
import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from optimization.configs.printing import by_arguments

Rates = float | Sequence[float]


@dataclasses.dataclass(repr=False)
class StreamingAverage:
    """The mean of the last `window_size` values, as in transformers; `sum` is their running sum.

    >>> average = StreamingAverage(2)
    >>> [average.streamavg(value) for value in (1.0, 3.0, 5.0)]
    [1.0, 2.0, 4.0]
    """

    window_size: int
    values: list[float] = dataclasses.field(default_factory=list, init=False)
    sum: float = dataclasses.field(default=0.0, init=False)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.window_size})"

    def streamavg(self, value: float) -> float:
        """Takes the next value and returns the mean."""
        self.values.append(value)
        self.sum += value
        if len(self.values) > self.window_size:
            self.sum -= self.values.pop(0)
        return self.sum / len(self.values)

    def state_dict(self) -> dict[str, Any]:
        return {"window_size": self.window_size, "values": list(self.values), "sum": self.sum}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Sets the state to what `state_dict` returned; what is missing stays as it is."""
        self.window_size = state_dict.get("window_size", self.window_size)
        self.values = list(state_dict.get("values", self.values))
        self.sum = state_dict.get("sum", self.sum)


class MetricFollower:
    """Changes rates when a metric has, or has not, got better for a while.

    A value is better than `best` by more than a threshold: relative,
    `value < best * (1 - threshold)`, or absolute, `value < best - threshold`; above it, with `+`,
    where `mode` is "max". NaN is never better. The arguments are the fields of `MetricLrConfig`,
    and `rates`: those at the start, one for each parameter group. Bounds may be one for each too.
    The attribute `rates` holds those of now: what they are set to is what the next step changes.

    Raises:
        ValueError: For a `factor` not below 1, an unknown mode, or a bound for too many rates.
    """

    _STATE: ClassVar[tuple[str, ...]] = ("best", "num_bad_epochs", "cooldown_counter", "last_epoch")

    def __init__(
        self,
        rates: Sequence[float],
        *,
        mode: str = "min",
        factor: float = 0.1,
        patience: int = 10,
        threshold: float = 1e-4,
        threshold_mode: str = "rel",
        cooldown: int = 0,
        min_lr: Rates = 0.0,
        eps: float = 1e-8,
    ):
        if not factor < 1:
            raise ValueError(f"Argument `factor` must be < 1.0, received: factor={factor}")
        modes = {"mode": (mode, ("min", "max")), "threshold_mode": (threshold_mode, ("rel", "abs"))}
        for name, (value, known) in modes.items():
            if value not in known:
                message = f"Argument `{name}` must be one of {known}, received: {name}={value!r}"
                raise ValueError(message)
        self.rates = [float(rate) for rate in rates]
        self.mode, self.factor, self.patience, self.cooldown = mode, factor, patience, cooldown
        self.threshold, self.threshold_mode, self.eps = threshold, threshold_mode, eps
        self.min_lrs = _one_for_each(min_lr, len(self.rates), "min_lr")
        self.last_epoch = 0
        self._forget()

    __repr__ = by_arguments

    def step(self, value: float) -> None:
        """Takes the next value of the metric, and changes the rates."""
        raise NotImplementedError

    def _forget(self) -> None:
        self.best = math.inf if self.mode == "min" else -math.inf
        self.num_bad_epochs = 0
        self.cooldown_counter = 0

    def is_better(self, value: float) -> bool:
        """Says whether a value is better than the best so far, by more than the threshold."""
        sign = -1.0 if self.mode == "min" else 1.0
        if self.threshold_mode == "rel":
            bound = self.best * (1.0 + sign * self.threshold)
        else:
            bound = self.best + sign * self.threshold
        return value < bound if self.mode == "min" else value > bound

    def _reduce(self) -> None:
        for i, (rate, least) in enumerate(zip(self.rates, self.min_lrs, strict=True)):
            reduced = max(rate * self.factor, least)
            if rate - reduced > self.eps:
                self.rates[i] = reduced

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as numbers and lists, which JSON can hold."""
        return copy.deepcopy({name: getattr(self, name) for name in ("rates", *self._STATE)})

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Sets the state to what `state_dict` returned, or a part of it; the rest stays as it is.

        Raises:
            ValueError: If it is the state of something else.
        """
        known = {"rates", *self._STATE}
        if not set(state) <= known or len(state.get("rates", self.rates)) != len(self.rates):
            raise ValueError(
                f"Argument `state` must be that of {len(self.rates)} rates with "
                f"{sorted(known)}, received: {dict(state)}"
            )
        for name, value in state.items():
            setattr(self, name, copy.copy(value))


class ReduceOnPlateau(MetricFollower):
    """Reduces the rates when a metric has stopped getting better, as torch.optim's scheduler.

    After more than `patience` values in a row that are no better than the best one, the rates are
    multiplied by `factor`, and `cooldown` values count for nothing. During the cooldown a better
    value still becomes the best. Arguments, defaults and behavior are those of
    `torch.optim.lr_scheduler.ReduceLROnPlateau` 2.13.
    """

    def step(self, value: float) -> None:
        self.last_epoch += 1
        if self.is_better(value):
            self.best = value
            self.num_bad_epochs = 0
        else:
            self.num_bad_epochs += 1
        if self.cooldown_counter > 0:
            self.cooldown_counter -= 1
            self.num_bad_epochs = 0
        if self.num_bad_epochs > self.patience:
            self._reduce()
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0


class Greedy(MetricFollower):
    """Raises the rates while a metric gets better, and reduces them when it stops.

    GreedyLR (arXiv:2512.14527) as in transformers 5.23. After more than `patience` values in a row
    of which each is the best so far, the rates are divided by `factor`; after as many that are not,
    multiplied by it. Then `warmup` or `cooldown` values count for nothing, also not as the best. If
    `reset_start` reductions find all rates at their least without a raise between them, everything
    starts anew from the initial rates.

    The arguments are the fields of `HfGreedyLrConfig`, and `rates`, as above.
    """

    _STATE = (
        *MetricFollower._STATE,
        *("num_good_epochs", "warmup_counter", "reset_start", "initial_rates"),
        *("window", "window_sum"),
    )

    def __init__(
        self,
        rates: Sequence[float],
        *,
        factor: float = 0.95,
        threshold: float = 1e-6,
        threshold_mode: str = "abs",
        warmup: int = 0,
        min_lr: Rates = 1e-3,
        max_lr: Rates = 1.0,
        smooth: bool = False,
        window_size: int = 50,
        reset_start: int = 500,
        **others: Any,
    ):
        self.reset_start_original, self.window_size = reset_start, window_size
        others |= {"threshold": threshold, "threshold_mode": threshold_mode, "min_lr": min_lr}
        super().__init__(rates, factor=factor, **others)
        self.max_lrs = _one_for_each(max_lr, len(self.rates), "max_lr")
        self.warmup, self.smooth = warmup, smooth
        self.initial_rates = list(self.rates)

    def _forget(self) -> None:
        super()._forget()
        self.num_good_epochs = 0
        self.warmup_counter = 0
        self.reset_start = self.reset_start_original
        self.average = StreamingAverage(self.window_size)

    window = property(lambda self: self.average.values)
    window_sum = property(lambda self: self.average.sum)

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        names = {"window": "values", "window_sum": "sum"}
        super().load_state_dict({k: v for k, v in state.items() if k not in names})
        self.average.load_state_dict({names[k]: v for k, v in state.items() if k in names})

    def step(self, value: float) -> None:
        value = self.average.streamavg(value) if self.smooth else value
        self.last_epoch += 1
        if self.cooldown_counter > 0 or self.warmup_counter > 0:
            counter = "cooldown_counter" if self.cooldown_counter > 0 else "warmup_counter"
            setattr(self, counter, getattr(self, counter) - 1)
            self.num_bad_epochs = self.num_good_epochs = 0
            return
        if self.is_better(value):
            self.best = value
            self.num_good_epochs, self.num_bad_epochs = self.num_good_epochs + 1, 0
        else:
            self.num_good_epochs, self.num_bad_epochs = 0, self.num_bad_epochs + 1
        if self.num_good_epochs > self.patience:
            self._raise()
            self.warmup_counter = self.warmup
            self.num_good_epochs = 0
        elif self.num_bad_epochs > self.patience:
            self._reduce()
            # Also where `_reduce` has just started anew, as theirs.
            self.cooldown_counter = self.cooldown
            self.num_bad_epochs = 0

    def _raise(self) -> None:
        for i, (rate, greatest) in enumerate(zip(self.rates, self.max_lrs, strict=True)):
            raised = min(rate / self.factor, greatest)
            if raised - rate > self.eps:
                self.rates[i] = raised
        self.reset_start = self.reset_start_original

    def _reduce(self) -> None:
        super()._reduce()
        if all(rate <= least for rate, least in zip(self.rates, self.min_lrs, strict=True)):
            self.reset_start -= 1
            if self.reset_start <= 0:
                self.rates = list(self.initial_rates)
                self._forget()


def _one_for_each(value: Rates, count: int, name: str) -> list[float]:
    """Returns a bound for each of `count` rates."""
    if isinstance(value, int | float):
        return [value] * count
    if len(value) != count:
        raise ValueError(f"Argument `{name}` must hold {count} rates, received: {name}={value}")
    return list(value)
