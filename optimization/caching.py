"""`functools.cache` for functions of classes."""

import functools
from collections.abc import Callable
from typing import Any, TypeVar, cast

Function = TypeVar("Function", bound=Callable[..., Any])


def cached(function: Function) -> Function:
    """`functools.cache`, typed as the function: for mypy no `type[X]` is hashable."""
    return cast(Function, functools.cache(function))
