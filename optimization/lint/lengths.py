"""Rules about lengths: warmups, intervals and averages beside the length of the training."""

from collections.abc import Iterator
from typing import Any

from optimization.configs.errors import Problem
from optimization.configs.rate_curve import schedule_free_sections
from optimization.lint.registry import Severity, rule
from optimization.lint.subject import Subject, problem

_INTERVALS = {
    "validation_interval": "only the end is evaluated",
    "checkpoint_interval": "only the end is saved",
    "summary_interval": "there are no summaries on the way",
    "steps_per_loop": "the training is one loop",
}
_LONG = 0.25  # of the training


@rule(
    "warmup-over-quarter",
    Severity.WARNING,
    "A warmup takes more than a quarter of the training.",
    needs="train_steps",
)
def _warmup_over_quarter(subject: Subject) -> Iterator[Problem]:
    train_steps = subject.train_steps or 0
    warmups = [curve.warmup_length() for curve in subject.curves]
    warmups += [
        (section, "warmup_steps", section.warmup_steps)
        for section, _ in schedule_free_sections(subject.config)
    ]
    for section, name, length in warmups:
        if not isinstance(length, int) or subject.is_share(section, name):
            continue
        if _LONG * train_steps < length < train_steps:
            message = f"is {length}, {length / train_steps:.0%} of `train_steps` {train_steps}"
            advice = f"write at most {int(_LONG * train_steps)}, or a share such as '5%'"
            yield problem("warmup-over-quarter", section, name, f"{message}; {advice}")


@rule(
    "interval-beyond-end",
    Severity.WARNING,
    "An interval of the trainer is longer than the training.",
    needs="train_steps",
)
def _interval_beyond_end(subject: Subject) -> Iterator[Problem]:
    train_steps = subject.train_steps or 0
    for name, effect in _INTERVALS.items():
        value = getattr(subject.trainer, name)
        if name in subject.trainer._origins and 0 < train_steps < value:
            message = f"is {value}, `train_steps` {train_steps}: {effect}"
            advice = f"write at most {train_steps}"
            yield problem("interval-beyond-end", subject.trainer, name, f"{message}; {advice}")


@rule(
    "average-after-end",
    Severity.WARNING,
    "An average of the weights starts when the training ends, or later.",
    needs="train_steps",
)
def _average_after_end(subject: Subject) -> Iterator[Problem]:
    average: Any = subject.config.ema
    start = getattr(average, "start_step", 0)
    if isinstance(start, int) and subject.train_steps and start >= subject.train_steps:
        message = f"is {start}, `train_steps` {subject.train_steps}: nothing is averaged"
        advice = "write less, or a share such as '10%'"
        yield problem("average-after-end", average, "start_step", f"{message}; {advice}")
