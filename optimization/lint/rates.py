"""Rules about the learning rate as a curve."""

from collections.abc import Iterator

from optimization.configs.base import Config
from optimization.configs.errors import Problem
from optimization.lint.registry import Severity, rule
from optimization.lint.subject import Subject, problem
from optimization.schedules.base import BaseLrConfig, BaseWarmupConfig
from optimization.schedules.compose import are_ours, checked_values, ramp, warmup_target
from optimization.schedules.scalars import SCALARS
from optimization.schedules.warmups import ConstantWarmupConfig

_LAST = 0.1  # the part of the training that counts as its end
_RISE = 0.01  # of the peak: a rise by less is none
_OFF = 0.01  # of the rate that a warmup leads to: it may miss it by less
_JUMP = 10.0  # the factor by which the rate may jump after a constant warmup


@rule(
    "rate-rises-at-end",
    Severity.WARNING,
    "The learning rate rises in the last tenth of the training.",
    needs="train_steps",
)
def _rate_rises_at_end(subject: Subject) -> Iterator[Problem]:
    train_steps = subject.train_steps or 0
    for curve in subject.curves if train_steps else ():
        _, _, warmup = curve.warmup_length()
        first = max(int((1 - _LAST) * train_steps), warmup)
        evenly = {first + (train_steps - 1 - first) * part // 100 for part in range(101)}
        bends = {s for s in curve.steps(train_steps) if first <= s < train_steps}
        steps = sorted({s for s in evenly if s >= first} | bends)
        if first >= train_steps:
            continue
        values = curve.values(steps)
        low, last = min(values), values[-1]
        if last - low > _RISE * max(curve.values(curve.steps(train_steps))):
            where = steps[values.index(low)]
            message = f"the rate rises at the end, from {low:.3g} at step {where} to {last:.3g}"
            advice = f"write lengths that fit `train_steps` {train_steps}"
            rate = curve.learning_rate
            yield problem("rate-rises-at-end", rate, _length_of(rate), f"{message}; {advice}")


def _length_of(section: Config) -> str:
    """Returns the field of a rate that says how long it is; else the one that was written first."""
    names = section.field_names()
    lengths = [name for name in names if name.endswith(("steps", "boundaries"))]
    return next((n for n in [*lengths, *section._origins, *names]), "")


@rule("warmup-jump", Severity.WARNING, "The learning rate jumps where the warmup ends.")
def _warmup_jump(subject: Subject) -> Iterator[Problem]:
    for curve in subject.curves:
        warmup = curve.warmup
        if warmup is None or warmup.warmup_steps < 1:
            continue
        target, end = _join(curve.learning_rate, warmup)
        if target <= 0:
            continue
        if isinstance(warmup, ConstantWarmupConfig):
            # It is there to jump, as in the ResNet paper by 10; but from 0, or by far?
            if end * _JUMP >= target:
                continue
            name, advice = "warmup_learning_rate", f"write {target / _JUMP:g} or more"
        elif abs(end - target) <= _OFF * target:
            continue
        else:
            name, advice = "warmup_steps", "lead the warmup to the rate that follows"
        step = warmup.warmup_steps
        after = curve.factor * target
        message = f"the rate jumps from {curve.factor * end:g} to {after:g} at step {step}"
        yield problem("warmup-jump", warmup, name, f"{message}, where the warmup ends; {advice}")


def _join(rate: BaseLrConfig, warmup: BaseWarmupConfig) -> tuple[float, float]:
    """Returns the rate to which a warmup is to lead, and that to which it does."""
    target = warmup_target(warmup, lambda step: checked_values(rate, None, [step])[0])
    if are_ours(rate, warmup):
        return target, float(ramp(warmup, float(warmup.warmup_steps), target, SCALARS))
    import numpy as np

    end = ramp(warmup, np.asarray([float(warmup.warmup_steps)]), target, np)
    return target, float(np.ravel(end)[0])


@rule("lowest-above-peak", Severity.WARNING, "The lowest learning rate is above the highest.")
def _lowest_above_peak(subject: Subject) -> Iterator[Problem]:
    for curve in subject.curves:
        rate = curve.learning_rate
        asked = getattr(rate, "initial_learning_rate", None)
        low = getattr(rate, "end_learning_rate", None)
        if asked is not None and low is not None and low > asked:
            message = f"is {low:g}, above `initial_learning_rate` {asked:g}: the rate rises"
            advice = f"write at most {asked:g}"
            yield problem("lowest-above-peak", rate, "end_learning_rate", f"{message}; {advice}")
        ratio = getattr(rate, "alpha", 0.0)
        if asked and ratio > 1:
            message = f"is {ratio:g}: the rate rises, from {asked:g} to {ratio * asked:g}"
            yield problem("lowest-above-peak", rate, "alpha", f"{message}; write at most 1")
        warmup = curve.warmup
        start = getattr(warmup, "warmup_learning_rate", 0.0)
        if warmup is None or not start or warmup.warmup_steps < 1:
            continue
        target, _ = _join(rate, warmup)
        if start > target:
            message = f"is {start:g}, above the rate {target:g} that the warmup leads to"
            advice = f"write less than {target:g}"
            yield problem(
                "lowest-above-peak", warmup, "warmup_learning_rate", f"{message}; {advice}"
            )
