import dataclasses

import pytest

from optimization.configs.base import Config
from optimization.configs.errors import ConfigError, Origin
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.layers import read_layers, resolve
from optimization.configs.overrides import parse_override, read_override


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


def test_whether_a_text_is_a_path_is_told_by_the_text(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a=1", "b: 2", "plain", "x.json=3", "a=b.yaml"):
        (tmp_path / name).write_text("c: 4")
    assert parse_override("a=1") == {"a": 1}
    assert parse_override("b: 2") == {"b": 2}
    assert parse_override("a=b.yaml") == {"a": "b.yaml"}
    with pytest.raises(ConfigError, match="write `plain=VALUE`"):
        parse_override("plain")
    for name in ("missing.yaml", "missing.yml", "a folder/missing.JSON"):
        with pytest.raises(ConfigError, match=f"^{name}: cannot be read: No such file"):
            parse_override(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a=1,=2", "--params_override '=2': expected `path.to.value=value`"),
        ("a=1,a=2", "'a=2': a: is set twice"),
        ("a=1,a.b=2", "'a.b=2': a.b: 'a' was set to something else before"),
        ("a.b=1,a[0]=2", "'a[0]=2': a[0]: 'a' was set to something else before"),
        ("a.b=1,a=2", "'a=2': a: is set twice"),
        ("a=[1", "'a=[1': a: not YAML"),
        ("a.yaml,b=1", "'a.yaml': a file is no part of other settings; give it a flag of its own"),
        ("just text", "a mapping in YAML or JSON, or the path of"),
        ("[1, 2]", "expected `path.to.value=value`, a mapping"),
        ("a=!!python/object:os.system x", "not allowed"),
    ],
)
def test_bad_overrides(text, message):
    with pytest.raises(ConfigError) as error:
        parse_override(text)
    assert message in str(error.value)


@pytest.mark.parametrize(
    ("text", "written"),
    [
        ("a.b", "a.b=VALUE"),
        ("+a.b=1", "a.b=1"),  # Hydra
        ("++a.b=1", "a.b=1"),
        ("~a.b", "a.b=null"),
        ("--a.b=1", "a.b=1"),
        ("a.b:1", "a.b=1"),
        ("a.b: 1", "a.b=1"),
        ('{"a.b": 1}', "a.b=1"),
        ("{a=1}", "a=1"),
        ("a:b=1", "a.b=1"),
        ("a/b=1", "a.b=1"),
        ("a-b=1", "a_b=1"),
        ("'a.b'=1", "a.b=1"),
        ("a['b']=1", "a.b=1"),
        ("a..b=1", "a.b=1"),
        ("a==1", "a=1"),
        ("a=None", "a=null"),
        ("a=1,000", "a=1000"),
        ("a=1,000,000", "a=1000000"),
        ("a=1,2", "a=[1, 2]"),
        ("a=0,9", "a=0.9"),
        ("a.b 1", "a.b=1"),
        ("a=x,y z,c=3", "a=[x, y z]"),
        ("a=1,b", "b=VALUE"),
        ("a=1,b: 2", "b=2"),
        ("a=1,", "a=1"),
        (",a=1,,b=2", "a=1,b=2"),
        ("a=1 b.c=2", "a=1,b.c=2"),
        ("a=1;b=2", "a=1,b=2"),
    ],
)
def test_what_to_write_is_shown(text, written):
    _, problems = read_override(text)
    assert len(problems) == 1
    assert str(problems[0]).startswith("--params_override ")
    assert f"`{written}`" in problems[0].message


@dataclasses.dataclass
class Item(Config):
    match: str = ""
    factor: float = 1.0


@dataclasses.dataclass
class Items(Config):
    items: tuple[Item, ...] = ()
    rates: tuple[float, ...] = ()
    pairs: tuple[tuple[int, int], ...] = ()
    name: str = "n"


def test_single_elements_of_a_list():
    base = Items({"items": [{"match": "a"}, {"match": "b"}], "rates": [1, 2], "pairs": [[1, 2]]})
    layers, problems = read_layers(
        (), ["items[0].match=x,items.1.factor=3", "items[1]={match: y}", "rates[1]=5,pairs[0][1]=7"]
    )
    config = resolve(base, layers, problems)
    assert config.items == (Item(match="x"), Item(match="y", factor=3.0))
    assert (config.rates, config.pairs) == ((1.0, 5.0), ((1, 7),))
    assert base.items[0].match == "a"
    assert str(config.items[1]._origins["factor"]) == "--params_override 'items.1.factor=3'"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("items[2].match=x", "items[2]: there is no such element: the list has 2, 0 to 1"),
        (
            "rates[0]=1",
            "rates[0]: there is no such element: the list is empty; write `rates=[...]`",
        ),
        ("items[1].mach=x", "items[1].mach: unknown key; did you mean 'match'?"),
        ("items.0.factor=x", "items[0].factor: expected a number, got 'x' (text)"),
        ("items[0]=3", "items[0]: expected a mapping, got 3"),
        ("name[0]=x", "name: is no list that has elements"),
    ],
)
def test_wrong_elements(text, message):
    base = Items({"items": [{"match": "a"}, {"match": "b"}]})
    layers, problems = read_layers((), [text])
    with pytest.raises(ConfigError) as error:
        resolve(base, layers, problems)
    assert str(error.value).startswith(f"--params_override {text!r}: {message}")


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("optimizer.sgd.momentum=0.9", "trainer.optimizer_config.optimizer.sgd.momentum"),
        ("sgd.momentum=0.9", "trainer.optimizer_config.optimizer.sgd.momentum"),
        ("momentum=0.9", "trainer.optimizer_config.optimizer.sgd.momentum"),
        ("trainer.optimizer.type=sgd", "trainer.optimizer_config.optimizer.type"),
        ("train_steps=7", "trainer.train_steps"),
        ("runtime.train_data.seed=7", None),
    ],
)
def test_a_path_without_its_beginning_is_completed(text, path):
    base = ExperimentConfig()
    base.trainer.optimizer_config.optimizer.type = "sgd"
    with pytest.raises(ConfigError) as error:
        resolve(base, [parse_override(text)])
    hint = f"unknown key; did you mean '{path}'?" if path else "unknown key; the keys are"
    assert hint in str(error.value)
