"""What the classes of schedule-free optimizers have besides: x for evaluation, y for training."""

import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch

from optimization.rules.rule import Numbers, Slot
from optimization.rules.schedule_free import ScheduleFreeFields
from optimization.torch.functions import FUNCTIONS, ListState
from optimization.torch.lists import Tensors
from optimization.torch.rule_optimizer import RuleOptimizer
from optimization.torch.shards import own_part


class ScheduleFree(RuleOptimizer):
    """An optimizer of PyTorch that is made of a rule which averages weights by itself.

    Parameters hold y while they train, z is state, and x is computed from both: call `eval()`
    before an evaluation, or before the weights are saved, and `train()` before training goes on.
    (The Trainer of transformers does.) Statistics of batch normalization are those of y: run some
    batches through the model with x first. Counts and sums are numbers of the groups, as in the
    authors' package: `torch.compile` lets `step` run as it is, and does not compile it.
    """

    rule: ClassVar[ScheduleFreeFields]

    @property
    def counts(self) -> dict[str, Any]:
        return {"k": 0, **{s.native: s.start for s in self.rule.shared}, "train_mode": True}

    @property
    def shared(self) -> tuple[Slot, ...]:
        return ()  # groups have it

    def eval(self) -> None:
        """Has the parameters hold x; does nothing where they do."""
        self._hold(self.rule.to_evaluate, trains=False)

    def train(self) -> None:
        """Has the parameters hold y; does nothing where they do."""
        self._hold(self.rule.to_train, trains=True)

    @torch.no_grad()
    def _hold(self, other: Callable[..., Tensors], trains: bool) -> None:
        for group in self.param_groups:
            h = self.numbers(group, {})
            for parameter in group["params"] if group["train_mode"] != trains else ():
                z = own_part(self.state.get(parameter, {}).get("z"))
                if z is not None:
                    weight = own_part(self.weight_of(parameter))
                    held = Tensors([weight.to(z.dtype)])
                    weight.copy_(other(held, ListState({"z": [z]}), h).tensors()[0])
                    own_part(parameter).copy_(weight)
            group["train_mode"] = trains

    # Numbers of groups that change would have it compiled anew at each step.
    @torch.compiler.disable
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step, as other optimizers do; a `RuntimeError` where the parameters hold x."""
        check_training(self.param_groups)
        return super().step(closure)

    def numbers(self, group: Mapping[str, Any], own: Mapping[str, Any]) -> Numbers:
        """Returns the numbers of a group, with what it shares."""
        return Numbers(**vars(super().numbers(group, own)), **self._shared_of(group))

    def count(self, group: Mapping[str, Any], counts: Sequence[Any]) -> Any:
        """Returns the updates of the group."""
        return group["k"]

    # Groups keep the sum itself, as the authors' package does; the rule has it in units of the last
    # weight, for float32.

    def _shared_of(self, group: Mapping[str, Any]) -> dict[str, Any]:
        shared = {slot.name: group[slot.native] for slot in self.rule.shared}
        last = _weight(group)
        return {**shared, "sum_of_weights": group["weight_sum"] / last if last else 0.0}

    def _prepare(self, group: dict[str, Any]) -> None:
        h, shared = self.numbers(group, {}), types.SimpleNamespace(**self._shared_of(group))
        h.done, h.t = group["k"], group["k"] + 1
        self.rule.prepare(shared, h, FUNCTIONS)
        group["k"] += 1
        for slot in self.rule.shared:
            group[slot.native] = getattr(shared, slot.name)
        group["weight_sum"] = shared.sum_of_weights * _weight(group)


def check_training(groups: Sequence[Mapping[str, Any]]) -> None:
    """Raises a `RuntimeError` where parameters hold x."""
    if not all(group.get("train_mode", True) for group in groups):
        raise RuntimeError("The parameters are those to evaluate: call `train()` first.")


def _weight(group: Mapping[str, Any]) -> float:
    """Returns the weight of the last update in the average."""
    return group["k"] ** group["r"] * group["lr_max"] ** group["weight_lr_power"]
