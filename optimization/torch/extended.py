"""Optimizers of the factory: a class of torch, or of this package, that keeps its hooks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.caching import cached
from optimization.torch import foreign
from optimization.torch.gradients import GradientRules
from optimization.torch.masters import ExactState, ThroughCopies
from optimization.torch.resume import STEP, TYPE, resume, steps_done
from optimization.torch.rule_optimizer import RuleOptimizer
from optimization.torch.texts import optimizer_text

_KEPT = ("gradient_rules", "factory", "order", "schedule_step")
# What torch puts around the `step` of a class when it makes an instance.
_HOOKED = Optimizer.profile_hook_step(lambda optimizer: None).__code__


class Extended(ExactState):
    """Gives an optimizer what the factory adds to it, as hooks of torch.

    torch does not keep hooks when an optimizer is copied or pickled; without its clips the copy
    would train otherwise.

    Attributes:
        gradient_rules: The clips.
        factory: What built the optimizer, and knows its settings at every step.
        order: The names of its parameters, as the model has them.
        schedule_step: The steps that the scheduler has counted; None before there is one.
    """

    base: ClassVar[type[Optimizer]]
    gradient_rules: GradientRules | None = None
    factory: Any = None
    order: Sequence[str] = ()
    schedule_step: int | None = None
    _before_loading = staticmethod(resume)

    def __repr__(self) -> str:
        return optimizer_text(self)

    def _install(self) -> None:
        if self._before_loading not in self._optimizer_load_state_dict_pre_hooks.values():
            self.register_load_state_dict_pre_hook(self._before_loading)
        rules = self.gradient_rules
        if rules is not None and rules not in self._optimizer_step_pre_hooks.values():
            self.register_step_pre_hook(rules)

    def state_dict(self) -> dict[str, Any]:
        """Returns what torch does; each group says the type of the optimizer, and the step."""
        state = super().state_dict()
        for group in state["param_groups"]:
            group.setdefault(TYPE, self.param_groups[0][TYPE])
            if self.schedule_step is not None:
                group[STEP] = self.schedule_step
        return state

    def steps_done(self) -> int | None:
        """Returns the steps that the scheduler has counted, or else those of the parameters."""
        return steps_done(self.schedule_step, self.state.values())

    def kept_state(
        self, parameter: Tensor, group: Mapping[str, Any]
    ) -> dict[str, torch.Size] | None:
        """Returns what is kept of a parameter besides `step`, with shapes; None if not known."""
        if not isinstance(self, RuleOptimizer):
            return foreign.torchs_state(self, parameter, group)
        state = self.initial_state(torch.empty_like(parameter, device="meta"), group)
        return {name: value.shape for name, value in state.items()}

    def fresh_state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns that state as it is before the first update."""
        if isinstance(self, RuleOptimizer):
            return self.initial_state(parameter, group)
        kept = foreign.torchs_state(self, parameter, group) or {}
        return {name: parameter.new_zeros(shape) for name, shape in kept.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _KEPT}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            if STEP in group:  # put there to be loaded
                state = {**state, "schedule_step": group.pop(STEP)}
        super().__setstate__(state)
        self._install()

    def __reduce__(self) -> tuple:
        return blank, (self.base,), self.__getstate__()


@cached
def extended(base: type[Optimizer]) -> type[Extended]:
    """Returns the class `base` with what the factory adds, under the same name."""
    names = ("__doc__", "__module__", "__qualname__")
    members: dict[str, Any] = {name: getattr(base, name) for name in names}
    members["base"] = base
    if issubclass(base, ExactState):
        return type(base.__name__, (Extended, base), members)
    members["plain_step"] = without_hooks(base.step)
    return type(base.__name__, (Extended, ThroughCopies, base), members)


def build(
    base: type[Optimizer],
    params: Any,
    rules: GradientRules | None,
    *,
    factory: Any,
    order: Sequence[str],
    master_weights: bool,
    **arguments: Any,
) -> Extended:
    """Returns an optimizer of the class `base`.

    Args:
        base: A class of torch, of this package, or of one's own.
        params: Its parameter groups.
        rules: Act on gradients first.
        factory: What builds it.
        order: The names of all parameters, as the model has them.
        master_weights: Whether low precision weights have copies in float32.
        **arguments: Other arguments of the class.
    """
    optimizer = extended(base)(params, **arguments)
    optimizer.master_weights = master_weights
    optimizer.gradient_rules, optimizer.factory = rules, factory
    # Frozen ones are in no group.
    trained = {name for group in optimizer.param_groups for name in group["param_names"]}
    optimizer.order = [name for name in order if name in trained]
    optimizer._install()
    return optimizer


def without_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a step that runs no hooks: the class that has it inside its own runs them."""
    while getattr(step, "__code__", None) is _HOOKED:
        step = getattr(step, "__wrapped__")  # noqa: B009  it has one
    return step


def blank(base: type[Optimizer]) -> Optimizer:
    """Returns an extended optimizer that has nothing yet, for `__setstate__`."""
    cls = extended(base)
    return cls.__new__(cls)
