"""How a run goes on whose settings have changed: as `trainer.resume` says, or not at all."""

import contextlib
import os
import re
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from optimization.configs.errors import ConfigError
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.rate_curve import curve_of, places
from optimization.schedules.metric import MetricLrConfig
from optimization.training import changes, history
from optimization.training.changes import Change
from optimization.training.checkpoint_files import FOLLOWED, RATE_VARIABLE, instead_of, step_of
from optimization.training.errors import CheckpointError, DamagedError, TrainingError, first

if typing.TYPE_CHECKING:
    from optimization.training.checkpoints import Sections
    from optimization.training.trainer import Trainer

LENGTH, START = "trainer.train_steps", "trainer.schedule_start"

_KINDS: tuple[tuple[str, re.Pattern[str]], ...] = tuple(
    (kind, re.compile(pattern))
    for kind, pattern in {
        # What is shown, saved and measured beside the training.
        "beside": r"trainer\.(steps_per_loop|(summary|checkpoint)_interval|norm_summaries"
        r"|max_to_keep|best_checkpoint_\w+|continuous_eval_timeout|validation_summary_subdir"
        r"|on_damaged)",
        # What a run that goes on reads no more, and what ends it with an error.
        "unread": r"task\.init_checkpoint|trainer\.max_skipped_share"
        r"|.*\.optimizer\.\w+\.max_consecutive_nonfinite",
        # What computes the same, but for roundings.
        "devices": r"runtime\.(distribution_strategy|enable_xla|run_eagerly)",
        "names": r".*\.((optimizer|learning_rate|warmup|schedules\.\w+|phases\[\d+\])\.\w+|ema)"
        r"\.name",
        # What these come to is compared: the numbers of steps.
        "length": rf"{LENGTH}|trainer\.(steps_per_epoch|tokens_per_step|schedule_end"
        r"|early_stopping(\..*)?)",
        "validation": r"trainer\.validation_(steps|interval)|task\.validation_data(\..*)?",
    }.items()
)
"""Which settings change nothing about the numbers of a training, by their paths; all others do.

Those of the validation do where the learning rate follows it.
"""

_RATE = "trainer.optimizer_config.learning_rate"
_RATES = re.compile(
    r"trainer\.optimizer_config\."
    r"(learning_rate|param_groups|lr_scaling|optimizer\.\w+\.auxiliary\.learning_rate)\b.*"
)

_CHOICES = """\
Set this as it was, or say in trainer.resume how the run is to go on:
  continue          with the new settings; the schedules are read at the same step
  extend            with another train_steps alone; the schedules stay as they were
  restart_schedule  with the new settings; the schedules start anew, over the steps that are left"""


class Resumption(NamedTuple):
    """What becomes of the settings of a run that goes on.

    Attributes:
        config: The settings that hold, with where the schedules start and end.
        path: The checkpoint from which the run goes on; None for a run that starts.
        found: What differs from the settings of the checkpoint.
        notes: What is said about that.
        error: Why the run does not go on; None where it does.
    """

    config: ExperimentConfig
    path: str | None = None
    found: Sequence[Change] = ()
    notes: Sequence[str] = ()
    error: Exception | None = None

    def checked(self) -> "Resumption":
        """Raises the error, if there is one."""
        if self.error is not None:
            raise self.error
        return self


def kind_of(path: str) -> str:
    """Returns what a setting is for the numbers of a training; "bends" for one that changes them.

    >>> kind_of("trainer.max_to_keep"), kind_of("runtime.seed")
    ('beside', 'bends')
    """
    return next((kind for kind, pattern in _KINDS if pattern.fullmatch(path)), "bends")


def bends(change: Change, config: ExperimentConfig) -> bool:
    """Whether a change makes another training of a run."""
    kind = kind_of(change.path)
    rate = config.trainer.optimizer_config.learning_rate.get()
    return kind == "bends" or (kind == "validation" and isinstance(rate, MetricLrConfig))


def before_tensorflow(
    config: ExperimentConfig, model_dir: str, path: str | None
) -> ExperimentConfig:
    """Returns the settings that hold, by `params.yaml` and its history alone.

    Raises:
        TrainingError: If the run does not go on from the checkpoint `path` with these settings.
    """
    settings = path and history.settings_at(model_dir, step_of(path) or 0)
    return resumption(config, settings or {}, path).checked().config


def of_checkpoint(config: ExperimentConfig, path: str | None) -> Resumption:
    """Returns how a run goes on from a checkpoint, by the settings that were saved with it.

    If that cannot be read, and `on_damaged` is "previous", it is the newest before that can.
    """
    try:
        return resumption(config, changes.settings_of(path) if path else {}, path)
    except DamagedError as error:
        from optimization.training.checkpoints import newest_sound

        previous = newest_sound(os.path.dirname(str(path)), str(path))
        if previous is not None and config.trainer.on_damaged == "previous":
            return of_checkpoint(config, previous)
        return Resumption(config, path, error=instead_of(str(error), previous))


