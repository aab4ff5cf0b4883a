import json

import pytest

from optimization.configs import yaml_file
from optimization.configs.comments import END, Comment, key_lines, read_comments, write_comments

TEXT = """\
# For all.

# Of the optimizer.
optimizer:  # which
  type: sgd   # the simple one
  sgd: {momentum: 0.9}  # in one line
# A list.
param_groups:
  # The first.
  - match: 'a # b'  # not in the quotes
    # Frozen.
    freeze: true
  - match: c#d
name: "x"
# The end.
"""


def test_comments_are_read_by_the_paths_of_keys():
    assert read_comments(TEXT) == {
        "optimizer": Comment(("# For all.", "", "# Of the optimizer."), "# which"),
        "optimizer.type": Comment((), "# the simple one"),
        "optimizer.sgd": Comment((), "# in one line"),
        "param_groups": Comment(("# A list.",)),
        "param_groups[0].match": Comment(("# The first.",), "# not in the quotes"),
        "param_groups[0].freeze": Comment(("# Frozen.",)),
        END: Comment(("# The end.",)),
    }


def test_what_is_written_reads_back():
    values = json.loads(json.dumps(yaml_file.read(TEXT)[0]))
    text = write_comments(yaml_file.dump(values), read_comments(TEXT))
    assert yaml_file.read(text)[0] == values
    assert read_comments(text) == read_comments(TEXT)


def test_comments_of_keys_that_are_gone_are_left_out():
    text = write_comments("a: 1\n", {"a": Comment(("# x",), "# y"), "b": Comment(("# z",))})
    assert text == "# x\na: 1  # y\n"


@pytest.mark.parametrize("text", ["", "# alone\n", "{}\n"])
def test_a_text_without_keys(text):
    assert key_lines(text) == []
    assert write_comments(text, {}) == (text or "\n")


@pytest.mark.parametrize(
    "value", ["9" * 150 + " epochs", "b " * 80, "one\n\ntwo # three\n", [["x"]]]
)
def test_a_comment_is_no_part_of_a_value_of_several_lines(value):
    text = yaml_file.dump({"a": value, "c": 1})
    written = write_comments(text, {"a": Comment(("# above",), "# beside")})
    assert yaml_file.read(written)[0] == {"a": value, "c": 1}
    assert [written.count(comment) for comment in ("# above", "# beside")] == [1, 1]


def test_a_tab_behind_a_value_is_none_of_a_comment():
    assert read_comments("a: 'b'\t# why\nc: 1\t\n") == {"a": Comment((), "# why")}
