import dataclasses

import pytest

from optimization import TaskConfig
from optimization.training import (
    TrainingError,
    experiment_names,
    get_experiment,
    get_task_class,
    register_experiment,
    register_task,
)
from tests.training.tiny import TinyConfig, TinyTask


def test_an_experiment_is_found_by_its_name_and_made_anew_each_time():
    assert "tiny" in experiment_names()
    first = get_experiment("tiny")
    first.trainer.train_steps = 99
    assert get_experiment("tiny").trainer.train_steps == 12


def test_an_unknown_experiment_is_an_error_with_the_nearest_name():
    with pytest.raises(TrainingError, match="unknown experiment 'tinny'; did you mean 'tiny'"):
        get_experiment("tinny")
    with pytest.raises(TrainingError, match="unknown experiment 'xyzw'; registered: .*tiny"):
        get_experiment("xyzw")


def test_an_experiment_that_returns_no_config_is_an_error():
    @register_experiment("returns_a_dict")
    def returns_a_dict():
        return {}

    with pytest.raises(TypeError, match="must return an ExperimentConfig, received: dict"):
        get_experiment("returns_a_dict")


def test_a_name_is_registered_once():
    with pytest.raises(ValueError, match="the experiment 'tiny' is registered already"):
        register_experiment("tiny")
    with pytest.raises(ValueError, match="TinyConfig is registered already, for the task TinyTask"):
        register_task(TinyConfig)


def test_a_task_is_found_by_the_class_of_its_config():
    assert get_task_class(TinyConfig()) is TinyTask


def test_a_config_without_task_is_an_error_with_the_nearest_name():
    @dataclasses.dataclass
    class TinyConfigs(TaskConfig):
        pass

    with pytest.raises(TrainingError, match="for TinyConfigs; did you mean 'TinyConfig'"):
        get_task_class(TinyConfigs())


def test_a_task_is_registered_for_a_task_config_only():
    with pytest.raises(TypeError, match=r"must be a subclass of TaskConfig, received.*dict"):
        register_task(dict)
