import copy
import pickle
import typing
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import pydantic
import pytest
from annotated_types import Ge, Interval

from optimization.configs.types import (
    REQUIRED,
    Boundaries,
    Patterns,
    PositiveFloat,
    PositiveInt,
    ReadOnlyDict,
    ReadOnlyList,
    Share,
    check_value,
)


@pytest.mark.parametrize(
    ("annotation", "value", "stored"),
    [
        (float, 1, 1.0),
        (float, 1e-4, 1e-4),
        (int, 2e4, 20000),
        (float | None, None, None),
        (tuple[float, ...], [1, 2.5], (1.0, 2.5)),
        (list[int], (1, 2.0), ReadOnlyList([1, 2])),
        (dict[str, int], {"a": 3.0}, ReadOnlyDict(a=3)),
        (Literal["dynamic"] | float | None, "dynamic", "dynamic"),
        (Literal["dynamic"] | float | None, 3, 3.0),
        (float, np.float32(0.5), 0.5),
        (int, np.int64(3), 3),
        (tuple[int, ...], np.array([1, 2]), (1, 2)),
        (Boundaries, [1, 5, 9], (1, 5, 9)),
        (Patterns, ["bias", "norm$"], ("bias", "norm$")),
        (Annotated[int | None, Ge(0)], None, None),
        (list[Annotated[float | None, Interval(gt=0, le=1)]], [None, 1], ReadOnlyList([None, 1.0])),
        (typing.List, [2], ReadOnlyList([2])),  # noqa: UP006
        (typing.Dict, {"a": 2}, ReadOnlyDict(a=2)),  # noqa: UP006
    ],
)
def test_right_values_are_stored_in_their_type(annotation, value, stored):
    result, problems = check_value(annotation, value, "x")
    assert problems == []
    assert result == stored
    assert type(result) is type(stored)


@pytest.mark.parametrize(
    ("annotation", "value", "message"),
    [
        (float, "abc", "expected a number, got 'abc' (text)"),
        (float, "0.9", "expected a number, got '0.9' (text); write it without quotes"),
        (float, "1e-4", "expected a number, got '1e-4' (text); write it without quotes"),
        (float, "0,01", "expected a number, got '0,01' (text); write 0.01"),
        (float, "-,5", "got '-,5' (text); write -.5"),
        (float, "1,5e-3", "got '1,5e-3' (text); write 1.5e-3"),
        (float | None, "0,01", "got '0,01' (text); write 0.01"),
        (float, "1.000.000", "got '1.000.000' (text); write 1000000"),
        (float, "1,000", "got '1,000' (text)$"),
        (float, "1,2,3", "got '1,2,3' (text)$"),
        (int, "1,000", "expected an integer, got '1,000' (text); write 1000"),
        (int, "10 000", "got '10 000' (text); write 10000"),
        (int, "0,5", "got '0,5' (text)$"),
        (float, True, "expected a number, got true"),
        (float, None, "expected a number, got null"),
        (float, [1.0], "expected a number, got [1.0] (a list)"),
        (float, float("nan"), "must be a finite number, got nan"),
        (float, float("inf"), "must be a finite number, got inf"),
        (int, 1.5, "expected an integer, got 1.5"),
        (Annotated[int | None, Ge(0)], -1, "must be >= 0, got -1"),
        (int, False, "expected an integer, got false"),
        (int, "3", "expected an integer, got '3' (text); write it without quotes"),
        (bool, 1, "expected true or false, got 1"),
        (bool, "true", "expected true or false, got 'true' (text)"),
        (str, 3, "expected text, got 3"),
        (PositiveFloat, 0, "must be > 0, got 0"),
        (PositiveFloat | None, -1, "must be > 0, got -1"),
        (PositiveInt, -2, "must be > 0, got -2"),
        (int, 10**400, "must be less than 2**63 in magnitude, got an integer of 1329 bits"),
        (float, -(10**400), "must be less than 2**63 in magnitude, got an integer of"),
        (Share, 1.0, "must be < 1, got 1.0"),
        (Boundaries, [5, 5], "must be strictly increasing, got 5 after 5"),
        (Boundaries, 5, "expected a list, got 5; write [5]"),
        (Boundaries, "5, 7", "expected a list, got '5, 7' (text); write [5, 7]"),
        (tuple[float, ...], "(0.1, 0.01)", "got '(0.1, 0.01)' (text); write [0.1, 0.01]"),
        (tuple[float, ...], "a, b", "expected a list, got 'a, b' (text)"),
        (Patterns, ["a("], "'a(' is not a regular expression"),
        (Patterns, "bias", "expected a list, got 'bias' (text); write [bias]"),
        (Patterns | None, "[a, b$]", "expected a list, got '[a, b$]' (text); write [a, b$]"),
        (Patterns | None, ".*(kernel|weight):0$", "; write ['.*(kernel|weight):0$']"),
        (Patterns | None, "LayerNorm, bias", "; write [LayerNorm, bias]"),
        (Patterns | None, "a{1,2}", "; write ['a{1,2}']"),
        (Patterns | None, "*bias(", "expected a list, got '*bias(' (text)"),
        (Literal["higher", "lower"], "highr", "did you mean 'higher'?"),
        (Literal["dynamic"] | float | None, "dinamic", "did you mean 'dynamic'?"),
    ],
)
def test_wrong_values_are_one_problem_in_words(annotation, value, message):
    _, problems = check_value(annotation, value, "x.y")
    assert len(problems) == 1
    assert problems[0].path in ("x.y", "x.y[0]")
    assert message in f"{problems[0].message}$"


