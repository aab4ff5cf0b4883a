"""The pages of the documentation: their blocks run and print what is shown, their links lead on.

`tests/pages.py` says how a page is read. Each runs in a process of its own.
"""

import importlib.util
import re
from typing import NamedTuple

import pytest

from optimization import ConfigError, OptimizationConfig, extras
from optimization.configs import yaml_file
from tests import pages

PEERS = {"accelerate", "equinox", "flax", "lightning", "timm", "transformers", "triton"}


class Run(NamedTuple):
    """How a page is run; one that is not in `RUNS` is run by `Run()`."""

    backend: str = "tensorflow"  # of Keras, unless the page says another
    sections: tuple[str, ...] = ()  # these alone, by their titles; "" is before the first
    slow: bool = False
    then: str = ""  # what is checked when it has run, as Python


_LOOPS = """
from tests.torch.plain_loop import weights_after
import torch
for model in (whole, module):
    for one, other in zip(model.parameters(), weights_after(Regression(), config, x, y)):
        torch.testing.assert_close(one, other, rtol=0, atol=0)
"""
_RESULTS = """
import re
from optimization.training.results import read_results
from tests.pages import DOCS
text = (DOCS / "training.md").read_text().partition("## results.json")[2].partition("Numbers")[0]
assert read_results("tmp/digits").keys() <= {*re.findall(r"`(\\w+)`", text)}
"""
_PICTURES = """
from pathlib import Path
from tests.pages import DOCS
for path in Path("docs/plot").glob("*.svg"):
    shown = DOCS / "plot" / path.name
    assert path.read_text() == shown.read_text(), f"{path}: run `python -m tools.pictures`"
"""
RUNS: dict[str, list[Run]] = {
    "README.md": [
        Run(sections=("A file, checked", "With Keras")),
        Run("torch", ("A file, checked", "With PyTorch")),
        Run("jax", ("A file, checked", "With JAX")),
        Run(sections=("Train a model", "Run the tests"), slow=True),
    ],
    "distributed_torch.md": [Run("torch", slow=True)],
    "engines.md": [Run(slow=True)],
    "loops.md": [
        Run("torch", ("", "Over PyTorch", "Hugging Face's Trainer"), slow=True),
        Run("torch", ("", "Over PyTorch", "Accelerate", "Lightning"), slow=True, then=_LOOPS),
        *(Run(backend, ("", "Keras' fit"), slow=True) for backend in ("tensorflow", "jax")),
        Run("torch", ("", "Keras' fit"), slow=True),
    ],
    "plot.md": [Run(then=_PICTURES)],
    "quickstart/pytorch.md": [Run("torch")],
    "quickstart/timm.md": [Run("torch")],
    "torch.md": [Run("torch")],
    "training.md": [Run(slow=True, then=_RESULTS)],
    "transformers.md": [Run("torch")],
}
# Pages of one test each, which looks at more: tests/lint/test_pages.py.
APART = ("lint.md", "lint/", "errors/")
ALL = {pages.name_of(page): page for page in pages.pages()}


def cases():
    """Yields each run of each page that has something to run, with a name."""
    for name, page in ALL.items():
        if name.startswith(APART) or not pages.script_of(page):
            continue
        for run in RUNS.get(name, [Run()]):
            # Each is a process that loads a framework: pages but README's wait for the slow tests.
            marks = [pytest.mark.slow] if run.slow or name != "README.md" else []
            titles = "".join(f" {title}" for title in run.sections if title)
            where = f" on {run.backend}" if len(RUNS.get(name, [])) > 1 else ""
            yield pytest.param(page, run, id=f"{name}{titles}{where}", marks=marks)


@pytest.mark.parametrize(("page", "run"), list(cases()))
def test_a_page_prints_what_it_shows(page, run, tmp_path):
    folder = tmp_path / "page"
    folder.mkdir()
    report = pages.run(page, folder, run.backend, run.sections, run.then)
    missing = (report.get("missing") or "").partition(".")[0]
    if missing in PEERS | set(extras.OPTIONAL) and importlib.util.find_spec(missing) is None:
        pytest.skip(f"{missing} is not installed")
    for output in report["outputs"]:
        place = f"{page.name}:{output['line']}"
        if pages.differs(output["shown"], output["printed"], output["note"]):
            pytest.fail(f"{place} shows\n{output['shown']}\nand printed\n{output['printed']}")
    assert "failed" not in report, f"{page.name}:{report['line']}\n{report['failed']}"


def test_every_run_is_of_a_page():
    assert set(RUNS) <= set(ALL)
    for name, runs in RUNS.items():
        titles = {block.section for block in pages.blocks(ALL[name])}
        assert all(set(run.sections) <= titles for run in runs)
        if any(run.sections for run in runs):  # together they are the page
            assert {title for run in runs for title in run.sections} == titles


def every_block(*languages):
    return [
        pytest.param(page, block, id=f"{name}:{block.line}")
        for name, page in ALL.items()
        for block in pages.blocks(page)
        if not languages or block.language in languages
    ]


