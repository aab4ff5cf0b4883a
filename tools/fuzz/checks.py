"""What must hold of an input: it is refused in words, or it means what it says."""

import contextlib
import io
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np

from optimization.cli.app import main
from optimization.configs import yaml_file
from optimization.configs.base import Config, plain
from optimization.configs.comments import read_comments, write_comments
from optimization.configs.durations import TrainingLength
from optimization.configs.errors import MAX_TEXT, ConfigError
from optimization.configs.experiment_config import MODES, ExperimentConfig
from optimization.configs.experiment_file import own_settings, surroundings
from optimization.configs.layers import resolve
from optimization.configs.optimization_config import OptimizationConfig
from optimization.optimizer_factory import OptimizerFactory
from optimization.training.errors import TrainingError

STEPS = [0, 1, 2, 9, 10, 11, 99, 100, 101, 500, 998, 999]
LENGTH = TrainingLength(train_steps=1000, steps_per_epoch=100)


def accepted(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns what a function returns; None where it refuses its arguments in few words."""
    try:
        return function(*arguments)
    except ConfigError as error:
        problems, text = error.problems, str(error)
    assert problems, "an error without a mistake"
    assert len(text) <= MAX_TEXT, "a message is too long"
    return None


def same(one: Any, other: Any) -> bool:
    """Whether two values are of the same types and equal, in the same order; NaN equals itself."""
    if isinstance(one, dict) and isinstance(other, dict):
        return same([*one.items()], [*other.items()])
    if isinstance(one, list | tuple) and isinstance(other, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


def comes_back(config: Config) -> None:
    """Checks that a config is the same after it was written as YAML and as JSON, and read."""
    cls = type(config)
    values, problems = yaml_file.read(config.to_yaml())
    assert not problems, problems
    assert same(values, config.as_dict()), "YAML text does not hold the values"
    again = resolve(cls(), [values])
    assert again == config, "another config is read from its YAML text"
    assert again.to_yaml() == config.to_yaml()
    assert cls.from_json(config.to_json()) == config, "another config is read from its JSON text"


def settings(params: Any) -> bool:
    """Checks a section of optimization: what is accepted comes back, with the same curve."""
    config = accepted(resolve, OptimizationConfig(), [params])
    if config is None:
        return False
    comes_back(config)
    read, _ = yaml_file.read(config.to_yaml())
    curves = [accepted(_curve, each) for each in (config, OptimizationConfig(read))]
    assert (curves[0] is None) == (curves[1] is None), "one of the two has a curve"
    if curves[0] is not None:
        assert np.isfinite(curves[0]).all(), f"the rate is not finite: {curves[0]}"
        assert (curves[0] >= 0).all(), f"the rate is below 0: {curves[0]}"
        assert (curves[0] == curves[1]).all(), "another curve comes back"
    return True


def _curve(config: OptimizationConfig) -> np.ndarray | None:
    factory = OptimizerFactory(
        config, LENGTH.train_steps, LENGTH.steps_per_epoch, global_batch_size=256
    )
    if factory.config.learning_rate.type is None:  # the optimizer has its own
        return None
    return factory.learning_rate_curve(STEPS)


def experiment(params: Any) -> bool:
    """Checks the settings of an experiment, whose task is that of no class of its own."""
    if isinstance(params, dict):
        sourced, _ = yaml_file.read(yaml_file.dump(plain(params)))
        if isinstance(sourced, dict):
            own_settings(sourced)
            surroundings(sourced)
    config = accepted(resolve, ExperimentConfig(), [params])
    if config is None:
        return False
    comes_back(config)
    for mode in MODES:
        config.problems_in_mode(mode)
    return True


def text(source: str) -> bool:
    """Checks the reader of YAML: what it reads, the writer writes so that it is read again."""
    value, problems = yaml_file.read(source, "a.yaml")
    assert all(len(str(problem)) <= MAX_TEXT for problem in problems)
    if problems:
        return False
    written = yaml_file.dump(plain(value))
    again, problems = yaml_file.read(written)
    assert not problems, (written, problems)
    assert same(again, value), f"{value!r} is read again as {again!r}"
    if isinstance(value, dict):
        commented = write_comments(written, read_comments(source))
        assert same(yaml_file.read(commented)[0], value), f"comments change {commented!r}"
    return True


def run(*arguments: str, stdin: str = "") -> int:
    """Checks a command of `optfactory`: it ends with 0, 1 or 2, and with words."""
    out, told = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(told):
        code = main(arguments)
    assert code in (0, 1, 2), f"the exit code is {code}"
    assert code == 0 or out.getvalue() or told.getvalue(), "it fails without a word"
    assert "Traceback" not in out.getvalue() + told.getvalue(), told.getvalue()
    return code


def refused_in_words(function: Callable[..., Any], *arguments: Any) -> bool:
    """Checks a function that tells mistakes as the trainer does, or as a plain `ValueError`."""
    try:
        function(*arguments)
    except (ConfigError, TrainingError, ValueError) as error:
        text = str(error)
    else:
        return True
    assert text, "an error without a word"
    return False


def plain_json(value: Any) -> bool:
    """Whether JSON can hold a value as YAML reads it."""
    try:
        return same(json.loads(json.dumps(value)), value)
    except (TypeError, ValueError):
        return False
