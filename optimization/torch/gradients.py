"""What happens to gradients before an update: clips, and the check that they are finite."""

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from optimization.configs.printing import by_arguments
from optimization.configs.spike_config import SkipSpikesConfig, ZClipConfig
from optimization.rules.base import (
    ALL_CLIPS,
    OPTIMIZERS_CLS,
    bound_before,
    bounds_text,
    most_after,
)
from optimization.torch import loops, spikes
from optimization.torch.lists import batches
from optimization.torch.masters import LOW_PRECISION
from optimization.torch.resume import TYPE
from optimization.torch.shards import (
    Layout,
    added_up,
    aligned,
    any_split,
    layout_of,
    norms_of_parts,
    own_part,
    own_parts,
    starts_idle,
)

_SMALL = 2.0**-100  # factors below may have few digits in float32


@dataclasses.dataclass(frozen=True)
class GradientRules:
    """The clips of an optimizer, in the order in which they act, as a hook before its step.

    Gradients are changed in place, as `torch.nn.utils.clip_grad_norm_` does; but where the step
    itself can divide by what a norm is too large, it does, and may leave them as they were. Those
    of a closure are clipped each time it is called. Under `torch.amp.GradScaler` they are those of
    the unscaled loss, also where a fused optimizer gets them scaled.

    The sections of optimizers describe the fields. A unit, for `adaptive_clip_factor`, is a slice
    of axis 0, where PyTorch has a layer's outputs. Where a bound follows a schedule, groups have it
    as it is now, under the name of the field.

    Attributes:
        own: Clips that groups have in place of these, each its kind and bound, 0 for none, by the
            name of the groups' rule. Norms over all gradients are then those over its groups, and
            over all others.
        zclip: A clip of the norm over all gradients by its running mean, before the others.
        skip_spikes: Which steps are left out: they find no gradients.
        freeze_steps: For how many steps groups find no gradients, by the name of their rule.
    """

    gradient_clip_norm: float | None = None
    global_clipnorm: float | None = None
    clipnorm: float | None = None
    clipvalue: float | None = None
    adaptive_clip_factor: float | None = None
    adaptive_clip_epsilon: float = 1e-3
    on_nonfinite: str = "propagate"
    own: tuple[tuple[str, str, float], ...] = ()
    zclip: ZClipConfig | None = dataclasses.field(default=None, hash=False)
    skip_spikes: SkipSpikesConfig | None = dataclasses.field(default=None, hash=False)
    freeze_steps: tuple[tuple[str, int], ...] = ()

    __repr__ = by_arguments

    def __call__(
        self, optimizer: Any, args: tuple, kwargs: Mapping[str, Any]
    ) -> tuple[tuple, dict[str, Any]] | None:
        """Acts on the gradients that there are, or has a closure's acted on when there are."""
        positional = len(args) > 1
        closure = args[1] if positional else kwargs.get("closure")
        if closure is None:
            # Other hooks that follow see gradients that are clipped.
            is_last = next(reversed(optimizer._optimizer_step_pre_hooks.values()), None) == self
            self.apply(optimizer, is_last and getattr(optimizer, "divides_gradients", False))
            return None

        def clipped() -> Any:
            loss = closure()
            if self.skip_spikes is not None:
                optimizer.losses = [loss]
            self.apply(optimizer)
            return loss

        if positional:
            return (args[0], clipped, *args[2:]), dict(kwargs)
        return args, {**kwargs, "closure": clipped}

    @torch.no_grad()
    def apply(self, optimizer: Any, leaves_division: bool = False) -> None:
        """Acts on the gradients of an optimizer's parameters.

        Args:
            optimizer: The optimizer.
            leaves_division: Whether its step divides by its `gradient_divisor`, which is left to
                it if nothing else is to be done with the divided gradients.
        """
        counts = self.zclip or self.skip_spikes or self.freeze_steps
        if counts and starts_idle(optimizer):  # which is no step of a training
            return
        frozen = spikes.without_frozen(optimizer.param_groups, dict(self.freeze_steps))
        grads = aligned_gradients(optimizer.param_groups)
        scale = getattr(optimizer, "grad_scale", None)
        if scale is not None:  # which `GradScaler` leaves to fused optimizers
            for (batch,) in batches([own_parts(grads)] if grads else []):
                _scale(batch, scale.to(batch[0].device).reciprocal())
            optimizer.grad_scale = None  # deleted after the step, so it must stay
        found_inf = getattr(optimizer, "found_inf", None)  # `GradScaler` has a fused one skip then
        if self.on_nonfinite == "raise" and not (found_inf is not None and bool(found_inf)):
            _check_finite(optimizer, self)
        if self._finds_spike(optimizer, grads):
            optimizer.skipped = True
            for parameter in (p for group in optimizer.param_groups for p in group["params"]):
                parameter.grad = None
            return
        if frozen and not (found_inf is not None and bool(found_inf)):
            spikes.count_frozen(frozen)
        for rules, groups in self.by_group(optimizer.param_groups):
            rules._clip(optimizer, groups, leaves_division and not self.own)

    def of_group(self, group: Mapping[str, Any]) -> "GradientRules":
        """Returns the clips that act on a group, the group's own or those of all, as they are."""
        for rule, kind, bound in self.own:
            if group.get("rule", "") == rule:
                clip: dict[str, Any] = {kind: bound}
                return GradientRules(adaptive_clip_epsilon=self.adaptive_clip_epsilon, **clip)
        now = {name: group[name] for name in ALL_CLIPS if name in group}
        return dataclasses.replace(self, own=(), **now) if now else self

    def by_group(
        self, groups: Sequence[Any]
    ) -> Iterator[tuple["GradientRules", Sequence[Mapping[str, Any]]]]:
        """Yields clips, and the groups whose gradients they are of."""
        owners = {rule for rule, _, _ in self.own}
        parted: dict[str, list[Mapping[str, Any]]] = {}
        for group in groups:
            rule = group.get("rule", "")
            parted.setdefault(rule if rule in owners else "", []).append(group)
        for alike in parted.values():
            yield self.of_group(alike[0]), alike

    def _finds_spike(self, optimizer: Any, grads: Sequence[Any]) -> bool:
        """Says whether a step is to be left out."""
        config, losses = self.skip_spikes, optimizer.losses
        optimizer.skipped, optimizer.losses = False, []
        if config is None or not grads:
            return False
        values: dict[str, float] = {}
        for name in config.of:
            if name == "loss":
                values[name] = spikes.mean_of_losses(losses, own_part(grads[0]).device)
            else:
                layouts = [layout_of(gradient) for gradient in grads] if any_split(grads) else None
                values[name] = _norm(own_parts(grads), layouts).item()
        return spikes.is_spike(config, values, optimizer.param_groups)

    def _clip(
        self, optimizer: Any, groups: Sequence[Mapping[str, Any]], leaves_division: bool
    ) -> None:
        params = [p for group in groups for p in group["params"] if p.grad is not None]
        grads = [p.grad for p in params if p.grad is not None]
        layouts = [layout_of(gradient) for gradient in grads] if any_split(grads) else None
        grads = own_parts(grads) if layouts else grads
        bounds = [bound for bound in (self.gradient_clip_norm, self.global_clipnorm) if bound]
        if (bounds or self.zclip) and grads:
            norm = _norm(grads, layouts)
            if self.zclip:
                bounds.append(spikes.zclip_bound(self.zclip, norm, optimizer.param_groups))
            divisor = _divisor(norm, min(bounds))
            others = self.clipnorm or self.clipvalue or self.adaptive_clip_factor
            if leaves_division and not others and _is_exact(divisor, grads):
                optimizer.gradient_divisor = divisor
            else:
                _divide(grads, divisor)
        if self.clipnorm and grads:
            for batch, lengths in _norms(grads, layouts):
                _scale(batch, _factors(torch.stack(lengths), self.clipnorm).unbind())
        if self.clipvalue and grads:
            torch._foreach_clamp_min_(grads, -self.clipvalue)
            torch._foreach_clamp_max_(grads, self.clipvalue)
        if self.adaptive_clip_factor and grads:
            found = unitwise_norms([*own_parts(params), *grads], layouts and layouts * 2)
            sizes, lengths = found[: len(params)], found[len(params) :]
            for gradient, size, length in zip(grads, sizes, lengths, strict=True):
                longest = self.adaptive_clip_factor * size.clamp_(min=self.adaptive_clip_epsilon)
                _scale([gradient], [_factors(length, longest)])

    @property
    def most(self) -> float:
        """What no gradient exceeds after the clips; infinite for no bound."""
        clips = (self.gradient_clip_norm, self.global_clipnorm, self.clipnorm, self.clipvalue)
        return most_after(clips, self.adaptive_clip_factor)


