"""What happens to gradients before an update: clips, and the check that they are finite."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.configs.printing import by_arguments
from optimization.torch.base import batches
from optimization.torch.masters import LOW_PRECISION

_SMALL = 2.0**-100


@dataclasses.dataclass(frozen=True)
class GradientRules:
    """The clips of an optimizer, in the order in which they act, as a hook before its step.

    Gradients are changed in place, as `torch.nn.utils.clip_grad_norm_` does. Those of a closure are
    clipped each time it is called. Under `torch.amp.GradScaler` they are those of the unscaled
    loss, also where a fused optimizer gets them scaled.

    Attributes:
        gradient_clip_norm: A bound on the norm over all gradients, None or 0 for none; first.
        global_clipnorm: A bound on the norm over all gradients.
        clipnorm: A bound on the norm of each gradient.
        clipvalue: A bound on the absolute value of each entry.
        adaptive_clip_factor: A bound on the norm of each unit's gradient, in proportion to the
            norm of the unit's weights (Brock et al. 2021, arXiv:2102.06171). A unit is a slice of
            axis 0, where PyTorch has a layer's outputs.
        adaptive_clip_epsilon: The least norm of weights in that.
        on_nonfinite: "propagate", or "raise" for an error that names the parameters.
    """

    gradient_clip_norm: float | None = None
    global_clipnorm: float | None = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    adaptive_clip_factor: float | None = None
    adaptive_clip_epsilon: float = 1e-3
    on_nonfinite: str = "propagate"

    __repr__ = by_arguments

    @property
    def clips(self) -> bool:
        """Whether gradients may change."""
        return any(
            getattr(self, name)
            for name in (
                "gradient_clip_norm",
                "global_clipnorm",
                "clipnorm",
                "clipvalue",
                "adaptive_clip_factor",
            )
        )

    def __call__(
        self, optimizer: Optimizer, args: tuple, kwargs: Mapping[str, Any]
    ) -> tuple[tuple, dict[str, Any]] | None:
        """Acts on the gradients that there are, or has a closure's acted on when there are."""
        positional = len(args) > 1
        closure = args[1] if positional else kwargs.get("closure")
        if closure is None:
            self.apply(optimizer)
            return None
        closure = self._around(optimizer, closure)
        if positional:
            return (args[0], closure, *args[2:]), dict(kwargs)
        return args, {**kwargs, "closure": closure}

    def _around(self, optimizer: Optimizer, closure: Callable[[], Any]) -> Callable[[], Any]:
        def clipped() -> Any:
            loss = closure()
            self.apply(optimizer)
            return loss

        return clipped

    @torch.no_grad()
    def apply(self, optimizer: Optimizer) -> None:
        """Acts on the gradients of an optimizer's parameters.

        Raises:
            RuntimeError: If there are sparse gradients.
            FloatingPointError: With `on_nonfinite="raise"`, naming the parameters.
        """
        params = [p for group in optimizer.param_groups for p in group["params"]]
        params = [parameter for parameter in params if parameter.grad is not None]
        if any(parameter.grad.is_sparse for parameter in params):
            raise RuntimeError("Clips, and the check for finite gradients, need dense gradients.")
        _unscale(optimizer, params)
        if self.on_nonfinite == "raise" and not _overflowed(optimizer):
            _check_finite(optimizer)
        self._clip(params)

    def _clip(self, params: list[Tensor]) -> None:
        grads = [p.grad for p in params if p.grad is not None]
        for bound in (self.gradient_clip_norm, self.global_clipnorm):
            if bound and grads:
                clip_by_global_norm(grads, bound)
        if self.clipnorm:
            for (batch,) in batches([grads]):
                _scale(batch, _factors(torch.stack(norms(batch)), self.clipnorm).unbind())
        if self.clipvalue and grads:
            torch._foreach_clamp_min_(grads, -self.clipvalue)
            torch._foreach_clamp_max_(grads, self.clipvalue)
        if self.adaptive_clip_factor:
            for parameter, gradient in zip(params, grads, strict=True):
                longest = self.adaptive_clip_factor * unitwise_norm(parameter).clamp_(
                    min=self.adaptive_clip_epsilon
                )
                factors = _factors(unitwise_norm(gradient), longest)
                _scale([gradient], [factors])


def clip_by_global_norm(grads: list[Tensor], bound: float) -> Tensor:
    """Scales gradients by one factor, so that the norm over all of them is at most `bound`.

    Returns:
        The norm before.
    """
    device = grads[0].device
    found = [norm.to(device) for (batch,) in batches([grads]) for norm in norms(batch)]
    (norm,) = norms([torch.stack(found)])
    # A norm that is not finite makes every gradient NaN, as in Keras: it can't be clipped.
    factor = _factors(norm, bound) + (norm - norm)
    for (batch,) in batches([grads]):
        _scale(batch, factor.to(batch[0].device))
    return norm


