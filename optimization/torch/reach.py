"""What a rule computes with where weights are split over processes."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NoReturn

import torch
from torch import Tensor

from optimization.rules.layerwise import LayerwiseRule
from optimization.rules.rule import Numbers, Rule
from optimization.torch.functions import FUNCTIONS, Lists
from optimization.torch.lists import Scalars, Tensors
from optimization.torch.shards import (
    Layout,
    added_up,
    aligned,
    any_split,
    is_split,
    layout_of,
    norms_of_parts,
    own_part,
    own_parts,
    part_of,
    size_of,
    whole,
)

Columns = list[list[Any]]
_WHOLE_ONLY = (
    *("matmul", "reshape", "split", "concatenate"),
    *("to_matrix", "from_matrix", "of_sides", "means_of_outputs", "along_outputs"),
    *("argsort", "take", "flip", "eigh", "qr", "rows", "places", "when"),
)


def within_reach(
    rule: Rule, numbers: Callable[[], Numbers], batch: Columns
) -> Iterator[tuple[Columns, Lists]]:
    """Yields parts of a batch, as plain tensors, with the functions to compute with them.

    The lists of a batch are those of `RuleOptimizer`: parameters, weights, gradients, counts, and
    the state of each slot. An elementwise rule gets the shards; one of norms and means too, with
    functions that add up over the processes; and any other gets what is gathered, one parameter
    at a time, of which each process takes its part over when the next one is asked for.
    """
    params, weights, grads, *others = batch
    if not any_split(params):
        yield batch, FUNCTIONS
        return
    grads = [aligned(g, p) for g, p in zip(grads, params, strict=True)]
    batch = [params, weights, grads, *others]
    h = numbers()
    by_element = rule.updates_by_entry(h)
    by_sums = isinstance(rule, LayerwiseRule) or rule.is_elementwise(h)  # and modifiers' norms
    if by_element or (by_sums and _has_axes(rule, params, h)):
        functions = FUNCTIONS if by_element else _functions_of(rule, batch)
        yield [own_parts(each) for each in batch], functions
        return
    for row in zip(*batch, strict=True):
        gathered = {id(each): whole(each) for each in row}
        yield [[gathered[id(each)]] for each in row], FUNCTIONS
        for each in row:
            if is_split(each) and each is not row[2]:
                own_part(each).copy_(part_of(gathered[id(each)], each))


def _has_axes(rule: Rule, params: Sequence[Tensor], h: Numbers) -> bool:
    """Says whether each slot has axes of its weight."""
    shapes = {tuple(parameter.shape) for parameter in params}
    slots = [slot for slot in rule.all_slots() if slot.native and slot.when(h)]
    return all(slot.axes_of(shape, h) is not None for slot in slots for shape in shapes)


def _functions_of(rule: Rule, batch: Columns) -> Lists:
    params, _, _, _, *states = batch
    kept = {
        id(own_part(tensor)): layout_of(tensor)
        for state in states
        for tensor in state
        if tensor is not None
    }
    return _Shards(type(rule).__name__, [layout_of(p) for p in params], kept)


class _Shards(Lists):
    """The functions of a formula over shards, which add up over the processes where they reduce."""

    def __init__(self, rule: str, layouts: Sequence[Layout], kept: Mapping[int, Layout]):
        super().__init__(torch)
        self._rule, self._layouts, self._kept = rule, layouts, kept
        self.mean: Any = lambda *args, **options: self._reduced(True, *args, **options)
        self.sum: Any = lambda *args, **options: self._reduced(False, *args, **options)
        self.size: Any = lambda x: Scalars([size_of(layout) for layout in self._layouts])
        self.norm: Any = self._norm
        self.centered: Any = self._centered
        for name in _WHOLE_ONLY:
            setattr(self, name, self._refused(name))

    def _norm(self, x: Tensors, wide: bool = False) -> Scalars:
        del wide  # None is infinite or 0 that is not, in float64
        parts = x.tensors()
        return Scalars(norms_of_parts(parts, self._layouts_of(parts, "norm")))

    def _reduced(
        self, mean: bool, x: Tensors, axis: int | None = None, keepdims: bool = False
    ) -> Any:
        parts = x.tensors()
        layouts = self._layouts_of(parts, "mean" if mean else "sum")
        sums, sharers, counts = [], [], []
        for part, layout in zip(parts, layouts, strict=True):
            axes = range(part.dim()) if axis is None else [axis % part.dim()]
            sums.append(part.sum(dim=tuple(axes), keepdim=keepdims) if part.dim() else part)
            sharers.append([group for each in axes for group in layout.sharers[each]])
            counts.append(size_of(layout) if axis is None else layout.shape[axis])
        found = added_up(sums, sharers)
        if mean:
            found = [total / count for total, count in zip(found, counts, strict=True)]
        return Scalars(found) if axis is None and not keepdims else Tensors(found)

    def _centered(self, x: Tensors, axes: Any) -> Tensors:
        del axes
        parts = x.keep().tensors()
        sums, sharers, counts = [], [], []
        for part, layout in zip(parts, self._layouts_of(parts, "centered"), strict=True):
            inputs = tuple(range(1, part.dim()))
            sums.append(part.sum(dim=inputs, keepdim=True) if inputs else part)
            sharers.append([group for axis in inputs for group in layout.sharers[axis]])
            counts.append(math.prod(layout.shape[1:]))
        rows = zip(parts, added_up(sums, sharers), counts, strict=True)
        return Tensors([part - total / n if n > 1 else part for part, total, n in rows])

    def _layouts_of(self, parts: Sequence[Tensor], name: str) -> list[Layout]:
        """Returns the layout of each: that of a slot, or else that of the weight."""
        layouts = []
        for part, layout in zip(parts, self._layouts, strict=True):
            found = self._kept.get(id(part), layout)
            if tuple(part.shape) != found.local:
                self._refused(name)()
            layouts.append(found)
        return layouts

    def _refused(self, name: str) -> Callable[..., NoReturn]:
        def refuse(*args: Any, **options: Any) -> NoReturn:
            raise RuntimeError(
                f"The formula of {self._rule} takes `xp.{name}` of what is neither a slot nor of "
                "the weight's shape, and weights are split over processes here: derive the rule "
                "from `Rule`, not `LayerwiseRule`, and it gets whole weights."
            )

        return refuse


def zeros_of_axes(parameter: Any, axes: Sequence[int], dtype: torch.dtype) -> Any:
    """Returns zeros that have some axes of a `DTensor`, and are split as these are."""
    tensor_type, local = type(parameter.detach()), own_part(parameter)
    placements = [_placed(placement, axes) for placement in parameter.placements]
    shape = torch.Size(parameter.shape[axis] for axis in axes)
    zeros = torch.zeros([local.shape[a] for a in axes], dtype=dtype, device=local.device)
    return tensor_type.from_local(
        zeros,
        parameter.device_mesh,
        placements,
        run_check=False,
        shape=shape,
        stride=torch.empty(shape, device="meta").stride(),
    )


def _placed(placement: Any, axes: Sequence[int]) -> Any:
    """Returns how what has some axes of a tensor is placed that is placed so."""
    if placement.is_replicate():
        return placement
    if placement.dim not in axes:
        import torch.distributed.tensor as module

        return module.Replicate()
    factor = {} if placement.is_shard() else {"split_factor": placement.split_factor}
    return type(placement)(list(axes).index(placement.dim), **factor)
