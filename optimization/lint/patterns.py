"""Rules about regular expressions for the paths of variables."""

import re
import typing
from collections.abc import Iterator, Sequence
from typing import Any

from optimization.configs.base import Config
from optimization.configs.errors import Problem
from optimization.configs.tree import Node
from optimization.configs.types import kinds_of
from optimization.lint.registry import Severity, rule
from optimization.lint.subject import Subject, problem

_parser: Any = re._parser  # type: ignore[attr-defined]  # which `sre_parse` was, until it left
_CAMEL = re.compile(r"[A-Z][a-z]+(?:[A-Z][a-z]+|\d?D\b)")  # "LayerNorm", "Conv2D"
_FLAGS = re.compile(r"\(\?[a-zA-Z]*i")


def _patterns(config: Node) -> Iterator[tuple[Config, str, str]]:
    """Yields each regular expression for paths in what counts of a config, with its field."""
    for name, value in config._items():
        spec = config._find_spec(name)
        if value and spec is not None and _is_regex(spec.annotation):
            texts = (value,) if isinstance(value, str) else value  # of a mapping the keys
            yield from ((typing.cast(Config, config), name, text) for text in texts)
    for child in config.selected():
        yield from _patterns(child)


def _is_regex(annotation: Any) -> bool:
    metadata = getattr(annotation, "__metadata__", ())
    return "regex" in kinds_of(metadata) or any(map(_is_regex, typing.get_args(annotation)))


@rule(
    "impossible-pattern",
    Severity.WARNING,
    "A pattern that no path of a variable can match.",
)
def _impossible_pattern(subject: Subject) -> Iterator[Problem]:
    for section, name, text in _patterns(subject.config):
        why = _never(_parser.parse(text))
        if why:
            message = f"{text!r} can match no path such as 'encoder/dense/kernel': {why}"
            yield problem("impossible-pattern", section, name, message)


@rule(
    "class-name-pattern",
    Severity.INFO,
    "A pattern with a class name such as LayerNorm, where Keras writes layer_norm.",
)
def _class_name_pattern(subject: Subject) -> Iterator[Problem]:
    for section, name, text in _patterns(subject.config):
        found = _CAMEL.search(text)
        if found is None or _FLAGS.search(text):
            continue
        word = re.sub(r"(?<=[a-z])(?=[A-Z0-9])", "_", found[0]).lower()
        message = f"{text!r} matches only where a model's author named it so"
        advice = f"Keras names layers in lower case; write {word!r} for these"
        yield problem("class-name-pattern", section, name, f"{message}; {advice}")


_END = "$"  # in texts below, where nothing may follow
_START = "^"
_ANY = "\0"  # what may be anything


def _never(parsed: Sequence[Any]) -> str:
    """Says why a parsed expression matches no path; "" where it may match one."""
    reasons = [_wrong(text) for text in _texts(parsed)]
    return reasons[0] if reasons and all(reasons) else ""


def _wrong(text: str) -> str:
    """Says why no path has this text, in which `_ANY` is anything; "" where one may."""
    if re.search(rf"[^{_START}{_ANY}]\^", text):
        return "nothing comes before '^', the start"
    if re.search(rf"\$[^{_END}{_ANY}]", text):
        return "nothing comes after '$', the end"
    if re.search(r"\s", text):
        return "a path has no blanks"
    if re.search(r"\^/|/\$", text):
        return "a path neither begins nor ends with '/'"
    if "//" in text:
        return "a path has no empty parts"
    # `find` searches what has a colon in "path:0" too, as TensorFlow called a variable.
    if re.search(rf":(?![0{_ANY}]|$)|:0(?![{_END}{_ANY}]|$)|:.*:", text):
        return "a path has no ':', but for the ':0' at the end that TensorFlow once had"
    return ""


_MOST = 64  # texts of one expression that are looked at


def _texts(parsed: Sequence[Any]) -> list[str]:
    """Returns what an expression matches, one text for each of its alternatives."""
    texts = [""]
    for operation, argument in parsed:
        parts = _parts(str(operation), argument)
        texts = [text + part for text in texts for part in parts]
        if len(texts) > _MOST:
            return [_ANY]
    return texts


def _parts(operation: str, argument: Any) -> list[str]:
    match operation:
        case "LITERAL":
            character = chr(argument)
            return [_ANY if character in (_START, _END) else character]
        case "AT" if str(argument) in ("AT_BEGINNING", "AT_BEGINNING_STRING"):
            return [_START]
        case "AT" if str(argument) in ("AT_END", "AT_END_STRING"):
            return [_END]
        case "BRANCH":
            return [text for branch in argument[1] for text in _texts(branch)]
        case "SUBPATTERN":
            return _texts(argument[3])
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT" if argument[0] == 0:
            return ["", *(_texts(argument[2]) if argument[1] == 1 else [_ANY])]
        case "MAX_REPEAT" | "MIN_REPEAT" | "POSSESSIVE_REPEAT":
            return [text + (_ANY if argument[1] != 1 else "") for text in _texts(argument[2])]
        case "ASSERT" | "ASSERT_NOT" | "AT":
            return [_ANY]
    return [_ANY]
