import copy
import itertools

import pytest
import yaml

from optimization.configs.base import Config
from optimization.configs.errors import ConfigError, Origin
from optimization.configs.yaml_file import MAX_DEPTH, dump, read, read_file
from tests.configs.reading import parse


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("1e4", 1e4),
        ("1.5e5", 1.5e5),
        (".5e3", 500.0),
        ("1_000", 1000),
        ("1_000.5", 1000.5),
        ("-3", -3),
        ("+0.5", 0.5),
        ("5.", 5.0),
        ("0x1F", 31),
        ("0o17", 15),
        ("017", 17),
        ("true", True),
        ("False", False),
        ("yes", "yes"),
        ("on", "on"),
        ("NO", "NO"),
        ("12:30:00", "12:30:00"),
        ("2020-01-01", "2020-01-01"),
        ("~", None),
        ("null", None),
        ("", None),
        ("'1e-4'", "1e-4"),
        ('"true"', "true"),
        ("e5", "e5"),
        ("1e", "1e"),
        ("1.2.3", "1.2.3"),
        ("!!python/tuple [1, 2]", [1, 2]),
        ("!!python/list [1, 2]", [1, 2]),
        ("!!python/list\n- layer_norm\n- !!python/tuple [bias]", ["layer_norm", ["bias"]]),
        ("!!python/dict {a: !!python/none null}", {"a": None}),
        ("!!python/unicode '1'", "1"),
        ("!!python/long 3", 3),
        ("[1, [2.5, a]]", [1, [2.5, "a"]]),
        ('{"a": {"b": [1e-3, null]}}', {"a": {"b": [1e-3, None]}}),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    result = parse(f"x: {text}")["x"] if text else parse("x:")["x"]
    assert result == value
    assert type(result) is type(value) or isinstance(result, dict)


def test_infinity_and_nan_are_floats():
    values = parse("[.inf, -.inf, .nan]")
    assert values[:2] == [float("inf"), -float("inf")]
    assert values[2] != values[2]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3", "duplicate key 'a', first on line 1, again on line 3"),
        ("a: !!python/object/apply:os.system [ls]", "tag !!python/object/apply:os.system is not"),
        ("a: !!python/name:os.system", "tag !!python/name:os.system is not allowed"),
        ("a: !!python/list 3", "the tag !!python/list is not allowed"),
        ("a: !!python/complex 3", "the tag !!python/complex is not allowed"),
        ("a: !mine 3", "the tag !mine is not allowed"),
        ("a: !!set {x}", "the tag !!set is not allowed"),
        ("a: !!timestamp 2020-01-01", "the tag !!timestamp is not allowed"),
        ("a: !!int x", "'x' (text) is not a number"),
        ("a: [1", "not YAML"),
        ("a: b: c", "not YAML"),
        ("a: 1\n---\nb: 2", "expected a single document"),
        ("a: *nothing", "undefined alias"),
        ("a: &a [*a]", f"more than {MAX_DEPTH} levels"),
        ("[" * 200 + "]" * 200, f"more than {MAX_DEPTH} levels"),
        ("[" * 100_000, "f.yaml"),
        ("? [1, 2]\n: 3", "a key must be text"),
        ("a: {<<: 3}", "`<<` takes a mapping"),
        ("a: {<<: {b: 1}, <<: {c: 1}}", "duplicate key '<<'"),
        ("a: \x00", "not YAML"),
    ],
)
def test_bad_text_is_refused_with_its_place(text, message):
    with pytest.raises(ConfigError) as error:
        parse(text, "f.yaml")
    assert message in str(error.value)
    assert str(error.value).startswith("f.yaml")


def test_every_duplicate_and_tag_is_reported():
    with pytest.raises(ConfigError) as error:
        parse("a: 1\na: 2\nb: !x 1\nc: {d: 1, d: 2}", "f")
    assert [problem.origin.line for problem in error.value.problems] == [2, 3, 4]


def test_anchors_and_merge_keys_work_and_keep_their_lines():
    value = parse("base: &b {x: 1, y: 2}\nmore: &m {z: 3}\nuse:\n  <<: [*b, *m]\n  y: 5\n", "f")
    assert value["use"] == {"x": 1, "y": 5, "z": 3}
    origins = value["use"].origins
    assert (origins["x"], origins["y"], origins["z"]) == tuple(Origin("f", n) for n in (1, 5, 2))


def test_alias_bombs_are_refused():
    names = "abcdefghij"
    text = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
        f"{new}: &{new} [{', '.join([f'*{old}'] * 9)}]\n" for old, new in itertools.pairwise(names)
    )
    with pytest.raises(ConfigError, match="expands to more than"):
        parse(text)


