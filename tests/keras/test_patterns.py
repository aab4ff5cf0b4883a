import pytest

from optimization import ConfigWarning
from optimization.keras.patterns import Among, as_pattern_list, matches_any
from tests.golden_cases import make_variable


@pytest.mark.parametrize(
    ("given", "expected"),
    [(None, None), ("bias", ["bias"]), (("a", "b$"), ["a", "b$"]), ([], [])],
)
def test_patterns_are_listed(given, expected):
    assert as_pattern_list(given, "exclude") == expected


@pytest.mark.parametrize("given", [["("], "[a", ["fine", 3]])
def test_what_is_no_regular_expression_is_refused(given):
    with pytest.raises(ValueError, match="`exclude` must"):
        as_pattern_list(given, "exclude")


def test_patterns_are_searched_in_the_whole_path():
    assert matches_any("encoder/dense/bias", ["dense/b"])
    assert not matches_any("encoder/dense/bias", ["^dense"])
    assert not matches_any("encoder/dense/bias", None)


def test_patterns_without_a_match_are_named_with_the_nearest_paths():
    paths = ["block/layer_norm/gamma", "head/kernel"]
    among = Among.of(paths, [make_variable(path, [0.0]) for path in paths])
    among.require(["gamma", "head"], "exclude")
    with pytest.raises(ValueError, match=r"`exclude`.*'LayerNorm'.*'block/layer_norm/gamma'"):
        among.require(["LayerNorm"], "exclude")
    with pytest.warns(ConfigWarning, match=r"exclude: .*'LayerNorm'.*'block/layer_norm/gamma'"):
        among.require(["head", "LayerNorm"], "exclude")
    among.require(["head", "LayerNorm"], "exclude")  # once: warnings are errors in tests
