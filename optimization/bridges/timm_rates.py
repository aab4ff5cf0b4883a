"""The learning rates of timm's schedulers, in float64, by the epochs done: those of 1.0.31."""

import bisect
import math
from collections.abc import Callable
from typing import NamedTuple

from optimization.bridges.draft import Source
from optimization.bridges.epochs import MOST


class TimmRate(NamedTuple):
    """A schedule of timm.

    Attributes:
        rate: The rate by the time t that the scheduler sees, in epochs.
        epochs: How many are trained, cycles, cooldown and warmup prefix included.
    """

    rate: Callable[[float], float]
    epochs: int


def rate_function(source: Source, base: float) -> TimmRate | None:
    """Returns the schedule that `sched` names; None for one that is not known."""
    kind = source.text("sched").value
    length, warmup = source.whole("epochs").value, float(source.number("warmup_epochs").value)
    if not 0 < length <= MOST:
        source.refuse("epochs", f"expected 1 to {MOST:,} epochs, got {length!r}")
    if not 0 <= warmup <= MOST:
        source.refuse("warmup_epochs", f"expected 0 to {MOST:,} epochs, got {warmup!r}")
    start, prefix = float(source.number("warmup_lr").value), source.flag("warmup_prefix")
    decay = _decay(source, kind, base, length)
    if decay is None:
        return None
    if kind == "none":
        return TimmRate(decay, length)
    target = base if kind != "tanh" or prefix else decay(warmup)

    def rate(t: float) -> float:
        if t < warmup:
            return start + t * ((target - start) / warmup)
        return decay(t - warmup if prefix else t)

    return TimmRate(rate, _trained(source, kind, length, warmup, prefix))


def _trained(source: Source, kind: str, length: int, warmup: float, prefix: bool) -> int:
    """Returns how many epochs timm trains."""
    if kind not in ("cosine", "tanh", "poly"):
        return int(length + warmup) if prefix else length
    cycles = max(1, source.whole("lr_cycle_limit").value)
    multiple = float(source.number("lr_cycle_mul").value)
    total = float(length * cycles)
    if multiple != 1:
        try:
            total = math.floor(-length * (multiple**cycles - 1) / (1 - multiple))
        except OverflowError:
            source.refuse("lr_cycle_limit", f"{cycles:,} cycles, each longer, have no end")
    return int(total + (warmup if prefix else 0) + source.whole("cooldown_epochs").value)


def _decay(source: Source, kind: str, base: float, length: int) -> Callable | None:
    if kind in ("constant", "none"):
        return lambda t: base
    rate = float(source.number("decay_rate").value)
    if kind == "step":
        every = float(source.number("decay_epochs").value)
        if every <= 0:
            source.refuse("decay_epochs", f"must be > 0, got {every!r}")
        return lambda t: base * rate ** math.floor(t / every + 1e-9)
    if kind == "multistep":
        milestones = source.numbers("decay_milestones").value
        # In updates, t + 1 is the next update.
        ahead = 0.01 if source.flag("sched_on_updates") else 1.0
        return lambda t: base * rate ** bisect.bisect_right(milestones, t + ahead + 1e-9)
    if kind not in ("cosine", "poly", "tanh"):
        return None
    low, limit = float(source.number("min_lr").value), source.whole("lr_cycle_limit").value
    multiple = float(source.number("lr_cycle_mul").value)
    if multiple <= 0:
        source.refuse("lr_cycle_mul", f"must be > 0, got {multiple!r}")
    fall = float(source.number("lr_cycle_decay").value)
    power = float(source.number("lr_k_decay").value) if kind != "tanh" else 1.0

    def shape(u: float) -> float:
        if kind == "cosine":
            return 0.5 * (1 + math.cos(math.pi * u))
        if kind == "poly":
            return (1 - u) ** rate
        return 0.5 * (1 - math.tanh(-7.0 * (1 - u) + 3.0 * u))

    def decay(t: float) -> float:
        cycle = math.floor(t / length + 1e-12)
        start, long = float(cycle * length), float(length)
        if multiple != 1:
            left = 1 - t / length * (1 - multiple)
            if left <= 0:
                raise ArithmeticError(f"lr_cycle_mul: all cycles are over before epoch {t:g}")
            cycle = math.floor(math.log(left, multiple) + 1e-12)
            start = (1 - multiple**cycle) / (1 - multiple) * length
            long = multiple**cycle * length
        if cycle >= limit:
            return low
        done = (max(t - start, 0.0) / long) ** power
        return low + (base * fall**cycle - low) * shape(done)

    return decay
