"""Rules about the sections of optimizers."""

from collections.abc import Iterator

from optimization.configs.errors import Problem
from optimization.lint.registry import Severity, rule
from optimization.lint.subject import Subject, problem
from optimization.rules.adafactor import AdafactorKerasConfig
from optimization.rules.base import CLIPS

_LEAST = 1.2e-38  # below it are no normal numbers of float32, and compiled code makes 0 of them
_LISTS = ("exclude_from_weight_decay", "include_in_weight_decay")
_OF_ADAFACTOR = "Adafactor clips its update itself, by `clip_threshold`; leave this out"


@rule(
    "epsilon-zero",
    Severity.WARNING,
    "An epsilon that is 0 in float32, in which everything trains.",
)
def _epsilon_zero(subject: Subject) -> Iterator[Problem]:
    for section in subject.optimizers():
        for name, value in section._items():
            if name.startswith("epsilon") and isinstance(value, float) and value < _LEAST:
                message = f"is {value:g}, which is 0 in float32: a gradient of 0 is divided by it"
                yield problem("epsilon-zero", section, name, f"{message}; write 1e-8 or so")


@rule(
    "decay-on-norms",
    Severity.INFO,
    "Weight decay acts on the scales of norms and on biases too.",
)
def _decay_on_norms(subject: Subject) -> Iterator[Problem]:
    if any(g.weight_decay is not None or g.freeze for g in subject.config.param_groups):
        return
    for section in subject.optimizers():
        names = section.decay_arguments
        # Muon's own decay acts on hidden matrices alone, that of its Adam on the rest.
        names = [n for n in names if n.startswith("adam_")] or names
        decays = [name for name in names if getattr(section, name, None)]
        has_list = any(getattr(section, name, None) for name in _LISTS)
        acts = getattr(section, "decays", lambda path: True)
        if not decays or has_list or not acts("dense/bias"):
            continue
        advice = "write `param_groups: [{ndim: [0, 1], weight_decay: 0.0}]`"
        if _LISTS[0] in section.field_names():
            advice = f"write `{_LISTS[0]}: [norm, bias]`"
        message = "acts on norms and biases too, which most recipes leave out"
        yield problem("decay-on-norms", section, decays[0], f"{message}; {advice}")


@rule("clipped-twice", Severity.WARNING, "Two clips, one after the other.")
def _clipped_twice(subject: Subject) -> Iterator[Problem]:
    for section in subject.optimizers():
        clips = [name for name in CLIPS if getattr(section, name)]
        first = getattr(section, "gradient_clip_norm", 0.0)
        if clips and first:
            message = f"clips what `gradient_clip_norm` {first:g} has clipped before"
            advice = "leave it out, or write `gradient_clip_norm: 0`"
            yield problem("clipped-twice", section, clips[0], f"{message}; {advice}")
        if clips and isinstance(section, AdafactorKerasConfig) and not section.relative_step:
            yield problem("clipped-twice", section, clips[0], _OF_ADAFACTOR)


@rule("relative-step-clipped", Severity.WARNING, "A clip beside Adafactor's relative step.")
def _relative_step_clipped(subject: Subject) -> Iterator[Problem]:
    for section in subject.optimizers():
        clips = [name for name in CLIPS if getattr(section, name)]
        if clips and isinstance(section, AdafactorKerasConfig) and section.relative_step:
            yield problem("relative-step-clipped", section, clips[0], _OF_ADAFACTOR)
