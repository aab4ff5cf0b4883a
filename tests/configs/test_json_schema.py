"""The schema and the reader say the same of a file, as far as a schema can."""

import copy
import itertools
import json
import random
from pathlib import Path

import pytest

import optimization
from optimization import LR_CLS, OPTIMIZERS_CLS, WARMUP_CLS
from optimization.cli.files import read
from optimization.configs import yaml_file
from optimization.configs.base import Config
from optimization.configs.errors import ConfigError
from optimization.configs.group_config import LayerDecayConfig
from optimization.configs.json_schema import schema
from optimization.configs.layers import layered
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.tree import declared_specs
from optimization.rules.modifiers import MODIFIER_FIELDS

jsonschema = pytest.importorskip("jsonschema")

ROOT = Path(__file__).parents[2]
FILES = sorted((ROOT / "configs").rglob("*.yaml"))
# These have groups, layer-wise rates, scaling, an average, lists, and Adafactor.
BROKEN = ("detr_coco", "vit_finetuning_layer_decay", "convnext_imagenet", "t5_finetuning")
SECTIONS = [ROOT / "configs" / "optimization" / f"{name}.yaml" for name in BROKEN]
SCHEMA = schema()
VALIDATOR = jsonschema.Draft202012Validator(
    SCHEMA, format_checker=jsonschema.Draft202012Validator.FORMAT_CHECKER
)

CLASSES = [
    *(r.config_class(name) for r in (OPTIMIZERS_CLS, LR_CLS, WARMUP_CLS) for name in r),
    optimization.OptimizationConfig,
    optimization.OptimizerConfig,
    optimization.ExperimentConfig,
    optimization.TrainerConfig,
    optimization.RuntimeConfig,
    *(
        getattr(__import__(f"optimization.configs.{module}", fromlist=[name]), name)
        for module, name in (
            ("optimizer_config", "EMAConfig"),
            ("group_config", "ParamGroupConfig"),
            ("group_config", "LayerDecayConfig"),
            ("group_config", "LrScalingConfig"),
            ("sweep_config", "SweepConfig"),
        )
    ),
]
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3.0, 0.5, -0.5, 1.5, 1e-7, 1e39, float("inf"), 1e30),
    *("", "text", "auto", "dynamic", "5 epochs", "2.5epoch", " 10% ", "100.0%", "101%", "10"),
    *("1M examples", "2.5 T tokens", "1G tokens", "5tokens", "M tokens"),
    *("remaining", "epochs", "(", "1e-4", [], [1], [0.5, 2], ["10%", 20], ["a", "b"], ["("]),
    *([-1], [True], [None], [[1]], {}, {"a": 1}, {"type": "sgd"}, {"type": "linear"}),
]
# How many groups a regular expression has, no schema can say; a task is open. (Nor can one say that
# an integer of more than 63 bits is none where a number of that size is one.)
BEYOND = {(LayerDecayConfig, "depth"), (optimization.ExperimentConfig, "task")}


def valid(values):
    return VALIDATOR.is_valid(values)


def test_it_is_a_schema_of_2020_12():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert SCHEMA["$schema"] == "https://json-schema.org/draft/2020-12/schema"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_every_shipped_file_passes(path):
    assert not [error.message for error in VALIDATOR.iter_errors(yaml_file.read_file(path)[0])]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda cls: cls.__name__)
def test_each_value_of_each_field_is_judged_as_the_reader_judges_it(cls):
    of_class = VALIDATOR.evolve(schema={"$ref": f"#/$defs/{cls.__name__}", **_definitions()})
    for name, value in itertools.product(declared_specs(cls), VALUES):
        _, problems = layered(cls(), [{name: value}])
        told = [str(error.message) for error in of_class.iter_errors({name: value})]
        if (cls, name) not in BEYOND:
            assert bool(told) == bool(problems), (name, value, told, problems)


def _definitions():
    return {"$defs": SCHEMA["$defs"]}


def test_unknown_keys_are_refused_in_every_section():
    for name, definition in SCHEMA["$defs"].items():
        if definition.get("type") == "object" and name not in ("TaskConfig", "DataConfig"):
            of_class = VALIDATOR.evolve(schema={"$ref": f"#/$defs/{name}", **_definitions()})
            assert not of_class.is_valid({"no_such_key": 1}), name


def places(values, path=()):
    """Yields the path of each mapping and each value in nested values."""
    yield path, values
    items = values.items() if isinstance(values, dict) else ()
    for key, value in enumerate(values) if isinstance(values, list) else items:
        yield from places(value, (*path, key))


def changed(values, path, value):
    result = holder = {"": json.loads(json.dumps(values))}
    for key in ("", *path)[:-1]:
        holder = holder[key]
    holder[("", *path)[-1]] = value
    return result[""]


