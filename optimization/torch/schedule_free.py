"""Schedule-free SGD and AdamW: averages in the place of a learning rate schedule."""

from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from optimization.torch.base import ForeachOptimizer, number


class ScheduleFree(ForeachOptimizer):
    """The sequences x, y and z of Defazio et al. 2024 (arXiv:2405.15682).

    With beta the interpolation, u the direction of the step, and t the steps of a group:

        rate = lr * min(1, t / warmup_steps)
        weight = t^r * (largest rate so far)^weight_lr_power
        c = weight / (sum of the weights so far)
        z <- z - rate * u(gradient at y)
        x <- (1 - c) x + c z
        y <- (1 - beta) z + beta x

    Parameters hold y while they train, z is state, and x is computed from both: call `eval()`
    before an evaluation, or before the weights are saved, and `train()` before training goes on.
    (The Trainer of transformers does.) Statistics of batch normalization are those of y: run some
    batches through the model with x first. Counts and sums are numbers of the groups, as in the
    authors' package: `torch.compile` lets `step` run as it is, and does not compile it.
    """

    group_state: ClassVar = ("k", "lr_max", "weight_sum", "train_mode")

    def __init__(
        self,
        params: Any,
        defaults: dict[str, Any],
        foreach: bool | None,
        maximize: bool,
    ):
        counts = {"k": 0, "lr_max": 0.0, "weight_sum": 0.0, "train_mode": True}
        super().__init__(params, {**defaults, **counts}, foreach, maximize)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Checks the hyperparameters of a group."""
        super().check_group(group)
        if not 0 < self.interpolation(group) < 1:
            raise ValueError("Argument `momentum`, or the first of `betas`, must be in (0, 1).")

    def interpolation(self, group: Mapping[str, Any]) -> float:
        """Returns beta of a group."""
        raise NotImplementedError

    @torch.no_grad()
    def eval(self) -> None:
        """Has the parameters hold x; does nothing where they do."""
        for group in self.param_groups:
            if group["train_mode"]:
                self._move(group, 1 - 1 / self.interpolation(group))
            group["train_mode"] = False

    @torch.no_grad()
    def train(self) -> None:
        """Has the parameters hold y; does nothing where they do."""
        for group in self.param_groups:
            if not group["train_mode"]:
                self._move(group, 1 - self.interpolation(group))
            group["train_mode"] = True

    def _move(self, group: dict[str, Any], share: float) -> None:
        """Moves parameters towards z by a share of the way."""
        for parameter in group["params"]:
            z = self.state.get(parameter, {}).get("z")
            if z is not None:
                weight = self.weight_of(parameter)
                weight.copy_(torch.lerp(weight.to(z.dtype), z, share))
                parameter.copy_(weight)

    def initial_state(
        self, parameter: Tensor, kind: str, group: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Returns z, which starts from the parameter, and zeros."""
        state = super().initial_state(parameter, kind, group)
        state["z"].copy_(parameter)
        return state

    # Numbers of groups that change would have it compiled anew at each step.
    @torch.compiler.disable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step, as `ForeachOptimizer`."""
        return super().step(closure)

    def _before_groups(self) -> None:
        for group in self.param_groups:
            if not group["train_mode"]:
                raise RuntimeError("The parameters are those to evaluate: call `train()` first.")
            t = group["k"] = group["k"] + 1
            group["lr_max"] = max(group["lr_max"], float(number(self._rate(group))))
            group["weight_sum"] += self._weight(group, t)

    def _rate(self, group: dict[str, Any]) -> Any:
        warmup = group["warmup_steps"]
        return number(group["lr"]) * (min(1.0, group["k"] / warmup) if warmup else 1.0)

    def _weight(self, group: dict[str, Any], t: int) -> float:
        return t ** group["r"] * group["lr_max"] ** group["weight_lr_power"]

    def _update(self, kind, group, params, grads, steps, zs, *others):
        updates = self._directions(group, grads, *others)
        if group["weight_decay"]:
            torch._foreach_add_(updates, params, alpha=group["weight_decay"])
        rate, total = self._rate(group), group["weight_sum"]
        c = self._weight(group, group["k"]) / total if total else 0.0
        torch._foreach_lerp_(params, zs, c)
        share = 1 - self.interpolation(group) * (1 - c)
        torch._foreach_sub_(params, torch._foreach_mul(updates, rate * share))
        torch._foreach_mul_(updates, rate)
        torch._foreach_sub_(zs, updates)

    def _directions(
        self, group: dict[str, Any], grads: list[Tensor], *others: list[Tensor]
    ) -> list[Tensor]:
        """Returns u of each parameter, without weight decay, as new tensors."""
        raise NotImplementedError


class ScheduleFreeSGD(ScheduleFree):
    """Schedule-free SGD: u = g + weight_decay * y, in the equations of `ScheduleFree`.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate, a constant; about 10 times that of SGD with momentum is a start.
        momentum: The share of x in y, in (0, 1).
        weight_decay: See above.
        warmup_steps: Steps in which the rate grows linearly.
        r: Power of the step in the weights of the average.
        weight_lr_power: Power of the largest rate so far in them.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {"all": ("z",)}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 1.0,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
        }
        super().__init__(params, defaults, foreach, maximize)

    def interpolation(self, group: Mapping[str, Any]) -> float:
        """Returns beta of a group."""
        return number(group["momentum"])

    def _directions(self, group, grads):
        return [gradient.clone() for gradient in grads]


class ScheduleFreeAdamW(ScheduleFree):
    """Schedule-free AdamW: another direction u in the equations of `ScheduleFree`.

        v <- beta_2 v + (1 - beta_2) g^2
        u = g / (sqrt(v / (1 - beta_2^t)) + eps) + weight_decay * y

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate, a constant.
        betas: The share of x in y, in (0, 1), and the decay of the second moment.
        eps: Added to the root of the corrected second moment.
        weight_decay: See above.
        warmup_steps: Steps in which the rate grows linearly.
        r: Power of the step in the weights of the average.
        weight_lr_power: Power of the largest rate so far in them.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: For a value out of its range.
    """

    state_names: ClassVar = {"all": ("z", "exp_avg_sq")}

    def __init__(
        self,
        params: Any,
        lr: float | Tensor = 0.0025,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        warmup_steps: int = 0,
        r: float = 0.0,
        weight_lr_power: float = 2.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ):
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "warmup_steps": warmup_steps,
            "r": r,
            "weight_lr_power": weight_lr_power,
        }
        super().__init__(params, defaults, foreach, maximize)

    def interpolation(self, group: Mapping[str, Any]) -> float:
        """Returns beta of a group."""
        return number(group["betas"][0])

    def _directions(self, group, grads, squares):
        beta_2 = group["betas"][1]
        torch._foreach_mul_(squares, beta_2)
        torch._foreach_addcmul_(squares, grads, grads, 1 - beta_2)
        roots = torch._foreach_div(squares, 1 - beta_2 ** group["k"])
        torch._foreach_sqrt_(roots)
        torch._foreach_add_(roots, group["eps"])
        return torch._foreach_div(grads, roots)
