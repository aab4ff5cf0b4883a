"""The source of the loops that compute a formula."""

import functools
from collections.abc import Iterable, Mapping, Sequence, Set
from typing import Any, NamedTuple

from optimization.torch.traced import (
    AVERAGE,
    COLUMN,
    ENTRY,
    GRADIENT,
    OPERATIONS,
    ROW,
    WEIGHT,
    Value,
)


class Pass(NamedTuple):
    """One loop over all entries.

    Attributes:
        source: Its source.
        arrays: The names of the arrays that it reads or writes, in the order of their addresses.
        numbers: The numbers that it is given.
        vectors: The values of rows and of columns that it is given, whose addresses come next.
        totals: The sums over all entries that it has, and the norms, of which it has those of
            squares.
        means: The means of which it has the sums: their addresses come last.
        written: The names of the arrays that it writes.
    """

    source: str
    arrays: list[str]
    numbers: list[Value]
    vectors: list[Value]
    totals: list[Value]
    means: list[Value]
    written: list[str]


def passes(targets: Mapping[str, Value], small: Set[str], of_matrices: bool) -> list[Pass]:
    """Returns the loops that compute new values of arrays, by the names of the arrays.

    What a later loop needs of an earlier one it computes again. So an array is written as soon as
    its value is known, if nothing after that needs the old one.

    Args:
        targets: The values.
        small: The names of those that are not of entries, and are computed after the loops.
        of_matrices: Whether arrays are matrices, which values of rows and of columns belong to.
    """
    reductions = _reductions_in(targets.values())
    targets = {name: value for name, value in targets.items() if name not in small}
    # The norm of what the last loop computes would be known after it.
    last = max(each.turn for each in targets.values())
    last = max((last, *(each.turn - 1 for each in reductions)))
    turns = {
        name: last if name in (WEIGHT, AVERAGE) else value.turn for name, value in targets.items()
    }
    while True:
        found, overwritten = [], set[str]()
        for turn in range(last + 1):
            writes = {name: x for name, x in targets.items() if turns[name] == turn}
            before = {name: x for name, x in targets.items() if turns[name] < turn}
            writer = _Writer(before)
            sums = [each for each in reductions if each.turn == turn + 1]
            found.append(writer.write(writes, sums, of_matrices))
            overwritten |= writer.reads & before.keys()
        if not overwritten:
            return found
        turns |= dict.fromkeys(overwritten, last)


@functools.cache
def norm_pass() -> Pass:
    """Returns the loop that sums the squares of gradients."""
    norm = Value("norm", Value("read", GRADIENT, of=ENTRY), turn=1)
    return _Writer({}).write({}, [norm], of_matrices=False)


def _reductions_in(values: Iterable[Any]) -> list[Value]:
    found: dict[Value, None] = {}
    for value in values:
        if isinstance(value, Value):
            found |= dict.fromkeys(_reductions_in(value.arguments))
            if value.name in ("norm", "sum", "mean"):
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
        self._vectors: list[Value] = []
        self.reads: set[str] = set()

    def write(
        self, writes: Mapping[str, Value], reductions: Sequence[Value], of_matrices: bool
    ) -> Pass:
        """Returns the loop that writes arrays, and sums what norms and means are made of."""
        totals = [each for each in reductions if each.name in ("norm", "sum")]
        means = [each for each in reductions if each.name == "mean"]
        work = [f"a_{name}[i] = {self._name(value)}" for name, value in writes.items()]
        for i, each in enumerate(totals):
            x = self._name(each.arguments[0])
            added = f"wide({x}) * wide({x})" if each.name == "norm" else f"wide({x})"
            work.append(f"s{i} = total(s{i}, {added})")
        for i, mean in enumerate(means):
            target = f"q{i}" if mean.of == ROW else f"m{i}[j]"
            x = self._name(mean.arguments[0])
            work.append(f"{target} = total({target}, wide({x}))")
        loads = [f"x_{name} = a_{name}[i]" for name in self._loaded]
        columns = [i for i, value in enumerate(self._vectors) if value.of == COLUMN]
        loads += [f"y{i} = v_{i}[j]" for i in columns]
        arrays = list(dict.fromkeys([*self._loaded, *writes]))
        body = [*loads, *self._lines, *work]
        made = Pass("", arrays, self._numbers, self._vectors, totals, means, list(writes))
        lines = _over_matrices(made, body) if of_matrices else _over_entries(made, body)
        return made._replace(source="\n".join([_HEAD, *(f"    {line}" for line in lines)]))

    def _name(self, value: Value) -> str:
        if value not in self._known:
            self._known[value] = self._new_name(value)
        return self._known[value]

    def _new_name(self, value: Value) -> str:
        if value.name == "constant":
            (constant,) = value.arguments
            return repr(constant) if isinstance(constant, bool) else f"real({constant!r})"
        if value.of in (ROW, COLUMN):
            self._vectors.append(value)
            return f"y{len(self._vectors) - 1}"
        if value.of != ENTRY:
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
            f"e{len(self._lines)} = {OPERATIONS[value.name].source.format(*arguments)}"
        )
        return f"e{len(self._lines) - 1}"


