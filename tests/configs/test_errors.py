import pickle

import pytest

from optimization.configs.errors import ConfigError, Origin, Problem, describe, did_you_mean


def test_problem_names_place_path_and_message():
    problem = Problem("value", "sgd.momentum", "must be < 1, got 2", Origin("base.yaml", 12))
    assert str(problem) == "base.yaml:12: sgd.momentum: must be < 1, got 2"
    assert str(problem._replace(origin=None)) == "sgd.momentum: must be < 1, got 2"
    assert str(problem._replace(path="")) == "base.yaml:12: must be < 1, got 2"


def test_config_error_lists_all_problems_and_survives_pickling():
    error = ConfigError([Problem("type", "a", "one"), Problem("type", "b", "two")])
    assert str(error) == "a: one\nb: two"
    assert pickle.loads(pickle.dumps(error)).problems == error.problems


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "null"),
        (True, "true"),
        (0.5, "0.5"),
        ("abc", "'abc' (text)"),
        ([1], "[1] (a list)"),
        ({"a": 1}, "{'a': 1} (a mapping)"),
        (b"x", "b'x' (bytes)"),
    ],
)
def test_describe(value, text):
    assert describe(value) == text


def test_describe_shortens_long_values():
    assert len(describe("x" * 1000)) < 80


def test_did_you_mean_names_the_nearest_or_nothing():
    assert did_you_mean("momentmu", ["nesterov", "momentum"]) == "; did you mean 'momentum'?"
    assert did_you_mean("qqq", ["nesterov", "momentum"]) == ""


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("SGD", "sgd"),
        ("AdamW", "adamw"),
        ("cosine_decay", "cosine"),
        ("CosineDecay", "cosine"),
        ("cosine_restart", "cosine_restarts"),
        ("weight_decay_rat", "weight_decay_rate"),
        ("mytype", "MyType"),
    ],
)
def test_did_you_mean_knows_other_spellings(name, near):
    names = ["sgd", "adam", "adamw", "cosine", "cosine_restarts", "MyType"]
    names += ["weight_decay", "weight_decay_rate"]
    assert did_you_mean(name, names) == f"; did you mean {near!r}?"
