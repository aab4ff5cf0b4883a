"""Files and overrides as layers: the options that commands share, and what the layers make."""

import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import click

from optimization.cli.command import WholeNumber
from optimization.configs import yaml_file
from optimization.configs.batches import batch_without_rate
from optimization.configs.comparing import UNKNOWN, in_training
from optimization.configs.durations import TrainingLength
from optimization.configs.errors import ConfigError, Origin, Problem
from optimization.configs.experiment_config import ExperimentConfig
from optimization.configs.experiment_file import own_settings
from optimization.configs.layers import findings, layered, of_the_layers
from optimization.configs.leaves import Written, histories
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.overrides import put, read_override
from optimization.configs.yaml_file import SourcedDict

AnyConfig = OptimizationConfig | ExperimentConfig

overrides_option = click.option(
    "--params-override",
    "overrides",
    metavar="SETTINGS",
    multiple=True,
    help="Settings that go over the files: `a.b=1,c.d=[1,2]`; may be repeated.",
)
_LENGTHS = {
    "train_steps": "The length of the training, for '10%' and 'remaining'",
    "steps_per_epoch": "Optimizer steps of one epoch, for '5 epochs'",
    "global_batch_size": "Examples of one update, for '1M examples'",
    "tokens_per_step": "Tokens of one update, for '300B tokens'",
}


def length_options(function: Callable) -> Callable:
    """Adds the options that say how long is trained, which the function gets as `length`."""

    @functools.wraps(function)
    def with_length(**values: Any) -> Any:
        length = TrainingLength(**{name: values.pop(name) for name in _LENGTHS})
        return function(length=length, **values)

    for name, meaning in reversed(_LENGTHS.items()):
        flag, text = f"--{name.replace('_', '-')}", f"{meaning} in files that don't say it."
        click.option(flag, type=WholeNumber(1), metavar="N", help=text)(with_length)
    return with_length


_WRITTEN_AT = {"global_batch_size": "task.train_data.global_batch_size"}


class Layers(NamedTuple):
    """What layers of settings make.

    Attributes:
        config: The config as it was written, defaults filled in.
        resolved: The config with steps as numbers, as far as the length of the training is known.
        histories: All that each value has been, by its path.
        doubts: What is likely a mistake and yet works.
        knows_task: Whether all of the task is there, since its class is known.
    """

    config: AnyConfig
    resolved: AnyConfig
    histories: dict[str, list[Written]]
    doubts: list[Problem]
    knows_task: bool = True

    def is_known(self, path: str) -> bool:
        """Whether a value can be shown: it is no part of a task that is not known."""
        return self.knows_task or path.partition(".")[0] != "task"


def read_layers(
    files: Sequence[str],
    overrides: Sequence[str] | None = None,
    experiment: ExperimentConfig | None = None,
    length: TrainingLength = UNKNOWN,
) -> Layers:
    """Reads files and overrides as layers, over a registered experiment if there is one.

    Without one, the `task` of experiment files is left out but for the size of its training batch,
    and what is not set, the registered experiment may set: no error. Of a file that is the
    optimization section alone, beside experiment files, the settings are those of the section.

    Raises:
        ConfigError: Every mistake of every layer, and of what they make.
        click.BadParameter: If `length` is given and experiment files say it.
    """
    read = [yaml_file.read_file(path) for path in files]
    texts = enumerate(overrides or (), start=1)
    added = [read_override(text, f"override {number}") for number, text in texts]
    params = [layer for layer, _ in read]
    problems = [problem for _, found in [*read, *added] for problem in found]
    for path, (layer, found) in zip(files, read, strict=True):
        if not layer and not found:
            problems.append(Problem("missing", "", "is empty: it sets nothing", Origin(path)))
    base: AnyConfig = OptimizationConfig() if experiment is None else experiment
    is_whole = experiment is not None or any(_is_experiment(layer) for layer in params)
    if is_whole and any(length):
        name = next(name for name, value in length._asdict().items() if value)
        place = _WRITTEN_AT.get(name, f"trainer.{name}")
        message = f"an experiment says it by `{place}`: leave this option out, "
        message += (
            "or write it in the file"
            if overrides is None
            else f"or write --params-override={place}=..."
        )
        raise click.BadParameter(message, param_hint=f"--{name.replace('_', '-')}")
    if is_whole and experiment is None:
        base = ExperimentConfig()
        sorted_out = [own_settings(_whole(layer)) for layer in params]
        params = [layer for layer, _ in sorted_out]
        problems += [problem for _, found in sorted_out for problem in found]
    params += [layer for layer, _ in added]
    is_open = is_whole and experiment is None
    made = _made(base, params, problems, length, complete=not is_open)
    left_out = [layer.origins["task"] for layer, _ in read if is_open and "task" in layer]
    message = "is left out: --experiment NAME, with --import MODULE, says what it may hold"
    doubts = [Problem("incomplete", "task", message, origin) for origin in left_out]
    first, _ = layered(base, [] if experiment is not None else params[:1])
    if isinstance(first, ExperimentConfig) and isinstance(made.resolved, ExperimentConfig):
        doubts += batch_without_rate(first, made.resolved)
    return made._replace(doubts=[*doubts, *made.doubts], knows_task=not is_open)


def _made(
    base: AnyConfig,
    params: Sequence[Mapping],
    problems: list[Problem],
    length: TrainingLength,
    complete: bool,
) -> Layers:
    config, found_values, found = histories(base, params)
    problems = [*problems, *found]
    if isinstance(config, OptimizationConfig):
        # What a duration takes may be unknown; what it comes to may be wrong.
        problems += [p for p in config.sized(length)[1] if p.code != "missing"]
    resolved = in_training(config, length)
    errors, doubts = findings(resolved, problems)
    if not complete:
        incomplete = [e for e in errors if e.code == "missing" and e not in problems]
        errors = [error for error in errors if error not in incomplete]
        doubts += [e._replace(code="incomplete", message=_left_open(e)) for e in incomplete]
        hint = "; --experiment NAME says what a task may hold"
        errors = [
            e._replace(message="is not known" + hint) if e.path.startswith("task.") else e
            for e in errors
        ]
    if errors:
        raise ConfigError(errors)
    return Layers(config, resolved, found_values, of_the_layers(doubts))


def _left_open(problem: Problem) -> str:
    if "required" not in problem.message:  # a duration, which says what it takes
        return problem.message
    return "is not set in these files; the registered experiment must set it"


def _is_experiment(layer: Mapping[str, Any]) -> bool:
    return bool({"trainer", "task", "runtime"} & set(layer))


def _whole(layer: SourcedDict) -> SourcedDict:
    """Returns a layer of an experiment; a section of optimization in its place in that."""
    if _is_experiment(layer) or not layer:
        return layer
    names = {*OptimizationConfig.field_names()}
    if not names & set(layer):
        return layer
    whole = SourcedDict()
    put(whole, "trainer.optimizer_config", layer, next(iter(layer.origins.values())))
    return whole
