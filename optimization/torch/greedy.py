"""`GreedyLR` for PyTorch's optimizers."""

from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optimization.schedules.metric import Greedy


class GreedyLR(LRScheduler):
    """Raises the rates while a metric gets better, and reduces them when it stops.

    GreedyLR (arXiv:2512.14527) with the interface of transformers 5.23 and of torch's
    `ReduceLROnPlateau`: `step(metric)` after each evaluation. `Greedy`, in
    `optimization.schedules.metric`, says what it does.

    Args:
        optimizer: Whose groups are set.
        **settings: The arguments of `Greedy`, apart from the rates.

    Raises:
        TypeError: If it is no optimizer, or for an unknown argument.
        ValueError: As `Greedy` raises.
    """

    # As in torch's ReduceLROnPlateau, nothing is set before the first metric: the constructor of
    # the base class would take a step.
    def __init__(self, optimizer: Optimizer, **settings: Any):
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")
        self.optimizer = optimizer
        self._follower = Greedy(self._rates(), **settings)
        self._last_lr = self._rates()

    @property
    def last_epoch(self) -> int:
        """The number of metrics seen."""
        return self._follower.last_epoch

    def _rates(self) -> list[float]:
        return [float(group["lr"]) for group in self.optimizer.param_groups]

    def step(self, metrics: Any, epoch: int | None = None) -> None:
        """Takes the next value of the metric, and sets the rates."""
        follower = self._follower
        follower.rates = self._rates()
        follower.step(float(metrics))
        if epoch is not None:
            follower.last_epoch = epoch
        for group, rate in zip(self.optimizer.param_groups, follower.rates, strict=True):
            if isinstance(group["lr"], Tensor):
                with torch.no_grad():
                    group["lr"].fill_(rate)
            else:
                group["lr"] = rate
        self._last_lr = self._rates()

    def state_dict(self) -> dict[str, Any]:
        """Returns the state as numbers and lists."""
        return self._follower.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was taken; the optimizer's own state has the rates."""
        self._follower.load_state_dict(state_dict)
        self._last_lr = list(self._follower.rates)
