import copy
import dataclasses
import pickle

import pytest

from optimization.configs.base import Config
from optimization.configs.errors import ConfigError
from optimization.configs.oneof import OneOfConfig
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.configs.registry import Registry, import_target
from optimization.configs.types import REQUIRED


@dataclasses.dataclass
class Base(Config):
    name: str | None = None


@pytest.fixture
def registry():
    registry = Registry(
        "thing", Base, import_target, supplied=("lr",), unavailable={"gone": "`gone` is no more"}
    )

    @registry.register("decoder", "json:JSONDecoder")
    @dataclasses.dataclass
    class DecoderConfig(Base):
        strict: bool = True

    return registry


def test_targets_are_imported_when_looked_up(registry):
    import json

    assert registry["decoder"] is json.JSONDecoder
    assert list(registry) == ["decoder"]
    assert len(registry) == 1
    assert "decoder" in registry
    assert registry.config_class("decoder")().strict is True


def test_a_type_may_say_what_it_is_natively_in_pytorch(registry):
    @registry.register("both", "json:JSONDecoder", torch="somewhere:recipe")
    @dataclasses.dataclass
    class BothConfig(Base):
        pass

    natively = {name: entry.torch for name, entry in registry.entries()}
    assert natively == {"decoder": None, "both": "somewhere:recipe"}


@pytest.mark.parametrize(
    ("name", "message"),
    [("decodr", "unknown thing type 'decodr'; did you mean 'decoder'"), ("gone", "is no more")],
)
def test_unknown_names(registry, name, message):
    with pytest.raises(KeyError, match=message):
        registry[name]


def test_a_class_registers_with_its_signature_as_config(registry):
    @registry.register("mine")
    class Mine:
        def __init__(
            self, lr, size: int, power=1, scale=0.5, names: tuple[str, ...] = (), name=None, **kw
        ):
            self.size = size

    config_class = registry.config_class("mine")
    assert registry["mine"] is Mine
    assert config_class.field_names() == ["name", "size", "power", "scale", "names"]
    config = config_class()
    assert config.size is REQUIRED
    config.override({"size": 3.0, "power": 0.5, "names": ["a"]})
    assert (config.size, config.power, config.names) == (3, 0.5, ("a",))
    with pytest.raises(ConfigError, match="size: expected an integer"):
        config.size = "3"


def test_a_type_registered_later_is_a_branch(registry):
    @dataclasses.dataclass
    class Choice(OneOfConfig):
        pass

    Choice.registry = registry
    choice = Choice()
    with pytest.raises(ConfigError, match="unknown type 'late'"):
        choice.type = "late"
    with pytest.raises(ConfigError, match="type: `gone` is no more"):
        choice.type = "gone"
    with pytest.raises(ConfigError, match="gone: `gone` is no more"):
        choice.override({"gone": {}})

    @registry.register("late")
    def late(step: int, factor: float = 2.0):
        return factor

    choice.override({"type": "late", "late": {"factor": 3}, "decoder": {"strict": False}})
    assert choice.as_dict() == {"type": "late", "late": {"name": None, "factor": 3.0}}
    choice.lock()
    assert choice.late.locked
    assert Choice(type="decoder").get().strict is True


@pytest.mark.parametrize("name", ["decoder", "type", "get", "not a name", "validate"])
def test_names_that_are_taken_or_no_names(registry, name):
    with pytest.raises(ValueError, match=r"registered already|cannot name a type"):
        registry.register(name)


def test_a_parameter_without_type_is_refused(registry):
    with pytest.raises(TypeError, match="`size` needs a type annotation"):

        @registry.register("untyped")
        class Untyped:
            def __init__(self, lr, size):
                pass


class Picklable:
    def __init__(self, lr, size: int = 3):
        self.size = size


def test_configs_from_signatures_can_be_pickled(registry):
    registry.register("picklable")(Picklable)
    config = registry.config_class("picklable")(size=5)
    assert pickle.loads(pickle.dumps(config)) == config
    assert copy.deepcopy(config) == config


@pytest.mark.parametrize("thing", [3, "text", None, int])
def test_what_has_no_signature_cannot_be_registered(registry, thing):
    with pytest.raises(TypeError, match="cannot be registered"):
        registry.register("thing")(thing)
    assert "thing" not in registry


@pytest.mark.parametrize("thing", [lambda learning_rate: None, Picklable])
def test_an_optimizer_must_be_one(thing):
    with pytest.raises(
        TypeError, match=r"is not a subclass of keras.optimizers.Optimizer, nor of .*Rule"
    ):
        OPTIMIZERS_CLS.register("thing")(thing)
    assert "thing" not in OPTIMIZERS_CLS
