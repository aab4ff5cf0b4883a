"""A rule about values that say nothing."""

from collections.abc import Iterator
from typing import cast

from optimization.configs.base import Config
from optimization.configs.errors import DEFAULT, PYTHON, Problem, describe
from optimization.configs.oneof import OneOfConfig
from optimization.configs.tree import Node
from optimization.lint.registry import Severity, rule
from optimization.lint.subject import Subject, problem


@rule(
    "equals-default",
    Severity.INFO,
    "A value that is the default; told only with `--select equals-default`.",
    is_on=False,
)
def _equals_default(subject: Subject) -> Iterator[Problem]:
    yield from _written_defaults(subject.config)
    yield from _written_defaults(subject.trainer, below=False)


def _written_defaults(node: Node, below: bool = True) -> Iterator[Problem]:
    config = cast(Config, node)
    usual = {} if isinstance(config, OneOfConfig) else config._defaults()
    of_variant = config._origins.get("variant")  # what it stands for was written where it is
    for name, value in config._items():
        origin = config._origins.get(name, DEFAULT)
        if origin in (DEFAULT, PYTHON) or (name != "variant" and origin == of_variant):
            continue
        if name in usual and value == usual[name]:
            message = f"{describe(value)} is the default; leave it out"
            yield problem("equals-default", config, name, message)
    for child in config.selected() if below else ():
        yield from _written_defaults(child)
