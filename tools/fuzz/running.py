"""Runs a target over many inputs: at random by Hypothesis, or steered by coverage by Atheris."""

import contextlib
import sys
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import hypothesis
from hypothesis import strategies as st

from tools.fuzz.choices import Choices
from tools.fuzz.guard import limited
from tools.fuzz.targets import Target

# To draw bytes takes as long as most checks, so that several inputs are made of them.
_TOGETHER = 4
_BYTES = st.binary(min_size=250 * _TOGETHER, max_size=2000 * _TOGETHER)


class Count(NamedTuple):
    """How many inputs there were, how many were accepted, and the seconds of a processor."""

    inputs: int
    accepted: int
    seconds: float


class Counter:
    """A target that counts its inputs.

    Args:
        target: One of `TARGETS`.
        limits: Whether time and memory are checked.
        together: How many inputs are made of the same bytes, one behind the other.
    """

    def __init__(self, target: Target, limits: bool, together: int = 1):
        self.target = target
        self.inputs = self.accepted = 0
        self._together = together
        self._watch: Callable[[], Any] = limited if limits else contextlib.nullcontext

    def __call__(self, data: bytes) -> None:
        choices = Choices(data)
        for _ in range(self._together):
            self._check(self.target.make(choices))

    def _check(self, given: Any) -> None:
        self.inputs += 1
        try:
            with self._watch():
                self.accepted += bool(self.target.check(given))
        except BaseException:
            hypothesis.note(f"The input is {given!r:.3000}")
            raise


def run(target: Target, inputs: int, seed: int | None = None, limits: bool = False) -> Count:
    """Runs a target by Hypothesis, which makes the input of a fault small before it is raised.

    Args:
        target: One of `TARGETS`.
        inputs: How many.
        seed: Which; None for those that a release of Hypothesis always draws.
        limits: Whether time and memory are checked, which depend on the machine.
    """
    counter, started = Counter(target, limits, _TOGETHER), time.process_time()
    phases = [hypothesis.Phase.generate, hypothesis.Phase.shrink]
    settings = hypothesis.settings(
        max_examples=-(-inputs // _TOGETHER),
        derandomize=seed is None,
        database=None,
        deadline=None,
        phases=phases,
        suppress_health_check=list(hypothesis.HealthCheck),
    )

    @settings
    @hypothesis.given(_BYTES)
    def test(data: bytes) -> None:
        counter(data)

    (test if seed is None else hypothesis.seed(seed)(test))()
    return Count(counter.inputs, counter.accepted, time.process_time() - started)


def run_steered(target: Target, inputs: int, seed: int, corpus: str) -> None:
    """Runs a target by Atheris, and ends the process; a corpus keeps what reached new code."""
    import atheris

    counter, started = Counter(target, limits=True), time.process_time()

    def one(data: bytes) -> None:
        try:
            counter(data)
        finally:
            if counter.inputs >= inputs:
                seconds = time.process_time() - started
                count = Count(counter.inputs, counter.accepted, seconds)
                print(f"steered: {told(count)}", file=sys.stderr, flush=True)

    arguments = [f"-runs={inputs}", f"-seed={seed + 1}", "-max_len=2000", "-len_control=0"]
    atheris.Setup([sys.argv[0], *arguments, "-print_final_stats=0", corpus], one)
    atheris.Fuzz()


def told(count: Count) -> str:
    """Returns a count in words."""
    return f"{count.inputs:,} inputs, {count.accepted:,} accepted, {count.seconds:.1f} s"
