"""The pages under docs/: their examples run, and print what the pages say they print."""

import contextlib
import io
import re
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import pytest
import yaml

from optimization import OPTIMIZERS_CLS, OptimizationConfig, OptimizerFactory
from optimization.configs.sweep_config import KINDS
from optimization.rules.adafactor import VARIANTS
from tests.golden_cases import make_variable

DOCS = Path(__file__).parent.parent / "docs"
PIPELINE = DOCS / "pipeline.md"


class Block(NamedTuple):
    """A fenced block: its language, its text, and the number of its first line."""

    language: str
    text: str
    line: int


def blocks(page: Path) -> list[Block]:
    text = page.read_text()
    found = re.finditer(r"^```(\w+)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2], text[: m.start()].count("\n") + 1) for m in found]


def section_of(page: Path, block: Block) -> str:
    """Returns the title of the section that a block is in; "" before the first one."""
    above = page.read_text().splitlines()[: block.line]
    return next((line[3:] for line in reversed(above) if line.startswith("## ")), "")


def run_examples(
    page: Path, folder: Path, *titles: str, names: dict | None = None
) -> list[tuple[Block, str]]:
    """Runs the Python blocks in order; returns each block of output with what was printed.

    Of the sections with these titles alone, if there are any. `names` gets what they define.
    """
    names = {} if names is None else names
    outputs, printed = [], ""
    for block in blocks(page):
        if titles and section_of(page, block) not in titles:
            continue
        if block.language == "python":
            with contextlib.redirect_stdout(io.StringIO()) as stdout:
                exec(compile(block.text, f"{page.name}:{block.line}", "exec"), names)
            printed = stdout.getvalue()
        elif block.language == "text":
            outputs.append((block, printed))
        elif block.text.startswith("# "):
            name, _, content = block.text.removeprefix("# ").partition("\n")
            (folder / name).write_text(content)
    return outputs


# What each page shows being printed, as a number of blocks.
SHOWN = {"adafactor.md": 3, "pipeline.md": 6, "schedule_free.md": 1, "transformers.md": 2}


@pytest.mark.parametrize("name", SHOWN)
def test_the_examples_print_what_the_page_says(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    keras.backend.clear_session()  # automatic names are counted
    page = DOCS / name
    outputs = run_examples(page, tmp_path)
    assert len(outputs) == SHOWN[name]
    for block, printed in outputs:
        assert printed == block.text, f"{page.name}:{block.line}"


def test_the_optimizer_that_the_guide_adds_trains(monkeypatch):
    monkeypatch.setattr(OPTIMIZERS_CLS, "_entries", dict(OPTIMIZERS_CLS._entries))
    (block,) = [b for b in blocks(DOCS.parent / "CONTRIBUTING.md") if b.language == "python"]
    names = {"__name__": __name__}
    exec(compile(block.text, "CONTRIBUTING.md", "exec"), names)
    weight = make_variable("weight", np.float32([0.5, -0.5]))
    OPTIMIZERS_CLS["signum"](0.25).apply([keras.ops.convert_to_tensor([1.0, -2.0])], [weight])
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(weight), [0.25, -0.25])


def test_the_variants_of_adafactor_are_what_the_page_says():
    rows = re.findall(r"^\| `(\w+)` (\|.*)\|$", (DOCS / "adafactor.md").read_text(), re.MULTILINE)
    cells = {name: [cell.strip(" `") for cell in row[1:].split("|")] for name, row in rows}
    variants = cells.pop("variant")
    assert variants == list(VARIANTS)
    told = {v: {n: yaml.safe_load(c[i]) for n, c in cells.items()} for i, v in enumerate(variants)}
    same = {"factored", "decay_rate", "step_offset", "epsilon2", "warmup_init"}
    same |= {"weight_decay", "include_in_weight_decay"}
    for variant, switches in VARIANTS.items():
        own = {name: value for name, value in switches.items() if name not in same}
        assert told[variant] == own
        assert {n: switches[n] for n in same} == {n: VARIANTS["t5x"][n] for n in same}


def test_the_sections_are_right():
    sections = [yaml.safe_load(b.text) for b in blocks(PIPELINE) if b.language == "yaml"]
    assert len(sections) == 4
    base = {
        "optimizer": {"type": "adamw", "adamw": {"weight_decay_rate": 0.1}},
        "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
    }
    for section in sections:
        config = OptimizationConfig({**base, **section})
        factory = OptimizerFactory(
            config, train_steps=100, steps_per_epoch=10, global_batch_size=32
        )
        factory.build_optimizer(factory.build_learning_rate())


@pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="only TensorFlow has sparse gradients"
)
def test_rows_that_are_not_looked_up():
    from tools import sparse_rows

    assert PIPELINE.read_text() == sparse_rows.page(PIPELINE)


def test_the_sweep_is_that_of_the_file():
    (block,) = [b for b in blocks(DOCS / "sweeps.md") if b.language == "yaml"]
    file = DOCS.parent / "configs/sweeps/digits.yaml"
    assert block.text == re.sub(r"^#.*\n", "", file.read_text(), flags=re.MULTILINE)
    kinds = re.findall(r"^\| `(\w+): \[", (DOCS / "sweeps.md").read_text(), re.MULTILINE)
    assert sorted(kinds) == sorted(KINDS)
