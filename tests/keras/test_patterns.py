import pytest

from optimization import ConfigWarning
from optimization.keras.patterns import (
    as_pattern_list,
    matches_any,
    require_matches,
)
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
    variables = [make_variable(p, [0.0]) for p in ("block/layer_norm/gamma", "head/kernel")]
    require_matches(["gamma", "head"], variables, "exclude")
    with pytest.raises(ValueError, match=r"`exclude`.*'LayerNorm'.*'block/layer_norm/gamma'"):
        require_matches(["LayerNorm"], variables, "exclude")
    with pytest.warns(ConfigWarning, match=r"exclude: .*'LayerNorm'.*'block/layer_norm/gamma'"):
        require_matches(["head", "LayerNorm"], variables, "exclude")
