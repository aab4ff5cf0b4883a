"""Formulas as loops that Numba compiles: on processors, each entry is read and written once.

A formula over lists of tensors reads and writes all of them for each of its operations. A loop
over the entries that does all of it takes the time that the memory needs: it is made from the
formula, by `traced`. Where norms scale a step there are two loops, and the first moves the state.
"""

import concurrent.futures
import functools
import importlib.util
import itertools
import os
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np
import torch

from optimization.rules.rule import Numbers, Rule
from optimization.torch.lists import Batch, Scalars
from optimization.torch.traced import (
    AVERAGE,
    GRADIENT,
    OPERATIONS,
    WEIGHT,
    Form,
    Value,
    is_number,
    slot_name,
    trace,
)

_CHUNK = 2**16  # entries that one call of a loop updates at the most: they fit into a cache
_ALONE = 2**15  # so few are updated before another thread has started
_LEAST = 2**14  # for fewer no loop is compiled


class Pass(NamedTuple):
    """One loop over all entries.

    Attributes:
        source: Its source.
        arrays: The names of the arrays that it reads or writes, in the order of their addresses.
        numbers: The numbers that it is given.
        norms: The norms of which it has the sums of squares.
        written: The names of the arrays that it writes.
    """

    source: str
    arrays: list[str]
    numbers: list[Value]
    norms: list[Value]
    written: list[str]


def passes(targets: Mapping[str, Value]) -> list[Pass]:
    """Returns the loops that compute new values of arrays, by the names of the arrays.

    What a later loop needs of an earlier one it computes again. So an array is written as soon as
    its value is known, if nothing after that needs the old one.
    """
    norms = _norms_in(targets.values())
    last = max((norm.turn for norm in norms), default=0)
    turns = {
        name: last if name in (WEIGHT, AVERAGE) else value.turn for name, value in targets.items()
    }
    while True:
        found, overwritten = [], set[str]()
        for turn in range(last + 1):
            writes = {name: x for name, x in targets.items() if turns[name] == turn}
            before = {name: x for name, x in targets.items() if turns[name] < turn}
            sums = [norm for norm in norms if norm.turn == turn + 1]
            writer = _Writer(before)
            found.append(writer.write(writes, sums))
            overwritten |= writer.reads & before.keys()
        if not overwritten:
            return found
        turns |= dict.fromkeys(overwritten, last)


def _norms_in(values: Any) -> list[Value]:
    found: dict[Value, None] = {}
    for value in values:
        if isinstance(value, Value):
            found |= dict.fromkeys(_norms_in(value.arguments))
            if value.name == "norm":
                found[value] = None
    return list(found)


class _Writer:
    """Writes the source of one loop.

    Attributes:
        reads: The arrays of which it needs the value from before all loops.
    """

    def __init__(self, written: Mapping[str, Value]):
        self._written = {value: name for name, value in written.items()}
        self._known: dict[Value, str] = {}
        self._lines: list[str] = []
        self._loaded: dict[str, None] = {}
        self._numbers: list[Value] = []
        self.reads: set[str] = set()

    def write(self, writes: Mapping[str, Value], norms: Sequence[Value]) -> Pass:
        """Returns the loop that writes arrays, and sums squares for norms."""
        stores = [f"a_{name}[i] = {self._name(value)}" for name, value in writes.items()]
        squared = [self._name(norm.arguments[0]) for norm in norms]
        arrays = list(dict.fromkeys([*self._loaded, *writes]))
        sums = range(len(norms))
        lines = [
            "def loop(first, last, tensors, starts, ends, addresses, numbers, sums):",
            "    for c in range(first, last):",
            "        t, start = tensors[c], starts[c]",
            "        count = ends[c] - start",
            *(
                f"        a_{name} = carray(pointer(addresses[{i}, t] + start * size), count, real)"
                for i, name in enumerate(arrays)
            ),
            *(f"        n{i} = real(numbers[{i}, t])" for i in range(len(self._numbers))),
            *(f"        s{i} = 0.0" for i in sums),
            "        for i in range(count):",
            *(f"            x_{name} = a_{name}[i]" for name in self._loaded),
            *(f"            {line}" for line in self._lines),
            *(f"            {store}" for store in stores),
            *(
                f"            s{i} += float({x}) * float({x})"
                for i, x in zip(sums, squared, strict=True)
            ),
            *(f"        sums[{i}, c] = s{i}" for i in sums),
        ]
        return Pass("\n".join(lines), arrays, self._numbers, list(norms), list(writes))

    def _name(self, value: Value) -> str:
        if value not in self._known:
            self._known[value] = self._new_name(value)
        return self._known[value]

    def _new_name(self, value: Value) -> str:
        if value.name == "constant":
            return f"real({value.arguments[0]!r})"
        if not value.per_entry:
            self._numbers.append(value)
            return f"n{len(self._numbers) - 1}"
        name = self._written.get(value)
        if name is None and value.name == "read":
            (name,) = value.arguments
            self.reads.add(name)
        if name is not None:
            self._loaded[name] = None
            return f"x_{name}"
        arguments = [self._name(x) for x in value.arguments]
        self._lines.append(
            f"v{len(self._lines)} = {OPERATIONS[value.name].source.format(*arguments)}"
        )
        return f"v{len(self._lines) - 1}"


