"""The learning rate range test: what the loss does while the rate grows, and which rate that means.

Plain Python: a step of any framework is a function from a rate to a loss.
"""

import csv
import dataclasses
import itertools
import math
import os
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from optimization import extras

_BAR = 30  # characters for the highest loss of a table, one for the lowest
_PICTURES = (".png", ".svg", ".pdf")


@dataclasses.dataclass(frozen=True)
class RangeTest:
    """What a range test has found.

    >>> losses = [3.0, 2.0, 1.0, 9.0]
    >>> RangeTest([0.01, 0.1, 1.0, 10.0], losses, losses, diverged=True, planned=4).tenth
    0.1

    Attributes:
        rates: The learning rates, growing from step to step by one factor.
        losses: The loss at each; the last may be infinite or NaN.
        smoothed: Their exponential moving average, corrected for its start.
        diverged: Whether the test ended because the loss grew.
        planned: How many steps there would have been without that.
    """

    rates: list[float]
    losses: list[float]
    smoothed: list[float]
    diverged: bool
    planned: int

    @property
    def lowest(self) -> float:
        """The rate at which the smoothed loss is lowest."""
        return self.rates[self._lowest()]

    @property
    def tenth(self) -> float:
        """A tenth of `lowest`: a rate that is safe even for a long training."""
        return self.lowest / 10

    @property
    def steepest(self) -> float | None:
        """The rate at which the smoothed loss falls most steeply; None if it never falls.

        That is over the logarithm of the rate, from a twentieth of the steps before to as many
        after, and before the loss is lowest; the first tenth of the steps, of which the average is
        not one of many yet, is left out.
        """
        last, reach = self._lowest(), max(1, self.planned // 20)
        places = range(max(reach, self.planned // 10), min(last + 1, len(self.rates) - reach))
        slopes = {i: self.smoothed[i + reach] - self.smoothed[i - reach] for i in places}
        steepest = min(slopes, key=slopes.__getitem__, default=None)
        if steepest is None or not slopes[steepest] < 0:
            return None
        return self.rates[steepest]

    def _lowest(self) -> int:
        finite = [value if math.isfinite(value) else math.inf for value in self.smoothed]
        return finite.index(min(finite))

    def __str__(self) -> str:
        return self.table()

    def table(self, lines: int = 16) -> str:
        """Returns the smoothed loss at some of the rates, with bars, and what follows from it.

        The shortest bar is the lowest loss of them.
        """
        last = len(self.rates) - 1
        count = min(lines, last + 1)
        shown = sorted({last * i // max(count - 1, 1) for i in range(count)})
        finite = [self.smoothed[i] for i in shown if math.isfinite(self.smoothed[i])]
        low, high = min(finite, default=0.0), max(finite, default=0.0)
        rows = ["rate       smoothed loss"]
        for i in shown:
            value = self.smoothed[i]
            share = (value - low) / ((high - low) or 1.0) if math.isfinite(value) else 1.0
            bar = "█" * (1 + round((_BAR - 1) * share))
            rows.append(f"{self.rates[i]:<9.3g}  {value:<9.4g}  {bar}")
        return "\n".join([*rows, "", *self._conclusions()])

    def _conclusions(self) -> list[str]:
        end = f"the loss diverged at {self.rates[-1]:.2g}" if self.diverged else ""
        if self.steepest is None:
            end = end or f"tested up to {self.rates[-1]:.2g}"
            return [f"the loss never fell: begin with a lower rate ({end})"]
        lines = [
            f"steepest descent              {self.steepest:.2g}",
            f"a tenth of the lowest point's {self.tenth:.2g}",
            f"lowest loss                   {self.lowest:.2g}",
        ]
        return [
            *lines,
            end or f"no divergence up to {self.rates[-1]:.2g}: a higher `highest` tells more",
        ]

    def save(self, path: str | os.PathLike) -> None:
        """Writes a picture (.png, .svg, .pdf; needs Matplotlib) or a table (.csv).

        Raises:
            ValueError: For another ending.
            OSError: If the file cannot be written.
        """
        path = os.fspath(path)
        if checked_ending(path) == ".csv":
            with open(path, "w", newline="", encoding="utf-8") as file:
                table = csv.writer(file)
                table.writerow(["learning_rate", "loss", "smoothed_loss"])
                table.writerows(zip(self.rates, self.losses, self.smoothed, strict=True))
        else:
            self._draw(path)

    def _draw(self, path: str) -> None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        axes.plot(self.rates, self.losses, color="0.8", label="loss")
        axes.plot(self.rates, self.smoothed, label="smoothed")
        marks = {"steepest descent": self.steepest, "lowest / 10": self.tenth}
        for number, (label, rate) in enumerate(marks.items(), 1):
            if rate is not None:
                axes.axvline(rate, linestyle="--", color=f"C{number}", label=f"{label}: {rate:.2g}")
        finite = [value for value in self.smoothed if math.isfinite(value)]
        low, high = min(finite), max(finite[: self._lowest() + 1])
        room = (high - low) or abs(high) or 1.0
        axes.set(xscale="log", xlabel="learning rate", ylabel="loss")
        axes.set_ylim(low - 0.1 * room, high + 0.5 * room)
        axes.legend()
        figure.savefig(path)


def checked_ending(path: str) -> str:
    """Returns the ending of a file that `RangeTest.save` can write.

    Raises:
        ValueError: If it is another.
        MissingExtraError: If it is that of a picture, and Matplotlib is not installed.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending not in (*_PICTURES, ".csv"):
        known = ", ".join((*_PICTURES, ".csv"))
        raise ValueError(f"the ending of {path!r} must be one of {known}")
    if ending != ".csv":
        extras.require("matplotlib")
    return ending


def repeated(batches: Iterable[Any]) -> Iterator[Any]:
    """Returns batches without end, from the first again after the last.

    >>> [batch for _, batch in zip(range(3), repeated([1, 2]))]
    [1, 2, 1]

    Raises:
        ValueError: When there are none, or no more of an iterator.
    """
    for again in itertools.count():
        found = False
        for batch in batches:
            found = True
            yield batch
        if not found:
            raise ValueError("there are no more batches" if again else "there are no batches")


def find_learning_rate(
    step: Callable[[float], float],
    *,
    lowest: float = 1e-7,
    highest: float = 10.0,
    steps: int = 100,
    smoothing: float = 0.9,
    divergence: float = 4.0,
) -> RangeTest:
    """Trains with a rate that grows exponentially, until the loss diverges, and looks at the loss.

    It changes the weights: whoever calls it puts them back. `optimization.torch` and
    `optimization.keras` have functions of this name that do.

    The example is a parabola of curvature 4, on which gradient descent diverges above 2 / 4:

    >>> w = 1.0
    >>> def step(rate):
    ...     global w
    ...     loss = 2 * w**2
    ...     w -= rate * 4 * w
    ...     return loss
    >>> found = find_learning_rate(step, lowest=1e-3)
    >>> found.diverged, found.steepest < 0.5 < found.rates[-1]
    (True, True)

    Source: Smith 2015, arXiv:1506.01186; stopped, smoothed and read as in fastai.

    Args:
        step: Takes one training step with the rate that it is given; returns the loss as a number,
            that of before the step.
        lowest: The first rate.
        highest: The last rate.
        steps: Training steps, if the loss does not diverge before.
        smoothing: The factor of the moving average of the loss, in [0, 1).
        divergence: The test ends when the smoothed loss is more than this times the lowest so far,
            or when the loss is not finite.

    Raises:
        ValueError: For a range that is none, or another argument out of its own.
    """
    if not 0 < lowest < highest < math.inf:
        raise ValueError(f"the rates must be 0 < lowest < highest, received: {lowest=}, {highest=}")
    if steps < 3:
        raise ValueError(f"Argument `steps` must be >= 3, received: {steps=}")
    if not 0 <= smoothing < 1:
        raise ValueError(f"Argument `smoothing` must be >= 0 and < 1, received: {smoothing=}")
    if not divergence > 1:
        raise ValueError(f"Argument `divergence` must be > 1, received: {divergence=}")
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    average, best, diverged = 0.0, math.inf, False
    for number in range(steps):
        rate = lowest * (highest / lowest) ** (number / (steps - 1))
        loss = float(step(rate))
        average = smoothing * average + (1 - smoothing) * loss
        value = average / (1 - smoothing ** (number + 1))
        rates.append(rate)
        losses.append(loss)
        smoothed.append(value)
        # A loss below 0 has no multiple that says anything: only one that is not finite ends it.
        diverged = not math.isfinite(loss) or (best > 0 and value > divergence * best)
        if diverged:
            break
        best = min(best, value)
    return RangeTest(rates, losses, smoothed, diverged, steps)
