"""Float32 copies of weights in float16 and bfloat16, in the state of their optimizer."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

LOW_PRECISION = (torch.float16, torch.bfloat16)
MASTER = "master"
"""Under this key the state of a parameter has its copy."""


class ExactState(Optimizer):
    """Mixin for a `torch.optim.Optimizer`: state of low precision weights is float32, and stays so.

    A step smaller than half the distance to the next number of a weight's dtype would be lost. So
    the state of a parameter in float16 or bfloat16 has a float32 copy of it, which is updated in
    its place (Micikevicius et al. 2018, arXiv:1710.03740). A weight always is its copy, cast. Where
    it is not, because somebody assigned to the weight, the copy starts from the weight again,
    component by component.

    Attributes:
        master_weights: Whether there are copies. Without them weights are updated as they are.
    """

    master_weights: bool = True

    def has_master(self, parameter: Tensor) -> bool:
        """Says whether a parameter is updated through a copy."""
        return self.master_weights and parameter.dtype in LOW_PRECISION

    def updater_of(self, group: Mapping[str, Any]) -> Any:
        """Returns the optimizer whose algorithm updates a group."""
        del group
        return self

    def weight_of(self, parameter: Tensor) -> Tensor:
        """Returns what the optimizer updates: a parameter, or its copy, brought up to date."""
        master = self.state.get(parameter, {}).get(MASTER)
        if master is None or not self.has_master(parameter):
            return parameter
        return brought_up_to_date(master, parameter)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "master_weights": self.master_weights}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Loads what `state_dict` returned; float32 state of low precision stays float32."""
        loaded: dict[str, Any] = {}
        # The last hook before loading sees what is loaded, the first one after it restores what
        # torch has cast to the dtype of the parameters.
        before = self.register_load_state_dict_pre_hook(lambda _, saved: loaded.update(saved))
        after = self.register_load_state_dict_post_hook(
            lambda _: self._restore_exactly(loaded), prepend=True
        )
        try:
            super().load_state_dict(state_dict)
        finally:
            before.remove()
            after.remove()

    def _restore_exactly(self, state_dict: dict[str, Any]) -> None:
        known = [
            (p, self.updater_of(group)) for group in self.param_groups for p in group["params"]
        ]
        indices = [index for group in state_dict["param_groups"] for index in group["params"]]
        for (parameter, updater), index in zip(known, indices, strict=True):
            saved = state_dict["state"].get(index, {})
            for name, value in saved.items() if updater.keeps_float32(parameter) else ():
                if isinstance(value, Tensor) and name != "step":
                    self.state[parameter][name] = in_float32(value.to(parameter.device, copy=True))
            if MASTER in saved and not self.has_master(parameter):
                del self.state[parameter][MASTER]

    def keeps_float32(self, parameter: Tensor) -> bool:
        """Says whether a parameter's state is float32 though the parameter is not."""
        return self.has_master(parameter)


class ThroughCopies(ExactState):
    """Mixin that has any optimizer update float32 copies, in the place of the parameters.

    `plain_step` is its step without hooks. During it groups and state hold the copies, each with
    the gradient of its parameter; hooks, closures and all else see the parameters.
    """

    plain_step: Callable[..., Any]

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step.

        Args:
            closure: Computes the loss, and its gradients, once more.

        Returns:
            The loss that `closure` returned, None without one.
        """
        params = (p for group in self.param_groups for p in group["params"])
        if any(self.has_master(parameter) for parameter in params):
            return self._step_through_copies(closure)
        return self.plain_step(closure)

    # What stands in the place of what changes at each step: nothing that torch could compile.
    @torch.compiler.disable
    def _step_through_copies(self, closure: Callable[[], Any] | None) -> Any:
        copies = _Copies(self)
        if closure is None:
            copies.take_place()
        try:
            return self.plain_step(None if closure is None else copies.around(closure))
        finally:
            copies.give_back()


class _Copies:
    """The copies of an optimizer's parameters while they are in the place of these."""

    def __init__(self, optimizer: ExactState):
        self._optimizer = optimizer
        self._taken: list[tuple[list[Tensor], int, Tensor]] = []

    def around(self, closure: Callable[[], Any]) -> Callable[[], Any]:
        """Returns a closure that finds the parameters in their places."""

        def called() -> Any:
            self.give_back()
            with torch.enable_grad():
                loss = closure()
            self.take_place()
            return loss

        return called

    @torch.no_grad()
    def take_place(self) -> None:
        """Puts copies into groups and state, for parameters that have a gradient."""
        state = self._optimizer.state
        for group in self._optimizer.param_groups:
            params = group["params"]
            for index, parameter in enumerate(params):
                differentiable = group.get("differentiable", False)
                if parameter.grad is None or differentiable:
                    continue
                if not self._optimizer.has_master(parameter):
                    continue
                own = {name: in_float32(value) for name, value in state.pop(parameter, {}).items()}
                master = own.pop(MASTER, None)
                if master is None:
                    master = parameter.detach().float()
                master = brought_up_to_date(master, parameter)
                master.grad = parameter.grad.float()
                if own:
                    state[master] = own
                params[index] = master
                self._taken.append((params, index, parameter))

    @torch.no_grad()
    def give_back(self) -> None:
        """Puts the parameters back, with the values of their copies."""
        state = self._optimizer.state
        for params, index, parameter in self._taken:
            master, params[index] = params[index], parameter
            master.grad = None
            state[parameter] = {**state.pop(master, {}), MASTER: master}
            parameter.copy_(master)
        self._taken.clear()


@torch.no_grad()
def brought_up_to_date(master: Tensor, weight: Tensor) -> Tensor:
    """Returns a copy after it has taken over, in place, what was assigned to its weight."""
    same = master.to(weight.dtype) == weight
    return master.copy_(torch.where(same, master, weight.to(master.dtype)))


def in_float32(value: Any) -> Any:
    """Returns a value of the state, in float32 where it is a tensor of low precision."""
    is_low = isinstance(value, Tensor) and value.dtype in LOW_PRECISION
    return value.float() if is_low else value
