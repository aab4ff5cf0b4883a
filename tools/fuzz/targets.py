"""What is fed with inputs: for each reader how inputs are made, and what must hold of them."""

import copy
import io
import json
import os
import tempfile
import zipfile
from collections.abc import Callable
from typing import Any, NamedTuple

from optimization.bridges import bridges, files
from optimization.bridges.writing import written
from optimization.cli.files import read_whole
from optimization.configs import yaml_file
from optimization.configs.base import plain
from optimization.configs.errors import ConfigError
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.layers import resolve
from optimization.configs.optimization_config import OptimizationConfig, optimization_section
from optimization.configs.overrides import is_file, read_override
from optimization.configs.sweep_config import SweepConfig
from optimization.configs.sweep_space import Space, load_space
from optimization.group_rows import group_rows
from optimization.lint import Subject, lint
from optimization.matching.names import read_names, read_safetensors
from optimization.training import changes, checkpoint_files, results
from tools.fuzz import checks, foreign, texts
from tools.fuzz.choices import Choices
from tools.fuzz.guard import import_all, watched
from tools.fuzz.values import TEXTS, Maker, hostile, section, spoiled


class Target(NamedTuple):
    """A reader.

    Attributes:
        make: Makes an input.
        check: Returns whether an input was accepted; raises where something does not hold.
    """

    make: Maker
    check: Callable[[Any], bool]


TARGETS: dict[str, Target] = {}
CheckT = Callable[[Any], bool]


def _target(make: Maker) -> Callable[[CheckT], CheckT]:
    def add(check: CheckT) -> CheckT:
        TARGETS[check.__name__] = Target(make, check)
        return check

    return add


_scratch = tempfile.TemporaryDirectory(prefix="fuzz")


def _file(name: str, content: str | bytes) -> str:
    """Writes a file that is given to a reader, and returns its path."""
    path = os.path.join(_scratch.name, name)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    raw = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
    with open(path, "wb") as file:
        file.write(raw)
    return path


_optimization: Maker = section(OptimizationConfig)


def _whole(choices: Choices) -> dict[str, Any]:
    made = section(ExperimentConfig)(choices)
    if not choices.rarely(4):  # its optimizer is that of a registered experiment
        trainer = made.setdefault("trainer", {})
        trainer["optimizer_config"] = _optimization(choices)
    return made


def _either(choices: Choices) -> dict[str, Any]:
    return choices.one_of([_optimization, _whole])(choices)


def _mapping(choices: Choices) -> Any:
    return spoiled(choices, _optimization(choices))


@_target(lambda choices: texts.file(choices, choices.one_of([_optimization, hostile])))
def yaml(text: str) -> bool:
    with watched():
        return checks.text(text)


@_target(_mapping)
def mappings(params: Any) -> bool:
    with watched():
        return checks.settings(params)


@_target(lambda choices: spoiled(choices, _whole(choices)))
def experiments(params: Any) -> bool:
    with watched():
        return checks.experiment(params)


_BASE = {"optimizer": {"type": "sgd"}, "learning_rate": {"type": "constant"}}


def _assignments(choices: Choices) -> str:
    """Returns settings as `--params_override` takes them, of values and paths right and wrong."""
    parts = []
    for _ in range(choices.one_of([1, 1, 2, 3])):
        tree, path = _mapping(choices), []
        while isinstance(tree, dict) and tree and not (path and choices.rarely(5)):
            key = choices.one_of(list(tree))
            path.append(str(key))
            tree = tree[key]
        sign = choices.one_of(["=", "=", "=", "=", "=", ": ", " ", "=="])
        value = str(tree) if choices.rarely(3) else json.dumps(tree, default=str)
        parts.append(".".join(path) + sign + value)
    return ",".join(parts)


def _override(choices: Choices) -> str:
    match choices.up_to(4):
        case 0 | 1:
            return _assignments(choices)
        case 2:
            return texts.damaged(choices, _assignments(choices))
        case 3:
            return texts.soup(choices)
    return texts.file(choices, _optimization)


@_target(_override)
def overrides(text: str) -> bool:
    # An override may name a file, which is given then.
    named = [text.strip()] if is_file(text.strip()) and "\0" not in text else []
    with watched(named):
        layer, problems = read_override(text)
        if problems:
            assert len(str(ConfigError(problems))) <= 4000, "a message is too long"
            return False
        config = checks.accepted(resolve, OptimizationConfig(_BASE), [layer])
        if config is None:
            return False
        checks.comes_back(config)
        return True