def test_pyyaml_itself_is_left_alone():
    before = copy.deepcopy(yaml.SafeLoader.yaml_implicit_resolvers)
    parse("a: 1e-4")
    dump({"a": ["1e-4"]})
    assert yaml.SafeLoader.yaml_implicit_resolvers == before
    assert yaml.safe_load("a: 1e-4") == {"a": "1e-4"}
    assert yaml.safe_load("a: yes") == {"a": True}


def test_load_reports_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ConfigError, match=r"nothing\.yaml: cannot be read"):
        Config.from_yaml(tmp_path / "nothing.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        Config.from_yaml(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"a: \xff\xfe")
    with pytest.raises(ConfigError, match="not UTF-8"):
        Config.from_yaml(tmp_path / "binary.yaml")
    (tmp_path / "list.yaml").write_text("- 1\n")
    with pytest.raises(ConfigError, match="must hold a mapping"):
        Config.from_yaml(tmp_path / "list.yaml")
    (tmp_path / "empty.yaml").write_text("# nothing\n")
    assert Config.from_yaml(tmp_path / "empty.yaml") == Config()


def test_what_can_be_read_is_read_beside_the_problems(tmp_path):
    (tmp_path / "f").write_text("a: 1\na: 2\nb: !x 3\nc: {d: 4, d: 5}\n")
    value, problems = read_file(tmp_path / "f")
    assert value == {"a": 1, "c": {"d": 4}}
    assert [problem.origin.line for problem in problems] == [2, 3, 4]
    (tmp_path / "f").write_text("3")
    value, problems = read_file(tmp_path / "f")
    assert value == {}
    assert str(problems[0]) == f"{tmp_path / 'f'}: must hold a mapping of settings, holds 3"


def test_long_digits_take_no_time_to_refuse():
    # A pattern that backtracks would take minutes here.
    text = "1" * 200_000 + "x"
    assert parse(f"a: {text}") == {"a": text}
    with pytest.raises(ConfigError, match="is not a number"):
        parse("a: !!int " + "1" * 5000 + "x")


@pytest.mark.parametrize(
    "value",
    [
        1e-7,
        1.0,
        1e22,
        -0.5,
        3,
        True,
        None,
        "",
        "1e-4",
        "yes",
        "null",
        "017",
        "0x1F",
        "<<",
        "a: b",
        "- c",
        "#d",
        "é",
        " e ",
        "line\nbreak",
        "a\x85b\u2028c\td",
        [],
        [1, 2.5, "1_000"],
        [[1], {"a": 1}],
        {},
        {"a": {"b": [1.5, None]}},
    ],
)
def test_dump_and_parse_are_inverse(value):
    result = parse(dump({"x": value}))["x"]
    assert result == value
    assert type(result) is type(value) or isinstance(result, dict)


def test_a_tab_is_called_one():
    with pytest.raises(ConfigError, match="^a:2: not YAML: the line begins with a tab; YAML is"):
        parse("b:\n \tc: 1\n", "a")


@pytest.mark.parametrize(
    ("text", "line", "hint"),
    [
        ("a: 1\n  b: 2\n", 2, "the line is indented deeper than the one it goes with, or has a"),
        ("a: b: c\n", 1, "or has a second `: ` in a text without quotes"),
        ("a:\n  b: 1\n c: 2\n", 3, "the line is indented otherwise than those beside it"),
        ("a: {b: 1\nc:\n  d: 2\n", 2, "a bracket is not closed, or a comma is missing (it begins"),
        ("a: ['b' c]\n", 1, "a bracket is not closed, or a comma is missing"),
        ("a: 1\nb: 'x\nc: 2\n", 4, "a quote is not closed (it begins in line 2)"),
        ("a: 1\nb\nc: 2\n", 3, "a key has `: ` and a value after it"),
        ("a: *b\n", 1, "a text that begins with `*` needs quotes"),
        ("a: @b\n", 1, "the text needs quotes"),
    ],
)
def test_what_is_no_yaml_is_told_with_what_is_most_often_meant(text, line, hint):
    with pytest.raises(ConfigError) as error:
        parse(text, "f")
    (problem,) = error.value.problems
    assert problem.origin == Origin("f", line)
    assert hint in problem.message


@pytest.mark.parametrize("text", ["- 1\n" * 100_001, "a: 1\n" * 50_001])
def test_values_are_counted_before_they_are_read(text):
    value, problems = read(text)
    assert value is None
    assert [problem.message for problem in problems] == ["has more than 100,000 values"]
