"""How tensors are updated by a rule: by a kernel of torch, by compiled loops, or as lists."""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from optimization.rules.arrays import not_the_step
from optimization.rules.rule import Numbers, Rule, given
from optimization.torch import loops
from optimization.torch.functions import FUNCTIONS, Lists, ListState
from optimization.torch.fused import DEVICES
from optimization.torch.gradients import divide
from optimization.torch.lists import (
    PLAIN,
    Batch,
    Scalars,
    Tensors,
    are_contiguous,
    as_plain,
    is_plain,
    together,
)

_ADAM = ("momentum", "velocity", "velocity_hat")  # the slots, in the order of its arguments
_IN_CACHE = 2**18  # how many entries of each list are updated at once, on a processor
_BUNCH = 2**16  # so many where formulas keep more between their operations


def counted(steps: list[Tensor]) -> list[Any]:
    """Counts one more, and returns the counts; tensors where torch compiles."""
    if torch.compiler.is_compiling():
        torch._foreach_add_(steps, 1)
        return steps
    whole = steps[0]._base
    are_all = whole is not None and whole.dim() == 1 and whole.numel() == len(steps)
    if whole is not None and are_all and all(step._base is whole for step in steps):
        whole.add_(1)
    else:
        torch._foreach_add_(steps, 1)
        whole = torch.stack(steps)
    counts = whole.tolist()
    is_one = counts.count(counts[0]) == len(counts)
    return counts if is_one else torch.stack(steps).tolist()  # in their order


def update(rule: Rule, batch: Batch, h: Numbers, xp: Lists = FUNCTIONS) -> None:
    """Updates weights, their state and their averages in place.

    Args:
        rule: The rule.
        batch: What is updated.
        h: The numbers of the update; the count `t` may differ among tensors.
        xp: The functions to compute with; others than usual, where tensors are parts of weights.
    """
    if xp is not FUNCTIONS:
        _by_lists(rule, batch, h, xp)
        return
    plain = [] if torch.compiler.is_compiling() else _plain(batch)
    if not any(plain):
        _by_lists(rule, batch, h)
    elif all(plain):
        _fast(rule, batch, h)
    else:
        for way, is_own in ((_fast, True), (_by_lists, False)):
            own = [index for index, is_plain in enumerate(plain) if is_plain == is_own]
            way(rule, _of_some(batch, own), _numbers_of_some(h, own))


def _fast(rule: Rule, batch: Batch, h: Numbers) -> None:
    if _by_kernel(rule, batch, h):
        return
    is_large = sum(map(Tensor.numel, batch.weights)) > _IN_CACHE
    if not is_large or batch.weights[0].device.type != "cpu":
        parts = iter([(batch, h)])
    elif batch.is_of_one_size() and rule.updates_by_entry(h):
        parts = _parts(batch, h)
    else:
        parts = _bunches(batch, h)
    for part, numbers in parts:
        _by_lists(rule, part, numbers)


def _by_kernel(rule: Rule, batch: Batch, h: Numbers) -> bool:
    """Updates by what reads and writes everything once, and returns True, if there is such."""
    # torch's kernel is the faster one, but averages nothing.
    if not batch.averages and _by_torch(rule, batch, h):
        return True
    if loops.update(rule, batch, h):
        return True
    if not batch.averages or not _by_torch(rule, batch, h):
        return False
    torch._foreach_lerp_(batch.averages, batch.weights, batch.share)
    return True


def _by_torch(rule: Rule, batch: Batch, h: Numbers) -> bool:
    """Updates weights and their state by the fused kernel of Adam, if that has the rule's step.

    The kernel has one of its forms; the others are that with other numbers.
    """
    first, divisor = batch.weights[0], batch.divisor
    if rule.is_modified(h):
        return False
    if rule.declared("torch_kernel") != "adamw" or first.device.type not in DEVICES:
        return False
    if divisor is not None:
        if first.dtype != torch.float32:  # it is float32 for the kernel
            return False
        divisor = divisor.to(first.device, torch.float32)
    parts = [(batch, h.t)]
    if isinstance(h.t, Scalars):
        counts = h.t.values
        places = {t: [i for i, count in enumerate(counts) if count == t] for t in {*counts}}
        parts = [(_of_some(batch, own), t) for t, own in places.items()]
    for part, count in parts:
        numbers = rule.kernel_arguments(Numbers(**{**vars(h), "t": count}), FUNCTIONS)
        if numbers is None:  # as it is for all counts
            return False
        step = torch.full((), numbers.pop("step"), dtype=torch.float32, device=first.device)
        kernel = torch._fused_adamw_ if numbers.pop("decoupled") else torch._fused_adam_
        moments, squares, largest = (part.slots.get(name, []) for name in _ADAM)
        kernel(
            *(part.weights, part.grads, moments, squares, largest),
            [step] * len(part.weights),
            maximize=batch.maximize,
            grad_scale=divisor,
            **numbers,
        )
    return True


