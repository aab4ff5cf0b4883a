"""Whether the batch of one experiment differs from another's, and the learning rate does not."""

import math
from collections.abc import Iterator
from typing import Any

from optimization.configs.errors import Problem
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.rate_curve import curve_of


def batch_without_rate(before: ExperimentConfig, after: ExperimentConfig) -> Iterator[Problem]:
    """Yields the batch of an experiment that differs from another's where the peak rate doesn't.

    The batch is that of an update: `global_batch_size` times the accumulated gradients. One that
    `lr_scaling` scales the rate by is left alone. The path of the problem is that of the batch.

    >>> before = ExperimentConfig({
    ...     "task": {"train_data": {"global_batch_size": 256}},
    ...     "trainer": {"optimizer_config": {
    ...         "optimizer": {"type": "sgd"},
    ...         "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}}}},
    ... })
    >>> after = before.replace(task={"train_data": {"global_batch_size": 1024}})
    >>> [problem.code for problem in batch_without_rate(before, after)]
    ['batch-without-rate']
    """
    was, now = _batch(before), _batch(after)
    peak_was, peak_now = _peak(before), _peak(after)
    if not was or not now or was == now or peak_was is None or peak_now is None:
        return
    if not math.isclose(peak_was, peak_now, rel_tol=1e-6):
        return
    factor = now / was
    message = f"makes the batch of an update {factor:g} times as large, {now:,} after {was:,}, and"
    message += f" the highest learning rate stays {peak_now:g}"
    advice = f"write rates {factor:g} times as high, or an `lr_scaling` section"
    data = after.task.train_data
    section: Any = data
    name = "global_batch_size"
    if data.global_batch_size == before.task.train_data.global_batch_size:
        section = after.trainer.optimizer_config.optimizer.get()
        name = "gradient_accumulation_steps"
        if after.trainer.optimizer_config.accumulation is not None:
            section, name = after.trainer.optimizer_config.accumulation, "micro_batches"
    yield section._problem("batch-without-rate", name, f"{message}; {advice}")


def _batch(experiment: ExperimentConfig) -> int:
    config = experiment.trainer.optimizer_config
    section = config.optimizer.get()
    accumulated = section.gradient_accumulation_steps if section is not None else 1
    counts: Any = config.accumulation and config.accumulation.micro_batches
    if isinstance(counts, tuple) and counts:  # the batch that it comes to
        accumulated = counts[-1]
    return experiment.task.train_data.global_batch_size * accumulated


def _peak(experiment: ExperimentConfig) -> float | None:
    """Returns the highest rate, the batch's factor included; None where it can't be had."""
    config, problems = experiment.told_trainer().sized_optimizer_config()
    scaling = config.lr_scaling
    if scaling is not None and scaling.global_batch_size is None:
        return None
    curve = curve_of(config, config)
    if problems or curve is None or not curve.is_computable(config._train_steps):
        return None
    return max(curve.values(curve.steps(config._train_steps)))
