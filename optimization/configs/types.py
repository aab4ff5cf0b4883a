"""The types of configuration values, and how one value is checked.

Types are checked by pydantic in its strict mode: text is never a number, a number is never a
boolean. Three things are eased, because they lose nothing: an integer where a float is meant, a
float without fraction (`2e4`) where an integer is meant, and a list where a tuple is meant or the
other way round.
"""

import enum
import itertools
import re
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial, reduce
from operator import ge, gt, le, lt
from typing import Annotated, Any, Literal, NamedTuple

from annotated_types import Ge, Gt, Interval, Le, Lt
from pydantic_core import CoreSchema, PydanticKnownError, SchemaValidator, ValidationError
from pydantic_core import core_schema as core

from optimization.configs import yaml_file
from optimization.configs.errors import Problem, describe, did_you_mean, number_to_write
from optimization.configs.expressions import compiled

if typing.TYPE_CHECKING:
    from pydantic_core import ErrorDetails


class _Required(enum.Enum):
    """The default of a field that has none: it must be set before the config is used."""

    REQUIRED = False

    def __repr__(self) -> str:
        return self.name

    def __bool__(self) -> bool:
        return False


REQUIRED: Any = _Required.REQUIRED


class Check(NamedTuple):
    """What values pass, as metadata of their type."""

    func: Any  # returns the value to store, or raises a ValueError
    make: Callable[..., Any] = core.no_info_after_validator_function  # of `func` and a schema

    def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
        return self.make(self.func, handler(source))


Before = partial(Check, make=core.no_info_before_validator_function)
"""A function that values pass before their type is checked."""
Matching = partial(Check, make=lambda pattern, text: {**text, "pattern": pattern})
"""A regular expression that text must match."""


class Unit(NamedTuple):
    """In what a number is counted, as metadata of its type."""

    text: str


def _strictly_increasing(values: tuple) -> tuple:
    if is_pending(values):  # they are compared when they are numbers
        return values
    for left, right in itertools.pairwise(values):
        if left >= right:
            raise ValueError(f"must be strictly increasing, got {right} after {left}")
    return values


def _regex(pattern: str) -> str:
    compiled(pattern)
    return pattern


PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
PositiveFloat = Annotated[float, Gt(0)]
NonNegativeFloat = Annotated[float, Ge(0)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
"""A float in [0, 1]."""
Share = Annotated[float, Interval(ge=0, lt=1)]
"""A share of a whole, such as `beta_1`: a float in [0, 1)."""
Regex = Annotated[str, Check(_regex)]
"""A regular expression, searched for in a variable's path."""
Patterns = tuple[Regex, ...]
"""Regular expressions, searched for in a variable's path."""


class _ReadOnly:
    """A container in a config: replaced as a whole, so that every value passes the decoder."""

    def _refuse(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError("a list or mapping in a config is read-only: assign a new one")

    __setitem__ = __delitem__ = __ior__ = __iadd__ = __imul__ = _refuse
    append = extend = insert = remove = reverse = sort = _refuse
    update = setdefault = popitem = pop = clear = _refuse

    def __reduce__(self) -> tuple[Any, tuple[Any]]:
        return type(self), (type(self).__mro__[2](self),)


class ReadOnlyList(_ReadOnly, list):
    """A list in a config."""


class ReadOnlyDict(_ReadOnly, dict):
    """A mapping in a config."""


class Duration(str):
    """Steps that are known once it is known what they take.

    The length of the training for "10%" and "remaining", that of an epoch for "5 epochs", the batch
    for "1M examples" and "300B tokens" (k, M, B and T are thousands, millions, ...).
    """

    FORM = re.compile(
        r"(?P<epochs>\d{1,15}(?:\.\d{1,30})?)\s*epochs?"
        r"|(?P<percent>\d{1,15}(?:\.\d{1,30})?)\s*%"
        r"|(?P<count>\d{1,15}(?:\.\d{1,30})?)\s*(?P<scale>[kMBT]?)\s*(?P<unit>examples?|tokens?)"
        r"|remaining"
    )

    def __repr__(self) -> str:
        return repr(str(self))

    def __str__(self) -> str:
        return "".join(self)


REMAINING: Any = Duration("remaining")
"""The default of a decay's length: to the end of the training."""


def is_pending(value: Any) -> bool:
    """Whether `value` is, or holds, a `Duration`."""
    values = value if isinstance(value, tuple) else (value,)
    return any(isinstance(item, Duration) for item in values)


def _steps(value: Any, check: Any) -> Any:
    if not isinstance(value, str) or _NUMBER.fullmatch(value):
        return check(value)
    form = Duration.FORM.fullmatch(value.strip())
    if form is None:
        expected = "expected steps, such as 500, '5 epochs', '10%' or 'remaining'"
        expected += ", or '1M examples' or '300B tokens'"
        raise ValueError(f"{expected}, got {describe(value)}{number_to_write(value, True)}")
    if form["percent"] and float(form["percent"]) > 100:
        raise ValueError(f"must be at most 100%, got {describe(value)}")
    return Duration(value.strip())


def _not_remaining(value: Any) -> Any:
    if value == "remaining":
        raise ValueError("'remaining' is for the steps of a learning rate")
    return value


NonNegativeSteps = Annotated[NonNegativeInt, Check(_steps, core.no_info_wrap_validator_function)]
"""Optimizer steps, >= 0, or a `Duration`."""
FirstSteps = Annotated[NonNegativeSteps, Check(_not_remaining)]
"""Optimizer steps at the start of a training, >= 0, or a `Duration` other than "remaining"."""
PositiveSteps = Annotated[PositiveInt, Check(_steps, core.no_info_wrap_validator_function)]
"""Optimizer steps, > 0, or a `Duration`."""


def _period(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value in _PERIODS:
        return _PERIODS[value]
    if not _NUMBER.fullmatch(value) and not Duration.FORM.fullmatch(value.strip()):
        raise ValueError(f"expected 'step', 'epoch' or a number of steps, got {describe(value)}")
    return value


_PERIODS = {"step": 1, "epoch": "1 epoch"}


Period = Annotated[PositiveSteps, Check(_not_remaining), Before(_period)]
"""Optimizer steps, > 0, after which something changes: "step", "epoch", or a number of them."""
Offset = Annotated[int, Unit("optimizer steps")]
"""The optimizer step at which something starts."""


def kinds_of(metadata: Sequence[Any]) -> set[str]:
    """Returns what an annotation's metadata say in functions, by the words below."""
    kinds = {_steps: "steps", _not_remaining: "first", _period: "period", _regex: "regex"}
    functions = [getattr(item, "func", None) for item in metadata]
    return {kind for function, kind in kinds.items() if function in functions}


Boundaries = Annotated[tuple[NonNegativeSteps, ...], Check(_strictly_increasing)]
"""Steps, strictly increasing."""


def _integral(value: Any) -> Any:
    return _bounded(int(value) if isinstance(value, float) and value.is_integer() else value)


def _bounded(value: Any) -> Any:
    if isinstance(value, int) and abs(value) >= 2**63:
        raise ValueError(f"must be less than 2**63 in magnitude, got {describe(value)}")
    return value


_BOUNDS: Any = {
    "gt": (gt, "greater_than"),
    "ge": (ge, "greater_than_equal"),
    "lt": (lt, "less_than"),
    "le": (le, "less_than_equal"),
}
_SCHEMAS: dict[Any, CoreSchema] = {
    int: core.no_info_before_validator_function(_integral, core.int_schema()),
    float: core.no_info_before_validator_function(_bounded, core.float_schema()),
    str: core.str_schema(),
    bool: core.bool_schema(),
    types.NoneType: core.none_schema(),
}


def _bounds(limits: Any, value: Any) -> Any:
    for name, (holds, error) in _BOUNDS.items():
        limit = getattr(limits, name, None)
        if limit is not None and not holds(value, limit):
            raise PydanticKnownError(error, {name: limit})
    return value


def _schema(annotation: Any) -> CoreSchema:
    """Returns how pydantic checks a type, the three lossless conversions allowed at any depth."""
    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is Annotated:
        return reduce(_limited, args[1:], _schema(args[0]))
    if origin is Literal:
        return core.literal_schema([*args])
    if origin in (list, Sequence, dict, Mapping) and not args:  # `typing.List` and the like
        args = (Any,) * (2 if origin in (dict, Mapping) else 1)
    if origin in (typing.Union, types.UnionType):
        one_of = [_schema(member) for member in members(annotation)]
        schema = core.union_schema([*one_of]) if len(one_of) > 1 else one_of[0]
        return core.nullable_schema(schema) if types.NoneType in args else schema
    if origin is tuple:
        items = [_schema(arg) for arg in args if arg is not Ellipsis]
        repeated = len(items) - 1 if Ellipsis in args else None
        return _listed(tuple, core.tuple_schema(items, variadic_item_index=repeated))
    if origin in (list, Sequence):
        schema = _listed(list, core.list_schema(_schema(args[0])))
        return core.no_info_after_validator_function(ReadOnlyList, schema)
    if origin in (dict, Mapping):
        schema = core.dict_schema(*map(_schema, args))
        return core.no_info_after_validator_function(ReadOnlyDict, schema)
    return _SCHEMAS.get(annotation) or _of_pydantic(annotation)


def _listed(kind: type, schema: CoreSchema) -> CoreSchema:
    return core.no_info_before_validator_function(
        lambda value: kind(value) if isinstance(value, list | tuple) else value, schema
    )


def _limited(schema: CoreSchema, limit: Any) -> CoreSchema:
    """Returns a schema with one of the metadata of a type."""
    if isinstance(limit, Unit):
        return schema
    if isinstance(limit, Check):
        return limit.make(limit.func, schema)
    if isinstance(limit, Ge | Gt | Le | Lt | Interval):
        if schema["type"] == "nullable":
            return {**schema, "schema": _limited(schema["schema"], limit)}
        return core.no_info_after_validator_function(partial(_bounds, limit), schema)
    return _of_pydantic(Annotated[Any, Check(None, lambda _, __: schema), limit])


def _of_pydantic(annotation: Any) -> CoreSchema:
    """Returns how pydantic itself checks a type; its import takes as long as that of the rest."""
    from pydantic import ConfigDict, TypeAdapter

    class Part:  # of another type: alone, some may not be told to be strict
        def __get_pydantic_core_schema__(self, source: Any, handler: Any) -> CoreSchema:
            return handler.generate_schema(annotation)

    config = ConfigDict(**_STRICT, arbitrary_types_allowed=True)
    return TypeAdapter(Annotated[Any, Part()], config=config).core_schema


_STRICT: Any = {"strict": True, "allow_inf_nan": False}


@cache
def _validator(annotation: Any) -> SchemaValidator:
    return SchemaValidator(_schema(annotation), _STRICT)


_EXPECTED = {
    "float_type": "expected a number",
    "int_type": "expected an integer",
    "int_from_float": "expected an integer",
    "bool_type": "expected true or false",
    "string_type": "expected text",
    "tuple_type": "expected a list",
    "list_type": "expected a list",
    "dict_type": "expected a mapping",
    "none_required": "expected null",
    "finite_number": "must be a finite number",
    "greater_than": "must be > {gt:g}",
    "greater_than_equal": "must be >= {ge:g}",
    "less_than": "must be < {lt:g}",
    "less_than_equal": "must be <= {le:g}",
    "literal_error": "must be one of {expected}",
}

_NUMBER = re.compile(r"[-+]?(\d[\d_]*(\.[\d_]*)?|\.\d[\d_]*)([eE][-+]?\d+)?")


def _choices(annotation: Any) -> list[str]:
    args = typing.get_args(annotation)
    if typing.get_origin(annotation) is Literal:
        return [arg for arg in args if isinstance(arg, str)]
    return [choice for arg in args for choice in _choices(arg)]


def members(annotation: Any) -> list[Any]:
    """Returns the types of a union, but for None; of any other annotation, itself."""
    if typing.get_origin(annotation) not in (typing.Union, types.UnionType):
        return [annotation]
    return [arg for arg in typing.get_args(annotation) if arg is not type(None)]


def _phrase(error: "ErrorDetails") -> str:
    expected = _EXPECTED.get(error["type"])
    return expected.format(**error.get("ctx", {})) if expected else error["msg"]


def _list_to_write(value: Any, annotation: Any) -> str:
    """Returns "; write [...]" for one value where a list is meant, if that list would be right."""
    if isinstance(value, dict) and not check_value(annotation, [value], "")[1]:
        return "; write [{...}], a list of one"
    if not isinstance(value, str | int | float):
        return ""
    # `a, b` and `(a, b)` are lists of two, if what is in them can be read as that.
    inner = re.sub(r"^\((.*)\)$|^\[(.*)\]$", r"\1\2", str(value).strip())
    items, problems = yaml_file.read(f"[{inner}]")
    for values in ([] if problems else items, [value]):
        if values and not check_value(annotation, values, "")[1]:
            return f"; write {yaml_file.dump(values).strip()}"
    return ""


def _message(error: "ErrorDetails", annotation: Any) -> str:
    value = error["input"]
    if error["type"] == "value_error":
        return str(error.get("ctx", {}).get("error"))
    message = f"{_phrase(error)}, got {describe(value)}"
    if error["type"] in ("tuple_type", "list_type") and not error["loc"]:
        message += _list_to_write(value, annotation)
    if isinstance(value, str):
        if error["type"] in ("float_type", "int_type"):
            other = number_to_write(value, error["type"] == "int_type")
            message += "; write it without quotes" if _NUMBER.fullmatch(value) else other
        message += did_you_mean(value, _choices(annotation))
    return message


def check_value(annotation: Any, value: Any, path: str) -> tuple[Any, list[Problem]]:
    """Returns a value as it is to be stored, and what is wrong with it by its type and range."""
    if type(value).__module__ == "numpy" and hasattr(value, "tolist"):
        value = value.tolist()
    try:
        return _validator(annotation).validate_python(value), []
    except ValidationError as invalid:
        errors = invalid.errors(include_url=False)
    if len(members(annotation)) > 1:
        # One problem for the value, not one for each member of the union.
        phrases = dict.fromkeys(_phrase(error) for error in errors)
        message = f"{' or '.join(phrases)}, got {describe(value)}"
        if isinstance(value, str):
            message += did_you_mean(value, _choices(annotation)) or number_to_write(value)
        return value, [Problem("type", path, message)]
    problems = []
    for error in errors:
        parts = [part for part in error["loc"] if part != "[key]"]
        place = path + "".join(f"[{p}]" if isinstance(p, int) else f".{p}" for p in parts)
        code = "type" if error["type"].endswith("_type") else "value"
        # A config inside a list or a mapping says by itself what is wrong with it.
        nested = getattr(error.get("ctx", {}).get("error"), "problems", None)
        if nested:
            problems += [p._replace(path=f"{place}.{p.path}".rstrip(".")) for p in nested]
        else:
            problems.append(Problem(code, place, _message(error, annotation)))
    return value, problems
