"""`RateCurve` computes a learning rate of a config with all that acts on it."""

import itertools
import typing
from collections.abc import Iterator
from typing import Any

from optimization.configs.auxiliary_groups import Group, all_groups
from optimization.configs.base import Config
from optimization.configs.oneof import OneOfConfig
from optimization.configs.rate_scaling import as_scaled
from optimization.schedules.base import BaseLrConfig, BaseWarmupConfig
from optimization.schedules.compose import are_ours, checked_values, needs_keras, schedule_problems
from optimization.schedules.sequence import Piece, SequenceLrConfig
from optimization.schedules.steps import steps_around, telling_steps

if typing.TYPE_CHECKING:
    from optimization.configs.optimization_config import OptimizationConfig

Place: typing.TypeAlias = "OptimizationConfig | Group"
"""What may have a learning rate, a warmup and an optimizer."""

_FAR = 10**7  # as far as a rate whose end is not known is looked at


class RateCurve(typing.NamedTuple):
    """A learning rate, and all that acts on it."""

    learning_rate: BaseLrConfig
    warmup: BaseWarmupConfig | None = None
    factor: float = 1.0  # what the whole curve is multiplied with
    decay: float = 0.0  # of an optimizer: the curve is divided by 1 + decay * step
    start: int = 0  # the step at which all of this starts; until then its first value holds

    def values(self, steps: list[int]) -> list[float]:
        """Returns the rate at each of `steps`."""
        steps = [max(step - self.start, 0) for step in steps]
        values = checked_values(self.learning_rate, self.warmup, steps)
        return [self.factor * v / (1 + self.decay * s) for s, v in zip(steps, values, strict=True)]

    def is_computable(self, train_steps: int | None = None) -> bool:
        """Whether both sections are complete and right, and are formulas that NumPy computes."""
        rate, warmup = self.learning_rate, self.warmup
        if schedule_problems(rate, warmup) or needs_keras(rate, warmup):
            return False
        return are_ours(rate, warmup) or self.failure(self.steps(train_steps)) is None

    def failure(self, steps: list[int]) -> str | None:
        """Says why NumPy can't compute the rate at `steps`; None where it can."""
        try:
            self.values(steps)
        except Exception as error:
            return f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0]}"
        return None

    @property
    def shift(self) -> int:
        """The step at which the formula of the learning rate starts."""
        first = self.start + self.learning_rate.offset
        if self.warmup is None or self.warmup.mode != "delay":
            return first
        return first + self.warmup.warmup_steps

    def end(self) -> tuple[str, int] | None:
        """Returns the field that says when the decay is over, and that step; None without end."""
        found = self.learning_rate.end()
        return found and (found[0], found[1] + self.shift)

    def warmup_length(self) -> tuple[Config, str, int]:
        """Returns the section that has the length of the warmup, its field, and the length."""
        if self.warmup is not None:
            return self.warmup, "warmup_steps", self.warmup.warmup_steps
        length = getattr(self.learning_rate, "num_warmup_steps", 0)
        return self.learning_rate, "num_warmup_steps", length if isinstance(length, int) else 0

    def steps(self, train_steps: int | None = None, far: bool = False) -> list[int]:
        """Returns the steps at which to look at the curve, increasing.

        Those are the steps at which it may bend, each with the one before and the one after it, and
        others between them: evenly, and by powers of 2. They end with `train_steps`, else with the
        last bend, or, for a formula that is not ours and need not go on, with its largest number;
        `far` looks on from there.
        """
        bends = self.bends()
        last = train_steps - 1 if train_steps else max(bends) + 1
        if not train_steps and not are_ours(self.learning_rate, self.warmup):
            last = max(self.bends(most=1))
        return steps_around(bends, max(last, _FAR) if far else last, parts=32)

    def bends(self, most: int = 5) -> set[int]:
        """Returns 0, and every number of steps of both sections and what up to `most` add up to."""
        lengths, edges = [], []
        for _, value in self.learning_rate._items():
            if isinstance(value, tuple):
                edges += [int(item) + self.shift for item in value if _counts_steps(item)]
            elif _counts_steps(value):
                lengths.append(int(value))
        if self.warmup is not None:
            lengths.append(self.warmup.warmup_steps)
        # Phases follow each other; what has more numbers than phases has other things.
        terms = min(most, len(lengths) if len(lengths) < 6 else 1)
        sums = (itertools.combinations(lengths, count) for count in range(terms + 1))
        ends = {self.start + max(sum(some), 0) for some in itertools.chain(*sums)}
        return {0} | ends | set(edges) | set(self._bends_of_phases(most))

    def _bends_of_phases(self, most: int) -> Iterator[int]:
        for piece in self.phases():
            end = piece.start if piece.stop is None else piece.stop
            yield from (self.shift + piece.start, self.shift + end)
            for bend in RateCurve(piece.rate).bends(most):
                if piece.stop is None or piece.start + bend < piece.stop:
                    yield self.shift + piece.start + bend

    def phases(self) -> list[Piece]:
        """Returns the phases of a sequence; none for any other rate."""
        rate = self.learning_rate
        return rate.pieces() if isinstance(rate, SequenceLrConfig) else []


