"""What a run says while it runs: a progress bar in a terminal, plain lines elsewhere."""

import time
from collections.abc import Mapping
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


def format_values(values: Mapping[str, float]) -> str:
    """Returns `name value` pairs on one line, numbers to four digits."""
    return "  ".join(f"{name} {value:.4g}" for name, value in values.items())


def format_duration(seconds: float) -> str:
    """Returns h:mm:ss."""
    minutes, seconds = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{seconds:02d}"


class StepProgress:
    """Shows how far training is, how fast it goes and how long it will take.

    In a terminal it draws a bar. The rate leaves out the first loop, in which TensorFlow traces and
    compiles, and the time spent in evaluation and checkpoints.
    """

    def __init__(self, console: Console, total: int, step: int):
        self._console = console
        self._total = total
        self._step = step
        self._timed_steps, self._timed_seconds = 0, 0.0
        self._is_first = True
        self._started = 0.0
        self._bar = Progress(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[rate]}"),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, completed=step, rate="")

    def __enter__(self) -> Self:
        self._bar.start()
        return self

    def __exit__(self, *error: object) -> None:
        if not self._bar.disable:  # Older versions of rich end what was never begun with a line.
            self._bar.stop()

    def start_loop(self) -> None:
        """Marks the start of a loop of training steps."""
        self._started = time.perf_counter()

    def end_loop(self, step: int) -> None:
        """Marks its end, after `step` steps in all."""
        if not self._is_first:
            self._timed_steps += step - self._step
            self._timed_seconds += time.perf_counter() - self._started
        self._is_first = False
        self._step = step
        rate = f"{self.rate:,.0f} steps/s" if self.rate else ""
        self._bar.update(self._task, completed=step, rate=rate)

    @property
    def rate(self) -> float:
        """Training steps a second; 0 as long as it is not known."""
        return self._timed_steps / self._timed_seconds if self._timed_seconds else 0.0

    def show(self, values: Mapping[str, float]) -> None:
        """Writes the values of a summary on a line; without a bar, the rate and time left too."""
        line = f"step {self._step}/{self._total}  {format_values(values)}"
        if self._bar.disable and self.rate:
            left = format_duration((self._total - self._step) / self.rate)
            line += f"  {self.rate:.3g} steps/s, {left} left"
        say(self._console, line)


def say(console: Console, text: str) -> None:
    """Writes plain text, not wrapped and not interpreted."""
    console.print(text, markup=False, highlight=False, soft_wrap=True)


def labeled(values: Mapping[str, float]) -> dict[str, float]:
    """Returns the values of an evaluation under names for a place beside those of training."""
    return {f"validation {name}": value for name, value in values.items()}