class Loops:
    """Computes new values of arrays in place.

    Args:
        targets: What `trace` returned.
        dtype: The type of the entries, float32 or float64.
    """

    def __init__(self, targets: Mapping[str, Value], dtype: np.dtype):
        self._passes = [(each, compiled(each.source, dtype.name)) for each in passes(targets)]
        self._is_wide = dtype == np.float64

    def run(self, batch: Batch, numbers: Mapping[str, Any]) -> None:
        """Updates tensors.

        Args:
            batch: The tensors.
            numbers: Numbers, or one for each of the tensors, by name.
        """
        sizes = tuple(tensor.numel() for tensor in batch.weights)
        arrays = {WEIGHT: batch.weights, GRADIENT: batch.grads, AVERAGE: batch.averages}
        arrays |= {slot_name(name): own for name, own in batch.slots.items()}
        tensors, starts, ends = chunks(sizes)
        first_of = np.searchsorted(tensors, np.arange(len(sizes)))
        addresses = {name: [x.data_ptr() for x in own] for name, own in arrays.items()}
        known = _Numbers({**numbers, "size": np.array(sizes, np.float64)})
        for each, loop in self._passes:
            given = np.empty((len(each.numbers), len(sizes)))
            for row, number in zip(given, each.numbers, strict=True):
                row[:] = known.of(number)
            sums = np.empty((len(each.norms), len(tensors)))
            own = np.array([addresses[name] for name in each.arrays], np.int64)
            _in_threads(loop, sizes, (tensors, starts, ends, own, given, sums))
            for norm, row in zip(each.norms, sums, strict=True):
                known.learn(norm, np.sqrt(np.add.reduceat(row, first_of)))
        written = {name for each, _ in self._passes for name in each.written}
        torch.autograd.graph.increment_version([x for name in written for x in arrays[name]])


class _Numbers:
    """The numbers of one update, of each tensor or of all."""

    def __init__(self, given: Mapping[str, Any]):
        self._given = given
        self._known: dict[Value, Any] = {}

    def learn(self, value: Value, number: Any) -> None:
        """Takes what a loop has found."""
        self._known[value] = number

    def of(self, value: Value) -> Any:
        """Returns the number that a value is."""
        if value not in self._known:
            if value.name == "constant":
                number = value.arguments[0]
            elif value.name == "number":
                number = np.float64(self._given[value.arguments[0]])
            else:
                with np.errstate(all="ignore"):
                    number = OPERATIONS[value.name].function(*map(self.of, value.arguments))
            self._known[value] = number
        return self._known[value]


