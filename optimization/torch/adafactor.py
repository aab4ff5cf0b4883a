"""Adafactor in every variant that is in use, chosen by switches."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from optimization.configs.errors import ConfigError
from optimization.rules.adafactor import AdafactorConfig
from optimization.rules.rule import Numbers
from optimization.torch.derived import native_class
from optimization.torch.functions import FUNCTIONS, ListState
from optimization.torch.lists import Scalars, Tensors, number
from optimization.torch.rule_optimizer import RuleOptimizer, zeros_like
from optimization.torch.shards import whole

if TYPE_CHECKING:
    _Derived = RuleOptimizer
else:
    _Derived = native_class(AdafactorConfig)


class Adafactor(_Derived):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), its memory factored for real.

    `AdafactorConfig` has the formula and describes the switches. `torch.optim.Adafactor` is
    `variant="torch"`, that of transformers `variant="hf"`.

    >>> weight = torch.nn.Parameter(torch.ones(3, 2))
    >>> optimizer = Adafactor([weight], lr=0.5, beta1=0.9)

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

    rule: ClassVar[AdafactorConfig]
    _latest = 0.0  # the most updates that a parameter has taken

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
        values = checked_switches(variant, switches)
        if (lr is None) != (values["step_size"] == "relative"):
            raise ValueError(
                'Argument `lr` must be None with step_size="relative", which makes the rate '
                f"itself, and only then, received: lr={lr}"
            )
        super().__init__(params, lr, foreach=foreach, maximize=maximize, **values)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._latest = 0.0

    def _makes_rate(self, group: Mapping[str, Any]) -> bool:
        return group["step_size"] == "relative"

    def initial_state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        state = super().initial_state(parameter, group)
        if self._counts_all(group):
            state["step"] = torch.tensor(self._latest, dtype=torch.float64)
        return state

    @staticmethod
    def _counts_all(group: Mapping[str, Any]) -> bool:
        return group["step_count"] == "global"

    def _prepare(self, group: dict[str, Any]) -> None:
        # A global count passes by the parameters without gradients. While torch compiles there is
        # no way to find them, and each parameter counts its own steps.
        if torch.compiler.is_compiling():
            return
        if group is self.param_groups[0]:
            self._latest = max(self._counted().values(), default=0.0)
        if self._counts_all(group):
            for parameter in group["params"]:
                if parameter.grad is not None and self.state.get(parameter):
                    self.state[parameter]["step"].fill_(self._latest)

    def _counted(self) -> dict[Tensor, float]:
        """Returns the updates of the parameters that have taken one."""
        params = [p for group in self.param_groups for p in group["params"]]
        return {p: number(self.state[p]["step"]) for p in params if self.state.get(p)}

    @torch.no_grad()
    def effective_learning_rates(self) -> dict[str, float]:
        """Returns the effective learning rate of each parameter in the update to come.

        That is alpha = rho * max(epsilon2, RMS(w)), rho without the parameter scale.
        `AdafactorSchedule` of transformers shows that of the first parameter of each group, as of
        the update before.

        Returns:
            Name -> alpha; the number of a parameter, from "0" on, where they have no names.
        """
        counts = self._counted()
        latest = max(counts.values(), default=0.0)
        rates: dict[str, float] = {}
        for group in self.param_groups:
            params = group["params"]
            names = group.get("param_names")
            names = names or [str(len(rates) + i) for i in range(len(params))]
            for name, parameter in zip(names, params, strict=True):
                h = self.numbers(group, dict(self.kind_of(parameter, group)))
                h.done = latest if self._counts_all(group) else counts.get(parameter, 0.0)
                weight = whole(self.weight_of(parameter).detach())
                w = Tensors([weight.to(zeros_like(parameter).dtype)])
                norms = Numbers(w=FUNCTIONS.norm(w))
                alpha = self.rule.rates(w, ListState({}), norms, h, FUNCTIONS)[1]
                rates[name] = float(alpha.values[0] if isinstance(alpha, Scalars) else alpha)
        return rates


def checked_switches(variant: str, switches: dict[str, Any]) -> dict[str, Any]:
    """Returns the value of every switch; raises a `ConfigError` for what is wrong with them."""
    config = AdafactorConfig({"variant": variant, **switches})
    problems = [config._problem("conflict", *conflict) for conflict in config.impossible()]
    if config.include_in_weight_decay is not None:
        message = "names are for configs: give the group `weight_decay` 0"
        problems.append(config._problem("conflict", "include_in_weight_decay", message))
    if problems:
        raise ConfigError(problems)
    return _Derived.arguments_of(config)
