import re

import pytest

from optimization.configs.expressions import compiled, search

PATH = "model/encoder/layer_11/attention/self/query/kernel_of_a_long_name"


@pytest.mark.parametrize(
    "pattern", ["kernel", "layer_[0-9]+/", "^(bias|.*/kernel)", "a{2,}|b{3,9}"]
)
def test_searches_are_those_of_re(pattern):
    for text in (PATH, "bias", "aab", "b"):
        ours, theirs = search(pattern, text), re.search(pattern, text)
        assert (ours and ours.span()) == (theirs and theirs.span())


@pytest.mark.parametrize("pattern", [r"(\w+/?)*kernel$", r"(a*)*b", r"(.*)*(.*)*(.*)*x$"])
def test_what_re_does_not_end_ends(pattern):
    assert search(pattern, PATH + "a" * 40) is None


def test_a_search_without_end_is_refused():
    with pytest.raises(ValueError, match="takes longer than 1 s in .*repetitions inside"):
        search("(a|aa)+$", "a" * 60 + "!")


def test_several_repetitions_are_found():
    assert search(r"(\w+/)*kernel", PATH).span() == (0, PATH.index("kernel") + 6)
    assert search(r"layer_(\d+)/.*query", PATH)[1] == "11"


@pytest.mark.parametrize("pattern", ["(", "a{99999999999}", "(" * 3000 + ")" * 3000])
def test_what_is_none_is_refused(pattern):
    with pytest.raises(ValueError, match="is not a regular expression"):
        compiled(pattern)
