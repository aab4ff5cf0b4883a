import copy
import dataclasses
import json
import pickle

import pytest

from optimization.configs.base import Config, config_dataclass
from optimization.configs.errors import DEFAULT, PYTHON, ConfigError, ConfigWarning, Origin
from optimization.configs.oneof import OneOfConfig
from optimization.configs.types import REMAINING, REQUIRED, PositiveInt, PositiveSteps
from tests.configs.reading import parse


@dataclasses.dataclass
class Leaf(Config):
    size: PositiveInt = REQUIRED
    rate: float = 0.5
    names: tuple[str, ...] = ()

    def check(self):
        if self.rate > self.size:
            yield "rate", f"must be <= `size`, got {self.rate} > {self.size}"


@dataclasses.dataclass
class Other(Config):
    text: str = "a"


@dataclasses.dataclass
class Choice(OneOfConfig):
    leaf: Leaf = dataclasses.field(default_factory=Leaf)
    other: Other = dataclasses.field(default_factory=Other)


@dataclasses.dataclass
class Root(Config):
    choice: Choice = dataclasses.field(default_factory=Choice)
    maybe: Other | None = None
    leaves: tuple[Leaf, ...] = ()
    steps: int = 10


def messages(error):
    return [str(problem) for problem in error.value.problems]


def test_a_mapping_keywords_or_both_build_a_config():
    assert Leaf({"size": 3}) == Leaf(size=3) == Leaf({"size": 1}, size=3)
    assert Root(choice={"type": "leaf", "leaf": {"size": 2}}).choice.leaf.size == 2


def test_all_mistakes_of_a_mapping_are_reported_at_once_and_nothing_is_changed():
    root = Root({"steps": 3})
    with pytest.raises(ConfigError) as error:
        root.override(
            {
                "step": 4,
                "steps": "5",
                "choice": {"type": "laef", "leaf": {"size": 0, "rat": 1}, "lef": {}},
                "maybe": {"text": 1},
                "leaves": [{"size": 1}, {"sise": 2}],
            }
        )
    assert messages(error) == [
        "step: unknown key; did you mean 'steps'?",
        "steps: expected an integer, got '5' (text); write it without quotes",
        "choice.type: unknown type 'laef'; did you mean 'leaf'?",
        "choice.leaf.size: must be > 0, got 0",
        "choice.leaf.rat: unknown key; did you mean 'rate'?",
        "choice.lef: unknown key; did you mean 'leaf'?",
        "maybe.text: expected text, got 1",
        "leaves[1].sise: unknown key; did you mean 'size'?",
    ]
    assert root == Root({"steps": 3})


@pytest.mark.parametrize("value", [3, [1], "text", None])
def test_a_nested_config_must_be_a_mapping(value):
    with pytest.raises(ConfigError, match="choice: expected a mapping"):
        Root(choice=value)


def test_a_section_that_is_null_is_told_what_to_write():
    with pytest.raises(ConfigError) as error:
        Root({"choice": None})
    assert str(error.value) == (
        "choice: expected a mapping, got null; leave it out, or write {type: null} for none"
    )
    with pytest.raises(ConfigError, match=r"leaf: .*; leave it out, or write \{\} to set nothing"):
        Root({"choice": {"leaf": None}})


@dataclasses.dataclass
class Nullable(Config):
    steps: PositiveInt = REQUIRED
    decay_steps: PositiveSteps = REMAINING
    offset: int = 0
    names: tuple[str, ...] = ()
    nesterov: bool = False
    count: PositiveInt = dataclasses.field(default=1, metadata={"null": True})
    clip: float | None = 1.0
    factor: float = 0.9


