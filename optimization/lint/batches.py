"""A rule about batches: whoever changes them mostly has to change the learning rate too."""

from collections.abc import Iterator

from optimization.configs.batches import batch_without_rate
from optimization.configs.errors import Problem
from optimization.lint.registry import Severity, rule
from optimization.lint.subject import Subject


@rule(
    "batch-without-rate",
    Severity.WARNING,
    "The file changes the batch size of the experiment, and not the learning rate.",
    needs="experiment",
)
def _batch_without_rate(subject: Subject) -> Iterator[Problem]:
    if subject.base is not None and subject.experiment is not None:
        yield from batch_without_rate(subject.base, subject.experiment)
