"""Writes docs/reference/: every section and field of a configuration, from the dataclasses.

    python -m tools.reference

Run it after a field or a type was added or its docstring changed; a test says so if you forget.
"""

import inspect
import pathlib
import re
from collections.abc import Iterable, Iterator

from optimization import LR_CLS, OPTIMIZERS_CLS, WARMUP_CLS, OptimizationConfig
from optimization.configs.documentation import description, field_doc
from optimization.configs.early_stopping import EarlyStoppingConfig
from optimization.configs.experiment_config import ExperimentConfig, RuntimeConfig, TrainerConfig
from optimization.configs.group_config import LayerDecayConfig, LrScalingConfig, ParamGroupConfig
from optimization.configs.matcher_config import MatcherConfig
from optimization.configs.optimizer_config import EMAConfig
from optimization.configs.ramp import AccumulationConfig
from optimization.configs.registry import Registry
from optimization.configs.spike_config import SkipSpikesConfig, ZClipConfig
from optimization.configs.sweep_config import ParameterConfig, SweepConfig
from optimization.configs.task_config import DataConfig, TaskConfig
from optimization.configs.tree import Node, declared_specs
from optimization.rules.auxiliary import AuxiliaryConfig
from optimization.rules.base import BaseOptimizerConfig
from optimization.rules.modifiers import MODIFIER_FIELDS, ModifierFields
from optimization.rules.state_config import StateConfig
from optimization.schedules.sequence import PhaseConfig
from tools.gallery import own_types

FOLDER = pathlib.Path(__file__).parents[1] / "docs" / "reference"
_WRITTEN = "<!-- Written by `python -m tools.reference`. -->"

_SECTIONS: dict[str, type[Node]] = {
    "Top level": OptimizationConfig,
    "ema": EMAConfig,
    "param_groups": ParamGroupConfig,
    "layer_decay": LayerDecayConfig,
    "lr_scaling": LrScalingConfig,
    "accumulation": AccumulationConfig,
    "zclip": ZClipConfig,
    "skip_spikes": SkipSpikesConfig,
    "phases": PhaseConfig,
    "auxiliary": AuxiliaryConfig,
    "also": MatcherConfig,
    "state": StateConfig,
}
_EXPERIMENT: dict[str, type[Node]] = {
    "Top level": ExperimentConfig,
    "trainer": TrainerConfig,
    "early_stopping": EarlyStoppingConfig,
    "runtime": RuntimeConfig,
    "task": TaskConfig,
    "train_data and validation_data": DataConfig,
}
_SWEEP: dict[str, type[Node]] = {"Top level": SweepConfig, "parameters": ParameterConfig}

# Where the fields of a section are, that another section holds.
_LINKS = {
    "OptimizerConfig": "a type of [optimizer](optimizers.md)",
    "LrConfig": "a type of [learning_rate](learning_rates.md)",
    "WarmupConfig": "a type of [warmup](warmups.md)",
    "EMAConfig": "the section [ema](sections.md#ema)",
    "ParamGroupConfig": "a section of [param_groups](sections.md#param_groups)",
    "LayerDecayConfig": "the section [layer_decay](sections.md#layer_decay)",
    "LrScalingConfig": "the section [lr_scaling](sections.md#lr_scaling)",
    "StateConfig": "the section [state](sections.md#state)",
    "AuxiliaryConfig": "the section [auxiliary](sections.md#auxiliary)",
    "MatcherConfig": "a section of [matchers](sections.md#also)",
    "AccumulationConfig": "the section [accumulation](sections.md#accumulation)",
    "ZClipConfig": "the section [zclip](sections.md#zclip)",
    "SkipSpikesConfig": "the section [skip_spikes](sections.md#skip_spikes)",
    "PhaseConfig": "one of the [phases](sections.md#phases)",
    "OptimizationConfig": "the [optimization section](sections.md)",
    "TaskConfig": "the section [task](#task), or what derives from it",
    "TrainerConfig": "the section [trainer](#trainer)",
    "RuntimeConfig": "the section [runtime](#runtime)",
    "EarlyStoppingConfig": "the section [early_stopping](#early_stopping)",
    "DataConfig": "a section of [data](#train_data-and-validation_data)",
    "ParameterConfig": "a section of [parameters](#parameters)",
}
_ABOUT = """
Numbers with a unit say it. Optimizer steps may also be epochs (`5 epochs`), a share of the training
(`10%`), what the batch makes steps (`1M examples`, `300B tokens`) or, in a learning rate,
`remaining`: see
[durations](../pipeline.md#batch-size-and-durations).
"""


