"""Formulas as loops that Numba compiles: on processors, each entry is read and written once.

A formula over lists of tensors reads and writes all of them for each of its operations. A loop
over the entries that does all of it takes the time that the memory needs: it is made from the
formula, by `traced`, as `passes`. Where norms scale a step there are two loops, and the first moves
the state; where means over rows and columns do, one more. What is not of each entry, NumPy computes
between the loops, and after them what is kept of sums.
"""

import concurrent.futures
import functools
import importlib.util
import itertools
import os
import warnings
from collections.abc import Mapping, Sequence, Set
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from optimization.rules.rule import Numbers, Rule
from optimization.torch.lists import PLAIN, Batch, Scalars, are_contiguous
from optimization.torch.parts import Parts, SmallValues, parts_of
from optimization.torch.passes import Pass, norm_pass, passes
from optimization.torch.traced import (
    ALL,
    AVERAGE,
    COLUMN,
    ENTRY,
    FACTOR,
    GRADIENT,
    ROW,
    SHARE,
    SIZE,
    WEIGHT,
    Form,
    Value,
    is_number,
    slot_name,
    trace,
)

_ALONE = 2**15  # so few are updated before another thread has started
_LEAST = 2**14  # for fewer no loop is compiled


class Loops:
    """Computes new values of arrays in place.

    Args:
        targets: What `trace` returned.
        dtype: The type of the entries, float32 or float64.
        small: The names of those that are not of entries, but of rows, columns or the whole.
        of_matrices: Whether there are values of rows and of columns.
    """

    def __init__(
        self, targets: Mapping[str, Value], dtype: np.dtype, small: Set[str], of_matrices: bool
    ):
        found = passes(targets, small, of_matrices)
        self._passes = [(each, compiled(each.source, dtype.name)) for each in found]
        self._small = {name: value for name, value in targets.items() if name in small}
        self._dtype, self._of_matrices = dtype, of_matrices

    def run(self, batch: Batch, numbers: Mapping[str, Any]) -> None:
        """Updates tensors.

        Args:
            batch: The tensors.
            numbers: Numbers, or one for each of the tensors, by name.
        """
        parts = parts_of(_shapes(batch.weights, self._of_matrices))
        arrays = {WEIGHT: batch.weights, GRADIENT: batch.grads, AVERAGE: batch.averages}
        arrays |= {slot_name(name): own for name, own in batch.slots.items()}
        numbers = {**numbers, SIZE: parts.sizes}
        groups = [SmallValues(*each, arrays, numbers) for each in parts.alike]
        for each, loop in self._passes:
            self._run(each, loop, parts, arrays, groups)
        written = [x for each, _ in self._passes for name in each.written for x in arrays[name]]
        for name, value in self._small.items():
            written += arrays[name]
            for group in groups:
                group.write(value, arrays[name])
        _tell_autograd(written)

    def _run(
        self,
        each: Pass,
        loop: Any,
        parts: Parts,
        arrays: Mapping[str, Sequence[Tensor]],
        groups: Sequence[SmallValues],
    ) -> None:
        numbers = np.empty((len(each.numbers), len(parts.rows)))
        for i, number in enumerate(each.numbers):
            for group in groups:
                numbers[i, group.places] = np.ravel(group.value(number))
        addresses = [[x.data_ptr() for x in arrays[name]] for name in each.arrays]
        vectors = [[g.vectors(value, self._dtype) for g in groups] for value in each.vectors]
        means = [parts.room_for(mean) for mean in each.means]
        addresses += [_by_place(own, groups) for own in vectors]
        addresses += [
            _by_place(own, groups) if mean.of == ROW else _addresses(own)
            for own, mean in zip(means, each.means, strict=True)
        ]
        totals = _called(loop, parts, addresses, numbers, each.totals)
        for total, values in zip(each.totals, totals, strict=True):
            for group in groups:
                group.learn(total, values[group.places])
        for mean, own in zip(each.means, means, strict=True):
            for group, found in zip(groups, parts.sums(mean, own), strict=True):
                group.learn_mean(mean, found)


def _shapes(tensors: Sequence[Tensor], are_matrices: bool) -> tuple[Any, ...]:
    """Returns shapes of matrices, or else counts of entries."""
    if are_matrices:
        return tuple([tuple(x.shape) for x in tensors])
    return tuple(map(Tensor.numel, tensors))


