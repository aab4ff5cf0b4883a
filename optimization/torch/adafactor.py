"""Adafactor in every variant that is in use, chosen by switches."""

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor

from optimization.configs.errors import ConfigError
from optimization.rules.adafactor import AdafactorConfig
from optimization.rules.adafactor_variants import axes_to_factor
from optimization.torch.base import ForeachOptimizer, number, zeros_like

_ROWS_AND_COLUMNS = ("exp_avg_sq_row", "exp_avg_sq_col")


class Adafactor(ForeachOptimizer):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), its memory factored for real.

    With t = 1, 2, ..., s = max(t - step_offset, 1) and b = min(beta_2_cap, 1 - s^-decay_rate):

        G = g^2 + epsilon1                            with epsilon1_mode="clamp": G = g^2
        R <- b R + (1 - b) mean(G, d0)                d0, d1: the axes that are factored
        C <- b C + (1 - b) mean(G, d1)
        V = R C / mean(R, d1)                         not factored: V <- b V + (1 - b) G
        u = g / sqrt(V);  u <- u / max(1, RMS(u) / clipping_threshold)
        rho = lr, min(lr, 1 / sqrt(t)) or min(1e-2, 1 / sqrt(t))        by `step_size`
        alpha = rho max(RMS(w), epsilon2)             without the scale: alpha = rho
        u <- alpha u
        u <- m <- beta1 m + (1 - beta1) u             with `beta1`
        w <- (1 - k) w - u,  k = weight_decay, weight_decay lr or weight_decay alpha

    With "clamp", V = R C / max(mean(R, d1), epsilon1) and u = g / sqrt(max(V, epsilon1^2)).
    `torch.optim.Adafactor` is `variant="torch"`, and the better choice there; that of transformers
    is `variant="hf"`. `AdafactorConfig` describes the switches.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate; None with step_size="relative", which makes it by itself.
        variant: Whose Adafactor it is: "paper", "hf", "torch", "keras", "optax", "t5x", "timm" or
            "big_vision"; each sets all switches.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.
        **switches: Those of `AdafactorConfig` that differ from the variant's.

    Raises:
        ValueError: For a switch that is unknown or out of its range, switches that contradict each
            other, or a learning rate that is missing or does not count.
    """

    state_names: ClassVar = {
        "factored": _ROWS_AND_COLUMNS,
        "factored, momentum": (*_ROWS_AND_COLUMNS, "exp_avg"),
        "whole": ("exp_avg_sq",),
        "whole, momentum": ("exp_avg_sq", "exp_avg"),
    }

    def __init__(
        self,
        params: Any,
        lr: float | Tensor | None = None,
        variant: str = "t5x",
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        **switches: Any,
    ):
        defaults = {"lr": lr, **checked_switches(variant, switches)}
        if (lr is None) != (defaults["step_size"] == "relative"):
            raise ValueError(
                'Argument `lr` must be None with step_size="relative", which makes the rate '
                f"itself, and only then, received: lr={lr}"
            )
        self._latest = 0.0
        super().__init__(params, defaults, foreach, maximize)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Checks the hyperparameters of a group; some may be None."""
        super().check_group({k: value for k, value in group.items() if value is not None})

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._latest = 0.0

    def kind_of(self, parameter: Tensor, group: dict[str, Any]) -> str:
        """Returns what is kept of a parameter's second moment, and whether it has a momentum."""
        kind = "factored" if self.factored_axes(parameter, group) else "whole"
        return kind if group["beta1"] is None else f"{kind}, momentum"

    def factored_axes(self, parameter: Tensor, group: dict[str, Any]) -> tuple[int, int] | None:
        """Returns the axes (d0, d1) of a parameter that are factored, None for none."""
        if not group["factored"]:
            return None
        least = group["min_dim_size_to_factor"]
        return axes_to_factor(tuple(parameter.shape), group["factored_axes"], least)

    def initial_state(
        self, parameter: Tensor, kind: str, group: dict[str, Any]
    ) -> dict[str, Tensor]:
        """Returns row and column means, or a whole second moment, and a momentum."""
        names = [name for name in self.state_names[kind] if name not in _ROWS_AND_COLUMNS]
        state = {name: zeros_like(parameter) for name in names}
        axes = self.factored_axes(parameter, group)
        if axes is not None:
            for name, axis in zip(_ROWS_AND_COLUMNS, axes, strict=True):
                shape = [*parameter.shape[:axis], *parameter.shape[axis + 1 :]]
                state[name] = zeros_like(parameter, shape)
        if group["step_count"] == "global":
            state["step"] = torch.tensor(self._latest, dtype=torch.float64)
        return state

    def _before_groups(self) -> None:
        # A global count passes by the parameters without gradients. While torch compiles there is
        # no way to find them, and each parameter counts its own steps.
        if torch.compiler.is_compiling():
            return
        counts = [state["step"] for state in self.state.values() if state]
        self._latest = max((number(count) for count in counts), default=0.0)
        for group in self.param_groups:
            if group["step_count"] != "global":
                continue
            for parameter in group["params"]:
                if parameter.grad is not None and self.state.get(parameter):
                    self.state[parameter]["step"].fill_(self._latest)

    @torch.no_grad()
    def effective_learning_rates(self) -> dict[str, float]:
        """Returns the effective learning rate of each parameter in the update to come.

        That is alpha = rho * max(epsilon2, RMS(w)), rho without the parameter scale.
        `AdafactorSchedule` of transformers shows that of the first parameter of each group, as of
        the update before.

        Returns:
            Name -> alpha; the number of a parameter, from "0" on, where they have no names.
        """
        done = [number(state["step"]) for state in self.state.values() if state]
        rates: dict[str, float] = {}
        for group in self.param_groups:
            params = group["params"]
            names = group.get("param_names")
            names = names or [str(len(rates) + i) for i in range(len(params))]
            if group["step_count"] == "global":
                steps = [max(done, default=0.0) + 1] * len(params)
            else:
                steps = [number(self.state.get(p, {}).get("step", 0.0)) + 1 for p in params]
            weights = [
                self.weight_of(p).detach().to(zeros_like(p).dtype, copy=True) for p in params
            ]
            own = [self._rate(group, t) for t in steps]
            if group["weight_decay_first"]:
                self._decay(group, weights, own, own)
            alphas = self._alphas(group, weights, steps, own)
            rates.update(zip(names, map(float, alphas), strict=True))
        return rates

    def _update(self, kind, group, params, grads, steps, *states):
        rates = [self._rate(group, t) for t in steps]
        decays_first = group["weight_decay_first"]
        if decays_first:
            self._decay(group, params, rates, rates)
        alphas = self._alphas(group, params, steps, rates)
        updates = self._normalized(kind, group, grads, steps, states)
        threshold = group["clipping_threshold"]
        if threshold is not None:
            sizes = root_mean_squares(updates)
            torch._foreach_div_(updates, [(size / threshold).clamp(min=1.0) for size in sizes])
        if group["momentum_of"] == "scaled_update":
            updates = self._with_momentum(group, torch._foreach_mul(updates, alphas), states)
        else:
            updates = torch._foreach_mul(self._with_momentum(group, updates, states), alphas)
        if not decays_first:
            self._decay(group, params, rates, alphas)
        torch._foreach_sub_(params, updates)

    def _rate(self, group: dict[str, Any], t: Any) -> Any:
        if group["step_size"] != "relative":
            return number(group["lr"])
        bound = 1e-6 * t if group["warmup_init"] else 1e-2
        return group.get("lr_multiplier", 1.0) * _least(bound, t**-0.5)

    def _alphas(
        self, group: dict[str, Any], params: list[Tensor], steps: list[Any], rates: list[Any]
    ) -> list[Any]:
        alphas = rates
        if group["step_size"] == "capped":
            alphas = [_least(rate, t**-0.5) for rate, t in zip(rates, steps, strict=True)]
        if not group["multiply_by_parameter_scale"]:
            return alphas
        scales = [size.clamp(min=group["epsilon2"]) for size in root_mean_squares(params)]
        return [alpha * scale for alpha, scale in zip(alphas, scales, strict=True)]

    def _decay(
        self, group: dict[str, Any], params: list[Tensor], rates: list[Any], alphas: Any
    ) -> None:
        if not group["weight_decay"]:
            return
        ones = [1.0] * len(params)
        kinds = {"plain": ones, "learning_rate": rates, "step_size": alphas}
        factors = kinds[group["weight_decay_kind"]]
        torch._foreach_mul_(params, [1 - group["weight_decay"] * factor for factor in factors])

    def _with_momentum(
        self, group: dict[str, Any], updates: list[Tensor], states: tuple[list[Tensor], ...]
    ) -> list[Tensor]:
        if group["beta1"] is None:
            return updates
        torch._foreach_lerp_(states[-1], updates, 1 - group["beta1"])
        return states[-1]

    def _normalized(
        self,
        kind: str,
        group: dict[str, Any],
        grads: list[Tensor],
        steps: list[Any],
        states: tuple[list[Tensor], ...],
    ) -> list[Tensor]:
        """Returns g / sqrt(V) for each gradient; updates the moments."""
        shares = [self._share_of_new(group, t) for t in steps]
        clamps = group["epsilon1_mode"] == "clamp"
        floor = _floor(group, grads[0].dtype) if clamps else None
        squares = torch._foreach_mul(grads, grads)
        if not clamps:
            torch._foreach_add_(squares, group["epsilon1"])
        if "whole" in kind:
            _average(states[0], squares, shares)
            variances = states[0]
            if clamps:
                variances = torch._foreach_clamp_min(variances, floor**2)
            return torch._foreach_div(grads, torch._foreach_sqrt(variances))
        axes = [self.factored_axes(gradient, group) for gradient in grads]
        rows, columns = states[:2]
        _average(rows, [s.mean(d0) for s, (d0, _) in zip(squares, axes, strict=True)], shares)
        _average(columns, [s.mean(d1) for s, (_, d1) in zip(squares, axes, strict=True)], shares)
        return [
            _divided(*tensors, floor) for tensors in zip(grads, rows, columns, axes, strict=True)
        ]

    def _share_of_new(self, group: dict[str, Any], t: Any) -> Any:
        share = _most(t - group["step_offset"], 1.0) ** -group["decay_rate"]
        cap = group["beta_2_cap"]
        return share if cap is None else _most(share, 1 - cap)


