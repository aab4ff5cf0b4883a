import dataclasses

import pytest

from optimization.configs.base import Config
from optimization.configs.errors import ConfigError, ConfigWarning
from optimization.configs.layers import findings, layered, read_layers, resolve
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.overrides import parse_override
from optimization.configs.types import REQUIRED
from tests.configs.reading import parse


@dataclasses.dataclass
class Inner(Config):
    x: int = REQUIRED
    values: tuple[float, ...] = ()


@dataclasses.dataclass
class Outer(Config):
    inner: Inner = dataclasses.field(default_factory=Inner)
    name: str = "n"


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
    layers, problems = read_layers([good, broken, tmp_path / "c.yaml"], ["inner.y=1", "z"])
    with pytest.raises(ConfigError) as error:
        resolve(Outer(), layers, problems)
    lines = str(error.value).splitlines()
    assert [line for line in lines if "b.yaml:2: duplicate key 'a'" in line]
    assert [line for line in lines if "c.yaml: cannot be read" in line]
    assert [line for line in lines if "'z': expected `path.to.value=value`" in line]
    assert [line for line in lines if "a.yaml:1: innr: unknown key; did you mean 'inner'?" in line]
    assert [line for line in lines if "a.yaml:2: name: expected text, got 3" in line]
    assert [line for line in lines if "'inner.y=1': inner.y: unknown key" in line]
    assert [line for line in lines if "b.yaml:3: nam: unknown key; did you mean 'name'" in line]
    # What is missing may stand in the file that could not be read.
    assert not [line for line in lines if "a value is required" in line]
    assert [line for line in lines if "b.yaml:1: a: unknown key" in line]
    assert len(lines) == 8
    with pytest.raises(ConfigError, match="inner.x: a value is required"):
        resolve(Outer(), [{"name": "m"}])


def test_a_wrong_value_is_not_also_missing():
    config, problems = layered(Outer(), [{"inner": {"x": "3"}}])
    errors, _ = findings(config, problems)
    assert [problem.code for problem in errors] == ["type"]


def test_layered_paths_start_where_the_config_stands():
    _, problems = layered(Outer(), [{"inner": {"y": 1}}], "trainer.outer")
    assert problems[0].path == "trainer.outer.inner.y"


def test_a_type_override_is_no_doubt_about_what_the_file_had_selected(tmp_path):
    path = tmp_path / "file.yaml"
    path.write_text("optimizer: {type: adamw, adamw: {weight_decay_rate: 0.01}}\n")
    rate = {"learning_rate": {"type": "constant"}}
    layers, problems = read_layers([path], ["optimizer.type=lamb,optimizer.lamb.beta_1=0.8"])
    config = resolve(OptimizationConfig(rate), layers, problems)
    assert config.optimizer.get().beta_1 == 0.8
    layers, problems = read_layers([path], ["optimizer.type=lamb,optimizer.adamw.beta_1=0.8"])
    with pytest.warns(ConfigWarning, match="optimizer.adamw: is set, but `type` selects 'lamb'"):
        resolve(OptimizationConfig(rate), layers, problems)
