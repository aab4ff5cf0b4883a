"""GreedyLR as a scheduler of PyTorch."""

from collections.abc import Mapping
from typing import Any, SupportsFloat

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optimization.configs import printing
from optimization.schedules.followers import Greedy, StreamingAverage
from optimization.torch.schedule import set_rate

# What transformers' class calls otherwise in its state.
_NAMES = {"rates": "_last_lr", "initial_rates": "_init_lrs"}
_OWN_NAMES = {theirs: own for own, theirs in _NAMES.items()}
SETTINGS = (
    "factor",
    "min_lrs",
    "max_lrs",
    "patience",
    "cooldown",
    "warmup",
    "mode",
    "threshold",
    "threshold_mode",
    "eps",
    "smooth",
    "window_size",
    "reset_start_original",
)


class GreedyLR(LRScheduler):
    """Raises the learning rates while a metric gets better, and reduces them when it stops.

    The interface is that of transformers' `GreedyLR`, of which it loads the state too, and the
    behavior that of `optimization.schedules.followers.Greedy`. `step` takes the metric of each
    evaluation. A change of a rate by hand is what the next step changes.

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
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        self.verbose = verbose
        self._machine = Greedy(
            self._rates(),
            mode=mode,
            factor=factor,
            patience=patience,
            threshold=threshold,
            threshold_mode=threshold_mode,
            cooldown=cooldown,
            warmup=warmup,
            min_lr=min_lr,
            max_lr=max_lr,
            eps=eps,
            smooth=smooth,
            window_size=window_size,
            reset_start=reset_start,
        )

    def __repr__(self) -> str:
        values = {**vars(self._machine), "verbose": self.verbose}
        return printing.call(
            type(self).__name__,
            last_lr=self.get_last_lr(),
            **printing.differing(self, values),
        )

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def _set_rates(self, rates: list[float]) -> None:
        for number, (group, rate) in enumerate(
            zip(self.optimizer.param_groups, rates, strict=True)
        ):
            if self.verbose and float(group["lr"]) != rate:
                print(f"GreedyLR: learning rate of group {number} is now {rate:.4e}")
            set_rate(group, rate)
        self._machine.rates = self._rates()  # a tensor may be of float32

    # As torch's own scheduler that follows a metric: others need none.
    def step(  # type: ignore[override, unused-ignore]
        self, metrics: SupportsFloat, epoch: int | None = None
    ) -> None:
        """Takes the next value of the metric, and sets the rates.

        Args:
            metrics: A number, or a tensor of one.
            epoch: What `last_epoch` is to be; None for one more.
        """
        self._machine.rates = self._rates()
        self._machine.step(float(metrics))
        if epoch is not None:
            self._machine.last_epoch = epoch
        self._set_rates(self._machine.rates)

    def get_last_lr(self) -> list[Any]:
        """Returns the rate of each group, as the last step has left it."""
        return list(self._machine.rates)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state and the settings as numbers and lists, in the form of transformers'."""
        state = self._machine.state_dict()
        del state["window"], state["window_sum"]
        named = {_NAMES.get(name, name): value for name, value in state.items()}
        named |= {name: getattr(self._machine, name) for name in SETTINGS}
        named["verbose"] = self.verbose
        if self._streaming_avg is not None:
            named["_streaming_avg"] = self._streaming_avg.state_dict()
        return named

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned, or a part of it; the rest stays as it is.

        Settings and rates are taken too.
        """
        state = dict(state_dict)
        self._machine.average.load_state_dict(state.pop("_streaming_avg", {}))
        self.verbose = state.pop("verbose", self.verbose)
        for name in SETTINGS:
            if name in state:
                setattr(self._machine, name, state.pop(name))
        for own, theirs in _NAMES.items():
            if theirs in state:
                state[own] = state.pop(theirs)
        self._machine.load_state_dict(state)
        if "rates" in state:
            self._set_rates(self._machine.rates)

    @property
    def _streaming_avg(self) -> StreamingAverage | None:
        return self._machine.average if self._machine.smooth else None

    def __getattr__(self, name: str) -> Any:
        # `best`, `num_bad_epochs`, `patience` and the rest are the machine's.
        own = _OWN_NAMES.get(name, name)
        if own.startswith("_"):
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._machine, own)

    def __setattr__(self, name: str, value: Any) -> None:
        own = _OWN_NAMES.get(name, name)
        is_machines = not own.startswith("_") and hasattr(self.__dict__.get("_machine"), own)
        object.__setattr__(self._machine if is_machines else self, own, value)
