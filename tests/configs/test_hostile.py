"""Text that nobody writes by mistake: refused in words, soon, and in little memory."""

import os

import pytest

from optimization import ConfigError, OptimizationConfig, load_optimization_config
from optimization.configs import text_files, yaml_file
from optimization.configs.errors import MAX_TEXT, Problem
from optimization.configs.layers import resolve
from optimization.configs.overrides import parse_override

BASE = {"optimizer": {"type": "sgd"}, "learning_rate": {"type": "constant"}}


def matching(pattern):
    return {"param_groups": [{"match": pattern}]}


def nested(levels):
    value = {"type": "x"}
    for _ in range(levels):
        value = {"optimizer": value}
    return value


def warming(steps):
    return {"warmup": {"type": "linear", "linear": {"warmup_steps": steps}}}


OF_ITSELF: dict = {}
OF_ITSELF["optimizer"] = OF_ITSELF
SETTINGS = {
    "repetitions": (matching("a{99999999999}"), "a number of repetitions is too large"),
    "parentheses": (matching("(" * 2000 + "a" + ")" * 2000), "nested too deeply"),
    "epochs": (warming("9" * 400 + " epochs"), "expected steps, such as"),
    "percent": (warming("0." + "9" * 400 + "%"), "expected steps, such as"),
    "a long key": ({"k" * 100_000: 1}, "unknown key"),
    "a key that is a number": ({10**5000: 1}, "unknown key"),
    "a key that is none": ({None: 1}, "null: unknown key"),
    "a long type": ({"optimizer": {"type": "x" * 100_000}}, "unknown type"),
    "a list with a long number": ({"learning_rate": [10**5000]}, "an integer of too many digits"),
    "a phase of no type": (
        {
            "learning_rate": {"type": "sequence", "sequence": {"phases": [{"until": 3}]}},
            "warmup": {"type": "linear", "linear": {"warmup_steps": 1}},
        },
        "phases[0].type: a type is required",
    ),
    "many keys": ({f"k{i}": 1 for i in range(5000)}, "more mistakes"),
    "deep": (nested(3000), "unknown key"),
    "of itself": (OF_ITSELF, "unknown key"),
}


def refused(function, *args):
    """Returns the text with which a function refuses; it is no longer than a message may be."""
    with pytest.raises(ConfigError) as caught:
        function(*args)
    assert len(str(caught.value)) <= MAX_TEXT
    return str(caught.value)


@pytest.mark.parametrize("name", SETTINGS)
def test_settings(name):
    settings, message = SETTINGS[name]
    assert message in refused(resolve, OptimizationConfig(BASE), [settings])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (".".join(["a"] * 2000) + "=1", "the path has more than 50 parts"),
        ("param_groups" + "[0]" * 2000 + "=1", "the path has more than 50 parts"),
        ("param_groups[" + "9" * 5000 + "]=1", "expected `path.to.value=value`"),
        ("9" * 100_000 + ": 1", "not YAML"),
        ("a: " + "9" * 5000, "is not a number"),
        ("a" * 100_000, "expected"),
        ("=" * 100_000, "expected"),
        ("[" * 100_000, "nest"),  # By PyYAML, since 6.0.4, or by us: "nesting" or "nested".
        ("a: " + "[" * 60 + "]" * 60, "levels deep"),
        ("a=1," * 5000, "write more than 1,000 into a file"),
        ("a." * 50_000, "expected"),
    ],
    ids=lambda text: text[:20],
)
def test_overrides(text, message):
    assert message in refused(parse_override, text)


def test_separators_without_end_are_looked_at_once():
    assert parse_override("a=b" + " ;" * 50_000) == {"a": "b" + " ;" * 50_000}


def test_a_path_of_the_most_parts_is_read():
    path = ".".join(["a"] * yaml_file.MAX_DEPTH)
    assert parse_override(f"{path}=1")
    refused(parse_override, f"{path}.a=1")


@pytest.mark.parametrize("length", [MAX_TEXT - 100, MAX_TEXT, 10 * MAX_TEXT])
def test_a_long_mistake_before_others(length):
    text = str(ConfigError([Problem("syntax", "", "x" * length), Problem("value", "a", "y")]))
    assert len(text) <= MAX_TEXT
    assert text.endswith(("a: y", "... and 1 more mistakes"))


def test_all_mistakes_are_there_though_not_told():
    with pytest.raises(ConfigError) as caught:
        resolve(OptimizationConfig(BASE), [SETTINGS["many keys"][0]])
    assert len(caught.value.problems) == 5000
    shown = str(caught.value).splitlines()
    assert shown[-1] == f"... and {5000 - len(shown) + 1:,} more mistakes"


def test_pipes_and_devices_are_not_read(tmp_path):
    os.mkfifo(tmp_path / "pipe.yaml")
    for path in (tmp_path / "pipe.yaml", "/dev/zero"):
        assert "no regular file" in refused(load_optimization_config, path)
    assert "Is a directory" in refused(load_optimization_config, tmp_path)


@pytest.mark.parametrize("name", ["a\0b.yaml", "a\ud800.yaml"])
def test_a_name_that_no_file_can_have(name):
    assert "is no name that a file can have" in refused(load_optimization_config, name)
    assert "is no name that a file can have" in refused(parse_override, name)


def test_large_files_are_not_read_unless_that_is_set(tmp_path, monkeypatch):
    text = "learning_rate: {type: constant}\noptimizer: {type: sgd}\n#"
    path = tmp_path / "large.yaml"
    path.write_text(text + " " * (text_files.MAX_BYTES - len(text)))
    assert load_optimization_config(path).optimizer.type == "sgd"
    path.write_text(text + " " * (text_files.MAX_BYTES - len(text) + 1))
    message = refused(load_optimization_config, path)
    assert "larger than 1,048,576 bytes" in message
    assert "OPTFACTORY_MAX_BYTES" in message
    monkeypatch.setenv("OPTFACTORY_MAX_BYTES", "2000000")
    assert load_optimization_config(path).optimizer.type == "sgd"


@pytest.mark.parametrize("text", ["0x" + "1" * 5000, "0o" + "7" * 9000, "9" * 5000])
def test_a_number_of_many_digits(text):
    for document in (text, f"a: {text}", f"[{text}]", f"{text[:100]}: 1"):
        value, problems = yaml_file.read(document)
        assert str(value)
        assert [p.message[-15:] for p in problems] in ([], ["is not a number"])