def _called(
    loop: Any,
    parts: Parts,
    addresses: Sequence[Sequence[int]],
    numbers: np.ndarray,
    totals: Sequence[Value],
) -> list[np.ndarray]:
    """Calls a loop, and returns each of its norms and sums, for all tensors."""
    table = np.zeros((len(addresses), max(len(parts.rows), len(parts.tensors))), np.int64)
    for i, known in enumerate(addresses):
        table[i, : len(known)] = known
    sums = np.empty((len(totals), len(parts.tensors)))
    places = (parts.tensors, parts.starts, parts.ends, parts.rows, parts.columns)
    _in_threads(loop, parts, (*places, table, numbers, sums))
    found = [np.add.reduceat(row, parts.first) for row in sums]
    pairs = zip(totals, found, strict=True)
    return [np.sqrt(x) if each.name == "norm" else x for each, x in pairs]


def _tell_autograd(changed: list[Tensor]) -> None:
    try:
        torch.autograd.graph.increment_version(changed)
    except TypeError:  # of a PyTorch that takes one at a time
        for tensor in changed:
            torch.autograd.graph.increment_version(tensor)


def _by_place(arrays: Sequence[np.ndarray], groups: Sequence[SmallValues]) -> list[int]:
    """Returns the address of what each tensor has in the arrays of the groups."""
    found = dict[int, int]()
    for array, group in zip(arrays, groups, strict=True):
        found |= zip(group.places.tolist(), _addresses(array), strict=True)
    return [found[place] for place in range(len(found))]


def _addresses(rows: Any) -> list[int]:
    """Returns the addresses of rows of an array, or of some arrays."""
    if isinstance(rows, list):
        return [row.ctypes.data for row in rows]
    return [rows.ctypes.data + i * rows.strides[0] for i in range(len(rows))]


@functools.cache
def compiled(source: str, dtype: str) -> Any:
    """Returns the function of a loop, compiled."""
    import numba

    real = np.dtype(dtype).type
    names = {"np": np, "carray": numba.carray, "pointer": _pointer(), "real": real}
    names |= {"size": np.dtype(dtype).itemsize, "wide": np.float64, "inf": np.inf, "nan": np.nan}
    # Sums may be taken in another order, several at a time; nothing else may.
    names["total"] = numba.njit(fastmath={"contract", "reassoc"})(lambda total, x: total + x)
    exec(source, names)
    integers, table, wide = numba.int64[::1], numba.int64[:, ::1], numba.float64[:, ::1]
    signature = numba.void(numba.int64, numba.int64, *[integers] * 5, table, wide, wide)
    return numba.njit([signature], nogil=True, error_model="numpy", fastmath={"contract"})(
        names["loop"]
    )