@pytest.mark.parametrize("name", ALL)
def test_blocks_are_of_a_known_kind(name):
    text = ALL[name].read_text(encoding="utf-8")
    found = pages.blocks(ALL[name])
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) == 2 * len(found), "a fence is not closed"
    before = ""
    for block in found:
        place = f"{name}:{block.line}"
        assert block.language in (*pages.RUN, "text", "json", "html", "dockerfile"), place
        if block.language in ("json", "html", "dockerfile"):
            assert block.file or not block.is_run, f"{place}: it is no file, nor marked"
        if block.language == "text" and block.is_run and not block.file:
            assert before in ("python", "bash"), f"{place}: nothing prints it"
        before = block.language
        reason = block.note.removeprefix("not run, ")
        assert block.is_run or len(reason.split()) >= 3, f"{place}: it says no reason"
        assert block.note in ("", "numbers differ") or not block.is_run, f"{place}: {block.note}"


@pytest.mark.parametrize(("page", "block"), every_block())
def test_what_is_not_run_is_right_as_far_as_can_be_read(page, block):
    if not block.is_run:
        assert list(pages.check_unrun(block)) == []
    elif block.language in pages.SHELL:
        found = [p for c in pages.commands(block) for p in pages.check_command(c.text)]
        assert found == []


BASE = {
    "optimizer": {"type": "adamw", "adamw": {"weight_decay_rate": 0.1}},
    "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
}


@pytest.mark.parametrize(("page", "block"), every_block("yaml"))
def test_sections_are_right(page, block, tmp_path):
    if block.file or not block.is_run:
        return
    path = tmp_path / "section.yaml"
    path.write_text(block.text)
    section = yaml_file.read_file(path)[0]
    if {"trials", "parameters"} & set(section):
        return  # tests/test_docs_facts.py compares it with a file that is tested
    if set(section) <= {"task", "trainer", "runtime", "experiment"}:
        section = section.get("trainer", {}).get("optimizer_config", {})
    kept = {key: value for key, value in BASE.items() if key not in section}
    config = OptimizationConfig({**kept, **section})
    try:
        config.validate()
    except ConfigError as error:
        pytest.fail(str(error))


# Links


def anchors(text):
    """Returns the anchors of a page's titles, as code hosts and MkDocs make them."""
    found = set()
    for title in re.findall(r"^#{1,6} (.+)$", _without_code(text), re.MULTILINE):
        plain = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", title).lower()
        slug = re.sub(r"[^\w\s-]", "", plain).strip().replace(" ", "-")
        found |= {slug, re.sub(r"-+", "-", slug)}
    return found | set(re.findall(r'(?:id|name)="([\w-]+)"', text))


def _without_code(text):
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def links(text):
    """Returns what the links and pictures of a page lead to."""
    prose = re.sub(r"`[^`\n]*`", "", _without_code(text))
    return re.findall(r"\]\(([^)\s]+)\)", prose)


@pytest.mark.parametrize("name", [*ALL, "CHANGELOG.md"])
def test_links_lead_somewhere(name):
    page = ALL.get(name, pages.ROOT / name)
    found = links(page.read_text(encoding="utf-8"))
    assert [
        link for link in found if not re.match(r"[a-z]+:", link) and is_broken(page, link)
    ] == []


def is_broken(page, link):
    """Says whether a link leads to no file of the repository, or to no title of a page."""
    path, _, anchor = link.partition("#")
    target = (page.parent / path).resolve() if path else page
    if not target.exists() or pages.ROOT not in (target, *target.parents):
        return True
    return bool(anchor) and anchor not in anchors(target.read_text(encoding="utf-8"))


# That the tests above can fail


def test_a_wrong_page_fails(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n\n```console\n$ echo 3\n4\n```\n")
    folder = tmp_path / "page"
    folder.mkdir()
    report = pages.run_steps("page.md", pages.script_of(page), folder, "tensorflow")
    assert [o["printed"] for o in report["outputs"]] == ["1\n", "3\n"]
    assert all(pages.differs(o["shown"], o["printed"]) for o in report["outputs"])
    page.write_text("```python\nimport no_such_module\n```\n")
    report = pages.run_steps("page.md", pages.script_of(page), folder, "tensorflow")
    assert (report["missing"], report["line"]) == ("no_such_module", 1)


def test_outputs_are_compared():
    assert not pages.differs("a\n...\nd\n", "a\nb\nc\nd\n")
    assert not pages.differs("a\n...\nd\n", "a\nd\n")
    assert pages.differs("a\n...\nd\n", "a\nb\n")
    assert pages.differs("loss 0.1\n", "loss 0.2\n")
    assert not pages.differs("loss 0.1\n", "loss  23\n", "numbers differ")
    assert pages.differs("loss 0.1\n", "acc 0.1\n", "numbers differ")


def test_commands_are_read():
    assert list(pages.check_command("pip install -e '.[tensorflow,no-such]'")) == [
        "no extra 'no-such'"
    ]
    assert list(pages.check_command("python experiments/no.py --a=configs/no.yaml")) == [
        "no file experiments/no.py",
        "no file configs/no.yaml",
    ]
    assert list(pages.check_command("python -m tools.no_such")) == ["no module tools.no_such"]
    assert list(pages.check_command("python -m tools.gallery")) == []
