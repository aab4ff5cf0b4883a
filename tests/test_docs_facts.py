"""What pages say in tables and lists is what the code does."""

import re
from pathlib import Path

import keras
import pytest
import yaml

from optimization import OPTIMIZERS_CLS
from optimization.configs.sweep_config import KINDS
from tests.pages import blocks

DOCS = Path(__file__).parent.parent / "docs"
PIPELINE = DOCS / "pipeline.md"


SAME = {  # what the pages tell in a sentence, and not in a row
    "adafactor": "factored decay_rate step_offset epsilon2 warmup_init weight_decay "
    "include_in_weight_decay",
    "muon": "adam_beta_1 exclude_layers exclude_embeddings muon_a muon_b muon_c momentum ns_steps "
    "second_moment_beta include_layers split ns_dtype",
}


@pytest.mark.parametrize("name", SAME)
def test_the_variants_are_what_the_page_says(name):
    all_variants = OPTIMIZERS_CLS.config_class(name).variants
    rows = re.findall(r"^\| `(\w+)` (\|.*)\|$", (DOCS / f"{name}.md").read_text(), re.MULTILINE)
    of_all = {n: row for n, row in rows if row.count("|") == len(all_variants)}
    cells = {n: [cell.strip(" `") for cell in row[1:].split("|")] for n, row in of_all.items()}
    variants = cells.pop("variant")
    assert variants == list(all_variants)
    told = {v: {n: yaml.safe_load(c[i]) for n, c in cells.items()} for i, v in enumerate(variants)}
    same, first = SAME[name].split(), all_variants[variants[0]]
    for variant, switches in all_variants.items():
        own = {name: value for name, value in switches.items() if name not in same}
        assert told[variant] == own
        assert {n: switches[n] for n in same} == {n: first[n] for n in same}


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has sparse gradients"
)
def test_rows_that_are_not_looked_up():
    from tools import sparse_rows

    assert PIPELINE.read_text() == sparse_rows.page(PIPELINE)


def test_the_sweep_is_that_of_the_file():
    (block,) = [b for b in blocks(DOCS / "sweeps.md") if b.language == "yaml" and not b.file]
    file = DOCS.parent / "configs/sweeps/digits.yaml"
    assert block.text == re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE)
    kinds = re.findall(r"^\| `(\w+): \[", (DOCS / "sweeps.md").read_text(), re.MULTILINE)
    assert sorted(kinds) == sorted(KINDS)


def test_the_table_of_pytorch_has_every_type():
    table = (DOCS / "torch.md").read_text().partition("| type |")[2].partition("\n\n")[0]
    first = [row.strip("| ").partition("|")[0] for row in table.splitlines()]
    assert {name for cell in first for name in re.findall(r"`(\w+)`", cell)} == set(OPTIMIZERS_CLS)
