"""Float32 copies of weights in float16 and bfloat16, in the state of their optimizer."""

import contextlib
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.rules.state_config import StateConfig
from optimization.torch.fused import are_exact, lay_out_state, made_ready
from optimization.torch.shards import aligned, any_split, is_split, own_part, split_as

LOW_PRECISION = (torch.float16, torch.bfloat16)
_USUAL = StateConfig()
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
    precision: StateConfig | None = None  # how precise state is; None for float32
    average: Any = None  # refers to the average of weights that steps move, if there is one
    taken: int = 0  # the steps so far that were not left out, where an average asks
    _before_loading: Any = None

    def has_master(self, parameter: Tensor) -> bool:
        """Says whether a parameter is updated through a copy."""
        if parameter.dtype == torch.bfloat16 and not (self.precision or _USUAL).has_copies:
            return False
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
        own = {"master_weights": self.master_weights, "precision": self.precision}
        return {**super().__getstate__(), **own}

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
            for name, value in saved.items():
                if not isinstance(value, Tensor) or name == "step":
                    continue
                if value.dtype == torch.float64 and not value.dim():  # a number, not of entries
                    self.state[parameter][name] = value.clone()
                elif updater.keeps_float32(parameter):
                    self.state[parameter][name] = in_float32(value.to(parameter.device, copy=True))
            for name in updater.low_state():
                if name in self.state.get(parameter, {}):
                    self.state[parameter][name] = self.state[parameter][name].bfloat16()
            if MASTER in saved and not self.has_master(parameter):
                del self.state[parameter][MASTER]
            lay_out_state(self.state.get(parameter, {}), parameter)

    def low_state(self) -> list[str]:
        """Returns the keys of the state that is kept in bfloat16."""
        return []

    def keeps_float32(self, parameter: Tensor) -> bool:
        """Says whether a parameter's state is float32 though the parameter is not."""
        return self.has_master(parameter)


class _Taken(NamedTuple):
    """A parameter in whose place something else is updated, the whole of that, and its state."""

    params: list[Tensor]
    place: int
    parameter: Tensor
    master: Tensor
    state: dict[str, Any]


class ThroughCopies(ExactState):
    """Mixin that has any optimizer update float32 copies, or shards, in the place of parameters.

    `plain_step` is its step without hooks. During it groups and state hold the copies, each with
    the gradient of its parameter; hooks, closures and all else see the parameters. Of a parameter
    that is split over processes they hold the shard, a plain tensor: what the optimizer computes
    must be elementwise.
    """

    plain_step: Callable[..., Any]
    gradient_divisor: Tensor | None = None  # by which the next step divides the gradients
    has_layouts: bool = False  # whether weights or gradients have not been contiguous once

    # torch's fused classes say with it that they undo the scale of a `GradScaler` by themselves,
    # which they do if all groups are fused, and no gradient is sparse.
    @property
    def _step_supports_amp_scaling(self) -> bool:
        grads = [p.grad for group in self.param_groups for p in group["params"]]
        is_sparse = any(g is not None and g.layout != torch.strided for g in grads)
        are_fused = all(group.get("fused") for group in self.param_groups)
        return self.__dict__.get("_undoes_scale", False) and are_fused and not is_sparse

    @_step_supports_amp_scaling.setter
    def _step_supports_amp_scaling(self, value: bool) -> None:
        self.__dict__["_undoes_scale"] = value

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as torch does; one that a fused kernel can't update is not fused."""
        is_later = "_undoes_scale" in self.__dict__ or bool(self.state)
        super().add_param_group(param_group)
        group = self.param_groups[-1]
        if group.get("fused") and not are_exact(group, getattr(self, "base", type(self)), is_later):
            group["fused"] = False

    @property
    def divides_gradients(self) -> bool:
        """Whether steps divide by `gradient_divisor`."""
        return not torch.compiler.is_compiling() and all(g.get("fused") for g in self.param_groups)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step, as every optimizer does."""
        params = [p for group in self.param_groups for p in group["params"]]
        are_low = not {parameter.dtype for parameter in params}.isdisjoint(LOW_PRECISION)
        if (self.master_weights and are_low) or any_split(params):
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
        taken: list[_Taken] = []
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
    def _put_copies(self, taken: list[_Taken]) -> None:
        """Puts copies and shards into groups and state, for parameters that have a gradient."""
        for group in self.param_groups:
            params = group["params"]
            for index, parameter in enumerate(params):
                has_master = self.has_master(parameter) and not group.get("differentiable")
                if parameter.grad is None or not (has_master or is_split(parameter)):
                    continue
                own, master = self.state.pop(parameter, {}), parameter
                if has_master:
                    own = {k: in_float32(v) for k, v in own.items()}
                    master = own.pop(MASTER) if MASTER in own else parameter.detach().float()
                    master = brought_up_to_date(master, parameter)
                gradient = own_part(aligned(parameter.grad, parameter))
                updated = own_part(master).detach() if is_split(parameter) else master
                updated.grad = gradient.to(updated.dtype)
                if own:
                    self.state[updated] = {k: own_part(v) for k, v in own.items()}
                params[index] = updated
                taken.append(_Taken(params, index, parameter, master, own))

    @torch.no_grad()
    def _give_back(self, taken: list[_Taken]) -> None:
        """Puts the parameters back, with the values of their copies."""
        for params, place, parameter, master, before in taken:
            updated, params[place] = params[place], parameter
            updated.grad = None
            state = self.state.pop(updated, {})
            if is_split(parameter):
                state = {k: _split_again(k, v, before, parameter) for k, v in state.items()}
            if master is not parameter:
                state[MASTER] = master
                own_part(parameter).copy_(own_part(master))
            if state:
                self.state[parameter] = state
        taken.clear()


def _split_again(name: str, value: Any, before: Mapping[str, Any], parameter: Tensor) -> Any:
    """Returns the state of a shard as that of its parameter."""
    if own_part(before.get(name)) is value:
        return before[name]
    is_shard = isinstance(value, Tensor) and value.dim() and name != "step"
    same = is_shard and value.shape == own_part(parameter).shape
    return split_as(value, parameter) if same else value


@torch.no_grad()
def brought_up_to_date(master: Tensor, weight: Tensor) -> Tensor:
    """Returns a copy after it has taken over, in place, what was assigned to its weight."""
    kept, given = own_part(master), own_part(weight)
    same = kept.to(given.dtype) == given
    kept.copy_(torch.where(same, kept, given.to(kept.dtype)))
    return master


def in_float32(value: Any) -> Any:
    """Returns a value of the state, in float32 where it is a tensor of low precision."""
    is_low = isinstance(value, Tensor) and value.dtype in LOW_PRECISION
    return value.float() if is_low else value
