"""How tensors are parted among calls of a loop, and what is known beside their entries."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from optimization.torch.traced import ALL, OPERATIONS, ROW, Value

_PART = 2**16  # entries that one call of a loop updates at the most: they fit into a cache

Shape = tuple[int, ...]


class Parts(NamedTuple):
    """The parts of tensors.

    Attributes:
        tensors: Of which tensor each part is.
        starts: Its first entry; where tensors are matrices, its first row.
        ends: What comes after its last one.
        work: How many entries it and those before it have.
        first: The first part of each tensor.
        rows: How many rows each matrix of a tensor has.
        columns: How many columns.
        sizes: How many entries each tensor has.
        alike: Places of tensors of one shape, with that shape as (matrices, rows, columns); None
            for tensors that are no matrices.
    """

    tensors: np.ndarray
    starts: np.ndarray
    ends: np.ndarray
    work: np.ndarray
    first: np.ndarray
    rows: np.ndarray
    columns: np.ndarray
    sizes: np.ndarray
    alike: list[tuple[np.ndarray, tuple[int, int, int] | None]]

    def room_for(self, mean: Value) -> list[np.ndarray]:
        """Returns arrays for sums: of rows for tensors that are alike, of columns for a part."""
        if mean.of != ROW:
            return [np.empty(self.columns[tensor]) for tensor in self.tensors]
        shapes = [(len(places), shape) for places, shape in self.alike]
        return [np.empty((count, math.prod(shape[:2]))) for count, shape in shapes if shape]

    def sums(self, mean: Value, made: Sequence[np.ndarray]) -> list[np.ndarray]:
        """Returns sums, of tensors that are alike together: tensor, matrix, row, column."""
        found = []
        for number, (places, shape) in enumerate(self.alike):
            matrices, rows, columns = shape or (0, 0, 0)
            if mean.of == ROW:
                found.append(made[number].reshape(-1, matrices, rows, 1))
                continue
            total = np.zeros((len(places), matrices, 1, columns))
            for i, place in enumerate(places):
                part = self.first[place]
                while part < len(self.tensors) and self.tensors[part] == place:
                    total[i, self.starts[part] // rows, 0] += made[part]
                    part += 1
            found.append(total)
        return found


@functools.lru_cache(maxsize=64)
def parts_of(shapes: tuple[Shape, ...] | tuple[int, ...]) -> Parts:
    """Returns the parts of tensors; those of matrices each have rows of one.

    Args:
        shapes: The shapes of tensors that are matrices; of others their counts of entries.
    """
    are_matrices = isinstance(shapes[0], tuple)
    table: list[tuple[int, int, int, int]] = []
    alike: dict[tuple[int, int, int], list[int]] = {}
    for place, shape in enumerate(shapes):
        if isinstance(shape, tuple):
            matrices, (height, width) = math.prod(shape[:-2]), shape[-2:]
            alike.setdefault((matrices, height, width), []).append(place)
        else:
            matrices, height, width = 1, shape, 1
        length = max(_PART // max(width, 1), 1)
        for matrix in range(matrices):
            for start in range(0, max(height, 1), length):
                offset, end = matrix * height, min(start + length, height)
                table.append((place, offset + start, offset + end, width))
    tensors, starts, ends, widths = (x.copy() for x in np.array(table, np.int64).T)
    groups = list[tuple[np.ndarray, tuple[int, int, int] | None]]()
    groups += [(np.array(places), shape) for shape, places in alike.items()]
    last = [shape[-2:] if isinstance(shape, tuple) else (1, 1) for shape in shapes]
    sizes = [math.prod(shape) if isinstance(shape, tuple) else shape for shape in shapes]
    rows, columns = np.array(last, np.int64).T
    return Parts(
        tensors,
        starts,
        ends,
        work=np.cumsum((ends - starts) * widths),
        first=np.searchsorted(tensors, np.arange(len(shapes))),
        rows=rows.copy(),
        columns=columns.copy(),
        sizes=np.array(sizes),
        alike=groups if are_matrices else [(np.arange(len(shapes)), None)],
    )


class SmallValues:
    """What an update knows beside entries: of tensors that are alike, numbers, rows and columns.

    Arrays have the axes tensor, matrix, row and column, of length 1 where there is no value of its
    own; those of tensors that are no matrices have one number for each.

    Args:
        places: The places of the tensors.
        shape: (matrices, rows, columns); None for tensors that are no matrices.
        arrays: All tensors, by the names of the arrays.
        numbers: Numbers, or one for each of all tensors, by name.
    """

    def __init__(
        self,
        places: np.ndarray,
        shape: tuple[int, int, int] | None,
        arrays: Mapping[str, Sequence[Tensor]],
        numbers: Mapping[str, Any],
    ):
        self.places, self._shape = places, shape
        self._arrays, self._numbers = arrays, numbers
        self._known: dict[Value, Any] = {}

    def learn(self, value: Value, numbers: np.ndarray) -> None:
        """Takes the norms, or the sums, that a loop has found."""
        self._known[value] = self._own(numbers)

    def learn_mean(self, value: Value, sums: np.ndarray) -> None:
        """Takes the sums that a loop has found."""
        _, rows, columns = self._shape or (0, 0, 0)
        self._known[value] = sums / (columns if value.of == ROW else rows)

    def _own(self, numbers: np.ndarray) -> np.ndarray:
        return numbers if self._shape is None else numbers.reshape(-1, 1, 1, 1)

    def value(self, value: Value) -> Any:
        """Returns what a value is."""
        if value not in self._known:
            with np.errstate(all="ignore"):
                self._known[value] = self._computed(value)
        return self._known[value]

    def _computed(self, value: Value) -> Any:
        if value.name == "constant":
            return value.arguments[0]
        if value.name == "number":
            number = np.asarray(self._numbers[value.arguments[0]], np.float64)
            return self._own(number[self.places]) if number.ndim else number
        if value.name == "read":
            slots = self._arrays[value.arguments[0]]
            kept = np.stack([slots[place].numpy() for place in self.places])
            return kept.reshape(self._lengths(value)).astype(np.float64)
        known = [self.value(x) for x in value.arguments]
        if value.name == "mean_of":
            return known[0].mean(axis=-2 if value.of == ROW else -1, keepdims=True)
        return OPERATIONS[value.name].function(*known)

    def _lengths(self, value: Value) -> Shape:
        if value.of == ALL:
            return (len(self.places),) if self._shape is None else (len(self.places), 1, 1, 1)
        matrices, rows, columns = self._shape or (0, 0, 0)
        own = (rows, 1) if value.of == ROW else (1, columns)
        return (len(self.places), matrices, *own)

    def vectors(self, value: Value, dtype: np.dtype) -> np.ndarray:
        """Returns values of rows or columns, those of a tensor one after another."""
        found = np.broadcast_to(self.value(value), self._lengths(value))
        return np.ascontiguousarray(found, dtype).reshape(len(self.places), -1)

    def write(self, value: Value, slots: Sequence[Tensor]) -> None:
        """Writes values of rows or columns, or single ones, into the slots of the tensors."""
        found = np.array(np.broadcast_to(self.value(value), self._lengths(value)))
        for own, place in zip(found, self.places, strict=True):
            slots[place].copy_(torch.as_tensor(own).reshape(slots[place].shape))
