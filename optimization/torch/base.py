"""What the optimizers of this package share: a rule is written once, over lists of tensors."""

import numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from optimization.torch.by_name import load_in_our_words
from optimization.torch.masters import LOW_PRECISION, MASTER, ExactState, brought_up_to_date
from optimization.torch.texts import optimizer_text

Lists = list[list[Tensor]]
_INFINITY = float("inf")
_FLOAT32_END = 2.0**128  # what float32 holds is below
_SIZES = (
    *("lr", "eps", "weight_decay", "decoupled_weight_decay", "trust_coefficient"),
    *("initial_accumulator_value", "l1", "l2", "l2_shrinkage", "beta"),
    *("warmup_steps", "r", "weight_lr_power"),
    *("adam_lr_ratio", "adam_eps", "adam_weight_decay"),
)
_PAIRS = ("betas", "adam_betas")
# Where the hyperparameters of these names are: least <= value < limit.
_RANGES = {
    **dict.fromkeys(_SIZES, (0, _INFINITY)),
    **dict.fromkeys(("alpha", "rho", "momentum", *_PAIRS), (0, 1)),
    "ns_steps": (1, _INFINITY),
    "lr": (0, _FLOAT32_END),
}


class ForeachOptimizer(ExactState):
    """An optimizer that updates lists of tensors by `torch._foreach_*` operations.

    With `foreach` True or None a list holds all parameters of one device and dtype, with False a
    single one: the same rule, the same numbers.

    A subclass says in `state_names` which state a parameter has besides `step`, the number of
    updates that it has taken, and has the rule as its method `_update`. Where parameters differ in
    the rule, `kind_of` says the kind of each, and `state_names` has an entry for each kind.

    State is float32 for parameters in float16 and bfloat16, and has a float32 copy of each, which
    is what is updated: see `ExactState`. Without copies, `master_weights = False`, they are updated
    in float32 and rounded after each step. `state_dict` of parameters that were given with names
    can be loaded in another order: see `load_by_name`.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        defaults: The hyperparameters that groups may replace.
        foreach: See above.
        maximize: Whether the loss is maximized.

    Raises:
        ValueError: As `check_group`, for the defaults and for any group.
    """

    state_names: ClassVar[Mapping[str, tuple[str, ...]]] = {"all": ()}
    group_state: ClassVar[tuple[str, ...]] = ()  # what groups count, beside their settings
    _before_loading = staticmethod(load_in_our_words)

    def __init__(self, params: Any, defaults: dict[str, Any], foreach: bool | None, maximize: bool):
        self.check_group(defaults)
        super().__init__(params, {**defaults, "foreach": foreach, "maximize": maximize})
        self.register_load_state_dict_pre_hook(self._before_loading)

    def __repr__(self) -> str:
        return optimizer_text(self)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as torch does, after `check_group`."""
        if isinstance(param_group, dict):  # else torch says so
            self.check_group({k: param_group.get(k, v) for k, v in self.defaults.items()})
        super().add_param_group(param_group)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Checks the hyperparameters of a group.

        Raises:
            ValueError: For the first that is out of its range.
        """
        for name, (least, limit) in _RANGES.items():
            if name not in group:
                continue
            given = group[name]
            is_pair = name in _PAIRS
            values = _elements(given) if is_pair else [given]
            if len(values) != 1 + is_pair or not all(_is_in(v, least, limit) for v in values):
                bound = f">= {least}" if limit > 1 else f"in [{least}, {limit})"
                bound += " and finite in float32" if limit == _FLOAT32_END else ""
                needed = f"{'two numbers' if is_pair else 'a number'} {bound}"
                raise ValueError(f"Argument `{name}` must be {needed}, received: {name}={given}")

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for saved in self.state.values():
            # A number in old versions of torch, and in the AdamW of transformers.
            if saved:  # torch's own counts are float32, which has no 2**24 + 1
                saved["step"] = torch.as_tensor(saved.get("step", 0), dtype=torch.float64)
        if self._before_loading not in self._optimizer_load_state_dict_pre_hooks.values():
            self.register_load_state_dict_pre_hook(self._before_loading)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step.

        Args:
            closure: Computes the loss, and its gradients, once more.

        Returns:
            The loss that `closure` returned, None without one.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._before_groups()
        for group in self.param_groups:
            settings = _of_numbers(group)
            for kind, names in self.state_names.items():
                params: list[Tensor] = []
                weights: list[Tensor] = []
                grads: list[Tensor] = []
                steps: list[Tensor] = []
                states: Lists = [[] for _ in names]
                self._init_group(group, kind, params, weights, grads, steps, *states)
                for batch in batches([params, weights, grads, steps, *states], group["foreach"]):
                    self._step_batch(settings, kind, *batch)
        return loss

    def keeps_float32(self, parameter: Tensor) -> bool:
        """Says whether a parameter's state is float32 though the parameter is not."""
        return parameter.dtype in LOW_PRECISION

    # torch.compile runs a method of this name as it is, instead of tracing it.
    def _init_group(
        self,
        group: dict[str, Any],
        kind: str,
        params: list[Tensor],
        weights: list[Tensor],
        grads: list[Tensor],
        steps: list[Tensor],
        *states: list[Tensor],
    ) -> None:
        """Fills the lists with the parameters of a kind that have gradients, and their state.

        `weights` are their copies, or the parameters themselves.
        """
        names = self.state_names[kind]
        for parameter in group["params"]:
            if parameter.grad is None or self.kind_of(parameter, group) != kind:
                continue
            if parameter.grad.is_sparse:
                raise RuntimeError(f"{type(self).__name__} does not support sparse gradients")
            if parameter.is_complex():
                raise RuntimeError(f"{type(self).__name__} does not support complex parameters")
            state = self.state[parameter]
            if not state:
                state["step"] = torch.tensor(0.0, dtype=torch.float64)
                state.update(self.initial_state(parameter, kind, group))
            if self.has_master(parameter) and MASTER not in state:
                state[MASTER] = parameter.detach().float()
            params.append(parameter)
            weights.append(state[MASTER] if self.has_master(parameter) else parameter)
            grads.append(parameter.grad)
            steps.append(state["step"])
            for name, filled in zip(names, states, strict=True):
                filled.append(state[name])

    def _step_batch(
        self,
        group: dict[str, Any],
        kind: str,
        params: list[Tensor],
        weights: list[Tensor],
        grads: list[Tensor],
        steps: list[Tensor],
        *states: list[Tensor],
    ) -> None:
        if params[0].dtype in LOW_PRECISION:
            weights = [
                weight.float() if weight is parameter else brought_up_to_date(weight, parameter)
                for weight, parameter in zip(weights, params, strict=True)
            ]
            grads = [gradient.float() for gradient in grads]
        if group["maximize"]:
            grads = list(torch._foreach_neg(grads))
        torch._foreach_add_(steps, 1)
        self._update(kind, group, weights, grads, [number(step) for step in steps], *states)
        if params[0].dtype in LOW_PRECISION:
            torch._foreach_copy_(params, weights)

    def _before_groups(self) -> None:
        """Runs at each step, when there are gradients."""

    def kind_of(self, parameter: Tensor, group: Mapping[str, Any]) -> str:
        """Returns the kind of a parameter, a key of `state_names`."""
        del parameter, group
        return "all"

    def initial_state(
        self, parameter: Tensor, kind: str, group: Mapping[str, Any]
    ) -> dict[str, Tensor]:
        """Returns the state of a parameter before its first update, apart from `step`."""
        del group
        return {name: zeros_like(parameter) for name in self.state_names[kind]}

    def _update(
        self,
        kind: str,
        group: dict[str, Any],
        params: list[Tensor],
        grads: list[Tensor],
        steps: list[Any],
        *states: list[Tensor],
    ) -> None:
        """Updates parameters and state in place.

        Args:
            kind: The kind of all these parameters.
            group: Their hyperparameters.
            params: The parameters.
            grads: Their gradients, of what is minimized; not to be changed.
            steps: The updates of each, with this one: 1 at the first.
            *states: The state of each, in the order of `state_names`.
        """
        raise NotImplementedError


