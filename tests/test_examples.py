import doctest
import importlib
import inspect
import pathlib
import pkgutil
import re

import pytest

import optimization
from optimization import configs, plots, schedules

NEED_KERAS = ("exact", "keras_schedules", "scaled")
MODULES = [
    f"{package.__name__}.{module.name}"
    for package in (configs, plots, schedules)
    for module in pkgutil.iter_modules(package.__path__)
    if not module.ispkg and module.name not in NEED_KERAS
]


def public():
    """Yields what users call, of configs and schedules, by name."""
    stub = pathlib.Path(optimization.__file__).with_suffix(".pyi").read_text(encoding="utf-8")
    for name in re.findall(r"^from \.(?:configs|schedules)\S* import (\w+)", stub, re.MULTILINE):
        yield name, getattr(optimization, name)
    for name in schedules.__all__:
        yield name, getattr(schedules, name)
    for registry in (schedules.LR_CLS, schedules.WARMUP_CLS):
        yield from ((name, entry.config_class) for name, entry in registry.entries())


@pytest.mark.parametrize("name", MODULES)
def test_the_examples_run(name, monkeypatch):
    monkeypatch.setattr(schedules.LR_CLS, "_entries", dict(schedules.LR_CLS._entries))
    known = {"curve": schedules.curve, "ConstantLrConfig": schedules.constant.ConstantLrConfig}
    known |= {"optimization": optimization, "LR_CLS": schedules.LR_CLS}
    module = importlib.import_module(name)
    result = doctest.testmod(module, extraglobs=known, optionflags=doctest.ELLIPSIS)
    assert result.failed == 0


def test_what_users_call_has_an_example():
    missing = [
        name
        for name, value in public()
        if (inspect.isclass(value) or inspect.isfunction(value)) and value.__module__ in MODULES
        if ">>>" not in value.__doc__
    ]
    assert missing == []
