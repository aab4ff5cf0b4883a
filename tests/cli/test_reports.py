import json
import re
import sys
from pathlib import Path

import pytest

from optimization.cli import reports
from optimization.cli.app import main
from optimization.lint import RULES, Finding, Severity

SCHEMA = Path(__file__).parent.parent / "golden" / "sarif.json"
ERROR = Finding("a b.yaml", 3, "a.b", "value", Severity.ERROR, "must be < 1, got 2", None)
WARNING = Finding("c.yaml", 4, "ema", "advice", Severity.WARNING, "50%, so:\nx", "write y")
INFO = Finding("d.yaml", None, "", "incomplete", Severity.INFO, "is not set", None)
ALL = [ERROR, WARNING, INFO]
BAD = """\
optimizer: {type: sgd, sgd: {momentum: 2, nestrov: true}}
learning_rate: {type: constant, constant: {learning_rate: 0.1}}
"""
DOUBTFUL = """\
optimizer: {type: adamw, adamw: {weight_decay_rate: 0.1, clipnorm: 1.0}}
learning_rate: {type: constant, constant: {learning_rate: 0.1}}
"""


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name, text in {"bad": BAD, "doubtful": DOUBTFUL}.items():
        (tmp_path / f"{name}.yaml").write_text(text)


def test_lines_have_what_silences():
    assert list(map(reports.line_of, ALL)) == [
        "a b.yaml:3: a.b: must be < 1, got 2",
        "c.yaml:4: warning: ema: 50%, so:\nx; write y [advice]",
        "d.yaml: info: is not set [incomplete]",
    ]


def test_json_has_an_object_for_each_finding(files, capsys):
    assert main(["validate", "--format", "json", "bad.yaml", "doubtful.yaml", "no.yaml"]) == 1
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert err == ""
    assert found[:3] == [
        {
            **{"file": "bad.yaml", "line": 1, "path": "optimizer.sgd.momentum", "code": "value"},
            **{"severity": "error", "message": "must be < 1, got 2", "suggestion": None},
        },
        {
            **{"file": "bad.yaml", "line": 1, "path": "optimizer.sgd.nestrov"},
            **{"code": "unknown-key", "severity": "error", "message": "unknown key"},
            "suggestion": "did you mean 'nesterov'?",
        },
        {
            **{"file": "doubtful.yaml", "line": 1, "path": "optimizer.adamw.clipnorm"},
            **{"code": "clipped-twice", "severity": "warning"},
            "message": "clips what `gradient_clip_norm` 1 has clipped before",
            "suggestion": "leave it out, or write `gradient_clip_norm: 0`",
        },
    ]
    assert [(f["file"], f["line"], f["code"]) for f in found[3:]] == [("no.yaml", None, "syntax")]


@pytest.mark.parametrize("form", ["json", "sarif", "github"])
def test_nothing_to_say(files, capsys, form):
    Path("doubtful.yaml").write_text(DOUBTFUL.replace("clipnorm: 1.0", "clipnorm: null"))
    assert main(["validate", "--strict", "--format", form, "doubtful.yaml"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    if form == "github":
        assert out == ""
    else:
        found = json.loads(out)
        assert (found if form == "json" else found["runs"][0]["results"]) == []


def test_github_annotates_lines():
    assert reports.github(ALL).splitlines() == [
        "::error file=a b.yaml,line=3,title=value::a.b: must be < 1, got 2",
        "::warning file=c.yaml,line=4,title=advice::ema: 50%25, so:%0Ax; write y",
        "::notice file=d.yaml,title=incomplete::is not set",
    ]
    comma = ERROR._replace(file="a:b,c%.yaml")
    assert reports.github([comma]).startswith("::error file=a%3Ab%2Cc%25.yaml,line=3,")


def test_sarif_is_valid(tmp_path):
    jsonschema = pytest.importorskip("jsonschema")
    validator = jsonschema.Draft4Validator(json.loads(SCHEMA.read_text()))
    log = json.loads(reports.sarif([*ALL, ERROR._replace(file=str(tmp_path / "x.yaml"))]))
    assert [error.message for error in validator.iter_errors(log)] == []
    log["runs"][0]["results"][0]["level"] = "bad"  # it would tell
    assert [*validator.iter_errors(log)] != []


def test_sarif_says_what_and_where():
    (run,) = json.loads(reports.sarif(ALL))["runs"]
    rules = run["tool"]["driver"]["rules"]
    assert [rule["id"] for rule in rules] == [*RULES]
    assert all(re.fullmatch(r"https://.*/(lint|errors)/[a-z0-9-]+/", r["helpUri"]) for r in rules)
    assert [rules[result["ruleIndex"]]["id"] for result in run["results"]] == [f.code for f in ALL]
    assert [result["level"] for result in run["results"]] == ["error", "warning", "note"]
    (place,) = run["results"][0]["locations"]
    assert place == {
        "physicalLocation": {
            "artifactLocation": {"uri": "a%20b.yaml"},
            "region": {"startLine": 3},
        },
        "logicalLocations": [{"fullyQualifiedName": "a.b"}],
    }
    assert run["results"][1]["message"] == {"text": "ema: 50%, so:\nx; write y"}


def test_a_terminal_gets_colors_and_whole_words(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    for name, value in {"COLUMNS": "80", "TERM": "xterm", "FORCE_COLOR": "1"}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.delenv("NO_COLOR", raising=False)
    long = WARNING._replace(message="is too long by " + "some " * 15 + "words")
    reports.show("c.yaml", [ERROR, long], None)
    out, err = capsys.readouterr()
    assert out == ""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", err)
    lines = plain.splitlines()
    assert all(len(line) <= 80 for line in lines)
    assert " ".join(line.strip() for line in lines[1:]) == reports.line_of(long)
    assert lines[2].startswith("    ")
    assert "\x1b[33mwarning\x1b[0m" in err
    assert "\x1b[33m[advice]" in err