def _elements(value: Any) -> list[Any]:
    try:
        return list(value)
    except TypeError:  # a number, or a tensor of one
        return []


def _is_in(value: Any, least: float, limit: float) -> bool:
    """Says whether this is a number, or a tensor of one, in a range."""
    if isinstance(value, Tensor):
        return value.numel() == 1 and bool(least <= value < limit)
    return isinstance(value, numbers.Real) and value < limit and not value < least


def _of_numbers(group: dict[str, Any]) -> dict[str, Any]:
    """Returns a group whose tensors, and those in its pairs, are numbers where that can be."""
    return {
        name: tuple(map(number, value)) if name in _PAIRS else number(value)
        for name, value in group.items()
        if name != "params"
    }


def number(value: Any) -> Any:
    """Returns a hyperparameter or a count as a Python number; as it is where torch compiles."""
    if isinstance(value, Tensor) and not torch.compiler.is_compiling():
        return value.item()
    return value


def zeros_like(parameter: Tensor, shape: Sequence[int] | None = None) -> Tensor:
    """Returns state of zeros: float32 at least, laid out as the parameter."""
    dtype = torch.float32 if parameter.dtype in LOW_PRECISION else parameter.dtype
    if shape is not None:
        return torch.zeros(shape, dtype=dtype, device=parameter.device)
    return torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)


def decay(params: list[Tensor], lr: Any, weight_decay: Any) -> None:
    """Decays weights apart from their gradients: w <- w - lr * weight_decay * w."""
    if weight_decay:
        torch._foreach_mul_(params, 1 - lr * weight_decay)


def subtract(params: list[Tensor], updates: list[Tensor], rates: Any) -> None:
    """Subtracts rate * update, with one rate, or one for each; changes `updates`."""
    torch._foreach_mul_(updates, rates)
    torch._foreach_sub_(params, updates)


def batches(lists: Lists, foreach: bool | None = None) -> Iterator[Lists]:
    """Yields lists of tensors of one device and dtype, and what belongs to them.

    Args:
        lists: Tensors, and lists of as many things that belong to them.
        foreach: False for each tensor by itself.
    """
    params = lists[0]
    if foreach is False:
        yield from ([[item] for item in items] for items in zip(*lists, strict=True))
        return
    together: dict[tuple, list[int]] = {}
    for index, parameter in enumerate(params):
        together.setdefault((parameter.device, parameter.dtype), []).append(index)
    for indices in together.values():
        yield [[items[index] for index in indices] for items in lists]
