"""What is written where something is expected: plausible values by their type, and hostile ones."""

import copy
import typing
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Literal

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

from optimization.configs.oneof import OneOfConfig
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.configs.tree import Node, declared_specs
from optimization.configs.types import REQUIRED, Check, kinds_of, members
from tools.fuzz.choices import Choices

Maker = Callable[[Choices], Any]
"""Makes a value by choices."""

_DEEP = 4  # sections inside of sections; below there is what must be
_NUMBERS = [0.0, 1e-8, 1e-4, 0.001, 0.1, 0.5, 0.9, 0.999, 1.0, 1.5, 2.0, 10.0, 1e4, 1e30, 3e38]
_COUNTS = [0, 1, 2, 3, 10, 100, 999, 1000, 1001, 10**6, 2**31, 2**53, 2**63 - 1]
_DURATIONS = ["10%", "0%", "100%", "0.1%", "1 epoch", "2.5 epochs", "0 epochs"]
_WORDS = ["", "a", "kernel", "bias", "loss", "accuracy", "layer_0", "Dense", "best"]
_PATTERNS = ["kernel$", "bias", "layer_?norm", ".*", "", r"block_(\d+)", "a|b", "(?i)gamma"]

_CODE = "__import__('os').system('touch fuzzed')"
TEXTS = [
    *("", " ", "\n", "\t", "\0", "\x7f", "\u2028", "\ufeff", "\U0001f600", "é", "~", "null", "yes"),
    *(
        "1e5",
        "1_000",
        "0x10",
        "0o17",
        "+1",
        ".5",
        "-.inf",
        ".nan",
        "nan",
        "inf",
        "1e999",
        "1" * 5000,
    ),
    *("10 %", "101%", "-5%", "1e3 epochs", "5 epochss", "remaining", "9" * 400 + " epochs"),
    *(
        "(",
        "[",
        "*",
        "a{99999999999}",
        "(" * 500,
        r"(a|aa)+$",
        r"(\w+/?)*kernel$",
        "(?P<a>.)(?P=a)",
    ),
    *(
        "type",
        "<<",
        "&a",
        "*a",
        "!!python/object/apply:os.system [id]",
        "!!binary aGk=",
        "%TAG ! a",
    ),
    *("/dev/zero", "/etc/passwd", "../../secret.yaml", "file:///etc/passwd", "http://127.0.0.1/a"),
    *(_CODE, f"!!python/object/apply:builtins.eval [{_CODE!r}]", "${HOME}", "$(id)", "{{7*7}}"),
    *("__class__", "__init__", "_path", "_origins", "_change", "get", "validate", "k" * 5000),
    *("os.system", "builtins>eval", "optimization>PipelineOptimizer", "a.b.c", "a[0]", "[0]"),
    *("# optfactory: ignore[unused]", "# optfactory: ignore[", "%s%n", "-" * 300, "a: b", "a: [b"),
]
VALUES = [
    *(None, True, False, 0, 1, -1, 2, 3, 10**3, 2**31, 2**53 + 1, 2**63, -(2**63), 10**400),
    *(0.0, -0.0, 0.1, -0.5, 1.5, 1e-320, 1e-45, 1e39, 1e308, float("inf"), float("-inf")),
    *(float("nan"), [], {}, [[]], [None], {"type": None}, {"type": "sgd"}, {"a": {"b": [1]}}),
    *(
        {None: 1},
        {1: 2},
        {True: 1},
        {"": 1},
        {"__class__": 1},
        {"class_name": "eval", "config": {}},
    ),
]


def hostile(choices: Choices) -> Any:
    """Returns a value that nobody writes by mistake, or one that anybody may."""
    match choices.up_to(7):
        case 0 | 1:
            return copy.deepcopy(choices.one_of(VALUES))
        case 2 | 3:
            return choices.one_of(TEXTS)
        case 4:
            return choices.integer()
        case 5:
            return choices.real()
        case 6:
            return choices.text()
    return choices.listed(hostile, 3)


@cache
def section(cls: type[Node], depth: int = 0) -> Maker:
    """Returns what makes mappings of a config class, by its fields and the registered types."""
    if issubclass(cls, OneOfConfig):
        return _one_of(cls, depth)
    specs = declared_specs(cls)
    fields = {name: field(spec.annotation, depth + 1) for name, spec in specs.items()}
    required = [name for name, spec in specs.items() if spec.default() is REQUIRED]
    required += [name for name in ("optimizer", "learning_rate") if name in specs and depth < 2]
    optional = sorted(specs) if depth < _DEEP else []

    def mapping(choices: Choices) -> dict[str, Any]:
        names = dict.fromkeys([*required, *choices.some(optional, choices.one_of([1, 2, 3, 6]))])
        return {name: fields[name](choices) for name in names}

    return mapping


