"""The measurement: contestants check, prepare, and update in turns."""

import contextlib
import dataclasses
import itertools
import math
import pathlib
import statistics
import tempfile
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from tools.benchmark import memory
from tools.benchmark.floor import BYTES, Floor
from tools.benchmark.lists import Parameter, parameters, sampled
from tools.benchmark.processes import Process, WorkerError
from tools.benchmark.variants import VARIANTS

CHECK_STEPS = 5
_TURN = 600e6  # elements updated in a turn, so that short lists are timed for long enough
_MOST_UPDATES = 20
_WORKING_SET = 1.5  # of the state's size again, for temporaries
_PROCESS = 1 << 30
_LEFT_OVER = 1 << 27  # bytes with which a process can't measure its memory again


@dataclasses.dataclass
class Result:
    """What was measured of a contestant.

    Attributes:
        contestant: Its name.
        parameter_list: The list.
        variant: The variant.
        skipped: Why there are no figures; None if there are.
        milliseconds: Of an update, turn by turn.
        floors: The milliseconds of `a += b` around each turn.
        difference: How far its weights are from those of the contestant that comes first, as a
            part of the longest way a weight has gone.
        figures: What `Worker.prepare` returned, and `Worker.memory` while it was timed.
        group: Which contestants took turns with each other: those of the same number.
    """

    contestant: str
    parameter_list: str
    variant: str
    skipped: str | None = None
    milliseconds: list[float] = dataclasses.field(default_factory=list)
    floors: list[float] = dataclasses.field(default_factory=list)
    difference: float | None = None
    figures: dict[str, Any] = dataclasses.field(default_factory=dict)
    group: int = 0

    @property
    def agrees(self) -> bool:
        """Whether it did the same as the first."""
        tolerance = VARIANTS[self.variant].tolerance
        return self.difference is not None and self.difference <= tolerance

    @property
    def median(self) -> float:
        """The median milliseconds."""
        return statistics.median(self.milliseconds)

    @property
    def to_add(self) -> float:
        """The median of the turns' times over `a += b`."""
        pairs = zip(self.milliseconds, self.floors, strict=True)
        return statistics.median(time / floor for time, floor in pairs)

    @property
    def to_bytes(self) -> float:
        """The same over the time that the update's bytes take at the speed of `a += b`."""
        return self.to_add * BYTES / VARIANTS[self.variant].bytes_per_parameter

    def __str__(self) -> str:
        if self.skipped is not None:
            return f"{self.contestant}: {self.skipped}"
        times = f"{self.median:.1f} ms, {self.to_add:.2f} x add, {self.to_bytes:.2f} x bytes"
        first = self.figures["first_step_seconds"]
        return f"{self.contestant}: {times}, first {first:.1f} s, differs by {self.difference:.0e}"


Contest = list[tuple[Process, Result]]