def aligned_gradients(groups: Sequence[Mapping[str, Any]]) -> list[Tensor]:
    """Returns the gradients that there are, each split over processes as its parameter is."""
    params = [p for group in groups for p in group["params"] if p.grad is not None]
    if any(parameter.grad.is_sparse for parameter in params):
        raise RuntimeError("Clips, and the check for finite gradients, need dense gradients.")
    for parameter in params if any_split(params) else ():
        parameter.grad = aligned(parameter.grad, parameter)
    return [parameter.grad for parameter in params]


def _norms(
    grads: list[Tensor], layouts: list[Layout] | None
) -> Iterator[tuple[list[Tensor], list[Tensor]]]:
    """Yields gradients of one dtype and device, and their norms, of whole ones if these are split.

    All these are added up over the processes at once.
    """
    if layouts is None:
        for (batch,) in batches([grads]):
            yield batch, norms(batch)
        return
    found = norms_of_parts(grads, layouts)
    for batch, lengths in batches([grads, found]):
        yield batch, lengths


def _norm(grads: list[Tensor], layouts: list[Layout] | None) -> Tensor:
    """Returns the norm over all gradients."""
    device = grads[0].device
    found = [norm.to(device) for _, lengths in _norms(grads, layouts) for norm in lengths]
    return norms([torch.stack(found)])[0]


