import pytest

from optimization.matching.patterns import as_pattern_list, matches_any, nearest, unmatched

NAMES = ["encoder.layer.0.bias", "encoder/layer_1/kernel", "head.weight"]


def test_patterns_are_searched_anywhere():
    assert matches_any(NAMES[0], ["bias$"])
    assert not matches_any(NAMES[0], ["^bias"])
    assert not matches_any(NAMES[0], None)


def test_one_pattern_is_a_list_of_one():
    assert as_pattern_list("bias", "exclude") == ["bias"]
    assert as_pattern_list(None, "exclude") is None
    assert as_pattern_list((), "exclude") == []
    with pytest.raises(ValueError, match="`exclude` must hold valid regular expressions"):
        as_pattern_list(["("], "exclude")


def test_unmatched_patterns_are_named_with_what_is_near():
    assert unmatched(["bias", "head"], NAMES) == ""
    assert unmatched(None, NAMES) == ""
    described = unmatched(["bias", "kernle"], NAMES)
    assert described.startswith("'kernle' (nearest: 'encoder/layer_1/kernel'")


def test_parts_of_names_count_for_keras_and_torch():
    assert nearest("wieght", NAMES).startswith("'head.weight'")
    assert nearest("kernl", NAMES).startswith("'encoder/layer_1/kernel'")