def test_null_is_not_set_where_it_can_only_mean_the_default():
    placeholders = ["steps", "decay_steps", "offset", "names", "nesterov", "count"]
    empty = Nullable(dict.fromkeys(placeholders))
    assert empty == Nullable()
    assert not any(empty._written_at())
    assert Nullable.from_json('{"offset": null, "count": null}') == Nullable()
    layered = Nullable(steps=3, decay_steps=4, offset=5, names=["a"], nesterov=True, count=6)
    layered.override(parse("\n".join(f"{name}: null" for name in placeholders), "f.yaml"))
    assert layered == Nullable()
    layered.offset = 7
    layered.offset = None
    assert layered.offset == 0
    assert layered.origin_of("offset") == DEFAULT
    with pytest.raises(ConfigError, match=r"^f.yaml:1: steps: a value is required, none was given"):
        layered.validate()


def test_null_is_a_value_where_it_is_one_and_an_error_where_the_default_is_not_none():
    assert Nullable(clip=None).clip is None
    with pytest.raises(ConfigError) as error:
        Nullable(factor=None)
    assert str(error.value) == "factor: expected a number, got null; the default is 0.9"
    with pytest.raises(ConfigError, match=r"names\[1\]: expected text, got null"):
        Nullable(names=["a", None])


def test_assignment_is_as_strict_as_a_file():
    root = Root()
    with pytest.raises(ConfigError, match="choice.leaf.rate: expected a number, got '1'"):
        root.choice.leaf.rate = "1"
    with pytest.raises(ConfigError, match="choice.leaf.sise: unknown key; did you mean 'size'"):
        root.choice.leaf.sise = 1
    root.choice.leaf.size = 2e3
    assert root.choice.leaf.size == 2000
    assert type(root.choice.leaf.size) is int
    with pytest.raises(AttributeError):
        del root.steps


def test_a_config_may_be_assigned_and_is_copied():
    leaf = Leaf(size=1)
    root = Root()
    root.choice.leaf = leaf
    leaf.size = 2
    assert root.choice.leaf.size == 1
    with pytest.raises(ConfigError, match="choice.leaf: expected Leaf, got Other"):
        root.choice.leaf = Other()


def test_override_keeps_other_values_and_replaces_lists():
    root = Root({"leaves": [{"size": 1}, {"size": 2}], "steps": 5})
    root.override({"leaves": [{"size": 3}], "maybe": {}})
    assert root.leaves == (Leaf(size=3),)
    assert root.steps == 5
    assert root.maybe == Other()
    root.override({"maybe": None})
    assert root.maybe is None


def test_replace_leaves_the_original_alone():
    root = Root(steps=1)
    root.lock()
    twin = root.replace(steps=2)
    twin.choice.leaf.size = 3
    assert (root.steps, twin.steps) == (1, 2)
    assert root.choice.leaf.size is REQUIRED


def test_lock_is_deep():
    root = Root({"maybe": {}, "leaves": [{"size": 1}]})
    root.lock()
    assert root.choice.leaf.locked
    for config, name in ((root, "steps"), (root.choice.leaf, "size"), (root.maybe, "text")):
        with pytest.raises(ConfigError, match="the config is locked"):
            setattr(config, name, 3)
    with pytest.raises(ConfigError, match="locked"):
        root.override({"choice": {"other": {"text": "b"}}})
    with pytest.raises(AttributeError):
        root.leaves.append(1)
    with pytest.raises(ConfigError, match="locked"):
        root.leaves[0].size = 2


def test_a_locked_config_refuses_even_wrong_values_as_locked():
    leaf = Leaf(size=1)
    leaf.lock()
    with pytest.raises(ConfigError, match="size cannot be set; `replace` makes a copy"):
        leaf.override({"size": "x"})


def test_validate_reports_missing_values_and_contradictions():
    root = Root({"choice": {"type": "leaf"}})
    with pytest.raises(ConfigError) as error:
        root.validate()
    assert messages(error) == ["choice.leaf.size: a value is required, none was given"]
    root.choice.leaf.override({"size": 1, "rate": 2.0})
    with pytest.raises(ConfigError, match=r"choice.leaf.rate: must be <= `size`, got 2.0 > 1"):
        root.validate()
    root.choice.leaf.rate = 1
    assert root.validate() == []


def test_configs_in_lists_are_validated_with_their_place():
    root = Root({"leaves": [{"size": 1}, {"rate": 1.0}]})
    with pytest.raises(ConfigError) as error:
        root.validate()
    assert messages(error) == ["leaves[1].size: a value is required, none was given"]


