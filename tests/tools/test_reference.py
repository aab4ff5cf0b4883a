"""docs/reference/: in step with the dataclasses, and complete."""

import re

from optimization import LR_CLS, OPTIMIZERS_CLS, WARMUP_CLS
from optimization.configs.tree import declared_specs
from tools import reference


def test_the_pages_are_in_step():
    for path, text in reference.pages().items():
        assert path.read_text(encoding="utf-8") == text, "run `python -m tools.reference`"


def test_every_type_has_its_section():
    pages = {path.stem: text for path, text in reference.pages().items()}
    registries = {
        "optimizers": OPTIMIZERS_CLS,
        "learning_rates": LR_CLS,
        "warmups": WARMUP_CLS,
    }
    for page, registry in registries.items():
        titles = re.findall(r"^## `(\w+)`$", pages[page], re.MULTILINE)
        assert sorted(titles) == sorted(reference.own_types(registry))


def test_every_field_is_in_its_table_or_that_of_all():
    text = reference.pages()[reference.FOLDER / "optimizers.md"]
    sections = dict(re.findall(r"^## (.*)\n((?:(?!## ).*\n)*)", text, re.MULTILINE))
    shared = set(re.findall(r"^\| `(\w+)`", sections["Every optimizer"], re.MULTILINE))
    for kind in reference.own_types(OPTIMIZERS_CLS):
        own = set(re.findall(r"^\| `(\w+)`", sections[f"`{kind}`"], re.MULTILINE))
        assert own | shared == set(declared_specs(OPTIMIZERS_CLS.config_class(kind))) | shared


def test_what_a_type_changes_is_in_its_own_table():
    text = reference.pages()[reference.FOLDER / "optimizers.md"]
    (muon,) = re.findall(r"^## `muon`\n((?:(?!## ).*\n)*)", text, re.MULTILINE)
    assert "| `weight_decay` | number >= 0 or null | | `0.004` |" in muon
    assert "`clipnorm`" not in muon


def test_every_field_has_a_meaning():
    rows = [
        (path.name, row)
        for path, text in reference.pages().items()
        for row in re.findall(r"^\| `.*", text, re.MULTILINE)
    ]
    assert len(rows) > 200
    assert [row for row in rows if row[1].endswith("| |")] == []