def _one_of(cls: type[Any], depth: int) -> Maker:
    names = cls.branches() if depth < _DEEP else cls.branches()[:1]

    def branch(choices: Choices) -> dict[str, Any]:
        name = choices.one_of(names)
        return {"type": name, name: section(cls._spec_of(name).config_class, depth + 1)(choices)}

    return branch


def field(annotation: Any, depth: int = 0) -> Maker:
    """Returns what makes values of a type as the field of a config is annotated with it."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _limited(args[0], args[1:], depth)
    if origin is Literal:
        return lambda choices: choices.one_of(args)
    if len(members(annotation)) > 1 or type(None) in args:
        kinds = [field(kind, depth) for kind in members(annotation)]
        kinds += [field(type(None))] if type(None) in args else []
        return lambda choices: choices.one_of(kinds)(choices)
    if origin in (tuple, list, Sequence):
        item, most = field(args[0], depth), 3 if depth < _DEEP else 1
        return lambda choices: choices.listed(item, most)
    if origin is dict:
        value = field(args[1], depth)
        return lambda choices: {k: value(choices) for k in choices.some(_names(), 2)}
    if isinstance(annotation, type) and issubclass(annotation, Node):
        return lambda choices: section(annotation, depth)(choices)  # which may hold its own kind
    return _PLAIN.get(annotation, hostile)


def _number(choices: Choices) -> float:
    return choices.real() if choices.rarely(4) else choices.one_of(_NUMBERS)


def _count(choices: Choices) -> int:
    return choices.integer() if choices.rarely(4) else choices.one_of(_COUNTS)


_PLAIN: dict[Any, Maker] = {
    bool: lambda choices: bool(choices.up_to(1)),
    str: lambda choices: choices.one_of(_WORDS),
    int: _count,
    float: _number,
    type(None): lambda choices: None,
}


@cache
def _names() -> list[str]:
    """Returns the names of the numbers of all optimizers, and words."""
    classes = map(OPTIMIZERS_CLS.config_class, OPTIMIZERS_CLS)
    return [*sorted({name for cls in classes for name in cls.field_names()}), *_WORDS]


def _limited(kind: Any, metadata: Sequence[Any], depth: int) -> Maker:
    kinds = kinds_of(metadata)
    if "regex" in kinds:
        return lambda choices: choices.one_of(_PATTERNS)
    if any(isinstance(item, Check) and isinstance(item.func, str) for item in metadata):
        return lambda choices: choices.one_of(_WORDS[1:])  # text of a form
    made = _bounded(kind, metadata) if kind in (int, float) else field(kind, depth)
    if any(isinstance(item, MinLen) for item in metadata):
        some = made
        made = lambda choices: some(choices) or [1]  # noqa: E731
    if "steps" in kinds:
        durations = [*_DURATIONS, *([] if "first" in kinds else ["remaining"])]
        return lambda choices: choices.one_of(durations) if choices.rarely(3) else made(choices)
    if typing.get_origin(kind) is tuple and any(isinstance(item, Check) for item in metadata):
        return lambda choices: _increasing(made(choices))  # boundaries, ranges
    return made


def _bounded(kind: type, metadata: Sequence[Any]) -> Maker:
    limits = [item for item in metadata if isinstance(item, Ge | Gt | Le | Lt | Interval)]

    def of(name: str) -> list[Any]:
        found = (getattr(limit, name, None) for limit in limits)
        return [bound for bound in found if bound is not None]

    least, above, most, below = of("ge"), of("gt"), of("le"), of("lt")

    def fits(value: Any) -> bool:
        return (
            all(value >= bound for bound in least)
            and all(value > bound for bound in above)
            and all(value <= bound for bound in most)
            and all(value < bound for bound in below)
        )

    usual = [value for value in (_COUNTS if kind is int else _NUMBERS) if fits(value)]

    def number(choices: Choices) -> Any:
        value = _PLAIN[kind](choices)
        return value if fits(value) else choices.one_of(usual or [value])

    return number


def _increasing(values: list[Any]) -> list[Any]:
    numbers = {value for value in values if isinstance(value, int | float)}
    return sorted(numbers) if len(numbers) == len(values) else values


def spoiled(choices: Choices, tree: Any, value: Maker = hostile) -> Any:
    """Returns a nested value as it is, or with up to three of its values or keys replaced."""
    for _ in range(choices.one_of([0, 0, 0, 1, 1, 2, 3])):
        places = _places(tree)
        if not places:
            break
        holder, key = choices.one_of(places)
        if isinstance(holder, dict) and choices.up_to(1):
            holder[choices.one_of([*_names(), *TEXTS, None, 1])] = holder.pop(key)
        else:
            holder[key] = value(choices)
    return tree


def _places(value: Any) -> list[tuple[Any, Any]]:
    items = [*value.items()] if isinstance(value, dict) else []
    items = [*enumerate(value)] if isinstance(value, list) else items
    return [place for key, item in items for place in ((value, key), *_places(item))]