_HEAD = "def loop(first, last, tensors, starts, ends, rows, columns, addresses, numbers, sums):"


def _over_entries(made: Pass, body: Sequence[str]) -> list[str]:
    """Returns a loop over parts of tensors, from the entry `starts` to the entry `ends`."""
    sums = range(len(made.totals))
    return [
        "for c in range(first, last):",
        "    t, start = tensors[c], starts[c]",
        "    count = ends[c] - start",
        *(
            f"    a_{name} = carray(pointer(addresses[{i}, t] + start * size), count, real)"
            for i, name in enumerate(made.arrays)
        ),
        *(f"    n{i} = real(numbers[{i}, t])" for i in range(len(made.numbers))),
        *(f"    s{i} = 0.0" for i in sums),
        "    for i in range(count):",
        *(f"        {line}" for line in body),
        *(f"    sums[{i}, c] = s{i}" for i in sums),
    ]


def _over_matrices(made: Pass, body: Sequence[str]) -> list[str]:
    """Returns a loop over parts of matrices, from the row `starts` to the row `ends`.

    A tensor of more axes is several matrices, and its rows are counted through; no part has rows
    of two of them. Columns are summed for each part by itself.
    """
    sums, vectors = range(len(made.totals)), len(made.arrays)
    means = vectors + len(made.vectors)
    of_rows = [i for i, value in enumerate(made.vectors) if value.of == ROW]
    of_columns = [i for i, value in enumerate(made.vectors) if value.of == COLUMN]
    row_means = [i for i, value in enumerate(made.means) if value.of == ROW]
    column_means = [i for i, value in enumerate(made.means) if value.of == COLUMN]
    return [
        "for c in range(first, last):",
        "    t, start = tensors[c], starts[c]",
        "    count, n = ends[c] - start, columns[t]",
        "    matrix = start // rows[t]",
        *(
            f"    a_{name} = carray(pointer(addresses[{i}, t] + start * n * size), count * n, real)"
            for i, name in enumerate(made.arrays)
        ),
        *(
            f"    v_{i} = carray(pointer(addresses[{vectors + i}, t] + start * size), count, real)"
            for i in of_rows
        ),
        *(
            f"    v_{i} = carray(pointer(addresses[{vectors + i}, t] + matrix * n * size), n, real)"
            for i in of_columns
        ),
        *(
            f"    m{i} = carray(pointer(addresses[{means + i}, t] + start * 8), count, wide)"
            for i in row_means
        ),
        *(f"    m{i} = carray(pointer(addresses[{means + i}, c]), n, wide)" for i in column_means),
        *(f"    m{i}[:] = 0.0" for i in column_means),
        *(f"    n{i} = real(numbers[{i}, t])" for i in range(len(made.numbers))),
        *(f"    s{i} = 0.0" for i in sums),
        "    for r in range(count):",
        *(f"        y{i} = v_{i}[r]" for i in of_rows),
        *(f"        q{i} = 0.0" for i in row_means),
        "        for j in range(n):",
        "            i = r * n + j",
        *(f"            {line}" for line in body),
        *(f"        m{i}[r] = q{i}" for i in row_means),
        *(f"    sums[{i}, c] = s{i}" for i in sums),
    ]