def checked_switches(variant: str, switches: dict[str, Any]) -> dict[str, Any]:
    """Returns the value of every switch.

    Raises:
        ConfigError: For what is wrong with them.
    """
    config = AdafactorConfig({"variant": variant, **switches})
    problems = [config._problem("conflict", *conflict) for conflict in config.impossible()]
    if config.include_in_weight_decay is not None:
        message = "names are for configs: give the group `weight_decay` 0"
        problems.append(config._problem("conflict", "include_in_weight_decay", message))
    if problems:
        raise ConfigError(problems)
    named = ("name", "include_in_weight_decay")
    values = {k: v for k, v in config.arguments().items() if k not in named}
    return {**values, "weight_decay": config.weight_decay or 0.0}


def _average(averages: list[Tensor], values: list[Tensor], shares: list[Any]) -> None:
    """Moves averages towards values by a share of each; changes `values`."""
    torch._foreach_mul_(averages, [1 - share for share in shares])
    torch._foreach_mul_(values, shares)
    torch._foreach_add_(averages, values)


def _divided(
    gradient: Tensor, row: Tensor, column: Tensor, axes: tuple[int, int], floor: float | None
) -> Tensor:
    """Returns g / sqrt(V), with V from row and column means."""
    d0, d1 = axes
    column = column.unsqueeze(d1)
    # The row has lost axis d0, so d1 may have moved down by one.
    mean = row.mean(d1 - (d1 > d0), keepdim=True)
    if floor is None:
        # Apart, roots do not underflow where that of a product or a quotient would: of a row of
        # zeros beside large gradients, for one, where subnormal numbers are 0.
        return gradient * (mean.sqrt() * row.rsqrt()).unsqueeze(d0) * column.rsqrt()
    variance = (row / mean.clamp(min=floor)).unsqueeze(d0) * column
    return gradient * variance.clamp(min=floor**2).rsqrt()


def _floor(group: dict[str, Any], dtype: torch.dtype) -> float:
    return torch.finfo(dtype).eps if group["epsilon1"] is None else group["epsilon1"]


def root_mean_squares(tensors: list[Tensor]) -> list[Tensor]:
    norms = torch._foreach_norm(tensors)
    return [norm / x.numel() ** 0.5 for norm, x in zip(norms, tensors, strict=True)]


def _least(one: Any, other: Any) -> Any:
    """Returns the smaller of two, numbers or, where torch compiles, tensors."""
    if isinstance(one, Tensor) or isinstance(other, Tensor):
        return torch.minimum(torch.as_tensor(one), torch.as_tensor(other))
    return min(one, other)


def _most(one: Any, other: Any) -> Any:
    return -_least(-one, -other)
