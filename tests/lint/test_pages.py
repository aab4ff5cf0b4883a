"""The pages of the rules: each has one, its example runs, and prints what the page says."""

import contextlib
import importlib
import io
import re
import shlex
import sys
from pathlib import Path

import pytest
import yaml

from optimization import LR_CLS
from optimization.cli.app import main
from optimization.lint import RULES, Severity
from optimization.training import registries
from tests.pages import blocks, commands
from tools import lint as tool

DOCS = Path(__file__).parent.parent.parent / "docs"
ROOT = DOCS.parent
INDEX = DOCS / "lint.md"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, where nothing is registered for good."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(registries, "_EXPERIMENTS", {})
    monkeypatch.setattr(LR_CLS, "_entries", dict(LR_CLS._entries))
    known = set(sys.modules)
    yield tmp_path
    for path in tmp_path.glob("*.py"):
        if path.stem not in known:
            sys.modules.pop(path.stem, None)


def run(command):
    """Returns what a line of a console block prints."""
    program, *arguments = shlex.split(command)
    assert program == "optfactory"
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        main(arguments)
    return out.getvalue()


def executed(text, page):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        exec(compile(text, page.name, "exec"), {"__name__": page.stem})
    return out.getvalue()


def test_every_rule_has_a_page_and_no_page_is_left():
    pages = {f"{p.parent.name}/{p.name}" for d in ("lint", "errors") for p in (DOCS / d).iterdir()}
    assert pages == {rule.page for rule in RULES.values()}


@pytest.mark.parametrize("code", RULES)
def test_the_example_prints_what_the_page_says(code, folder):
    rule, page = RULES[code], DOCS / RULES[code].page
    text = page.read_text()
    assert text.startswith(f"# {code}\n\n**{rule.severity.capitalize()}**")
    assert "\n## Instead\n" in text
    if "import torch" in text:
        pytest.importorskip("torch")
    last = "", ""  # a command, and what was printed
    told = ""
    for block in blocks(page):
        if block.file:
            (folder / block.file).write_text(block.text)
        elif block.language == "python":
            last = "", executed(block.text, page)
        elif block.language == "text":
            assert last[1] == block.text
            told += block.text
        else:
            for command, printed in commands(block):
                last = command, run(command)
                assert last[1] == printed
                told += printed
    assert told
    if rule.needs != "training" and code != "locked" and rule.severity is not Severity.ERROR:
        assert f": {rule.severity}: " in told
        assert f" [{code}]\n" in told
    if last[0] and blocks(page)[-1].language == "yaml":  # what to write instead
        registries._EXPERIMENTS.clear()
        for path in folder.glob("*.py"):
            sys.modules.pop(path.stem, None)
        importlib.invalidate_caches()
        assert code not in (again := run(last[0])).replace(f"{code.replace('-', '_')}.yaml", "")
        assert ": fine (" in again


SILENT = [c for c, r in RULES.items() if r.severity is not Severity.ERROR and r.needs != "training"]


@pytest.mark.parametrize("code", [c for c in SILENT if "-ignore" not in c])
def test_an_ignore_silences_the_example(code, folder):
    found = blocks(DOCS / RULES[code].page)
    console = next(block for block in found if block.language == "console")
    ((command, printed),) = commands(console)
    for block in found[: found.index(console)]:
        (folder / block.file).write_text(block.text)
    (finding,) = [line for line in printed.splitlines() if line.endswith(f" [{code}]")]
    file, line = re.match(r"(\S+\.yaml)(?::(\d+))?:", finding).groups()
    lines = (folder / file).read_text().splitlines()
    mark = f"# optfactory: ignore[{code}]"
    if line is None:
        lines.insert(0, mark)
    else:
        lines[int(line) - 1] += f"  {mark}"
    (folder / file).write_text("\n".join(lines) + "\n")
    again = run(command)
    assert code not in again.replace(file, "").replace(command, "")
    assert "ignore" not in again
    assert ": fine" in again


def test_the_tables_are_those_of_the_registry():
    assert tool.page(INDEX) == INDEX.read_text(), "run `python -m tools.lint`"
    for rule in RULES.values():
        assert f"[{rule.code}]({rule.page})" in INDEX.read_text()


def test_the_index_shows_what_is_printed(folder):
    shown = 0
    for block in blocks(INDEX):
        if block.file:
            (folder / block.file).write_text(block.text)
        elif block.language == "console":
            for command, printed in commands(block):
                assert run(command) == printed
                shown += 1
    assert shown == 5


def test_the_rule_of_the_index_finds_something(folder):
    (block,) = [b for b in blocks(INDEX) if b.language == "python"]
    try:
        executed(block.text, INDEX)
        text = "optimizer: {type: sgd, sgd: {momentum: 0.995}}\n"
        text += "learning_rate: {type: constant, constant: {learning_rate: 0.1}}\n"
        (folder / "a.yaml").write_text(text)
        told = run("optfactory validate --severity info a.yaml").splitlines()[0]
    finally:
        RULES.pop("momentum-high", None)
    wanted = "a.yaml:1: info: optimizer.sgd.momentum: is 0.995; write 0.9 or so [momentum-high]"
    assert told == wanted


def test_the_hook_of_pre_commit_runs(folder):
    (hook,) = yaml.safe_load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["language"] == "python"
    assert hook["types"] == ["yaml"]
    config = next(b for b in blocks(INDEX) if "repos:" in b.text)
    ((used,),) = [repo["hooks"] for repo in yaml.safe_load(config.text)["repos"]]
    assert used["id"] == hook["id"]
    (folder / "bad.yaml").write_text("optimizer: {type: sdg}\n")
    line = " ".join([hook["entry"], *used["args"], "bad.yaml"])
    assert "bad.yaml:1: optimizer.type: unknown type 'sdg'; did you mean 'sgd'?" in run(line)
    script = [
        line for line in (ROOT / "setup.cfg").read_text().splitlines() if "cli.app:main" in line
    ]
    assert script[0].split()[0] == hook["entry"].split()[0]


def test_the_line_for_github_runs(folder):
    (block,) = [b for b in blocks(INDEX) if "--format github 'configs" in b.text]
    (step,) = yaml.safe_load(block.text)
    _, _, command = step["run"].partition(" && ")
    (folder / "configs" / "a").mkdir(parents=True)
    (folder / "configs" / "a" / "b.yaml").write_text("optimizer: {type: sdg}\n")
    assert run(command).startswith(
        "::error file=configs/a/b.yaml,line=1,title=value::optimizer.type"
    )
