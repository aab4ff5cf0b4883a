import json
import sys
from importlib.resources import files

import pytest

from optimization import LR_CLS
from optimization.cli.app import main
from optimization.training import registries

jsonschema = pytest.importorskip("jsonschema")

MODULE = """\
import optimization
from optimization.training import register_experiment

@optimization.register_learning_rate("of_schema")
def of_schema(step, *, peak: float, xp):
    '''Is a peak.'''
    return peak + 0 * step

class OfSchemaConfig(optimization.TaskConfig):
    units: int = 3

@register_experiment("of_schema")
def experiment():
    return optimization.ExperimentConfig(task=OfSchemaConfig())
"""


def printed(capsys, *arguments):
    assert main(["schema", *arguments]) == 0
    return json.loads(capsys.readouterr().out)


def test_it_ships_in_the_package():
    schema = json.loads(files("optimization").joinpath("schema.json").read_text("utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)


def test_types_and_tasks_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LR_CLS, "_entries", dict(LR_CLS._entries))
    monkeypatch.setattr(registries, "_EXPERIMENTS", {})
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("module_of_schema", None)
    (tmp_path / "module_of_schema.py").write_text(MODULE)
    rate = {"type": "of_schema", "of_schema": {"peak": 1}}
    values = {"optimizer": {"type": "sgd"}, "learning_rate": rate}
    usual = jsonschema.Draft202012Validator(printed(capsys))
    own = jsonschema.Draft202012Validator(printed(capsys, "--import", "module_of_schema"))
    assert not usual.is_valid(values)
    assert own.is_valid(values)
    assert own.is_valid({"task": {"units": "x"}})
    options = ["--import", "module_of_schema", "--experiment", "of_schema"]
    known = jsonschema.Draft202012Validator(printed(capsys, *options))
    assert known.is_valid({"task": {"units": 4}})
    assert not known.is_valid({"task": {"units": "x"}})
    assert not known.is_valid({"task": {"unitz": 4}})


def test_a_file_that_cannot_be_written(tmp_path, capsys):
    assert main(["schema", "-o", str(tmp_path / "no" / "x.json")]) == 2
    assert "cannot be written" in capsys.readouterr().err
