import dataclasses
import inspect
import pydoc
import re
from typing import Annotated, Literal

import pytest
from annotated_types import Interval

import optimization
from optimization.configs.base import Config
from optimization.configs.documentation import type_text
from optimization.configs.group_config import LayerDecayConfig, LrScalingConfig, ParamGroupConfig
from optimization.configs.oneof import OneOfConfig
from optimization.configs.registry import Registry, import_target
from optimization.configs.types import (
    REQUIRED,
    Boundaries,
    FirstSteps,
    Patterns,
    PositiveFloat,
    PositiveSteps,
    Share,
)

REGISTRIES = (optimization.OPTIMIZERS_CLS, optimization.LR_CLS, optimization.WARMUP_CLS)
TYPES = [
    pytest.param(registry.config_class(name), id=f"{registry.kind}-{name}")
    for registry in REGISTRIES
    for name in registry
]
OTHERS = [
    optimization.OptimizationConfig,
    optimization.OptimizerConfig,
    optimization.LrConfig,
    optimization.WarmupConfig,
    optimization.EMAConfig,
    ParamGroupConfig,
    LayerDecayConfig,
    LrScalingConfig,
    optimization.ExperimentConfig,
    optimization.TaskConfig,
    optimization.DataConfig,
    optimization.TrainerConfig,
    optimization.RuntimeConfig,
]
WITH_FORMULAS = [*TYPES, optimization.EMAConfig, LayerDecayConfig, LrScalingConfig]


def entries_of(cls):
    """Returns the text of each field in the help of a config."""
    section = inspect.getdoc(cls).partition("Attributes:\n")[2]
    found = re.findall(r"^    (\w+) \((.*?)\):\s+(.+?)$(?=\n    \w|\n*\Z)", section, re.M | re.S)
    return {name: (" ".join(facts.split()), meaning) for name, facts, meaning in found}


@pytest.mark.parametrize("cls", [*TYPES, *OTHERS])
def test_help_tells_the_meaning_type_and_default_of_every_field(cls):
    entries = entries_of(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    assert set(entries) == set(fields)
    for name, (facts, meaning) in entries.items():
        default = fields[name].default
        if default is REQUIRED:
            assert facts.endswith("; required")
        elif default is not dataclasses.MISSING:
            assert "; default " in facts
        assert len(meaning.split()) >= 2
        assert not re.search(r"Annotated|typing|NoneType|<|object at", facts.replace("< ", ""))


@pytest.mark.parametrize("cls", WITH_FORMULAS)
def test_help_has_a_formula_and_a_source(cls):
    body = inspect.getdoc(cls).partition("Attributes:\n")[0]
    assert re.search(r"^    \S.*(=|<-)", body, re.M)
    known = r"arXiv:\d{4}\.\d{4,5}|doi:10\.|https://|\bas (in|the) |as PyTorch's"
    source = re.search(r"^Source: (.+?)\n(\n|\Z)", body, re.M | re.S)
    assert re.search(known, source[1])


def test_help_is_what_pydoc_prints():
    text = pydoc.plain(pydoc.render_doc(optimization.OPTIMIZERS_CLS.config_class("lamb")))
    assert "beta_1 (number in [0, 1); default 0.9): The decay of the first moment" in text
    assert "global_clipnorm (number > 0 or null; default null): All gradients" in text
    listed = " ".join(inspect.getdoc(optimization.OptimizerConfig).split())
    assert f"The types are {', '.join(optimization.OPTIMIZERS_CLS)}." in listed


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        (PositiveFloat | None, "number > 0 or null"),
        (Share, "number in [0, 1)"),
        (Annotated[float, Interval(gt=0, le=1)], "number in (0, 1]"),
        (bool | Literal["auto"], "true or false or 'auto'"),
        (Patterns, "list (each: regular expression)"),
        (PositiveSteps, "optimizer steps > 0, '5 epochs', '10%', 'remaining'"),
        (FirstSteps, "optimizer steps >= 0, '5 epochs', '10%'"),
        (Boundaries, "list (each: optimizer steps >= 0, '5 epochs', '10%', 'remaining')"),
        (dict[str, int], "mapping (each: integer)"),
    ],
)
def test_types_in_words(annotation, text):
    assert type_text(annotation) == text


@dataclasses.dataclass
class Base(Config):
    """What all have.

    Attributes:
        size: How large
            it is.
        shape: Of which form.
    """

    size: int = 3
    shape: str = "round"


def test_a_class_of_the_users():
    @dataclasses.dataclass
    class Mine(Base):
        """Mine.

        Attributes:
            shape: Square, rather.
            rate: How fast.
        """

        rate: float = REQUIRED

    expected = (
        "Mine.\n\nAttributes:\n    rate (number; required): How fast.\n"
        "    size (integer; default 3): How large it is.\n"
        "    shape (text; default 'round'): Square, rather."
    )
    assert inspect.getdoc(Mine) == expected
    assert inspect.getdoc(Mine(rate=1)) == expected


def test_what_is_registered_without_a_docstring():
    registry = Registry("thing", Base, import_target)

    @registry.register("bare")
    @dataclasses.dataclass
    class Bare(Base):
        rate: float = 0.5

    @registry.register("function")
    def function(angle: float = 0.25):
        """Turns.

        Args:
            angle: How far.
        """
        return angle

    for name, field in (
        ("bare", "rate (number; default 0.5)\n"),
        ("function", "angle (number; default 0.25): How far."),
    ):
        text = inspect.getdoc(registry.config_class(name))
        assert field in text
        assert "size (integer; default 3): How large it is." in text

    class Things(OneOfConfig):
        pass

    Things.registry = registry
    assert Things({"type": "bare"}).get().rate == 0.5
