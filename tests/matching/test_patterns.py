import pytest

from optimization.configs.errors import ConfigWarning
from optimization.matching.patterns import (
    as_pattern_list,
    check_matches,
    find,
    matches_any,
    nearest,
)

NAMES = ["encoder.layer.0.bias", "encoder/layer_1/kernel", "head.weight"]


def test_patterns_are_searched_anywhere():
    assert matches_any(NAMES[0], ["bias$"])
    assert not matches_any(NAMES[0], ["^bias"])
    assert not matches_any(NAMES[0], None)


def test_one_pattern_is_a_list_of_one():
    assert as_pattern_list("bias", "exclude") == ["bias"]
    assert as_pattern_list(None, "exclude") is None
    assert as_pattern_list((), "exclude") == []
    assert as_pattern_list(("a", "b$"), "exclude") == ["a", "b$"]
    with pytest.raises(ValueError, match="`exclude` must hold valid regular expressions"):
        as_pattern_list(["("], "exclude")


@pytest.mark.parametrize("given", [["("], "[a", ["fine", 3]])
def test_what_is_no_regular_expression_is_refused(given):
    with pytest.raises(ValueError, match="`exclude` must"):
        as_pattern_list(given, "exclude")


@pytest.mark.parametrize(
    ("pattern", "name", "is_found"),
    [
        (".*(kernel|weight):0$", "dense/kernel", True),
        (".*(kernel|weight):0$", "dense/kernel_scale", False),
        ("^dense/bias:0$", "dense/bias", True),
        (r"bias\:\d+", "dense/bias", True),
        ("kernel:0|bias$", "dense/bias", True),  # one half for TensorFlow, one for Keras
        ("(?:kernel|bias):0$", "dense/bias", True),
        ("(?:kernel|bias)$", "dense/bias", True),
        ("bias:0$", "dense/bias:0", True),  # a `tf.Variable`, which is still called so
        ("^(?!.*bias:0)", "dense/bias", False),
        ("^(?!.*bias:0)", "dense/kernel", True),
        (r"\d$", "dense/kernel", False),  # without a colon there is no ":0"
        ("0$", "layer_1/kernel", False),
    ],
)
def test_patterns_for_tensorflows_names_mean_the_variable(pattern, name, is_found):
    assert (find(pattern, name) is not None) == is_found


def test_a_list_that_matches_nothing_is_an_error_that_names_what_is_near():
    check_matches(["bias", "head"], NAMES, "exclude")
    check_matches(None, NAMES, "exclude")
    check_matches([], NAMES, "exclude")
    message = "`exclude` .*'kernle' \\(nearest: 'encoder/layer_1/kernel'.*; 'beta' \\(nearest"
    with pytest.raises(ValueError, match=message):
        check_matches(["kernle", "beta"], NAMES, "exclude")


def test_of_other_lists_each_pattern_that_matches_nothing_is_warned_about():
    patterns, reported = ["bias:0$", "kernle", "LayerNorm"], set()
    message = "^exclude: matches no .* with 'kernle' \\(nearest: .*; 'LayerNorm' \\(nearest"
    with pytest.warns(ConfigWarning, match=message):
        check_matches(patterns, NAMES, "exclude", reported)
    check_matches(patterns, NAMES, "exclude", reported)  # where warnings are errors: none


def test_parts_of_names_count_for_keras_and_torch():
    assert nearest("wieght", NAMES).startswith("'head.weight'")
    assert nearest("kernl", NAMES).startswith("'encoder/layer_1/kernel'")
