import random

import pytest

from optimization import ConfigError
from optimization.configs.sweep_config import ParameterConfig, SweepConfig

PATH = "trainer.train_steps"


def drawn(**kind):
    """Returns what 300 trials draw."""
    source = random.Random(0)
    parameter = ParameterConfig(path=PATH, **kind)
    return [parameter.draw(source.random) for _ in range(300)]


def test_numbers_are_in_their_range():
    values = drawn(uniform=[-1, 2])
    assert -1 <= min(values) < -0.9
    assert 1.9 < max(values) <= 2


def test_logarithms_are_uniform():
    values = drawn(log_uniform=[1e-4, 1])
    assert 1e-4 <= min(values) < 2e-4
    assert 0.8 < max(values) <= 1
    shares = [sum(10.0**e <= v < 10.0 ** (e + 1) for v in values) / 300 for e in range(-4, 0)]
    assert max(abs(share - 0.25) for share in shares) < 0.08  # three standard deviations


def test_whole_numbers_have_both_ends_and_steps():
    assert set(drawn(int=[2, 5])) == {2, 3, 4, 5}
    assert set(drawn(int=[8, 32], step=8)) == {8, 16, 24, 32}
    values = drawn(int=[1, 100], log=True)
    assert {1, 2, 3} < set(values) <= set(range(1, 101))
    assert 0.3 < sum(value < 10 for value in values) / 300 < 0.65


def test_ends_of_a_random_number_stay_inside():
    for kind in ({"int": [1, 7], "log": True}, {"log_uniform": [0.1, 0.3]}, {"uniform": [1, 3]}):
        parameter = ParameterConfig(path=PATH, **kind)
        low, high = kind.get("int") or kind.get("log_uniform") or kind["uniform"]
        for share in (0.0, 1 - 2**-53):
            assert low <= parameter.draw(lambda s=share: s) <= high


def test_a_choice_is_one_of_its_values():
    assert set(drawn(choice=["a", 1, None])) == {"a", 1, None}


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ({"uniform": [2, 1]}, "uniform: the lowest must be < the highest, got 2.0 > 1.0"),
        ({"int": [3, 3]}, "int: the range is empty: both ends are 3; leave the parameter out"),
        ({"log_uniform": [0, 1]}, "log_uniform: has no logarithm: must be > 0, got 0.0"),
        ({"int": [0, 4], "log": True}, "int: has no logarithm: must be > 0, got 0"),
        ({"int": [0.5, 4]}, r"int\[0\]: expected an integer, got 0.5"),
        ({"uniform": [1]}, r"uniform: expected \[lowest, highest\], got \[1.0\] \(a list\)"),
        ({"choice": []}, "choice: must name at least one value, got none"),
        ({"grid": [1, 2, 1]}, "grid: names 1 twice"),
        ({"log_unifrom": [1, 2]}, "unknown key; did you mean 'log_uniform'?"),
        ({}, "path: says no values; write one of log_uniform, uniform, int, choice, grid"),
        ({"int": [1, 2], "grid": [1]}, "grid: `int` is given too; a parameter has one kind"),
        ({"uniform": [1, 2], "log": True}, "log: is for `int`"),
        ({"int": [1, 9], "log": True, "step": 2}, "step: can't be combined with `log`"),
        ({"int": [1, 8], "step": 3}, r"step: does not lead from 1 to 8; write `\[1, 7\]`"),
    ],
)
def test_mistakes_in_a_parameter(kind, message):
    with pytest.raises(ConfigError, match=message):
        ParameterConfig(path=PATH, **kind).validate()


def test_a_path_is_one():
    with pytest.raises(ConfigError, match="expected a path, as trainer.train_steps is one, got"):
        ParameterConfig(path="trainer/train_steps")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"parameters": []}, "parameters: must name at least one setting to vary, names none"),
        ({"trials": None}, "trials: must be given: there is no grid that would say how many"),
        ({"resources": {"gpu": 1}}, "resources: is for `engine: ray`, which is optuna"),
        ({"concurrent_trials": 2}, "concurrent_trials: is for `engine: ray`, which is optuna"),
        ({"engine": "rai"}, "must be one of 'optuna' or 'ray', got 'rai'"),
        ({"reduction_factor": 1}, "reduction_factor: must be >= 2, got 1"),
    ],
)
def test_mistakes_in_a_sweep(settings, message):
    usual = {"parameters": [{"path": PATH, "int": [1, 2]}], "trials": 3}
    with pytest.raises(ConfigError, match=message):
        SweepConfig({**usual, **settings}).validate()