def _divisor(norm: Tensor, bound: float) -> Tensor:
    """Returns what gradients are divided by, so that the norm over all is at most a bound."""
    # A norm that is not finite makes every gradient NaN, as in Keras: it can't be clipped.
    return (norm / bound).clamp(min=1.0) + (norm - norm)


def _is_exact(divisor: Tensor, grads: list[Tensor]) -> bool:
    """Says whether float32 gradients can be divided by a number in float32."""
    if any(gradient.dtype != torch.float32 for gradient in grads):
        return False
    return divisor.is_cuda or not bool(divisor * _SMALL > 1)  # a GPU is not waited for


def _divide(grads: list[Tensor], divisor: Tensor) -> None:
    """Divides gradients, in place."""
    if divisor.device.type == "cpu" and not torch.compiler.is_compiling() and bool(divisor == 1):
        return
    for (batch,) in batches([grads]):
        divide(batch, divisor)


def divide(batch: list[Tensor], divisor: Tensor) -> None:
    """Divides tensors of one dtype and device, in place."""
    _scale(batch, divisor.to(batch[0].device).reciprocal())


def unitwise_norms(tensors: list[Tensor], layouts: list[Layout] | None = None) -> list[Tensor]:
    """Returns `unitwise_norm` of each; with layouts, tensors are parts of whole ones."""
    if layouts is None:
        return [unitwise_norm(tensor) for tensor in tensors]
    shapes = [layout.shape for layout in layouts]
    axes = [None if _is_one_unit(shape) else tuple(range(1, len(shape))) for shape in shapes]
    return norms_of_parts(tensors, layouts, axes)


def _is_one_unit(shape: Sequence[int]) -> bool:
    return sum(size > 1 for size in shape) <= 1


def unitwise_norm(x: Tensor) -> Tensor:
    """Returns the norm of each slice of axis 0, in float32 at least, to broadcast with x.

    What has no two axes of more than one entry is one unit.
    """
    axes = {} if _is_one_unit(x.shape) else {"dim": tuple(range(1, x.dim())), "keepdim": True}
    if _sums_in_float64(x):
        return torch.linalg.vector_norm(x, dtype=torch.float64, **axes)
    found = torch.linalg.vector_norm(x if x.dtype == torch.float64 else x.float(), **axes)
    return found if _are_right(found).all() else _wide_norm(x, **axes)


def _factors(norms: Tensor, bound: Any) -> Tensor:
    """Returns bound / norm, 1 at most; a norm of 0 has 1 and one that is NaN stays so."""
    return (bound / norms).clamp(max=1.0)