@_target(lambda choices: texts.file(choices, _either))
def lints(text: str) -> bool:
    path = _file("lint.yaml", text)
    with watched([path]):
        file = checks.accepted(read_whole, path)
        if file is None:
            return False
        for finding in lint(Subject(file.config, file.trainer), file.doubts, path, text):
            assert len(finding.text) <= 4000, "a finding is too long"
        return True


_PICTURE = os.path.join(_scratch.name, "plot.svg")
_COMMANDS = ["validate", "explain", "diff", "show", "plot", "convert"]


def _more(command: str, path: str) -> list[str]:
    """Returns the arguments of a command behind the file."""
    return {"diff": [path], "plot": ["-o", _PICTURE, "--train-steps=1000"]}.get(command, [])


@_target(lambda choices: (choices.one_of(_COMMANDS), texts.file(choices, _either)))
def commands(given: tuple[str, str]) -> bool:
    command, text = given
    path = _file("command.yaml", text)
    with watched([path, _PICTURE]):
        return checks.run(command, path, *_more(command, path)) == 0


def _foreign(choices: Choices) -> tuple[str, Any, bool]:
    name = choices.one_of(foreign.LIBRARIES)
    return name, foreign.file(choices, name), choices.rarely(4)


@_target(_foreign)
def converters(given: tuple[str, Any, bool]) -> bool:
    name, values, exact = given
    mapping, problems = yaml_file.read(yaml_file.dump(values), "foreign.yaml")
    if problems or not mapping:
        return False
    with watched():
        draft = checks.accepted(bridges.convert, name, mapping, "foreign.yaml", exact)
        if draft is None:
            return False
        read, problems = yaml_file.read(written(draft, "converted"))
        assert not problems, problems
        assert checks.same(read or {}, draft.values), f"{draft.values} is read again as {read}"
        parts = checks.accepted(optimization_section, draft.values)
        return bool(parts) and checks.settings(parts[0])


@_target(lambda choices: (choices.one_of(sorted(bridges.TARGETS)), _mapping(choices)))
def exports(given: tuple[str, Any]) -> bool:
    target, params = given
    with watched():
        config = checks.accepted(resolve, OptimizationConfig(), [params])
        made = config and checks.accepted(bridges.export, target, config)
        if not made:
            return False
        values, findings = made
        assert all(map(str, findings))
        read, problems = yaml_file.read(yaml_file.dump(plain(values)))
        assert not problems, problems
        assert checks.same(read, plain(values)), "what is written is read as something else"
        return True


def _saved(choices: Choices) -> dict[str, Any]:
    return {"config": {}, "compile_config": {"optimizer": foreign.file(choices, "keras")}}


def _archive(choices: Choices) -> bytes:
    """Returns a file of Keras: a zip with a config, or one that is damaged."""
    text, made = texts.file(choices, _saved), io.BytesIO()
    if choices.up_to(1):
        text = json.dumps(_saved(choices), default=str)
    method = choices.one_of([zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2])
    with zipfile.ZipFile(made, "w", method) as archive:
        name = "../config.json" if choices.rarely() else "config.json"
        archive.writestr(name, text.encode("utf-8", "surrogatepass"))
    content = bytearray(made.getvalue())
    for _ in range(choices.one_of([0, 0, 1, 3])):
        content[choices.up_to(len(content) - 1)] = choices.up_to(255)
    return bytes(content[: choices.up_to(len(content))] if choices.rarely() else content)


def _toml(choices: Choices) -> str:
    lines = []
    for table, fields in foreign.file(choices, "torchtitan").items():
        if not isinstance(fields, dict):
            lines.append(f"{table} = {json.dumps(fields, default=str)}")
            continue
        lines.append(f"[{table}]")
        lines += [f"{key} = {json.dumps(value, default=str)}" for key, value in fields.items()]
    return texts.damaged(choices, "\n".join(lines))


def _foreign_file(choices: Choices) -> tuple[str, bytes]:
    match choices.up_to(3):
        case 0:
            return ".keras", _archive(choices)
        case 1:
            return ".toml", texts.raw(choices, _toml(choices))
    name = choices.one_of(foreign.LIBRARIES)
    text = texts.file(choices, lambda c: foreign.file(c, name))
    return choices.one_of([".yaml", ".json", ".toml", ".pt"]), texts.raw(choices, text)


