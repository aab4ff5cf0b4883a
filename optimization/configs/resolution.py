"""Makes of the config that a user wrote one that can be built: complete and read-only."""

import numbers
from typing import Any

from optimization.configs.durations import TrainingLength
from optimization.configs.errors import ConfigError, warn
from optimization.configs.layers import findings
from optimization.configs.optimization_config import OptimizationConfig


def _is_count(value: Any) -> bool:
    number = isinstance(value, numbers.Real) and not isinstance(value, bool)
    return number and value > 0 and value == value // 1


def resolved(
    config: OptimizationConfig,
    train_steps: int | None = None,
    steps_per_epoch: int | None = None,
    global_batch_size: int | None = None,
) -> OptimizationConfig:
    """Returns a locked copy in which every number of steps is a number, and nothing is wrong.

    What is doubtful and was not said before, such as what is known only now that there are
    numbers, is issued as a `ConfigWarning`.

    Args:
        config: What the user wrote.
        train_steps: The length of the training in optimizer steps, for "10%" and "remaining".
        steps_per_epoch: Optimizer steps in one pass over the data, for "5 epochs".
        global_batch_size: Examples in one update, for an `lr_scaling` that does not say it.

    Raises:
        ConfigError: All that is wrong with the config.
        TypeError: If it is no `OptimizationConfig`.
        ValueError: For a length that is no whole number above 0.
    """
    if not isinstance(config, OptimizationConfig):
        raise TypeError(f"expected an OptimizationConfig, got {type(config).__name__}")
    lengths = {"train_steps": train_steps, "steps_per_epoch": steps_per_epoch}
    for name, value in {**lengths, "global_batch_size": global_batch_size}.items():
        if value is not None and not _is_count(value):
            raise ValueError(
                f"Argument `{name}` must be an integer > 0, received: {name}={value!r}"
            )
    config, problems = config.sized(TrainingLength(train_steps, steps_per_epoch))
    scaling = config.lr_scaling
    if scaling is not None and scaling.global_batch_size is None:
        if global_batch_size is None:
            message = "is not known: give it, or write it"
            problems.append(scaling._problem("missing", "global_batch_size", message))
        else:
            scaling.global_batch_size = global_batch_size
    errors, doubts = findings(config, problems)
    if errors:
        raise ConfigError(errors)
    for doubt in doubts:
        # That a branch is not selected is for whoever reads the files to say.
        if doubt.code != "unselected" and str(doubt) not in config._told:
            warn(doubt)
    config._tell(doubts)
    config.lock()
    return config
