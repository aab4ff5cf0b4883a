import pytest

from optimization import ConfigWarning
from optimization.keras.paths import Among, path_of, settled
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


def test_patterns_without_a_match_are_named_with_the_nearest_paths():
    paths = ["block/layer_norm/gamma", "head/kernel"]
    among = Among.of(paths, [make_variable(path, [0.0]) for path in paths])
    among.require(["gamma", "head"], "exclude")
    with pytest.raises(ValueError, match=r"`exclude`.*'LayerNorm'.*'block/layer_norm/gamma'"):
        among.require(["LayerNorm"], "exclude")
    with pytest.warns(ConfigWarning, match=r"exclude: .*'LayerNorm'.*'block/layer_norm/gamma'"):
        among.require(["head", "LayerNorm"], "exclude")
    among.require(["head", "LayerNorm"], "exclude")  # once: warnings are errors in tests