@_target(_foreign_file)
def foreign_files(given: tuple[str, bytes]) -> bool:
    ending, content = given
    path = _file(f"foreign{ending}", content)
    with watched([path]):
        mapping = checks.accepted(files.read, path)
        name = mapping and checks.accepted(bridges.guess, mapping, path)
        return bool(name) and checks.accepted(bridges.convert, name, mapping, path) is not None


_SHAPES = {"head/kernel": (8, 3), "head/bias": (3,), "block_0/norm/gamma": (8,), "block_1/w": ()}


@_target(_mapping)
def groups(params: Any) -> bool:
    with watched():
        config = checks.accepted(resolve, OptimizationConfig(), [params])
        return config is not None and checks.refused_in_words(group_rows, config, _SHAPES)


def _header(choices: Choices) -> str:
    names = choices.some([*_SHAPES, "__metadata__", *TEXTS], 4)
    if choices.up_to(1):
        places = ["part.safetensors", "../secret", "/etc/passwd", "a/b", *TEXTS]
        return json.dumps({"weight_map": {name: choices.one_of(places) for name in names}})
    tensors: Any = {name: {"shape": choices.listed(lambda c: c.up_to(9), 3)} for name in names}
    text = json.dumps(spoiled(choices, tensors), default=str)
    length = choices.one_of([len(text), len(text), 0, 1, 2**40, 2**63])
    return length.to_bytes(8, "little").decode("latin-1") + text


def _weights(choices: Choices) -> tuple[str, bytes]:
    name = choices.one_of(["names", "w.safetensors", "w.safetensors.index.json"])
    text = texts.soup(choices) if choices.rarely(4) else _header(choices)
    return name, texts.raw(choices, text)


@_target(_weights)
def weights(given: tuple[str, bytes]) -> bool:
    name, content = given
    if name == "names":
        with watched():
            lines = content.decode("utf-8", "replace").splitlines()
            return checks.refused_in_words(read_names, lines)
    path = _file(f"weights/{name}", content)
    beside = _file("weights/part.safetensors", b"\2\0\0\0\0\0\0\0{}")
    with watched([path, beside]):
        try:
            return checks.refused_in_words(read_safetensors, path)
        except OSError:  # which callers tell
            return False


_LIST = 'model_checkpoint_path: "ckpt-10"\nall_model_checkpoint_paths: "ckpt-10"\n'
_PARTS = [
    *(
        "ckpt-10.index",
        "ckpt-10.data-00000-of-00001",
        "ckpt-9.index",
        "ckpt-.index",
        "ckpt-x.index",
    ),
    *("ckpt-99999999999999999999.index", "ckpt-99999999999999999999.data-00000-of-00001"),
    *("ckpt-²³.index", "ckpt-²³.data-0-of-1", "ckpt-9.data-00000-of-00001", "ckpt-1.index.tmp"),
    *("ckpt-" + "9" * 200 + ".index", "ckpt-" + "9" * 200 + ".data-0-of-1"),
]


def _run(choices: Choices) -> dict[str, str]:
    def result(choices: Choices) -> dict[str, Any]:
        return {"status": "finished", "evaluations": [{"step": 1, "loss": 0.5}], "seconds": 0.5}

    record = texts.damaged(choices, _LIST) if choices.up_to(1) else texts.soup(choices)
    files = dict.fromkeys(choices.some(_PARTS, 6), "")
    files |= {"params.yaml": texts.file(choices, _whole), "checkpoint": record}
    return {**files, "results.json": texts.file(choices, result)}


@_target(_run)
def checkpoints(contents: dict[str, str]) -> bool:
    folder = os.path.join(_scratch.name, "run")
    os.makedirs(folder, exist_ok=True)
    for name in os.listdir(folder):
        os.remove(os.path.join(folder, name))
    paths = [_file(f"run/{name}", text) for name, text in contents.items()]
    with watched(paths):
        changes.since_params(folder, ExperimentConfig())
        checks.refused_in_words(checkpoint_files.latest_checkpoint, folder)
        return checks.refused_in_words(results.read_results, folder)