@functools.lru_cache(maxsize=64)
def chunks(sizes: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns the parts in which tensors of some sizes are updated: tensor, start, end."""
    rows = [
        (index, start, min(start + _CHUNK, size))
        for index, size in enumerate(sizes)
        for start in range(0, max(size, 1), _CHUNK)
    ]
    tensors, starts, ends = np.array(rows, np.int64).reshape(-1, 3).T
    return tensors.copy(), starts.copy(), ends.copy()


@functools.cache
def compiled(source: str, dtype: str) -> Any:
    """Returns the function of a loop, compiled."""
    import numba

    real = np.dtype(dtype).type
    names = {"np": np, "carray": numba.carray, "pointer": _pointer(), "real": real}
    names["size"] = np.dtype(dtype).itemsize
    exec(source, names)
    integers, table, wide = numba.int64[::1], numba.int64[:, ::1], numba.float64[:, ::1]
    signature = numba.void(
        numba.int64, numba.int64, integers, integers, integers, table, wide, wide
    )
    # Sums of squares may be taken in another order, several at a time.
    math = {"contract", "reassoc"} if "s0" in source else {"contract"}
    return numba.njit([signature], nogil=True, error_model="numpy", fastmath=math)(names["loop"])


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


def _in_threads(loop: Any, sizes: Sequence[int], arguments: tuple) -> None:
    """Calls a loop for all chunks, in as many threads as PyTorch has."""
    count, threads = len(arguments[0]), torch.get_num_threads()
    if threads == 1 or count == 1 or sum(sizes) < _ALONE:
        loop(0, count, *arguments)
        return
    work = np.cumsum(arguments[2] - arguments[1])
    shares = np.searchsorted(work, work[-1] * np.arange(1, threads) / threads)
    bounds = [0, *(int(share) + 1 for share in shares), count]
    parts = [(a, b) for a, b in itertools.pairwise(bounds) if a < b]
    futures = [_pool(os.getpid(), threads).submit(loop, *part, *arguments) for part in parts[1:]]
    loop(*parts[0], *arguments)
    for future in futures:
        future.result()


@functools.lru_cache(maxsize=1)
def _pool(process: int, threads: int) -> concurrent.futures.ThreadPoolExecutor:
    """Returns the threads of this process: a fork has none."""
    return concurrent.futures.ThreadPoolExecutor(threads - 1, "optimizer")


def update(rule: Rule, batch: Batch, h: Numbers) -> bool:
    """Updates weights, their state and their averages by loops, and returns True, if they can.

    Numba must be installed, and the rule must compute each entry by itself, or from norms.

    Args:
        rule: The rule.
        batch: What is updated: dense tensors, each laid out as its weight.
        h: The numbers of the update.
    """
    first = batch.weights[0]
    if not has_numba() or first.device.type != "cpu":
        return False
    if sum(weight.numel() for weight in batch.weights) < _LEAST:
        return False
    now = {name: _of_each(value) for name, value in vars(h).items()}
    kinds = [(n, _ANY if is_number(x) or isinstance(x, np.ndarray) else x) for n, x in now.items()]
    form = Form(batch.maximize, batch.divisor is not None, bool(batch.averages))
    try:
        found = _loops(cast(Any, type(rule)), tuple(batch.slots), tuple(kinds), form, first.dtype)
    except TypeError:  # a number that has no hash, such as a list
        return False
    if found is None:
        return False
    factor = 1.0 if batch.divisor is None else 1 / batch.divisor.item()
    found.run(batch, {**now, "factor": factor, "share": batch.share})
    return True


_ANY = 1.0  # in the place of a number of which the loops do not depend


def _of_each(value: Any) -> Any:
    return np.array(value.values, np.float64) if isinstance(value, Scalars) else value


@functools.lru_cache(maxsize=1024)
def _loops(
    rule: type[Rule], slots: tuple[str, ...], kinds: tuple, form: Form, dtype: torch.dtype
) -> Loops | None:
    kind = np.dtype(str(dtype).removeprefix("torch."))
    try:
        return Loops(trace(rule(), dict(kinds), slots, kind, form), kind)
    except (AttributeError, TypeError):  # it is no formula of each entry, or wrong: lists tell
        return None


@functools.cache
def has_numba() -> bool:
    """Says whether Numba is installed."""
    return importlib.util.find_spec("numba") is not None