def resumption(
    config: ExperimentConfig, was: Mapping[str, Any], path: str | None = None
) -> Resumption:
    """Returns how a run goes on with `config` from the checkpoint `path`, made with settings `was`.

    Where the schedules start and end is taken over from the run, unless `config` says it.
    """
    trainer, chosen = config.trainer, config.trainer.resume
    if path is None:
        return Resumption(config)
    if chosen == "never":
        message = f"trainer.resume is never: there is {path}, from which the run would go on"
        advice = "take another --model_dir, or leave trainer.resume out"
        return Resumption(config, path, error=TrainingError(f"{message}; {advice}"))
    if not was:
        return Resumption(config, path)
    before = was.get("trainer") or {}
    start, end = before.get("schedule_start"), before.get("schedule_end")
    step = step_of(path) or 0
    inherited = _scheduled(config, start, end)
    found = changes.changes(was, inherited)
    try:
        changes.check_identity(path, found, chosen=True)  # or refused below
    except CheckpointError as error:
        return Resumption(inherited, path, found, error=error)
    bending = [change for change in found if bends(change, inherited)]
    is_over = bool(trainer.train_steps) and step >= trainer.train_steps
    if chosen is None and bending:
        return Resumption(inherited, path, found, error=_refusal(path, step, found, bending))
    if chosen is None or is_over or not (bending or any(c.path == LENGTH for c in found)):
        return Resumption(inherited, path, found, [changes.summary(found)] if found else [])
    if chosen == "extend":
        settled = _scheduled(config, start, end or before.get("train_steps"))
    elif chosen == "continue":
        settled = _scheduled(config, start, trainer.schedule_end)
    else:
        own = None if trainer.schedule_start == start else trainer.schedule_start
        end = None if trainer.schedule_end == end else trainer.schedule_end
        settled = _scheduled(config, step if own is None else own, end, over=True)
    return _settled(settled, was, path)


def _scheduled(
    config: ExperimentConfig, start: int | None, end: int | None, over: bool = False
) -> ExperimentConfig:
    """Returns a copy with a start and an end of the schedules, `over` those that are set or not."""
    trainer = config.trainer
    values = {"schedule_start": start, "schedule_end": end}
    kept = {} if over else {n: v for n in values if (v := getattr(trainer, n)) is not None}
    return config.replace(trainer={**values, **kept})


def _settled(config: ExperimentConfig, was: Mapping[str, Any], path: str) -> Resumption:
    """Returns what was chosen, if that can be."""
    chosen, step = config.trainer.resume, step_of(path) or 0
    found = changes.changes(was, config)
    others = [change for change in found if bends(change, config)]
    if chosen == "extend" and others:
        message = (
            "trainer.resume=extend lets trainer.train_steps differ alone, not this:\n"
            f"{_listed(others)}\nSet it as it was, or choose continue or restart_schedule"
        )
        return Resumption(config, path, found, error=TrainingError(message))
    errors, _ = config.problems()
    if errors:
        return Resumption(config, path, found, error=ConfigError(errors))
    notes = [changes.summary(found), *_notes(was, config, step)]
    return Resumption(config, path, found, notes)


def _notes(was: Mapping[str, Any], config: ExperimentConfig, step: int) -> Iterator[str]:
    """Yields what a choice comes to: where the schedules are, and rates that jump."""
    trainer = config.trainer
    start, end = trainer.schedule_start or 0, trainer.schedule_end or trainer.train_steps
    yield {
        "extend": f"trainer.resume=extend: the schedules end at step {end}, as they did",
        "continue": f"trainer.resume=continue: the schedules are read at step {step}, as before",
        "restart_schedule": f"trainer.resume=restart_schedule: the schedules start at step {start}",
    }[str(trainer.resume)]
    with contextlib.suppress(ConfigError):  # settings of another version of the code
        before = changes.config_of(was, config)
        old, new = (_rates(each.sized_optimizer_config(), step) for each in (before, config))
        for path in [path for path in new if path in old and old[path] != new[path]]:
            yield f"{path} at step {step}: was {old[path]:.4g}, is {new[path]:.4g}"


def _rates(config: OptimizationConfig, step: int) -> dict[str, float]:
    """Returns the learning rates at a step, those that NumPy can compute, by the paths."""
    found = {}
    for place in places(config):
        curve = curve_of(config, place)
        if curve is not None and curve.is_computable(config._train_steps):
            found[place.learning_rate._path] = curve.values([step])[0]
    return found


def _refusal(path: str, step: int, found: list[Change], bending: list[Change]) -> CheckpointError:
    message = (
        f"the run of the checkpoint {path}, at step {step}, was made with other settings, with "
        f"which it would end otherwise:\n{_listed(bending)}\n"
    )
    if rest := [change for change in found if change not in bending]:
        message += f"and with these, which change nothing about that:\n{_listed(rest)}\n"
    return CheckpointError(message + _CHOICES)


def _listed(found: list[Change]) -> str:
    return "\n".join(f"  {line}" for line in first(found, 30))


def restore(
    trainer: "Trainer", sections: "Sections", start: Callable[[], str | None]
) -> str | None:
    """Restores by `start` what a trainer goes on from, and sets rates that were changed.

    Raises:
        TrainingError: If the run does not go on with these settings.
    """
    resumed = trainer.resumption.checked()
    own = [(variable, variable.numpy()) for variable in _set_anew(resumed.found, sections)]
    restored = start()
    if restored is not None and restored != resumed.path:  # The latest one was damaged.
        again = of_checkpoint(trainer.config, restored).checked()
        if again.config != trainer.config:
            raise TrainingError(
                f"the run goes on from {restored}, not from {resumed.path}: set "
                f"trainer.schedule_start={step_of(restored)} to have the schedules start there"
            )
    for variable, value in own:
        variable.assign(value)
    return restored


def _set_anew(found: Sequence[Change], sections: "Sections") -> Iterator[Any]:
    """Yields the variables of learning rates that the settings, not the checkpoint, say.

    A constant rate is a variable. One that follows a metric is where its state has brought it,
    until the schedules start anew.
    """
    paths = [change.path for change in found]
    if not any(map(_RATES.fullmatch, paths)) and START not in paths:
        return
    state = sections["trainer"].get(FOLLOWED)
    stays = state is not None and START not in paths and f"{_RATE}.type" not in paths
    for path, variable in sections["optimizer"].items():
        if RATE_VARIABLE.search(path) and not (stays and "groups/" not in path):
            yield variable
    if state is not None and not stays:
        yield state
