"""The types of fields as JSON Schema."""

import sys
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

from annotated_types import Ge, Gt, Interval, Le, Lt, MinLen

from optimization.configs.tree import Node
from optimization.configs.types import Check, check_value, kinds_of

Json = dict[str, Any]

_PERCENT = r"0*(?:100(?:\.0+)?|\d{1,2}(?:\.\d+)?)\s*%"
_COUNT = r"\d+(?:\.\d+)?\s*(?:epochs?|[kMBT]?\s*(?:examples?|tokens?))"
DURATION = rf"^\s*(?:{_COUNT}|{_PERCENT}|remaining)\s*$"
"""`Duration.FORM`, with at most 100 %."""
FIRST_DURATION = rf"^\s*(?:{_COUNT}|{_PERCENT})\s*$"
"""The durations but for "remaining"."""

_PLAIN = {bool: "boolean", int: "integer", float: "number", str: "string", types.NoneType: "null"}
_BOUNDS = {"ge": "minimum", "gt": "exclusiveMinimum", "le": "maximum", "lt": "exclusiveMaximum"}
_FLOAT32 = 3.4028234663852886e38  # the largest
_INT64 = 2**63 - 1


def json_type(
    annotation: Any, section: Callable[[type[Node]], Json], in_float32: bool = False
) -> Json:
    """Returns the schema of what a field of a type accepts.

    Args:
        annotation: The type.
        section: Returns the schema of a config class.
        in_float32: Whether numbers must be finite in float32.
    """

    def of(inner: Any) -> Json:
        return json_type(inner, section, in_float32)

    origin, args = typing.get_origin(annotation), typing.get_args(annotation)
    if origin is typing.Annotated:
        return _limited(of(args[0]), args[0], args[1:], annotation)
    if origin in (typing.Union, types.UnionType):
        return _any_of([of(arg) for arg in args])
    if origin is Literal:
        return {"enum": [*args]}
    if origin is tuple and Ellipsis not in args:
        size = len(args)
        return {
            "type": "array",
            "prefixItems": [*map(of, args)],
            "minItems": size,
            "maxItems": size,
        }
    if origin in (tuple, list, Sequence):
        return {"type": "array", "items": of(args[0]) if args else {}}
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": of(args[1]) if args else {}}
    if isinstance(annotation, type) and issubclass(annotation, Node):
        return section(annotation)
    if annotation in _PLAIN:
        return _plain(annotation, in_float32)
    return {} if annotation is Any else _of_pydantic(annotation)


def nullable(made: Json) -> Json:
    """Returns a schema that null passes too."""
    return _any_of([made, {"type": "null"}])


def _plain(annotation: type, in_float32: bool) -> Json:
    made: Json = {"type": _PLAIN[annotation]}
    if annotation is int:
        made |= {"minimum": -_INT64, "maximum": _INT64}
    if annotation is float:
        largest = _FLOAT32 if in_float32 else sys.float_info.max
        made |= {"minimum": -largest, "maximum": largest}
    return made


def _limited(made: Json, base: Any, metadata: Sequence[Any], annotation: Any) -> Json:
    """Returns a schema with what is said of a type in metadata."""
    for item in metadata:
        if isinstance(item, Ge | Gt | Le | Lt | Interval):
            made = _bounded(made, item)
        elif isinstance(item, MinLen):
            made = {
                **made,
                "minItems" if made.get("type") == "array" else "minLength": item.min_length,
            }
        elif isinstance(item, Check) and isinstance(item.func, str):
            made = {**made, "pattern": item.func}
    kinds = kinds_of(metadata)
    if "regex" in kinds:
        made = {**made, "format": "regex"}
    if "steps" in kinds:
        pattern = FIRST_DURATION if "first" in kinds else DURATION
        words = [{"enum": ["step", "epoch"]}] if "period" in kinds else []
        return {"anyOf": [made, {"type": "string", "pattern": pattern}, *words]}
    if made.get("type") == "array" and not check_value(annotation, "a", "")[1]:
        return {"anyOf": [made["items"], made]}  # one for a list of one
    return made


def _bounded(made: Json, limits: Any) -> Json:
    if "anyOf" in made:  # a number or null
        return {"anyOf": [_bounded(each, limits) for each in made["anyOf"]]}
    if made.get("type") not in ("integer", "number"):
        return made
    given = {_BOUNDS[n]: v for n in _BOUNDS if (v := getattr(limits, n, None)) is not None}
    replaced = {"exclusiveMinimum": "minimum", "exclusiveMaximum": "maximum"}
    left_out = {wide for narrow, wide in replaced.items() if narrow in given}
    return {**{name: value for name, value in made.items() if name not in left_out}, **given}


def _any_of(members: list[Json]) -> Json:
    """Returns a schema that passes what one of several passes, as short as it can be."""
    flat = [each for made in members for each in made.get("anyOf", [made])]
    if {"type": "null"} in flat and len(flat) == 2:
        (only,) = [each for each in flat if each != {"type": "null"}]
        if isinstance(only.get("type"), str):
            return {**only, "type": [only["type"], "null"]}
        if "enum" in only:
            return {**only, "enum": [*only["enum"], None]}
    return flat[0] if len(flat) == 1 else {"anyOf": [*map(dict, flat)]}


def _of_pydantic(annotation: Any) -> Json:
    """Returns the schema that pydantic has of a type of the user's; {} where it has none."""
    from pydantic import ConfigDict, TypeAdapter
    from pydantic.errors import PydanticUserError

    try:
        config = ConfigDict(arbitrary_types_allowed=True)
        made = TypeAdapter(annotation, config=config).json_schema()
    except PydanticUserError:
        return {}
    return {} if "$defs" in made else made