_PLACE = "trainer.optimizer_config"
# Settings that a sweep may vary, each with values of some kind that fit.
_VARIED: list[tuple[str, dict[str, Any]]] = [
    ("runtime.seed", {"grid": [0, 1, 2]}),
    ("runtime.seed", {"int": [0, 100], "step": 10}),
    ("trainer.train_steps", {"int": [10, 1000], "log": True}),
    ("trainer.norm_summaries", {"choice": [None, "groups"]}),
    (f"{_PLACE}.optimizer.type", {"choice": ["sgd", "adamw"]}),
    (f"{_PLACE}.optimizer.type", {"grid": ["sgd", "lamb", "lion"]}),
    (f"{_PLACE}.optimizer.sgd.momentum", {"uniform": [0.1, 0.9]}),
    (f"{_PLACE}.optimizer.adamw.beta_1", {"log_uniform": [1e-3, 0.9]}),
    (f"{_PLACE}.learning_rate.cosine.initial_learning_rate", {"log_uniform": [1e-300, 1e30]}),
    (f"{_PLACE}.learning_rate.cosine.name", {"choice": ["a", "b.c", "d_e"]}),
    (f"{_PLACE}.ema", {"choice": [None, {"average_decay": 0.5}]}),
    ("task.init_checkpoint", {"choice": ["", "a=b,c", "null", "1e5", "'", "a: b", "x.yaml"]}),
]


def _sweep(choices: Choices) -> dict[str, Any]:
    varied = dict(choices.listed(lambda c: c.one_of(_VARIED), 4))
    parameters = [_parameter(choices, *each) for each in (varied or dict(_VARIED[:1])).items()]
    made = section(SweepConfig)(choices) if choices.rarely(4) else {}
    return {**made, "trials": choices.one_of([3, 2, 10**9]), "parameters": parameters}


def _parameter(choices: Choices, path: str, values: dict[str, Any]) -> dict[str, Any]:
    made: dict[str, Any] = {"path": path, **copy.deepcopy(values)}
    if choices.rarely():
        other, others = choices.one_of(_VARIED)
        made["when"] = {other: choices.one_of([v for v in others.values() if v is not True])}
    return made


@_target(lambda choices: texts.file(choices, _sweep))
def sweeps(text: str) -> bool:
    path, base = _file("sweep.yaml", text), _experiment()
    with watched([path]):
        space = checks.accepted(load_space, path, base)
        if space is None:
            return False
        for number in range(min(space.count, 3)):
            _trial(space, number)
        return True


def _experiment() -> ExperimentConfig:
    rate = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}}
    data = {"train_data": {"global_batch_size": 8}, "validation_data": {"global_batch_size": 8}}
    trainer = {"optimizer_config": {"optimizer": {"type": "sgd"}, "learning_rate": rate}}
    return ExperimentConfig({"trainer": {**trainer, "train_steps": 100}, "task": data})


def _trial(space: Space, number: int) -> None:
    point = space.point(number) if space.points else {}
    drawn = (0.0, 0.5, 1 - 2**-53)[number]

    def value_of(index: int) -> Any:
        return point[index] if index in point else space.parameters[index].draw(lambda: drawn)

    assignment = space.assign(value_of)
    text = space.override(assignment)
    layer, problems = read_override(text)
    assert not problems, (text, problems)
    for path, value in space.named(assignment).items():
        found: Any = layer
        for name in path.split("."):
            found = found[name]
        assert checks.same(found, value), (text, found, value)
    assert checks.same(space.numbered(space.named(assignment)), assignment)


def _any_file(choices: Choices) -> Any:
    return spoiled(choices, choices.one_of([_optimization, _whole, _sweep])(choices))


@_target(_any_file)
def schema(params: Any) -> bool:
    """What the reader takes, the schema takes; what the schema refuses, the reader refuses."""
    if not isinstance(params, dict) or not checks.plain_json(params):
        return False
    if set(params) & {"trainer", "task", "runtime"}:
        read: Any = ExperimentConfig
    else:
        read = SweepConfig if "parameters" in params else OptimizationConfig
    with watched():
        config = checks.accepted(resolve, read(), [params])
    if config is None:
        return False
    told = [error.message for error in _validator().iter_errors(params)]
    assert not told, f"the reader takes what the schema refuses: {told}"
    told = [error.message for error in _validator().iter_errors(json.loads(config.to_json()))]
    assert not told, f"the schema refuses what the writer writes: {told}"
    return True


def _validator() -> Any:
    import jsonschema

    from optimization.configs.json_schema import schema as made

    if not _validators:
        cls = jsonschema.Draft202012Validator
        _validators.append(cls(made(), format_checker=cls.FORMAT_CHECKER))
    return _validators[0]


_validators: list[Any] = []


def prepare() -> None:
    """Does once what inputs make readers do, so that from then on each import is a fault."""
    import_all()
    checks.settings(_BASE)
    checks.experiment({})
    for command in _COMMANDS:
        path = _file("command.yaml", yaml_file.dump(_BASE))
        checks.run(command, path, *_more(command, path))
    _validator()