@functools.cache
def _pointer() -> Any:
    """Returns the function that makes an address a pointer, for what Numba compiles."""
    import llvmlite.binding
    from numba.core import cgutils, types
    from numba.extending import intrinsic

    # Loops over more than four arrays are not made of vectors otherwise.
    llvmlite.binding.set_option("optimizer-factory", "-runtime-memory-check-threshold=128")

    @intrinsic
    def pointer(typing_context: Any, address: Any) -> Any:
        def generated(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
            return builder.inttoptr(arguments[0], cgutils.voidptr_t)

        return types.voidptr(address), generated

    return pointer


def _in_threads(loop: Any, parts: Parts, arguments: tuple) -> None:
    """Calls a loop for all parts, in as many threads as PyTorch has."""
    count, threads = len(parts.tensors), torch.get_num_threads()
    work = parts.work
    if threads == 1 or count == 1 or work[-1] < _ALONE:
        loop(0, count, *arguments)
        return
    shares = np.searchsorted(work, work[-1] * np.arange(1, threads) / threads)
    bounds = [0, *(int(share) + 1 for share in shares), count]
    shares = [(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    futures, own = [], shares[:1]
    for share in shares[1:]:
        try:
            futures.append(_pool(os.getpid(), threads).submit(loop, *share, *arguments))
        except RuntimeError:  # at the end of the process there are no new threads
            own.append(share)
    for share in own:
        loop(*share, *arguments)
    for future in futures:
        future.result()


@functools.lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> concurrent.futures.ThreadPoolExecutor:
    """Returns the threads of this process: a fork has none."""
    return concurrent.futures.ThreadPoolExecutor(threads - 1, "optimizer")


def norms(tensors: Sequence[Tensor]) -> list[Tensor] | None:
    """Returns the L2 norms of tensors of one dtype, float64, by a loop; None where there is none.

    Squares are summed in float64: of float32, none is infinite or 0.
    """
    first = tensors[0]
    if first.device.type != "cpu" or first.dtype != torch.float32 or torch.compiler.is_compiling():
        return None
    if sum(map(Tensor.numel, tensors)) < _LEAST or not {*map(type, tensors)} <= {*PLAIN}:
        return None
    if not has_numba() or not are_contiguous(tensors, first.dtype):
        return None
    parts = parts_of(_shapes(tensors, False))
    one = norm_pass()
    loop, addresses = compiled(one.source, "float32"), [[x.data_ptr() for x in tensors]]
    (found,) = _called(loop, parts, addresses, np.empty((0, len(tensors))), one.totals)
    return list(torch.from_numpy(found))


def update(rule: Rule, batch: Batch, h: Numbers) -> bool:
    """Updates weights, their state and their averages by loops, and returns True, if they can.

    Numba must be installed, and the rule must compute each entry by itself, or from norms.

    Args:
        rule: The rule.
        batch: What is updated: dense tensors, each laid out as its weight.
        h: The numbers of the update.
    """
    first = batch.weights[0]
    if first.device.type != "cpu" or sum(map(Tensor.numel, batch.weights)) < _LEAST:
        return False
    if not has_numba():
        return False
    now = {name: _of_each(name, value) for name, value in vars(h).items()}
    kinds = [(n, _ANY if is_number(x) or isinstance(x, np.ndarray) else x) for n, x in now.items()]
    axes = now.get("axes")
    slots = _slots_of_entries(batch) if axes is None else _slots_of_matrices(rule, batch, h)
    if slots is None:
        return False
    count = None if axes is None else max(axes) + 1
    form = Form(batch.maximize, batch.divisor is not None, bool(batch.averages), count)
    try:
        found = _loops(cast(Any, type(rule)), tuple(slots.items()), tuple(kinds), form, first.dtype)
    except TypeError:  # a number that has no hash, such as a list
        return False
    if found is None:
        return False
    factor = 1.0 if batch.divisor is None else 1 / batch.divisor.item()
    found.run(batch, {**now, FACTOR: factor, SHARE: batch.share})
    return True


def _slots_of_entries(batch: Batch) -> dict[str, str] | None:
    """Returns what has a value of its own in each slot: each entry, or the whole of a tensor.

    None where there are others.
    """
    counts = [*map(Tensor.numel, batch.weights)]
    ones = [1] * len(counts)
    known = {name: [*map(Tensor.numel, own)] for name, own in batch.slots.items()}
    found = {n: ENTRY if c == counts else ALL if c == ones else "" for n, c in known.items()}
    return None if "" in found.values() else found


def _slots_of_matrices(rule: Rule, batch: Batch, h: Numbers) -> dict[str, str] | None:
    """Returns what has a value of its own in each slot of a rule that factors the last two axes.

    None where it factors others, or where tensors are not contiguous.
    """
    count = max(h.axes) + 1
    if min(h.axes) != count - 2 or not all(
        x.is_contiguous() for own in batch.arrays() for x in own
    ):
        return None
    if any(weight.dim() != count or not weight.numel() for weight in batch.weights):
        return None
    last = count - 1
    kinds = {(*range(count),): ENTRY, (*range(last),): ROW, (*range(last - 1), last): COLUMN}
    shape = tuple(range(2, 2 + count))  # of lengths that tell axes apart
    own = (slot for slot in rule.all_slots() if slot.name in batch.slots)
    found: dict[str, Any] = {s.name: kinds.get(s.axes_of(shape, h) or ()) for s in own}
    return None if None in found.values() else found


_ANY = 1.0  # in the place of a number of which the loops do not depend


_COUNTS = ("t", "done")  # integers which change


def _of_each(name: str, value: Any) -> Any:
    if name in _COUNTS and isinstance(value, int):
        return float(value)
    return np.array(value.values, np.float64) if isinstance(value, Scalars) else value


@functools.lru_cache(maxsize=1024)
def _loops(
    rule: type[Rule],
    slots: tuple[tuple[str, str], ...],
    kinds: tuple,
    form: Form,
    dtype: torch.dtype,
) -> Loops | None:
    kind = np.dtype(str(dtype).removeprefix("torch."))
    try:
        targets = trace(rule(), dict(kinds), dict(slots), kind, form)
        small = {slot_name(name) for name, of in slots if of != ENTRY}
        return Loops(targets, kind, small, form.axes is not None)
    except Exception:  # no formula of each entry, none that Numba knows, or a wrong one: lists tell
        return None


@functools.cache
def has_numba() -> bool:
    """Says whether Numba is installed, and can be used."""
    if importlib.util.find_spec("numba") is None:
        return False
    try:
        import numba  # noqa: F401
    except ImportError as error:  # it may be older than NumPy
        warnings.warn(f"Numba is left out, since it can't be imported: {error}", stacklevel=2)
        return False
    return True