def _counts_steps(value: Any) -> bool:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return is_number and abs(value) < 2**63 and value == int(value)


def curve_by(config: "OptimizationConfig", group: "Group | None") -> RateCurve:
    """Returns the learning rate of a group of a resolved config, before its multiplier.

    None is the group of all variables that are in no other.
    """
    found, scaling = config.learning_rate_of(group), config.lr_scaling
    own = group.optimizer.get() if group is not None and found is not None else None
    section = own or config.optimizer.get()
    knows_batches = section.own_learning_rate() is None
    factor = scaling.factor() if scaling is not None and knows_batches else 1.0
    decay = section.pipeline_arguments().get("decay", 0.0)
    start = config.schedule_start_of(section)
    return RateCurve(*(found or config.learning_rate_of()), factor, decay, start)


def fill_peaks(config: "OptimizationConfig") -> None:
    """Sets the peaks of learning rates by which optimizers of a resolved config decay."""
    for group in (None, *all_groups(config)):
        section = (config if group is None else group).optimizer.get()
        is_asked = getattr(section, "corrected_weight_decay", False)
        if is_asked and section.peak_learning_rate is None:
            curve = curve_by(config, group)._replace(start=0)
            rates = filter(None, (curve.learning_rate, curve.warmup))
            steps = telling_steps([each.as_dict() for each in rates])
            steps = sorted({*steps, *curve.steps(config._train_steps)})
            section.peak_learning_rate = float(max(curve.values(steps)))


def places(config: "OptimizationConfig") -> "list[Place]":
    """Returns the config, which is for all variables, and each of its groups."""
    return [config, *all_groups(config)]


def written(oneof: OneOfConfig) -> list[Any]:
    """Returns the selected branch; where `type` is not set, the branches that have values."""
    names = oneof.untyped_branches() if oneof.type is None else [oneof.type]
    return [getattr(oneof, name) for name in names]


def curve_of(config: "OptimizationConfig", place: Place) -> RateCurve | None:
    """Returns the curve of a place's own learning rate; None where it has none, or many."""
    rates, warmups = written(place.learning_rate), written(place.warmup)
    if len(rates) != 1 or len(warmups) > 1 or getattr(place, "freeze", False):
        return None
    scaling = config.lr_scaling
    factor = scaling.factor() if scaling and scaling.global_batch_size else 1.0
    section = place.optimizer.get() or config.optimizer.get()
    decay = section.pipeline_arguments().get("decay", 0.0) if section is not None else 0.0
    warmup = warmups[0] if warmups and warmups[0].warmup_steps else None
    factor *= getattr(place, "learning_rate_multiplier", 1.0)
    return RateCurve(*as_scaled(rates[0], warmup, scaling), factor, decay, config._schedule_start)


def schedule_free_sections(config: "OptimizationConfig") -> "Iterator[tuple[Any, Place]]":
    """Yields the schedule-free sections, each with what holds its learning rate and warmup."""
    for place in places(config):
        own = place.optimizer.get()
        section = own or config.optimizer.get()
        has_rate = place.learning_rate.type is not None
        if section is not None and section.schedule_free and (own is not None or has_rate):
            yield section, place if has_rate else config
