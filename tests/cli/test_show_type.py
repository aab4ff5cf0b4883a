import json
import re
import sys

import pytest

from optimization import LR_CLS, OPTIMIZERS_CLS, WARMUP_CLS
from optimization.cli.app import main
from optimization.cli.catalog import find, types
from optimization.configs.tree import declared_specs
from optimization.schedules.metric import MetricLrConfig

NAMES = [
    *(f"optimizer.{name}" for name in OPTIMIZERS_CLS),
    *(f"learning_rate.{name}" for name in LR_CLS),
    *(f"warmup.{name}" for name in WARMUP_CLS),
]


def shown(capsys, *arguments):
    assert main(["show-type", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_every_type_shows_formula_source_fields_and_backends(name, capsys):
    out = shown(capsys, name)
    (kind,) = find(name)
    assert "\n    " in kind.description  # a formula
    assert ">>>" not in out
    assert "Source: " in out
    for field in declared_specs(kind.config_class):
        assert f"\n  {field}: " in out
    assert "\n  Keras: " in out


@pytest.mark.parametrize("name", [name for name in NAMES if not name.startswith("optimizer.")])
def test_every_schedule_shows_its_picture(name, capsys):
    pytest.importorskip("plotille")
    out = shown(capsys, name)
    (kind,) = find(name)
    assert "\nOver 1000 steps" in out
    assert "optimizer steps\n\n" in out
    assert re.search(rf"^{kind.name}: .* at step 0|always", out, re.MULTILINE)


def test_without_the_extra_what_brings_the_picture(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "plotille", None)
    assert "The extra `plot` brings it" in shown(capsys, "learning_rate.cosine")


def test_a_name_of_two_sections_shows_both(capsys):
    out = shown(capsys, "linear")
    assert "linear, a type of `learning_rate`" in out
    assert "linear, a type of `warmup`" in out
    assert "learning_rate`" not in shown(capsys, "warmup.linear").splitlines()[0]


def test_json(capsys):
    (kind,) = json.loads(shown(capsys, "lamb", "--format", "json"))
    assert kind["backends"]["PyTorch"] == "optimization.torch.LAMB"
    fields = {field["name"]: field for field in kind["fields"]}
    assert fields["beta_1"]["type"] == "number in [0, 1)"
    assert fields["gradient_accumulation_steps"]["unit"] == "gradients"
    assert kind["source"].startswith("You et al. 2020")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("cosin", "there is no type 'cosin'; did you mean 'cosine'?"),
        ("warmup.cosin", "did you mean 'cosine'?"),
        ("slide", "was never released"),
        ("rate.cosine", "there is no type 'rate.cosine'"),
        ("bert", "there is no type 'bert'; `optfactory list optimizers` (or"),
    ],
)
def test_an_unknown_name_has_the_nearest(name, message, capsys):
    assert main(["show-type", name]) == 2
    assert message in capsys.readouterr().err


def test_the_classes_are_those_that_there_are():
    keras = pytest.importorskip("optimization.optimizers")
    for kind in types("optimizer"):
        assert (
            kind.backends["Keras"]
            == f"optimization.optimizers.{OPTIMIZERS_CLS[kind.name].__name__}"
        )
        assert hasattr(keras, OPTIMIZERS_CLS[kind.name].__name__)


def test_jax_has_what_is_a_function_of_the_step():
    for kind in types("learning_rate"):
        assert ("JAX" in kind.backends) != issubclass(kind.config_class, MetricLrConfig)


def test_types_of_ones_own(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(LR_CLS, "_entries", dict(LR_CLS._entries))
    (tmp_path / "own_rate_to_show.py").write_text(
        "import optimization\n"
        "@optimization.register_learning_rate('own_rate')\n"
        "def own_rate(step, *, peak: float, period: int = 7, xp):\n"
        "    '''Goes its own way.\n\n    Args:\n        peak: The highest.\n    '''\n"
        "    return peak + 0 * step\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    out = shown(capsys, "own_rate", "--import", "own_rate_to_show")
    assert "Goes its own way." in out
    assert "  peak: number; required\n      The highest." in out