class Turns:
    """Lets contestants update the lists of parameters in turns.

    Args:
        processes: The contestants; the first is what the others' results are compared with.
        rounds: Turns of each contestant.
        quick: Whether the lists are small.
        say: Takes lines about the progress.
    """

    def __init__(
        self,
        processes: Sequence[Process],
        rounds: int,
        quick: bool,
        say: Callable[[str], None],
    ) -> None:
        self._processes = processes
        self._rounds = rounds
        self._quick = quick
        self._say = say

    def measure(self, parameter_list: str, variant: str) -> list[Result]:
        """Returns the results of all contestants, in their order."""
        self._say(f"{parameter_list} {variant}")
        contest = [(p, Result(p.name, parameter_list, variant)) for p in self._processes]
        tensors = parameters(parameter_list, self._quick)
        size = sum(tensor.size for tensor in tensors)
        with tempfile.TemporaryDirectory() as folder, contextlib.closing(Floor(size)) as floor:
            self._check(contest, Reference(parameters("check")), pathlib.Path(folder))
            reference = Reference(tensors)
            waiting = [pair for pair in contest if pair[1].skipped is None]
            for group in itertools.count():
                if not waiting:
                    break
                members, waiting = self._prepare_group(waiting, size, group)
                self._take_turns(members, size, floor)
                self._finish(members, reference, pathlib.Path(folder))
        return [result for _, result in contest]

    def _check(self, contest: Contest, reference: "Reference", folder: pathlib.Path) -> None:
        """Compares a few updates of small tensors."""
        for process, result in contest:
            with self._noting(result):
                process.start()
                path = str(folder / f"{process.name}.npz")
                process.ask("check", variant=result.variant, steps=CHECK_STEPS, path=path)
                result.difference = reference.difference(path)

    def _prepare_group(self, waiting: Contest, size: int, group: int) -> tuple[Contest, Contest]:
        """Prepares as many contestants as the memory holds; returns them, and the others."""
        prepared: Contest = []
        while waiting and (not prepared or _fits(waiting[0][1], size)):
            (process, result), *waiting = waiting
            result.group = group
            arguments = {"parameter_list": result.parameter_list, "variant": result.variant}
            with self._noting(result):
                result.figures = process.ask("prepare", **arguments, quick=self._quick)
                # Once more: what is done only in a second step must not count.
                process.ask("time", updates=1)
                process.ask("reset_peak")
                prepared.append((process, result))
        return prepared, waiting

    def _take_turns(self, members: Contest, size: int, floor: Floor) -> None:
        turn = VARIANTS[members[0][1].variant].turn if members else None
        updates = turn or min(_MOST_UPDATES, max(1, round(_TURN / size)))
        for turn in range(self._rounds):
            # Each begins once in a while: nobody always comes after the same neighbor.
            start = turn % max(1, len(members))
            for process, result in [*members[start:], *members[:start]]:
                if result.skipped is not None:
                    continue
                before = floor.measure()
                with self._noting(result):
                    seconds = process.ask("time", updates=updates)
                    result.milliseconds.append(1e3 * seconds)
                    result.floors.append(1e3 * (before + floor.measure()) / 2)

    def _finish(self, members: Contest, reference: "Reference", folder: pathlib.Path) -> None:
        for process, result in members:
            if result.skipped is None:
                with self._noting(result):
                    result.figures |= process.ask("memory")
                    path = str(folder / f"{process.name}.npz")
                    process.ask("sample", path=path)
                    result.difference = max(result.difference, reference.difference(path))
                    self._say(f"  {result}")
            if process.alive:
                with self._noting(result):
                    if process.ask("finish") > _LEFT_OVER:
                        process.stop()

    @contextlib.contextmanager
    def _noting(self, result: Result) -> Iterator[None]:
        """Notes in the result why a request failed, and goes on."""
        try:
            yield
        except WorkerError as error:
            result.skipped = str(error)
            self._say(f"  {result}")


class Reference:
    """What the weights are compared with: those of the first that is asked about.

    Args:
        tensors: The parameters, for the weights that all begin with.
    """

    def __init__(self, tensors: Sequence[Parameter]) -> None:
        self._tensors = {tensor.name: tensor for tensor in tensors}
        self._first: dict[str, np.ndarray] | None = None

    def difference(self, path: str) -> float:
        """Returns the largest difference to the first, over the longest way of a weight of its.

        Infinite if values are missing or not finite.
        """
        with np.load(path) as file:
            values = dict(file)
        if self._first is None:
            self._first = values
        if values.keys() != self._first.keys():
            return math.inf
        way = max(np.abs(v - self._start(name)).max() for name, v in self._first.items())
        largest = max(np.abs(v - self._first[name]).max() for name, v in values.items())
        result = float(largest / way)
        return result if math.isfinite(result) else math.inf

    def _start(self, name: str) -> np.ndarray:
        start = self._tensors[name.partition("/")[2]].weights()
        return start if start.shape == self._first[name].shape else sampled(start)


def _fits(result: Result, size: int) -> bool:
    tensors = VARIANTS[result.variant].tensors + _WORKING_SET
    return memory.available() > _PROCESS + 4 * size * tensors
