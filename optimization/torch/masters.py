"""Float32 copies of weights in float16 and bfloat16, in the state of their optimizer."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.torch.fused import lay_out_state, made_ready

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
    """

    master_weights: bool = True  # whether there are copies
    average: Any = None  # refers to the average of weights that steps move, if there is one
    _before_loading: Any = None

    def has_master(self, parameter: Tensor) -> bool:
        """Says whether a parameter is updated through a copy."""
        return self.master_weights and parameter.dtype in LOW_PRECISION

    def updater_of(self, group: Mapping[str, Any]) -> Any:
        """Returns the optimizer whose algorithm updates a group."""
        return self

    def weight_of(self, parameter: Tensor) -> Tensor:
        """Returns what the optimizer updates: a parameter, or its copy, brought up to date."""
        master = self.state.get(parameter, {}).get(MASTER)
        if master is None or not self.has_master(parameter):
            return parameter
        return brought_up_to_date(master, parameter)

    def install_hooks(self) -> None:
        """Adds the hooks that the class has, which torch drops from copies and pickles."""
        if self._before_loading not in (None, *self._optimizer_load_state_dict_pre_hooks.values()):
            self.register_load_state_dict_pre_hook(self._before_loading)

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
            lay_out_state(self.state.get(parameter, {}), parameter)

    def keeps_float32(self, parameter: Tensor) -> bool:
        """Says whether a parameter's state is float32 though the parameter is not."""
        return self.has_master(parameter)


class ThroughCopies(ExactState):
    """Mixin that has any optimizer update float32 copies, in the place of the parameters.

    `plain_step` is its step without hooks. During it groups and state hold the copies, each with
    the gradient of its parameter; hooks, closures and all else see the parameters.
    """

    plain_step: Callable[..., Any]
    gradient_divisor: Tensor | None = None  # by which the next step divides the gradients

    @property
    def divides_gradients(self) -> bool:
        """Whether steps divide by `gradient_divisor`."""
        return not torch.compiler.is_compiling() and all(g.get("fused") for g in self.param_groups)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step, as every optimizer does."""
        dtypes = {p.dtype for group in self.param_groups for p in group["params"]}
        if self.master_weights and not dtypes.isdisjoint(LOW_PRECISION):
            return self._step_through_copies(closure)
        return self._fused_step(closure)

    def _fused_step(self, closure: Callable[[], Any] | None) -> Any:
        """Takes the plain step; a kernel of torch that is fused finds what it needs for it."""
        if torch.compiler.is_compiling():
            return self.plain_step(closure)
        divisor, self.gradient_divisor = self.gradient_divisor, None
        if closure is None:
            with made_ready(self, divisor):
                return self.plain_step(None)
        with contextlib.ExitStack() as stack:

            def evaluate() -> Any:
                with torch.enable_grad():
                    loss = closure()
                stack.enter_context(made_ready(self, None))
                return loss

            return self.plain_step(evaluate)

    # What stands in the place of what changes at each step: nothing that torch could compile.
    @torch.compiler.disable
    def _step_through_copies(self, closure: Callable[[], Any] | None) -> Any:
        taken: list[tuple[list[Tensor], int, Tensor]] = []
        if closure is None:
            self._put_copies(taken)
            evaluate = None
        else:

            def evaluate() -> Any:
                self._give_back(taken)
                with torch.enable_grad():
                    loss = closure()
                self._put_copies(taken)
                return loss

        try:
            return self._fused_step(evaluate)
        finally:
            self._give_back(taken)

    @torch.no_grad()
    def _put_copies(self, taken: list[tuple[list[Tensor], int, Tensor]]) -> None:
        """Puts copies into groups and state, for parameters that have a gradient."""
        for group in self.param_groups:
            params = group["params"]
            for index, parameter in enumerate(params):
                has_master = self.has_master(parameter) and not group.get("differentiable")
                if parameter.grad is None or not has_master:
                    continue
                own = {k: in_float32(v) for k, v in self.state.pop(parameter, {}).items()}
                master = own.pop(MASTER) if MASTER in own else parameter.detach().float()
                master = brought_up_to_date(master, parameter)
                master.grad = parameter.grad.float()
                if own:
                    self.state[master] = own
                params[index] = master
                taken.append((params, index, parameter))

    @torch.no_grad()
    def _give_back(self, taken: list[tuple[list[Tensor], int, Tensor]]) -> None:
        """Puts the parameters back, with the values of their copies."""
        for params, index, parameter in taken:
            master, params[index] = params[index], parameter
            master.grad = None
            self.state[parameter] = {**self.state.pop(master, {}), MASTER: master}
            parameter.copy_(master)
        taken.clear()


@torch.no_grad()
def brought_up_to_date(master: Tensor, weight: Tensor) -> Tensor:
    """Returns a copy after it has taken over, in place, what was assigned to its weight."""
    same = master.to(weight.dtype) == weight
    return master.copy_(torch.where(same, master, weight.to(master.dtype)))


def in_float32(value: Any) -> Any:
    """Returns a value of the state, in float32 where it is a tensor of low precision."""
    is_low = isinstance(value, Tensor) and value.dtype in LOW_PRECISION
    return value.float() if is_low else value