def test_only_the_selected_branch_must_be_complete():
    root = Root({"choice": {"type": "other"}})
    assert root.validate() == []


def test_a_written_branch_that_is_not_selected_is_a_warning():
    root = Root({"choice": {"leaf": {"rate": 0.1}, "type": "other"}})
    with pytest.warns(ConfigWarning, match="choice.leaf: is set, but `type` selects 'other'"):
        doubts = root.validate()
    assert [doubt.code for doubt in doubts] == ["unselected"]


def test_a_branch_that_an_earlier_layer_selected_is_no_warning():
    root = Root({"choice": {"type": "leaf", "leaf": {"size": 1}}, "maybe": {"text": "b"}})
    root.override({"choice": {"type": "other"}})
    assert root.validate() == []
    root.choice.type = None
    root.choice.type = "other"
    assert copy.deepcopy(root).validate() == []


@pytest.mark.parametrize(
    "layers",
    [
        [{"type": "other", "leaf": {"size": 1}}],
        [{"leaf": {"size": 1}}, {"type": "other"}],
        [{"type": "leaf"}, {"type": "other", "leaf": {"size": 1}}],
        [{"type": "leaf", "leaf": {"size": 2}}, {"type": "other"}, {"leaf": {"size": 1}}],
    ],
)
def test_a_branch_that_no_layer_selected_is_a_warning(layers):
    choice = Choice()
    for layer in layers:
        choice.override(parse(json.dumps(layer), f"{layer}.yaml"))
    with pytest.warns(ConfigWarning, match="leaf: is set, but `type` selects 'other'"):
        (doubt,) = choice.validate()
    last = next(layer for layer in reversed(layers) if "leaf" in layer)
    assert doubt.origin.source == f"{last}.yaml"


def test_switching_the_type_keeps_the_branches():
    choice = Choice({"type": "leaf", "leaf": {"size": 7}})
    choice.type = "other"
    assert choice.get() == Other()
    assert choice.as_dict() == {"type": "other", "other": {"text": "a"}}
    choice.type = "leaf"
    assert choice.get().size == 7
    choice.type = None
    assert choice.get() is None
    assert choice.as_dict() == {"type": None}


@pytest.mark.parametrize("name", ["type", "__class__", "get", "registry", "_path", ""])
def test_type_must_name_a_branch(name):
    with pytest.raises(ConfigError, match="type: unknown type"):
        Choice(type=name)


def test_a_missing_attribute_names_the_nearest():
    with pytest.raises(AttributeError, match="did you mean 'leaf'"):
        _ = Choice().laef


def test_equality_is_of_class_and_exported_values():
    assert Leaf(size=1) != Leaf(size=2)
    assert Leaf(size=1) != Other()
    left, right = Choice(type="other"), Choice(type="other", leaf={"size": 3})
    assert left == right


def test_dict_yaml_and_json_round_trips(tmp_path):
    root = Root(
        {
            "choice": {"type": "leaf", "leaf": {"size": 2, "rate": 1e-7, "names": ["1e3", "yes"]}},
            "maybe": {"text": "null"},
            "leaves": [{"size": 1, "names": ["a: b", "é"]}],
        }
    )
    assert Root(root.as_dict()) == root
    assert Root.from_json(root.to_json()) == root
    assert Root.from_json(root.to_json(indent=2)) == root
    path = tmp_path / "root.yaml"
    text = root.to_yaml(path)
    assert path.read_text(encoding="utf-8") == text == root.to_yaml()
    assert Root.from_yaml(path) == root
    assert type(Root.from_yaml(path).choice.leaf.rate) is float


def test_from_json_refuses_what_is_no_json():
    with pytest.raises(ConfigError, match="not JSON"):
        Root.from_json("{")
    for text in ("[" * 100_000, '{"steps": ' + "9" * 5000 + "}"):
        with pytest.raises(ConfigError, match="not JSON"):
            Root.from_json(text)
    with pytest.raises(ConfigError, match="not JSON"):
        Root.from_json(b"\xff")
    with pytest.raises(ConfigError, match="duplicate key 'steps'"):
        Root.from_json('{"steps": 3, "steps": 4}')
    with pytest.raises(ConfigError, match="stps: unknown key; did you mean 'steps'"):
        Root.from_json('{"stps": 3}')


