import dataclasses

import pytest

from optimization.configs.base import Config
from optimization.configs.errors import ConfigError, Origin
from optimization.configs.layers import findings, layered, parse_override, read_layers, resolve
from optimization.configs.types import REQUIRED
from optimization.configs.yaml_file import parse


@dataclasses.dataclass
class Inner(Config):
    x: int = REQUIRED
    values: tuple[float, ...] = ()


@dataclasses.dataclass
class Outer(Config):
    inner: Inner = dataclasses.field(default_factory=Inner)
    name: str = "n"


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("a=1", {"a": 1}),
        ("a.b=1,c.d=[1,2]", {"a": {"b": 1}, "c": {"d": [1, 2]}}),
        ("a.b=1, a.c=2", {"a": {"b": 1, "c": 2}}),
        ("a='x,y',b=\"p=q,r\"", {"a": "x,y", "b": "p=q,r"}),
        ("a=[[1,2],[3,[4,5]]]", {"a": [[1, 2], [3, [4, 5]]]}),
        ("a={b: [1, 2], c: 'd,e'}", {"a": {"b": [1, 2], "c": "d,e"}}),
        ("a=1e-4,b=.5e3,c=1_000", {"a": 1e-4, "b": 500.0, "c": 1000}),
        ("a=null,b=true,c=", None),
        ("a=http://x=y", {"a": "http://x=y"}),
        ("a=it's,b=2", {"a": "it's", "b": 2}),
        ("a='it''s, so',b=2", {"a": "it's, so", "b": 2}),
        (r'a="x\",y",b=2', {"a": 'x",y', "b": 2}),
        ("a=['x,y', \"z,\"],b={c: 'd,'}", {"a": ["x,y", "z,"], "b": {"c": "d,"}}),
        ("a: 1\nb:\n  c: [1, 2]", {"a": 1, "b": {"c": [1, 2]}}),
        ('{"a": {"b": 1e-3}}', {"a": {"b": 1e-3}}),
        ("a: {b: 'x=1'}", {"a": {"b": "x=1"}}),
        ("", {}),
    ],
)
def test_parse_override(text, value):
    if value is None:
        with pytest.raises(ConfigError, match="no value; write `null` or `''`"):
            parse_override(text)
    else:
        assert parse_override(text) == value


def test_parse_override_takes_the_path_of_a_file(tmp_path):
    path = tmp_path / "over.yaml"
    path.write_text("a:\n  b: 2\n")
    value = parse_override(str(path))
    assert value == {"a": {"b": 2}}
    assert value["a"].origins["b"] == Origin(str(path), 2)
    with pytest.raises(ConfigError, match="cannot be read"):
        parse_override("missing.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1,b", "--params_override 'b': expected `path.to.value=value`"),
        ("a=1,=2", "--params_override '=2': expected"),
        ("a..b=1", "expected `path.to.value=value`"),
        ("a=1,a=2", "'a=2': a: is set twice"),
        ("a=1,a.b=2", "'a.b=2': a.b: 'a' was set to a plain value before"),
        ("a.b=1,a=2", "'a=2': a: is set twice"),
        ("a=[1", "'a=[1': a: not YAML"),
        ("just text", "must hold a mapping"),
        ("[1, 2]", "must hold a mapping"),
        ("a=!!python/object:os.system x", "not allowed"),
    ],
)
def test_bad_overrides(text, message):
    with pytest.raises(ConfigError) as error:
        parse_override(text)
    assert message in str(error.value)


def test_later_layers_win_lists_replace_and_origins_are_kept():
    first = parse("inner:\n  x: 1\n  values: [1, 2, 3]\n", "a.yaml")
    second = parse("inner:\n  values: [4]\nname: m\n", "b.yaml")
    base = Outer()
    config = resolve(base, [first, second, parse_override("inner.x=5")])
    assert config == Outer({"inner": {"x": 5, "values": [4]}, "name": "m"})
    assert base == Outer()
    assert str(config.origin_of("inner.x")) == "--params_override 'inner.x=5'"
    assert str(config.origin_of("inner.values")) == "b.yaml:2"


def test_every_mistake_of_every_layer_and_of_the_whole_is_reported(tmp_path):
    good = tmp_path / "a.yaml"
    good.write_text("innr: 1\nname: 3\n")
    broken = tmp_path / "b.yaml"
    broken.write_text("a: 1\na: 2\nnam: 3\n")
    layers, problems = read_layers([good, broken, tmp_path / "c.yaml"], ["inner.y=1,q", "z"])
    with pytest.raises(ConfigError) as error:
        resolve(Outer(), layers, problems)
    lines = str(error.value).splitlines()
    assert [line for line in lines if "b.yaml:2: duplicate key 'a'" in line]
    assert [line for line in lines if "c.yaml: cannot be read" in line]
    assert [line for line in lines if "'z': must hold a mapping" in line]
    assert [line for line in lines if "a.yaml:1: innr: unknown key; did you mean 'inner'?" in line]
    assert [line for line in lines if "a.yaml:2: name: expected text, got 3" in line]
    assert [line for line in lines if "'inner.y=1': inner.y: unknown key" in line]
    assert [line for line in lines if "b.yaml:3: nam: unknown key; did you mean 'name'" in line]
    assert [line for line in lines if "'q': expected `path.to.value=value`" in line]
    # What is missing may stand in the file that could not be read.
    assert not [line for line in lines if "a value is required" in line]
    assert [line for line in lines if "b.yaml:1: a: unknown key" in line]
    assert len(lines) == 9
    with pytest.raises(ConfigError, match="inner.x: a value is required"):
        resolve(Outer(), [{"name": "m"}])


def test_a_wrong_value_is_not_also_missing():
    config, problems = layered(Outer(), [{"inner": {"x": "3"}}])
    errors, _ = findings(config, problems)
    assert [problem.code for problem in errors] == ["type"]


def test_layered_paths_start_where_the_config_stands():
    _, problems = layered(Outer(), [{"inner": {"y": 1}}], "trainer.outer")
    assert problems[0].path == "trainer.outer.inner.y"