def broken(values):
    """Yields what a slip of the pen makes of a file, each with what it is."""
    for path, value in places(values):
        name = path[-1] if path else ""
        if isinstance(value, dict):
            yield "unknown key", changed(values, path, {**value, "no_such_key": 1})
            yield "no section", changed(values, path, 3)
            if "type" in value and value["type"] is not None:
                yield "unknown type", changed(values, path, {**value, "type": "no_such_type"})
                yield (
                    "no type",
                    changed(values, path, {k: v for k, v in value.items() if k != "type"}),
                )
            if path:
                yield "null", changed(values, path, None)
        elif name == "type":
            yield "type of another kind", changed(values, path, 5)
        elif isinstance(value, bool):
            yield "no boolean", changed(values, path, "yes")
        elif isinstance(value, int | float):
            yield "a number in quotes", changed(values, path, str(value))
            yield "out of range", changed(values, path, -1e9)
            yield "infinite", changed(values, path, float("inf"))
        elif isinstance(value, str):
            yield "no text", changed(values, path, 7.25)
        if name in ("initial_learning_rate", "boundaries", "warmup_steps"):
            yield "required and null", changed(values, path, None)


@pytest.mark.parametrize("path", SECTIONS, ids=lambda path: path.stem)
def test_what_breaks_a_file_breaks_it_for_both(path, tmp_path):
    values, _ = yaml_file.read_file(path)
    refused = set()
    for kind, text in broken(values):
        file = tmp_path / "broken.yaml"
        file.write_text(json.dumps(text).replace("Infinity", ".inf"))
        codes = mistakes(str(file))
        if codes == {"conflict"}:
            continue  # which concerns several values, as no schema does
        assert valid(text) == (not codes), (kind, text, codes)
        refused |= {kind} if codes else set()
    assert {"unknown key", "unknown type", "no section", "infinite"} <= refused


def mistakes(file):
    try:
        read(file)
    except ConfigError as error:
        return {problem.code for problem in error.problems}
    return set()


def test_a_branch_that_is_not_selected_is_refused_and_the_reader_warns():
    values = {"optimizer": {"type": "sgd", "adam": {"beta_1": 0.8}}}
    values["learning_rate"] = {"type": "constant"}
    (error,) = VALIDATOR.iter_errors(values)
    assert list(error.path) == ["optimizer"]
    assert "'adam' is not one of ['type', 'sgd']" in error.message
    _, doubts = OptimizationConfig(values).problems()
    assert [doubt.code for doubt in doubts] == ["unselected"]


def test_a_file_may_leave_out_what_its_kind_allows():
    bare = {"optimizer": {"type": "sgd"}}
    assert not valid(bare)  # no learning rate
    assert valid({"optimizer": {"type": "adafactor", "adafactor": {"step_size": "relative"}}})
    assert not valid({**bare, "learning_rate": {"type": "cosine"}})
    rate = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}}
    assert valid({**bare, "learning_rate": rate})
    assert not valid({**bare, "learning_rate": rate, "warmup": {"linear": {"warmup_steps": 3}}})
    group = {"match": "x", "learning_rate": {"type": "cosine"}}
    assert not valid({**bare, "learning_rate": rate, "param_groups": [group]})
    # The registered experiment may have it.
    assert valid({"trainer": {"optimizer_config": bare}})
    assert valid({"trainer": {"optimizer_config": {"warmup": {"linear": {"warmup_steps": 3}}}}})
    assert not valid({"trainer": {"optimizer_config": {"learning_rte": rate}}})


def test_keys_of_model_gardens_trainer_are_refused_as_by_the_trainer():
    values = {"trainer": {"train_tf_while_loop": True}}
    assert not valid(values)
    _, problems = layered(optimization.ExperimentConfig(), [values])
    assert "leave it out" in problems[0].message


def test_a_task_is_open_unless_it_is_known():
    class OwnTask(optimization.TaskConfig):
        """A task.

        Attributes:
            units: How many.
        """

        units: int = 3

    values = {"task": {"units": "x", "train_data": {"global_batch_size": 3, "own": 1}}}
    assert valid(values)
    known = jsonschema.Draft202012Validator(schema(OwnTask))
    assert len([*known.iter_errors(values)]) == 2
    assert known.is_valid({"task": {"units": 4}})


def test_what_the_reader_takes_passes():
    """Random sections of all types: those that the reader takes whole, the schema takes too."""
    choose = random.Random(7)
    taken = 0
    for _ in range(600):
        values = {
            section: _section(choose, registry)
            for section, registry in (
                ("optimizer", OPTIMIZERS_CLS),
                ("learning_rate", LR_CLS),
                ("warmup", WARMUP_CLS),
            )
            if section != "warmup" or choose.random() < 0.5
        }
        config, problems = layered(OptimizationConfig(), [copy.deepcopy(values)])
        if problems or config.problems()[0]:
            continue
        taken += 1
        assert valid(values), [e.message for e in VALIDATOR.iter_errors(values)]
    assert taken > 60


GOOD: dict[type[Config], dict[str, list]] = {}


def _section(choose, registry):
    name = choose.choice([*registry])
    cls = registry.config_class(name)
    if cls not in GOOD:
        GOOD[cls] = {
            field: [v for v in VALUES if not layered(cls(), [{field: v}])[1]]
            for field in declared_specs(cls)
        }
    section = {
        field: choose.choice(values)
        for field, values in GOOD[cls].items()
        if values and choose.random() < (0.9 if _is_needed(field) else 0.1)
    }
    return {"type": name, name: section}


def _is_needed(field):
    return field not in MODIFIER_FIELDS and ("learning_rate" in field or "steps" in field)