def test_from_yaml_names_the_line(tmp_path):
    path = tmp_path / "bad.yaml"
    path.write_text("steps: 3\nchoice:\n  leaf:\n    rate: fast\n", encoding="utf-8")
    with pytest.raises(ConfigError) as error:
        Root.from_yaml(path)
    expected = f"{path}:4: choice.leaf.rate: expected a number, got 'fast' (text)"
    assert messages(error) == [expected]


def test_origins_are_remembered():
    root = Root(parse("choice:\n  leaf:\n    size: 3\n", "f.yaml"))
    assert root.origin_of("choice.leaf.size") == Origin("f.yaml", 3)
    assert root.origin_of("choice.leaf.rate") is DEFAULT
    root.choice.leaf.rate = 0.1
    assert root.origin_of("choice.leaf.rate") is PYTHON
    with pytest.raises(AttributeError):
        root.origin_of("choice.leaf.nothing")


def test_copies_and_pickles_are_equal_and_independent():
    root = Root({"choice": {"type": "leaf", "leaf": {"size": 2}}})
    for twin in (copy.deepcopy(root), pickle.loads(pickle.dumps(root)), dataclasses.replace(root)):
        assert twin == root
        twin.choice.leaf.size = 3
        assert root.choice.leaf.size == 2


@pytest.mark.parametrize(
    "text",
    [
        "Leaf()",
        "Leaf(size=1)",
        "Choice(type='other')",
        "Choice(type='leaf', leaf=Leaf(rate=0.1))",
        "Root(choice=Choice(type='other', other=Other(text='b')), leaves=(Leaf(size=2),))",
    ],
)
def test_repr_is_the_code_that_builds_the_config(text):
    config = eval(text)
    assert repr(config) == text
    assert repr(copy.deepcopy(config)) == text


def test_post_init_runs_and_check_may_yield_nothing():
    @dataclasses.dataclass
    class Doubled(Config):
        x: int = 1
        y: int = 0

        def __post_init__(self):
            self.y = 2 * self.x

        def check(self):
            return None

    assert Doubled(x=3).y == 6
    assert Doubled().validate() == []


def test_a_base_class_config_in_place_of_a_mapping():
    assert Leaf(Leaf(size=2)) == Leaf(size=2)
    with pytest.raises(TypeError, match="expected Leaf, got Other"):
        Leaf(Other())


class Plain(Config):
    """Has no decorator.

    Attributes:
        size: How large it is.
    """

    size: PositiveInt = 1
    names: tuple[str, ...] = dataclasses.field(default_factory=tuple, metadata={"null": True})


class PlainBelow(Plain):
    size: PositiveInt = 2
    rate: float = 0.5


@dataclasses.dataclass
class DecoratedBelow(PlainBelow):
    more: list[int] = dataclasses.field(default_factory=lambda: [3])


def test_a_config_needs_no_decorator():
    assert "size (integer > 0; default 1): How large it is." in Plain.__doc__
    assert PlainBelow(rate=1).as_dict() == {"size": 2, "names": [], "rate": 1.0}
    assert DecoratedBelow(names=None).as_dict() == {
        "size": 2,
        "names": [],
        "rate": 0.5,
        "more": [3],
    }
    assert config_dataclass(DecoratedBelow) is DecoratedBelow


def test_a_config_is_made_a_dataclass_once():
    @dataclasses.dataclass
    @config_dataclass
    class Again(Config):
        names: list[str] = dataclasses.field(default_factory=list)

    with pytest.raises(TypeError, match="Again is made a dataclass twice: write"):
        Again()


def test_the_fields_of_a_class_are_known_before_it_is_used():
    class Unused(Config):
        size: PositiveInt = 1

    assert [field.name for field in dataclasses.fields(Unused)] == ["size"]
