"""Schedulers for PyTorch: `GreedyLR`, and `LambdaLR` with a state that may be loaded in part."""

from typing import Any

from torch.optim.lr_scheduler import LambdaLR

from optimization.torch.metric import GreedyLR as GreedyLR
from optimization.torch.texts import rates_text


class FactorScheduler(LambdaLR):
    """Multiplies the first learning rate of each group by a function of the steps.

    It is `torch.optim.lr_scheduler.LambdaLR`, of which `load_state_dict` also takes a part of the
    state: what is missing stays as it is.
    """

    def __repr__(self) -> str:
        return rates_text(self)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from what `state_dict` returned, or a part of it."""
        super().load_state_dict({**self.state_dict(), **state_dict})