def norms(batch: list[Tensor]) -> list[Tensor]:
    """Returns the L2 norm of each of some tensors of one dtype and device, in float32 at least.

    It is finite, and not 0, for all finite entries other than 0, though their squares are not.
    """
    by_loop = loops.norms(batch)
    if by_loop is not None:
        return by_loop
    if _sums_in_float64(batch[0]):
        return list(torch._foreach_norm(batch, 2, torch.float64))
    # In float32 at least: half precision overflows at the square of 256.
    low = batch[0].dtype in LOW_PRECISION
    found = list(torch._foreach_norm(batch, 2, torch.float32 if low else None))
    right = _are_right(torch.stack(found))
    if right.all():
        return found
    return [
        norm.to(_widest(x)) if fine else _wide_norm(x)
        for x, norm, fine in zip(batch, found, right.tolist(), strict=True)
    ]


def _sums_in_float64(x: Tensor) -> bool:
    """Says whether squares are summed in float64: where no sum is to be looked at.

    A GPU would have to be waited for, and `torch.compile` can't trace it.
    """
    return x.dtype != torch.float64 and (x.is_cuda or torch.compiler.is_compiling())


def _are_right(found: Tensor) -> Tensor:
    # Below, squares may have been rounded to multiples of 1e-45. A norm of 0 is found twice.
    return (found > 1e-12) & (found < float("inf"))


def _widest(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64  # which that has not


def _wide_norm(x: Tensor, **axes: Any) -> Tensor:
    """Returns the norm of x, by way of that of x / max |x|."""
    x = x.to(_widest(x))
    largest = x.abs().max() if x.numel() else x.new_zeros(())
    if not 0 < largest < float("inf"):
        return torch.linalg.vector_norm(x, **axes)
    return torch.linalg.vector_norm(x / largest, **axes) * largest


def _scale(batch: list[Tensor], factors: Any) -> None:
    """Multiplies by a tensor, which stays on its device, or by one of a list for each."""
    dtype, one = batch[0].dtype, isinstance(factors, Tensor)
    wide = torch.float32 if dtype == torch.float16 else None  # in which a small factor is 0
    if not _sums_in_float64(batch[0]):
        small = (factors if one else torch.stack(list(factors))) < _SMALL
        wide = _widest(batch[0]) if small.any() else wide
    if wide is not None:
        factors = [factors] * len(batch) if one else factors
        for gradient, factor in zip(batch, factors, strict=True):
            gradient.copy_(gradient.to(wide) * factor.to(wide))
    elif one:
        torch._foreach_mul_(batch, factors.to(dtype))
    else:
        torch._foreach_mul_(batch, [factor.to(dtype) for factor in factors])


def _check_finite(optimizer: Any, rules: GradientRules) -> None:
    names, bounds, found, sharers = [], list[float](), [], []
    for group in optimizer.param_groups:
        clipped = rules.of_group(group).most
        unnamed = [f"a parameter of shape {tuple(p.shape)}" for p in group["params"]]
        named = group.get("param_names", ())
        named = named if len(named) == len(unnamed) else unnamed  # a wrapper may have joined them
        for name, p in zip(named, group["params"], strict=True):
            if p.grad is not None:
                names.append(name)
                most = _largest_of(optimizer, group, p)
                bounds.append(bound_before(clipped, most))
                found.append(1.0 - _are_within(own_part(p.grad), bounds[-1]).float())
                layout = layout_of(p.grad)
                sharers.append({each for groups in layout.sharers for each in groups})
    # Every process raises, or none: one that went on would wait for the others forever.
    found = added_up(found, sharers)
    bad = [name for name, is_bad in zip(names, found, strict=True) if is_bad]
    if bad:
        message = f"Gradients that are infinite or NaN: {', '.join(bad)}"
        raise FloatingPointError(bounds_text(bounds) + message)


def _largest_of(optimizer: Any, group: Mapping[str, Any], parameter: Tensor) -> float:
    """Returns the largest gradient of a parameter that its optimizer can hold, if known."""
    if parameter.dtype == torch.float64:
        return math.inf
    updater = optimizer.updater_of(group)
    rule = getattr(updater, "rule", None)
    if rule is not None:
        own = dict(updater.kind_of(parameter, group))
        return rule.largest_gradient_of(updater.numbers(group, own))
    kind = group.get(TYPE, "")  # torch's own class is that of a section
    known = kind in OPTIMIZERS_CLS
    return OPTIMIZERS_CLS.config_class(kind).largest_gradient if known else math.inf


def _are_within(x: Tensor, most: float) -> Tensor:
    """Says whether all entries are finite, and none is larger than a bound."""
    if math.isinf(most) or not x.numel():
        return x.isfinite().all()
    return torch.linalg.vector_norm(x, math.inf) <= most  # NaN is not
