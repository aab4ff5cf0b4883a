"""A config's schedules as a `torch.optim.lr_scheduler.LRScheduler`."""

from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optimization.matching.rules import DEFAULT
from optimization.torch.extended import Extended
from optimization.torch.lists import number
from optimization.torch.texts import rates_text

Function = Callable[[int], float]
Hyperparameters = Sequence[tuple[str, Function, Callable[[dict[str, Any]], bool]]]
_STATE = ("last_epoch", "_step_count", "base_lrs", "_last_lr")


class ConfiguredScheduler(LRScheduler):
    """Sets the learning rates, and other hyperparameters, that a config describes.

    It is stepped once after each step of the optimizer. Values are those of the number of steps,
    `last_epoch`, by their formulas: nothing is multiplied up from one step to the next, and a
    change by hand lasts until the next step only.

    >>> optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))])
    >>> rates = {"default": lambda step: 0.5 / (1 + step)}
    >>> scheduler = ConfiguredScheduler(optimizer, rates, [])
    >>> optimizer.step()
    >>> scheduler.step()
    >>> scheduler.get_last_lr()
    [0.25]

    Args:
        optimizer: Whose groups are set. A group without the key `rule` has the rate of the default
            group.
        rates: The learning rate as a function of the steps done, by the name of the rule of a
            group; that of "default" must be there.
        hyperparameters: What else is set: its key in groups, "betas.0" for the first of a pair, its
            function of the steps done, and whether a group follows it.
        last_epoch: As torch means it, the last step that was seen: the steps done less 1; groups
            must have `initial_lr` then, as those of a loaded optimizer do. With -1 it starts at
            step 0, or where an optimizer of the factory is: it also goes where that is loaded.
    """

    _step_count: int

    def __init__(
        self,
        optimizer: Optimizer,
        rates: Mapping[str, Function],
        hyperparameters: Hyperparameters,
        last_epoch: int = -1,
    ):
        self._rates = dict(rates)
        self._hyperparameters = list(hyperparameters)
        if last_epoch == -1 and isinstance(optimizer, Extended):
            last_epoch = (optimizer.steps_done() or 0) - 1
            first = rates_after(self._rates, optimizer.param_groups, 0)
            for group, rate in zip(optimizer.param_groups, first, strict=True):
                group.setdefault("initial_lr", rate)
        super().__init__(optimizer, last_epoch)
        self._follow_loads()

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._follow_loads()  # copies of optimizers have lost their hooks

    def _follow_loads(self) -> None:
        if isinstance(self.optimizer, Extended):
            self.optimizer.register_load_state_dict_post_hook(self._after_load)

    def _after_load(self, optimizer: Any) -> None:
        """Goes to the step that the optimizer's state is of."""
        step = optimizer.schedule_step
        if step is None and self.last_epoch == 0:  # else the scheduler was loaded, and knows better
            step = optimizer.steps_done()
        self._set_values(self.last_epoch if step is None else step)

    __repr__ = rates_text

    def _repr_html_(self) -> str:
        """Returns what a notebook shows: the curve of the factory's config; else the rates."""
        factory = getattr(self.optimizer, "factory", None)
        return f"<pre>{escape(repr(self))}</pre>" if factory is None else factory._repr_html_()

    def get_lr(self) -> list[Any]:
        return rates_after(self._rates, self.optimizer.param_groups, self.last_epoch)

    def step(self, epoch: int | None = None) -> None:
        """Sets the groups to what holds after one more step, or after `epoch` steps.

        A step that was left out as a spike does not count.
        """
        if epoch is None and getattr(self.optimizer, "skipped", False):
            return
        super().step(epoch)
        self._set_others()

    def _set_values(self, step: int) -> None:
        self.last_epoch = step
        for group, rate in zip(self.optimizer.param_groups, self.get_lr(), strict=True):
            set_rate(group, rate)
        self._last_lr = [number(group["lr"]) for group in self.optimizer.param_groups]
        self._set_others()

    def _set_others(self) -> None:
        set_scheduled(self._hyperparameters, self.optimizer.param_groups, self.last_epoch)
        if isinstance(self.optimizer, Extended):
            self.optimizer.schedule_step = self.last_epoch

    def state_dict(self) -> dict[str, Any]:
        """Returns numbers alone; formulas are the config's."""
        state = {name: self.__dict__[name] for name in _STATE}
        return {k: [*map(number, v)] if isinstance(v, list) else v for k, v in state.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Goes on from where a state, or a part of one, was taken, as the config has it there."""
        if "num_bad_epochs" in state_dict:
            raise ValueError(
                "The loaded state is that of a scheduler that follows a metric; this one follows "
                "the steps. Set the `learning_rate` that was saved, or start without the state."
            )
        if state_dict and not any(name in state_dict for name in _STATE):
            raise ValueError(
                "The loaded state is not that of a scheduler that follows the steps: it has none "
                f"of {', '.join(_STATE)}."
            )
        self._step_count = state_dict.get("_step_count", self._step_count)
        self._set_values(state_dict.get("last_epoch", self.last_epoch))


def rates_after(
    rates: Mapping[str, Function], groups: Sequence[Mapping[str, Any]], step: int
) -> list[float]:
    """Returns the learning rate of each group after `step` steps, from those of the rules."""
    values: dict[str, float] = {}
    for group in groups:
        rule = group.get("rule", DEFAULT)
        if rule not in values:
            values[rule] = float(rates[rule](step))
    return [values[g.get("rule", DEFAULT)] * g.get("lr_multiplier", 1.0) for g in groups]


def set_scheduled(
    hyperparameters: Hyperparameters, groups: Sequence[dict[str, Any]], step: int
) -> None:
    """Sets what is scheduled besides the learning rate to its values after `step` steps."""
    for name, function, follows in hyperparameters:
        value = float(function(step))
        for group in filter(follows, groups):
            key, index = place_of(group, name) or (name, None)
            if index is None:
                group[key] = value
            else:
                group[key] = tuple(value if i == index else v for i, v in enumerate(group[key]))


def set_rate(group: dict[str, Any], rate: float) -> None:
    """Sets the learning rate of a group; a tensor, which a compiled step reads, in place."""
    if isinstance(group["lr"], Tensor):
        with torch.no_grad():
            group["lr"].fill_(rate)
    else:
        group["lr"] = rate


def place_of(group: Mapping[str, Any], name: str) -> tuple[str, int | None] | None:
    """Returns the key, and the index in its tuple, of a hyperparameter; None without it."""
    key, _, index = name.partition(".")
    return (key, int(index) if index else None) if key in group else None
