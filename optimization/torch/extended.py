"""Optimizers of the factory: a class of torch, or of this package, that keeps its hooks."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.caching import cached
from optimization.configs.spike_config import ZClipConfig
from optimization.torch.flat import refuse_flat
from optimization.torch.foreign import torchs_state
from optimization.torch.gradients import GradientRules
from optimization.torch.masters import ExactState, ThroughCopies
from optimization.torch.resume import STEP, TYPE, resume, steps_done
from optimization.torch.rule_optimizer import RuleOptimizer
from optimization.torch.spikes import SKIPPED, ZCLIP, count_of
from optimization.torch.texts import optimizer_text

_KEPT = ("gradient_rules", "factory", "order", "shapes", "schedule_step")
# What torch puts around the `step` of a class when it makes an instance.
_HOOKED = Optimizer.profile_hook_step(lambda optimizer: None).__code__


class Extended(ExactState):
    """Gives an optimizer what the factory adds to it, as hooks of torch.

    torch drops hooks where an optimizer is copied or pickled: without its clips a copy would train
    otherwise. `order` has the names of the parameters as the model has them, `shapes` their shapes
    by name, and `schedule_step` the steps that the scheduler has counted; None before there is one.
    """

    base: ClassVar[type[Optimizer]]
    gradient_rules: GradientRules = GradientRules()
    factory: Any = None
    order: Sequence[str] = ()
    shapes: Mapping[str, tuple[int, ...]] = {}
    schedule_step: int | None = None
    skipped: bool = False  # whether the last step was left out as a spike
    losses: Sequence[Any] = ()  # of the next step, at which `skip_spikes` looks
    _before_loading = staticmethod(resume)

    __repr__ = optimizer_text

    def install_hooks(self) -> None:
        super().install_hooks()
        there = self._optimizer_step_pre_hooks.values()
        if _check_once not in there:
            self.register_step_pre_hook(_check_once)
        if self.gradient_rules not in (None, GradientRules(), *there):  # None in old pickles
            self.register_step_pre_hook(self.gradient_rules)

    @property
    def skipped_spikes(self) -> int:
        """The steps left out so far since they were spikes."""
        return count_of(self.param_groups, SKIPPED)

    @property
    def clipped_spikes(self) -> int:
        """The steps whose gradients ZClip has clipped."""
        kept = [group[ZCLIP] for group in self.param_groups if ZCLIP in group]
        return int(kept[0][ZClipConfig.CLIPPED]) if kept else 0

    def tell_loss(self, loss: Any) -> None:
        """Takes a loss of the step to come, for `skip_spikes`; several of one step are averaged."""
        if self.gradient_rules.skip_spikes is not None:
            self.losses = [*self.losses, loss]

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

    def fresh_state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor] | None:
        """Returns what is kept of a parameter besides `step`, at first; None if not known."""
        if isinstance(self, RuleOptimizer):
            return self.initial_state(parameter, group)
        return torchs_state(self, parameter, group)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), **{name: getattr(self, name) for name in _KEPT}}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for group in state["param_groups"]:
            if STEP in group:  # put there to be loaded
                state = {**state, "schedule_step": group.pop(STEP)}
        super().__setstate__(state)
        self.install_hooks()

    def __reduce__(self) -> tuple:
        return blank, (self.base,), self.__getstate__()


def _check_once(optimizer: Any, *_: Any) -> None:
    """Refuses, before the first step, parameters that a wrapper has put in the place of others."""
    if not (torch.compiler.is_compiling() or optimizer.__dict__.get("_is_checked")):
        refuse_flat(optimizer, optimizer.shapes)
        optimizer._is_checked = True


@cached
def extended(base: type[Optimizer]) -> type[Extended]:
    """Returns the class `base` with what the factory adds, under the same name."""
    names = ("__doc__", "__module__", "__qualname__")
    members: dict[str, Any] = {"base": base, **{name: getattr(base, name) for name in names}}
    if issubclass(base, ExactState):
        return type(base.__name__, (Extended, base), members)
    members["plain_step"] = without_hooks(base.step)
    return type(base.__name__, (Extended, ThroughCopies, base), members)


def without_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """Returns a step that runs no hooks: the class that has it inside its own runs them."""
    while getattr(step, "__code__", None) is _HOOKED:
        step = getattr(step, "__wrapped__")  # noqa: B009  it has one
    return step


def blank(base: type[Optimizer]) -> Optimizer:
    """Returns an extended optimizer that has nothing yet, for `__setstate__`."""
    cls = extended(base)
    return cls.__new__(cls)
