import pytest

from optimization.keras.paths import path_of, settled
from tests.golden_cases import make_variable


def variables(*paths):
    return [make_variable(path, [0.0]) for path in paths]


def test_the_path_is_the_variables_own():
    (variable,) = variables("encoder/dense/kernel")
    assert path_of(variable) == variable.path == "encoder/dense/kernel"


def test_what_has_no_path_has_its_name():
    class Named:
        name = "kernel"

    assert path_of(Named()) == "kernel"


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (None, ["dense/kernel", "dense/kernel"]),
        (["first/dense/kernel", "second/dense/kernel"],) * 2,
        (["model/first/dense/kernel", "dense/kernel"],) * 2,
        # Not the same variables: another number, another name, half a part of a name.
        (["first/dense/kernel"], ["dense/kernel", "dense/kernel"]),
        (["first/dense/kernel", "second/dense/bias"], ["dense/kernel", "dense/kernel"]),
        (["first_dense/kernel", "dense/kernel"], ["dense/kernel", "dense/kernel"]),
    ],
)
def test_saved_paths_hold_for_the_same_variables_only(saved, expected):
    assert settled(variables("dense/kernel", "dense/kernel"), saved) == expected
