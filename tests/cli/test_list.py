import json
import sys

import pytest

from optimization import LR_CLS, OPTIMIZERS_CLS, WARMUP_CLS
from optimization.cli.app import main
from optimization.training import registries


@pytest.mark.parametrize(
    ("what", "registry"),
    [("optimizers", OPTIMIZERS_CLS), ("learning_rates", LR_CLS), ("warmups", WARMUP_CLS)],
)
def test_every_type_is_listed_in_a_line(what, registry, capsys):
    assert main(["list", what]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == [*registry]
    assert all("Keras" in line and line.endswith(".") for line in lines)


def test_a_pattern_chooses(capsys):
    assert main(["list", "optimizers", "adam"]) == 0
    names = [line.split()[0] for line in capsys.readouterr().out.splitlines()]
    assert names == [name for name in OPTIMIZERS_CLS if "adam" in name]
    assert main(["list", "learning_rates", "hf_c*", "--format", "json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [row["name"] for row in found] == [n for n in LR_CLS if n.startswith("hf_c")]
    assert found[0]["backends"] == ["Keras", "PyTorch", "JAX"]


def test_rates_that_follow_a_metric_are_not_jax_s(capsys):
    assert main(["list", "learning_rates", "plateau"]) == 0
    assert "Keras, PyTorch  transformers'" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["optimizers", "adammm"], "none matches 'adammm'; did you mean 'adam"),
        (["optimisers"], "'optimisers' is not one of 'optimizers', 'learning_rates', "),
        (["optimisers"], "'experiments'; did you mean 'optimizers'?\n"),
        (["lists"], "'experiments'.\n"),
        ([], "Missing argument"),
    ],
)
def test_wrong_usage(arguments, message, capsys):
    assert main(["list", *arguments]) == 2
    assert message in capsys.readouterr().err


def test_experiments(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(registries, "_EXPERIMENTS", {})
    assert main(["list", "experiments"]) == 2
    assert "no experiment is registered" in capsys.readouterr().err
    (tmp_path / "experiment_to_list.py").write_text(
        "from optimization import ExperimentConfig\n"
        "from optimization.training import register_experiment\n"
        "@register_experiment('mine')\n"
        "def mine():\n    '''Trains nothing. At all.'''\n    return ExperimentConfig()\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    sys.modules.pop("experiment_to_list", None)
    assert main(["list", "experiments", "--import", "experiment_to_list"]) == 0
    assert capsys.readouterr().out == "mine  Trains nothing.\n"