def _by_lists(rule: Rule, batch: Batch, h: Numbers, xp: Lists = FUNCTIONS) -> None:
    if batch.divisor is not None:
        divide(batch.grads, batch.divisor)
    if batch.maximize:
        batch = batch._replace(grads=list(torch._foreach_neg(batch.grads)))
    _step(rule, batch, h, xp)
    if batch.averages:
        torch._foreach_lerp_(batch.averages, batch.weights, batch.share)


def _step(rule: Rule, batch: Batch, h: Numbers, xp: Lists) -> None:
    """Updates weights and their state, all tensors in each operation of the formula."""
    weights, rate = batch.weights, rule.decay_ahead(h)
    if given(rate):
        torch._foreach_mul_(weights, as_plain(1 - h.lr * rate))
    state = ListState(batch.slots)
    moved = rule.modified_step(Tensors(batch.grads), Tensors(weights), state, h, xp)
    if not isinstance(moved, Tensors):
        raise not_the_step(rule, moved, weights[0].shape)
    if isinstance(h.t, int | float) and h.t == 1:  # that it is right once is enough
        for shape, weight in zip(moved.shapes(), weights, strict=True):
            if shape != weight.shape:
                raise not_the_step(rule, shape, weight.shape)
    moved.add_to(weights, -1.0)


def _plain(batch: Batch) -> list[bool]:
    """Says of each tensor whether it is dense float32 or float64, and all else laid out as it.

    What has another shape must be contiguous.
    """
    arrays, kind = batch.arrays(), batch.weights[0].dtype
    if kind not in (torch.float32, torch.float64):
        return [False] * len(batch.weights)
    # State is of no subclass where its weight is of none.
    are_plain = {*map(type, batch.weights), *map(type, batch.grads)} <= {*PLAIN}
    if are_plain and all(are_contiguous(own, kind) for own in arrays):
        return [True] * len(batch.weights)
    return [
        is_plain(w)
        and all(type(x) in PLAIN and x.dtype == kind and x.shape == w.shape for x in row)
        and all(x.stride() == w.stride() for x in row)
        for w, *row in zip(arrays[0], *arrays, strict=True)
    ]


def _of_some(batch: Batch, own: Sequence[int]) -> Batch:
    """Returns some of the tensors."""
    return batch.of_each(lambda tensors: [tensors[index] for index in own])


def _numbers_of_some(h: Numbers, own: Sequence[int]) -> Numbers:
    """Returns the numbers of some of the tensors."""
    scalars = {name: value.values for name, value in vars(h).items() if isinstance(value, Scalars)}
    some = {name: together([each[i] for i in own]) for name, each in scalars.items()}
    return Numbers(**{**vars(h), **some})


def _parts(batch: Batch, h: Numbers) -> Iterator[tuple[Batch, Numbers]]:
    """Yields tensors, and views of large ones, that stay in a cache, with the numbers of each."""
    rows: list[tuple[int, int, int]] = []
    free = _IN_CACHE
    for index, tensor in enumerate(batch.weights):
        start, count = 0, tensor.numel()
        while start < count:
            end = min(start + free, count)
            rows.append((index, start, end))
            free -= end - start
            start = end
            if not free:
                yield _views(batch, h, rows)
                rows, free = [], _IN_CACHE
    if rows:
        yield _views(batch, h, rows)


def _bunches(batch: Batch, h: Numbers) -> Iterator[tuple[Batch, Numbers]]:
    """Yields tensors that stay in a cache together, or one that is larger, with their numbers."""
    own: list[int] = []
    free = _BUNCH
    for index, tensor in enumerate(batch.weights):
        if own and tensor.numel() > free:
            yield _of_some(batch, own), _numbers_of_some(h, own)
            own, free = [], _BUNCH
        own.append(index)
        free -= tensor.numel()
    yield _of_some(batch, own), _numbers_of_some(h, own)


def _views(batch: Batch, h: Numbers, rows: Sequence[tuple[int, int, int]]) -> tuple[Batch, Numbers]:
    views = batch.of_each(lambda own: [_view(own[i], start, end) for i, start, end in rows])
    return views, _numbers_of_some(h, [index for index, _, _ in rows])


def _view(x: Tensor, start: int, end: int) -> Tensor:
    is_whole = end - start == x.numel()
    return x if is_whole else x.as_strided((end - start,), (1,), x.storage_offset() + start)


def start_counts(states: Sequence[dict[str, Any]]) -> None:
    """Makes counts of parameters that have none: numbers of one tensor, which is counted up."""
    new = [state for state in states if not state]
    for state, count in zip(new, torch.zeros(len(new), dtype=torch.float64), strict=True):
        state["step"] = count