class Point(pydantic.BaseModel):
    x: int


@pytest.mark.parametrize(
    ("annotation", "right", "wrong", "message"),
    [
        (Annotated[int, pydantic.Field(multiple_of=3)], 6.0, 4, "multiple of 3"),
        (Annotated[float, "a note", pydantic.Field(gt=0)], 1, 0, "must be > 0, got 0"),
        (list[Annotated[str, pydantic.Field(min_length=2)]], ["ab"], ["a"], "at least 2"),
        (Path | None, Path("a"), "a", "instance of Path"),
        (list[Point], [Point(x=1)], [{"x": "one"}], "valid integer"),
    ],
)
def test_types_of_which_pydantic_knows_more(annotation, right, wrong, message):
    assert check_value(annotation, right, "x") == (right, [])
    (problem,) = check_value(annotation, wrong, "x")[1]
    assert message in problem.message


def test_problems_inside_a_list_name_the_place():
    _, problems = check_value(tuple[float, ...], [1.0, "b", None], "values")
    assert [problem.path for problem in problems] == ["values[1]", "values[2]"]


def test_lists_and_mappings_are_read_only():
    value, _ = check_value(dict[str, float], {"a": 1}, "x")
    assert value == {"a": 1.0}
    numbers, _ = check_value(list[float], (1,), "x")
    assert numbers == [1.0]
    for change in (
        lambda: numbers.append(2),
        lambda: numbers.__iadd__([2]),
        lambda: numbers.__setitem__(0, 2),
        lambda: numbers.sort(),
        lambda: value.__setitem__("b", 2),
        lambda: value.update(b=2),
        lambda: value.pop("a"),
        lambda: value.clear(),
    ):
        with pytest.raises(TypeError, match="read-only"):
            change()
    for container in (value, numbers):
        for twin in (copy.deepcopy(container), pickle.loads(pickle.dumps(container))):
            assert twin == container
            assert type(twin) is type(container)


def test_required_is_one_falsy_object():
    assert not REQUIRED
    assert copy.deepcopy(REQUIRED) is REQUIRED
    assert copy.copy(REQUIRED) is REQUIRED
    assert pickle.loads(pickle.dumps(REQUIRED)) is REQUIRED
