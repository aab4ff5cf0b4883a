"""What the classes of optimizers have besides whose rule takes sums over all parameters."""

import types
from collections.abc import Callable, Mapping
from typing import Any

import torch

from optimization.rules.rule import Numbers, Slot
from optimization.torch.functions import FUNCTIONS
from optimization.torch.rule_optimizer import RuleOptimizer
from optimization.torch.shards import own_part


class Summed(RuleOptimizer):
    """An optimizer of PyTorch that is made of a rule which takes sums over all parameters.

    What is made of them is a number of each group, the same in all: `torch.compile` lets `step` run
    as it is, and does not compile it.
    """

    @property
    def counts(self) -> dict[str, Any]:
        return dict.fromkeys((slot.native for slot in self.rule.shared), None)

    @property
    def shared(self) -> tuple[Slot, ...]:
        return ()  # groups have it

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as torch does; it goes on with the numbers that the first has."""
        super().add_param_group(param_group)
        first, group = self.param_groups[0], self.param_groups[-1]
        h = super().numbers(group, {})
        for slot in self.rule.shared:
            if group[slot.native] is None:
                known = first[slot.native]
                group[slot.native] = slot.first(h) if known is None else known

    # Numbers of groups that change would have it compiled anew at each step.
    @torch.compiler.disable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step, as other optimizers do."""
        loss = super().step(closure)
        if any(p.grad is not None for group in self.param_groups for p in group["params"]):
            self._conclude()
        return loss

    def numbers(self, group: Mapping[str, Any], own: Mapping[str, Any]) -> Numbers:
        """Returns the numbers of a group, with what it shares."""
        return Numbers(**vars(super().numbers(group, own)), **self._shared_of(group))

    def _shared_of(self, group: Mapping[str, Any]) -> dict[str, Any]:
        return {slot.name: group[slot.native] for slot in self.rule.shared}

    @torch.no_grad()
    def _conclude(self) -> None:
        """Moves what groups share, once all parameters are updated."""
        keys = {slot.name: slot.native for slot in self.slots if slot.name in self.rule.summed}
        sums = {name: self._sum(key) for name, key in keys.items()}
        for group in self.param_groups:
            shared = types.SimpleNamespace(**self._shared_of(group))
            h = Numbers(**{**vars(super().numbers(group, {})), **sums})
            self.rule.conclude(shared, h, FUNCTIONS)
            for slot in self.rule.shared:
                group[slot.native] = getattr(shared, slot.name)

    def _sum(self, key: str) -> float:
        """Returns the sum of what the state of all parameters has under a key."""
        params = [p for group in self.param_groups for p in group["params"]]
        states = [self.state[p] for p in params if p in self.state]
        kept = [own_part(state[key]).double() for state in states if key in state]
        return float(sum(x.to(kept[0].device) for x in kept))
