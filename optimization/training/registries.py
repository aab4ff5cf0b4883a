"""Experiments by name, tasks by the class of their config."""

from collections.abc import Callable
from typing import TypeVar

from optimization.configs.documentation import first_sentence
from optimization.configs.errors import did_you_mean
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.task_config import TaskConfig
from optimization.training.errors import TrainingError
from optimization.training.task import Task

ExperimentT = TypeVar("ExperimentT", bound=Callable[[], ExperimentConfig])
TaskT = TypeVar("TaskT", bound=type[Task])

_EXPERIMENTS: dict[str, Callable[[], ExperimentConfig]] = {}
_TASKS: dict[type[TaskConfig], type[Task]] = {}


def register_experiment(name: str) -> Callable[[ExperimentT], ExperimentT]:
    """Returns a decorator that registers a function under `name`.

    The function takes no arguments and returns an `ExperimentConfig`, which files and flags then
    change.

    >>> @register_experiment("nothing")
    ... def nothing():
    ...     return ExperimentConfig()
    >>> "nothing" in experiment_names()
    True

    Raises:
        ValueError: If the name is taken.
    """
    if name in _EXPERIMENTS:
        raise ValueError(f"the experiment {name!r} is registered already")

    def decorate(function: ExperimentT) -> ExperimentT:
        _EXPERIMENTS[name] = function
        return function

    return decorate


def experiment_names() -> list[str]:
    """Returns the names of all registered experiments.

    >>> "digits" in experiment_names()  # before `experiments/digits.py` is imported
    False
    """
    return sorted(_EXPERIMENTS)


def summary_of(name: str) -> str:
    """Returns the first sentence of what the function of a registered experiment says of it.

    >>> summary_of("tiny")
    'Linear regression in twelve steps.'
    """
    return first_sentence(_EXPERIMENTS[name])


def get_experiment(name: str) -> ExperimentConfig:
    """Returns a new config of the experiment registered under `name`.

    >>> get_experiment("tiny").trainer.train_steps
    12

    Raises:
        TrainingError: If none is.
        TypeError: If what was registered returns something else.
    """
    if name not in _EXPERIMENTS:
        names = ", ".join(experiment_names()) or "none; import the module that registers it"
        near = did_you_mean(name, _EXPERIMENTS) or f"; registered: {names}"
        raise TrainingError(f"unknown experiment {name!r}{near}")
    config = _EXPERIMENTS[name]()
    if not isinstance(config, ExperimentConfig):
        raise TypeError(
            f"the experiment {name!r} must return an ExperimentConfig, "
            f"received: {type(config).__name__}"
        )
    return config.replace(experiment=name)


def register_task(config_class: type[TaskConfig]) -> Callable[[TaskT], TaskT]:
    """Returns a decorator that registers a `Task` class for configs of `config_class`.

    >>> @dataclasses.dataclass
    ... class CoinConfig(TaskConfig):
    ...     heads: float = 0.5
    >>> @register_task(CoinConfig)
    ... class CoinTask(Task):
    ...     pass  # it throws coins
    >>> get_task_class(CoinConfig()).__name__
    'CoinTask'

    Raises:
        TypeError: If `config_class` is no `TaskConfig`.
        ValueError: If it has a task already.
    """
    if not (isinstance(config_class, type) and issubclass(config_class, TaskConfig)):
        raise TypeError(
            "Argument `config_class` must be a subclass of TaskConfig, "
            f"received: config_class={config_class!r}"
        )
    if config_class in _TASKS:
        task = _TASKS[config_class].__name__
        raise ValueError(f"{config_class.__name__} is registered already, for the task {task}")

    def decorate(task_class: TaskT) -> TaskT:
        _TASKS[config_class] = task_class
        return task_class

    return decorate


def get_task_class(config: TaskConfig) -> type[Task]:
    """Returns the task registered for the class of `config`.

    >>> get_task_class(get_experiment("tiny").task).__name__
    'TinyTask'

    Raises:
        TrainingError: If there is none.
    """
    name = type(config).__name__
    if type(config) not in _TASKS:
        names = sorted(config_class.__name__ for config_class in _TASKS)
        near = did_you_mean(name, names) or f"; configs that have one: {', '.join(names) or 'none'}"
        raise TrainingError(f"no task is registered for {name}{near}")
    return _TASKS[type(config)]
