"""`Adafactor`, `AdafactorSchedule` and `get_adafactor_schedule` of transformers, for PyTorch."""

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

import optimization.torch.adafactor as native
from optimization.configs.errors import ConfigError
from optimization.rules.rule import Numbers
from optimization.torch.by_name import load_by_name
from optimization.torch.functions import Lists
from optimization.torch.rule_optimizer import check_rate
from optimization.torch.shards import is_split, whole
from optimization.transformers.lambda_scheduler import FactorScheduler

# What the switches of the other `Adafactor` are called here.
_NAMES = {
    "epsilon1": "eps",
    "epsilon2": "eps",
    "clipping_threshold": "clip_threshold",
    "multiply_by_parameter_scale": "scale_parameter",
    "step_size": "relative_step",
}


class Adafactor(native.Adafactor):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235) with transformers' arguments.

    It is `optimization.torch.Adafactor` with `variant="hf"`, and updates all parameters at once.
    Groups have the keys of transformers' class, whose state it loads.

    >>> weight = torch.nn.Parameter(torch.ones(3, 2))
    >>> optimizer = Adafactor([weight], lr=0.5, scale_parameter=False, relative_step=False)

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate; None with `relative_step`, which makes it.
        eps: Added to the squared gradient, > 0, and the least parameter scale, > 0.
        clip_threshold: Of the update's root mean square, > 0.
        decay_rate: Second moments decay by 1 - t ** decay_rate; below 0.
        beta1: The decay of the momentum, in [0, 1); None for none.
        weight_decay: w -= weight_decay * (the size of the step) * w.
        scale_parameter: Whether steps are in proportion to the weights.
        relative_step: Whether the learning rate is min(1e-2, 1 / sqrt(t)).
        warmup_init: With `relative_step`, whether it is min(1e-6 * t, 1 / sqrt(t)).

    Raises:
        ValueError: For a value out of its range; a `lr` together with `relative_step`, or without
            it none; `warmup_init` without `relative_step`.
    """

    usual: ClassVar[dict[str, Any]] = {}  # by other names; old groups lack nothing
    _before_loading = staticmethod(load_by_name)  # groups stay in transformers' words

    def __init__(
        self,
        params: Any,
        lr: float | Tensor | None = None,
        eps: tuple[float, float] = (1e-30, 1e-3),
        clip_threshold: float = 1.0,
        decay_rate: float = -0.8,
        beta1: float | None = None,
        weight_decay: float = 0.0,
        scale_parameter: bool = True,
        relative_step: bool = True,
        warmup_init: bool = False,
    ):
        defaults = {k: v for k, v in locals().items() if k not in ("self", "params")}
        # Not the constructor of the base class, whose arguments have other names.
        self.check_group(defaults)
        Optimizer.__init__(self, params, {**defaults, "foreach": None, "maximize": False})
        self.register_load_state_dict_pre_hook(self._before_loading)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Checks the hyperparameters of a group.

        Raises:
            ValueError: For what is out of its range, by the names of transformers.
        """
        eps, relative = group["eps"], group["relative_step"]
        if not isinstance(eps, Sequence) or len(eps) != 2:
            raise ValueError(f"Argument `eps` must be two numbers, received: eps={eps}")
        if not group["decay_rate"] < 0:
            received = f"decay_rate={group['decay_rate']}"
            raise ValueError(f"Argument `decay_rate` must be < 0, received: {received}")
        if (group["lr"] is None) != bool(relative):
            raise ValueError(
                "Argument `lr` must be None with `relative_step=True`, which makes it, and only "
                f"then, received: lr={group['lr']}, relative_step={relative}"
            )
        if group["warmup_init"] and not relative:
            raise ValueError("Argument `warmup_init=True` needs `relative_step=True`.")
        try:
            native.checked_switches("hf", _renamed(group))
        except ConfigError as error:
            renamed = [p._replace(path=_NAMES.get(p.path, p.path)) for p in error.problems]
            raise ConfigError(renamed) from None
        if not relative:
            check_rate(group["lr"], divides=False)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for saved in self.state.values():
            saved["RMS"] = torch.as_tensor(saved.get("RMS", 0.0))

    def kind_of(self, parameter: Tensor, group: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        return super().kind_of(parameter, _HF)

    def numbers(self, group: Mapping[str, Any], own: Mapping[str, Any]) -> Numbers:
        return super().numbers({**group, **_HF, **_renamed(group), "lr": group["lr"]}, own)

    def initial_state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        return {**super().initial_state(parameter, group), "RMS": torch.tensor(0.0)}

    @staticmethod
    def _counts_all(group: Mapping[str, Any]) -> bool:
        return False

    def _init_group(self, group: dict[str, Any], *lists: list[Any]) -> tuple[Any, ...]:
        kinds = super()._init_group(group, *lists)
        for parameter in lists[0]:
            if is_split(parameter):  # of which a batch has the shards
                self._keep_size(parameter)
        return kinds

    def _step_batch(
        self,
        group: dict[str, Any],
        kind: Any,
        columns: list[list[Any]],
        divisor: Tensor | None,
        xp: Lists,
    ) -> None:
        for parameter in columns[0]:
            if parameter in self.state:
                self._keep_size(parameter)
        super()._step_batch(group, kind, columns, divisor, xp)

    def _keep_size(self, parameter: Tensor) -> None:
        weight = whole(self.weight_of(parameter))
        size = torch.linalg.vector_norm(weight.float()) / weight.numel() ** 0.5
        self.state[parameter]["RMS"].copy_(size)

    @staticmethod
    def _get_lr(param_group: Mapping[str, Any], param_state: Mapping[str, Any]) -> float:
        """Returns the size of the last step of a parameter, as transformers' schedule asks."""
        t = float(param_state["step"])
        rate = param_group["lr"]
        if param_group["relative_step"]:
            rate = min(1e-6 * t if param_group["warmup_init"] else 1e-2, t**-0.5)
        if param_group["scale_parameter"]:
            rate *= max(param_group["eps"][1], float(param_state["RMS"]))
        return float(rate)


def _renamed(group: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the switches of a group by the names of the other `Adafactor`."""
    return {
        "epsilon1": group["eps"][0],
        "epsilon2": group["eps"][1],
        "clipping_threshold": group["clip_threshold"],
        "decay_rate": -group["decay_rate"],
        "beta1": group["beta1"],
        "weight_decay": group["weight_decay"],
        "multiply_by_parameter_scale": group["scale_parameter"],
        "step_size": "relative" if group["relative_step"] else "absolute",
        "warmup_init": group["warmup_init"],
    }


_HF = native.checked_switches("hf", {})


def _constant(step: int, value: float) -> float:
    return value  # a partial function of it pickles, a lambda does not


class AdafactorSchedule(FactorScheduler):
    """Shows the learning rates that `Adafactor` makes by itself, for loops that ask a scheduler.

    It is the size of the last step of the first parameter of each group; before the first step
    `initial_lr`. It changes nothing that counts.

    >>> weight = torch.nn.Parameter(torch.ones(3, 2))
    >>> AdafactorSchedule(Adafactor([weight]), initial_lr=0.5).get_lr()
    [0.5]

    Args:
        optimizer: An `Adafactor` of this module, or of transformers, with `relative_step=True`.
        initial_lr: See above.

    Raises:
        ValueError: For another optimizer: it would be given `initial_lr` as its learning rate.
    """

    def __init__(self, optimizer: Optimizer, initial_lr: float = 0.0):
        if not all(group.get("relative_step") for group in optimizer.param_groups):
            raise ValueError(
                "Argument `optimizer` must be an Adafactor with `relative_step=True`, which makes "
                f"its learning rate itself, received: {type(optimizer).__name__}"
            )
        for group in optimizer.param_groups:
            group["initial_lr"] = initial_lr
        super().__init__(optimizer, partial(_constant, value=initial_lr))
        for group in optimizer.param_groups:
            del group["initial_lr"]

    def get_lr(self) -> list[Any]:
        optimizer: Any = self.optimizer  # ours, or another Adafactor with `_get_lr`
        rates = [
            optimizer._get_lr(group, optimizer.state[group["params"][0]])
            for group in optimizer.param_groups
            if group["params"][0].grad is not None
        ]
        return rates or self.base_lrs


def get_adafactor_schedule(optimizer: Optimizer, initial_lr: float = 0.0) -> AdafactorSchedule:
    """Returns an `AdafactorSchedule`, which shows `initial_lr` before the first step.

    >>> weight = torch.nn.Parameter(torch.ones(3, 2))
    >>> get_adafactor_schedule(Adafactor([weight]), initial_lr=0.5).get_lr()
    [0.5]
    """
    return AdafactorSchedule(optimizer, initial_lr)