def pages() -> dict[pathlib.Path, str]:
    """Returns the text of each page of the reference, by its path."""
    return {
        FOLDER / "sections.md": _page(
            "The optimization section",
            "What stands in `trainer.optimizer_config`, or in a file of its own.",
            map(_section, _SECTIONS, _SECTIONS.values()),
        ),
        FOLDER / "optimizers.md": _page(
            "Types of `optimizer`",
            "Each is written as `optimizer: {type: NAME, NAME: {field: value}}`; "
            "[pictures](../gallery/optimizers.md).",
            [*_types(OPTIMIZERS_CLS), _every_optimizer()],
        ),
        FOLDER / "learning_rates.md": _page(
            "Types of `learning_rate`",
            "Each is written as `learning_rate: {type: NAME, NAME: {field: value}}`; "
            "[pictures](../gallery/learning_rates.md).",
            _types(LR_CLS),
        ),
        FOLDER / "warmups.md": _page(
            "Types of `warmup`",
            "Each is written as `warmup: {type: NAME, NAME: {field: value}}`; "
            "[pictures](../gallery/warmups.md), "
            "[the three modes](../concepts/warmups.md).",
            _types(WARMUP_CLS),
        ),
        FOLDER / "experiment.md": _page(
            "An experiment file",
            "What the trainer reads: `task`, `trainer` and `runtime`. A task of one's own adds "
            "fields to `task` ([how](../howto/task.md)).",
            map(_section, _EXPERIMENT, _EXPERIMENT.values()),
        ),
        FOLDER / "sweep.md": _page(
            "A sweep file",
            "What `--sweep` reads; [Sweeps](../sweeps.md) has examples.",
            map(_section, _SWEEP, _SWEEP.values()),
        ),
    }


def _page(title: str, about: str, parts: Iterable[str]) -> str:
    return "\n".join([_WRITTEN, f"# {title}\n", about, _ABOUT, *parts])


def _types(registry: Registry) -> Iterator[str]:
    shared = set(declared_specs(ModifierFields)) if registry is OPTIMIZERS_CLS else set()
    for kind in own_types(registry):
        cls = registry.config_class(kind)
        left_out = {name for name in shared if _is_inherited(cls, name)}
        more = "And the fields of [every optimizer](#every-optimizer).\n" if shared else ""
        names = [name for name in _ordered(cls) if name not in left_out]
        yield "\n".join([f"## `{kind}`\n", _body(cls), _table(cls, names), more])


def _every_optimizer() -> str:
    cls = BaseOptimizerConfig
    step = "[A step](../pipeline.md#a-step) says when each acts."
    about = f"What every type of `optimizer` takes. {step}\n"
    modifiers = "Beside these, every type of this package takes [modifiers](../modifiers.md).\n"
    tables = [_table(cls, _ordered(cls)), modifiers, _table(ModifierFields, MODIFIER_FIELDS)]
    return "\n".join(["## Every optimizer\n", about, *tables])


def _section(title: str, cls: type[Node]) -> str:
    heading = f"## `{title}`" if title.islower() and " " not in title else f"## {title}"
    return "\n".join([f"{heading}\n", _body(cls), _table(cls, _ordered(cls))])


def _is_inherited(cls: type[Node], name: str) -> bool:
    """Says whether a field is that of every optimizer, unchanged."""
    return field_doc(cls, name) == field_doc(ModifierFields, name)


def _ordered(cls: type[Node]) -> list[str]:
    """Returns the fields, the class's own before those of its bases, `name` last."""
    nearest = dict.fromkeys(n for base in cls.__mro__ for n in inspect.get_annotations(base))
    names = [name for name in nearest if name in declared_specs(cls)]
    names += [name for name in declared_specs(cls) if name not in names]
    return sorted(names, key=lambda name: name == "name")


def _body(cls: type[Node]) -> str:
    """Returns what a docstring says, without its examples, which are in the gallery."""
    text = re.sub(r"^>>> .*(?:\n.+)*\n*", "", description(cls), flags=re.MULTILINE)
    paragraphs = re.split(r"\n\n+", text.strip())
    # Lines that are indented are code, and stay as they are.
    escaped = [p if p.startswith("    ") else _linked(_escaped(p)) for p in paragraphs]
    return "\n\n".join(escaped) + "\n"


def _linked(text: str) -> str:
    return re.sub(r"arXiv:(\d+\.\d+)", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def _table(cls: type[Node], names: Iterable[str]) -> str:
    rows = ["| field | type and range | unit | default | meaning |", "|---|---|---|---|---|"]
    for name in names:
        doc = field_doc(cls, name)
        usual = f"`{doc.default}`" if doc.default not in ("", "required") else doc.default
        kind = _escaped(doc.type.replace("optimizer steps", "integer"))
        kind = re.sub(r"\b[A-Z]\w+Config\b", lambda match: _LINKS[match[0]], kind)
        cells = [f"`{name}`", kind, doc.unit, usual, _escaped(doc.meaning)]
        escaped = (cell.replace("|", r"\|") for cell in cells)
        rows.append(re.sub(" +", " ", f"| {' | '.join(escaped)} |"))
    return "\n".join(rows) + "\n"


def _escaped(text: str) -> str:
    """Returns text in which nothing outside of backticks is HTML or emphasis."""
    parts = re.split(r"(`[^`]*`)", text)
    return "".join(
        p if p.startswith("`") else p.replace("<", "&lt;").replace("*", r"\*") for p in parts
    )


def main() -> None:
    """Writes the pages."""
    FOLDER.mkdir(exist_ok=True)
    for path, text in pages().items():
        path.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
