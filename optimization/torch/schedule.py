"""A config's schedules as a `torch.optim.lr_scheduler.LRScheduler`."""

from collections.abc import Callable, Mapping
from typing import Any

from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optimization.matching.rules import DEFAULT

Function = Callable[[int], float]
_STATE = ("last_epoch", "_step_count", "base_lrs", "_last_lr")
_KEYS: dict[str, tuple[str, ...]] = {
    "beta_1": ("betas", "0"),
    "beta_2": ("betas", "1"),
    "adam_beta_1": ("adam_betas", "0"),
    "adam_beta_2": ("adam_betas", "1"),
    "epsilon": ("eps", "adam_eps"),
    "epsilon_1": ("epsilon1",),
    "epsilon_2": ("epsilon2",),
    "clip_threshold": ("clipping_threshold",),
    "weight_decay_rate": ("weight_decay",),
    "eeta": ("trust_coefficient",),
    "rho": ("rho", "alpha"),
    "l1_regularization_strength": ("l1",),
    "l2_regularization_strength": ("l2",),
    "l2_shrinkage_regularization_strength": ("l2_shrinkage",),
    "learning_rate_power": ("lr_power",),
    "muon_a": ("ns_coefficients", "0"),
    "muon_b": ("ns_coefficients", "1"),
    "muon_c": ("ns_coefficients", "2"),
}
"""Where groups have a hyperparameter that torch calls otherwise."""


class ConfiguredScheduler(LRScheduler):
    """Sets the learning rates, and other hyperparameters, that a config describes.

    It is stepped once after each step of the optimizer. Values are those of the number of steps,
    `last_epoch`, by their formulas: nothing is multiplied up from one step to the next, and a
    change by hand lasts until the next step only.

    Args:
        optimizer: Whose groups are set. A group without the key `rule` has the rate of the default
            group.
        rates: The learning rate as a function of the steps done, by the name of the rule of a
            group; that of "default" must be there.
        hyperparameters: Functions of the steps done, by argument and by group: of each argument,
            a function, and whether a group follows it.
        last_epoch: As torch means it, the last step that was seen: the steps done less 1, so -1 for
            a new training. Otherwise groups must have `initial_lr`, as those of a loaded optimizer
            do.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        rates: Mapping[str, Function],
        hyperparameters: Mapping[str, tuple[Function, Callable[[dict[str, Any]], bool]]],
        last_epoch: int = -1,
    ):
        self._rates = dict(rates)
        self._hyperparameters = dict(hyperparameters)
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """Returns the learning rate of each group after `last_epoch` steps."""
        values: dict[str, float] = {}
        rates = []
        for group in self.optimizer.param_groups:
            rule = group.get("rule", DEFAULT)
            if rule not in values:
                values[rule] = float(self._rates[rule](self.last_epoch))
            rates.append(values[rule] * group.get("lr_multiplier", 1.0))
        return rates

    def step(self, epoch: int | None = None) -> None:
        """Sets the groups to what holds after one more step, or after `epoch` steps."""
        super().step(epoch)
        for name, (function, follows) in self._hyperparameters.items():
            value = float(function(self.last_epoch))
            for group in filter(follows, self.optimizer.param_groups):
                set_hyperparameter(group, name, value)

    def _get_closed_form_lr(self) -> list[Any]:
        return self.get_lr()

    def state_dict(self) -> dict[str, Any]:
        """Returns numbers alone; formulas are the config's."""
        return {name: _plain(self.__dict__[name]) for name in _STATE}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from where `state_dict` was taken; the optimizer's own state has the rates."""
        self.__dict__.update({name: state_dict[name] for name in _STATE})


def set_hyperparameter(group: dict[str, Any], name: str, value: float) -> None:
    """Sets a number of a group by the name that a config gives it.

    Raises:
        ValueError: If the group has none of that name.
    """
    place = place_of(group, name)
    if place is None:
        raise ValueError(f"the optimizer has no hyperparameter {name!r} to schedule")
    key, index = place
    if index is None:
        group[key] = value
    else:
        group[key] = tuple(value if i == index else v for i, v in enumerate(group[key]))


def place_of(group: Mapping[str, Any], name: str) -> tuple[str, int | None] | None:
    """Returns the key, and the index in its tuple, of a hyperparameter; None without it."""
    keys = _KEYS.get(name, (name,))
    if keys[-1].isdigit():
        return (keys[0], int(keys[1])) if keys[0] in group else None
    return next(((key, None) for key in keys if key in group), None)


def _plain(value: Any) -> Any:
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value.item() if isinstance(value, Tensor) else value