def unitwise_norm(x: Tensor) -> Tensor:
    """Returns the norm of each slice of axis 0, in float32 at least, to broadcast with x.

    What has no two axes of more than one entry is one unit.
    """
    one_unit = sum(size > 1 for size in x.shape) <= 1
    axes = {} if one_unit else {"dim": tuple(range(1, x.dim())), "keepdim": True}
    if _sums_in_float64(x):
        return torch.linalg.vector_norm(x, dtype=torch.float64, **axes)
    found = torch.linalg.vector_norm(x if x.dtype == torch.float64 else x.float(), **axes)
    return found if _are_right(found).all() else _scaled_norm(x, **axes)


def _factors(norms: Tensor, bound: Any) -> Tensor:
    """Returns bound / norm, 1 at most; a norm of 0 has 1 and one that is NaN stays so."""
    return (bound / norms).clamp(max=1.0)


def norms(batch: list[Tensor]) -> list[Tensor]:
    """Returns the L2 norm of each of some tensors of one dtype and device, in float32 at least.

    It is finite, and not 0, for all finite entries other than 0, though their squares are not.
    """
    if _sums_in_float64(batch[0]):
        return list(torch._foreach_norm(batch, 2, torch.float64))
    # In float32 at least: half precision overflows at the square of 256.
    low = batch[0].dtype in LOW_PRECISION
    found = list(torch._foreach_norm(batch, 2, torch.float32 if low else None))
    right = _are_right(torch.stack(found))
    if right.all():
        return found
    return [
        norm.to(_widest(x)) if fine else _scaled_norm(x)
        for x, norm, fine in zip(batch, found, right.tolist(), strict=True)
    ]


def _sums_in_float64(x: Tensor) -> bool:
    """Says whether squares are summed in float64, where to look at a sum would cost more.

    That is on a GPU, which would have to be waited for, and where `torch.compile` traces.
    """
    return x.dtype != torch.float64 and (x.is_cuda or torch.compiler.is_compiling())


def _are_right(found: Tensor) -> Tensor:
    # Below, squares may have been rounded to multiples of 1e-45. A norm of 0 is found twice.
    return (found > 1e-12) & (found < float("inf"))


def _widest(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64  # which that has not


def _scaled_norm(x: Tensor, **axes: Any) -> Tensor:
    """Returns the norm of x, by way of that of x / max |x|."""
    x = x.to(_widest(x))
    largest = x.abs().max() if x.numel() else x.new_zeros(())
    if not 0 < largest < float("inf"):
        return torch.linalg.vector_norm(x, **axes)
    return torch.linalg.vector_norm(x / largest, **axes) * largest


def _scale(batch: list[Tensor], factors: Any) -> None:
    # By the tensor, which stays on its device; a list has a factor for each.
    dtype = batch[0].dtype
    if not _sums_in_float64(batch[0]):
        factors = _after_first_step(batch, factors)
    if dtype == torch.float16:  # in which a small factor is 0
        factors = [factors] * len(batch) if isinstance(factors, Tensor) else factors
        for gradient, factor in zip(batch, factors, strict=True):
            gradient.copy_(gradient.float() * factor.float())
    elif isinstance(factors, Tensor):
        torch._foreach_mul_(batch, factors.to(dtype))
    else:
        torch._foreach_mul_(batch, [factor.to(dtype) for factor in factors])


def _after_first_step(batch: list[Tensor], factors: Any) -> Any:
    """Multiplies by a part of the factors that have few or no digits as float32; returns the rest.

    The largest gradients have norms for which that is so.
    """
    each = factors if isinstance(factors, Tensor) else torch.stack(list(factors))
    small = each < _SMALL
    if not small.any():
        return factors
    first = torch.where(small, _SMALL, 1.0)
    rest = each / first
    if isinstance(factors, Tensor):
        _scale(batch, first)
        return rest
    _scale(batch, first.unbind())
    return rest.unbind()


def _unscale(optimizer: Any, params: list[Tensor]) -> None:
    """Undoes the loss scale that `GradScaler` leaves to fused optimizers."""
    scale = getattr(optimizer, "grad_scale", None)
    if scale is None:
        return
    for (batch,) in batches([[p.grad for p in params if p.grad is not None]]):
        _scale(batch, scale.to(batch[0].device).reciprocal())
    # `GradScaler` deletes the attribute after the step, so it must stay.
    optimizer.grad_scale = None


def _overflowed(optimizer: Optimizer) -> bool:
    """Says whether `GradScaler` has found that a fused optimizer is to skip the step."""
    found_inf = getattr(optimizer, "found_inf", None)
    return found_inf is not None and bool(found_inf)


def _check_finite(optimizer: Optimizer) -> None:
    bad = [
        name
        for group in optimizer.param_groups
        for name, parameter in _named(group)
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]
    if bad:
        raise FloatingPointError(f"Gradients that are infinite or NaN: {', '.join(bad)}")


def _named(group: dict[str, Any]) -> list[tuple[str, Tensor]]:
    names = group.get("param_names") or [
        f"a parameter of shape {tuple(p.shape)}" for p in group["params"]
    ]
    return list(zip(names, group["params"], strict=True))
