"""`main()` of training binaries: flags, layers of settings, errors without tracebacks."""

import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from optimization import extras
from optimization.configs.errors import ConfigError, ConfigWarning, Problem, warn
from optimization.configs.experiment_config import ExperimentConfig, TrainerConfig
from optimization.configs.layers import findings, layered, of_the_layers, read_layers
from optimization.configs.yaml_file import SourcedDict
from optimization.training.checkpoint_files import awaited, latest_checkpoint
from optimization.training.dry_run import show_model, show_settings
from optimization.training.errors import CheckpointError, TrainingError, WorkerError, first_line
from optimization.training.flags import FLAGS, RunFlags
from optimization.training.history import PARAMS_FILE
from optimization.training.imports import quiet_libraries
from optimization.training.registries import experiment_names, get_experiment, summary_of
from optimization.training.resuming import before_tensorflow
from optimization.training.run import check_directory, check_run, run_experiment
from optimization.training.signals import stopping
from optimization.training.sweep import run_sweep


def define_flags() -> None:
    """Defines the flags of a training binary, once."""
    if "params_override" in flags.FLAGS:
        return
    for field in FLAGS:
        usual, text = getattr(RunFlags(), field.name), field.metadata["help"]
        if field.metadata["choices"]:
            flags.DEFINE_enum(field.name, usual, field.metadata["choices"], text)
        elif isinstance(usual, bool):
            flags.DEFINE_bool(field.name, usual, text)
        elif isinstance(usual, list):
            flags.DEFINE_multi_string(field.name, usual, text)
        else:
            flags.DEFINE_string(field.name, usual, text)
    for flag in flags.FLAGS.get_flags_for_module(__name__):
        # So that --help tells of them, not only --helpfull.
        flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line of a training binary, and exits.

    A binary of one's own imports the modules that register its tasks and calls this:

        from optimization import training

        import my_tasks  # registers experiments and tasks

        if __name__ == "__main__":
            training.main()

    The settings are those of `--experiment`, then each `--config_file`, then each
    `--params_override`; later ones win. The result is written to `params.yaml` in `--model_dir`, a
    config file that repeats the run. `--mode=eval` and `continuous_eval` start from that file and
    need no other flag; `--checkpoint` says what is evaluated. `--help` lists the flags, those of
    the binary's own too, and the registered experiments. What a user can put right is told on
    standard error without a traceback, with exit status 1; `--verbosity=1` adds the traceback.

    Args:
        argv: The command line, the program's name first; None for `sys.argv`.
    """
    define_flags()
    arguments = list(sys.argv if argv is None else argv)
    if {"-h", "-help", "--help", "-helpshort", "--helpshort"}.intersection(arguments[1:]):
        print(help_text())
        sys.exit(0)
    app.run(_run, arguments)


def _run(argv: Sequence[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
        # `app.run` shows TensorFlow's own notes on every checkpoint otherwise.
        logging.set_verbosity(logging.WARNING)
    sys.exit(reporting(lambda: run_flags(parsed(argv)), flags.FLAGS.verbosity > 0))


def parsed(argv: Sequence[str]) -> RunFlags:
    """Returns the values of absl's flags; `argv` is what it has left of the command line."""
    if len(argv) > 1:
        raise TrainingError(f"unexpected argument {argv[1]!r}; settings go to --params_override")
    values: dict[str, Any] = {field.name: flags.FLAGS[field.name].value for field in FLAGS}
    return RunFlags(**values)


def help_text() -> str:
    """Returns what `--help` says: the binary's flags, its own among them, and its experiments."""
    own = [flag.name for flag in flags.FLAGS.get_key_flags_for_module(sys.argv[0])]
    names = dict.fromkeys([*(field.name for field in FLAGS), *sorted(own)])
    lines = [
        (getattr(sys.modules["__main__"], "__doc__", None) or "Trains and evaluates.").strip(),
        "",
        f"usage: {os.path.basename(sys.argv[0])} --experiment=NAME --model_dir=DIR [flags]",
        "",
        "flags:",
    ]
    words: dict[str, Any] = {field.name: field.metadata for field in FLAGS}
    for name in names:
        flag, metadata = flags.FLAGS[name], words.get(name, {})
        lines += _indented(f"--{name}{_value_of(flag, metadata.get('metavar'))}", 2)
        lines += _indented(metadata.get("help") or flag.help or "", 6)
    lines += ["", "experiments:", *_listed_experiments()]
    return "\n".join([*lines, "", "--helpfull lists the flags of all modules."])


def _value_of(flag: flags.Flag, metavar: str | None) -> str:
    """Returns what stands for the value of a flag; "" for a switch."""
    if flag.boolean:
        return ""
    choices = getattr(flag.parser, "enum_values", None)
    return f"={'|'.join(choices) if choices else metavar or 'VALUE'}"


def _listed_experiments() -> list[str]:
    names = experiment_names()
    if not names:
        return ["  none is registered: import the modules that register some"]
    width = max(map(len, names))
    return [
        line
        for name in names
        for line in _indented(f"{name:<{width}}  {summary_of(name)}", 2, width + 4)
    ]


def _indented(text: str, first: int, others: int | None = None) -> list[str]:
    width = min(shutil.get_terminal_size().columns, 100)
    following = " " * (first if others is None else others)
    return textwrap.wrap(text, width, initial_indent=" " * first, subsequent_indent=following)


def reporting(run: Callable[[], None], traceback: bool = False) -> int:
    """Runs and returns the exit status: 1 after a mistake of the user's, told in words.

    After a signal it is 128 and the number of the signal.

    With `traceback` such a mistake is raised too.
    """
    show_other = warnings.showwarning

    def show(message: Any, category: type[Warning], *place: Any, **kwargs: Any) -> None:
        if issubclass(category, ConfigWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            show_other(message, category, *place, **kwargs)

    with warnings.catch_warnings():
        # Python's own list of filters shows a warning once for each place; ours have none.
        warnings.simplefilter("always", ConfigWarning)
        warnings.showwarning = show
        try:
            with stopping(door=True) as stop:
                run()
            if stop.signum is not None:
                return stop.status
        except Exception as error:
            text = _told(error)
            if text is None or traceback:
                raise
            print(f"error: {text}", file=sys.stderr)
            if isinstance(error, WorkerError):
                _leave(1)
            return 1
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
            return 130
    return 0


def _leave(status: int) -> None:
    """Ends the process without what TensorFlow does at its end: it waits for a worker that is gone.

    Nothing is left to do then: what ran inside has been left.
    """
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(status)


def _told(error: Exception) -> str | None:
    """Returns a mistake of the user's, or what the machine lacks, in words; None for our faults."""
    if isinstance(error, ConfigError | TrainingError):
        return str(error)
    tensorflow = sys.modules.get("tensorflow")
    of_tensorflow = tensorflow is not None and isinstance(error, tensorflow.errors.OpError)
    if not (of_tensorflow or isinstance(error, OSError | ImportError | MemoryError)):
        return None
    if isinstance(error, ModuleNotFoundError):
        error = extras.explained(error)
    if isinstance(error, extras.MissingExtraError):  # whose text says it all
        return str(error)
    return f"{first_line(error)} (--verbosity=1 shows where)"


def run_flags(values: RunFlags) -> None:
    """Does what the flags say.

    Raises:
        ConfigError: Every mistake of the settings.
        TrainingError: For flags that don't go together, and for what a run brings to light.
    """
    if values.dry_run:
        values.refuse("dry_run", "sweep", "checkpoint")
        if not values.mode.startswith("train"):
            raise TrainingError(f"--dry_run is for training, the mode is {values.mode!r}")
    elif not values.model_dir:
        raise TrainingError("--model_dir is required")
    # A shell leaves the ~ of `--model_dir=~/run` alone.
    model_dir = os.path.expanduser(values.model_dir or "")
    checkpoint = values.checkpoint and os.path.expanduser(values.checkpoint)
    config = _settings(values, model_dir)
    if values.sweep:
        values.refuse("sweep", "mode", "checkpoint")
        run_sweep(config, os.path.expanduser(values.sweep), model_dir)
        return
    # Once more than `run_experiment` does, since TensorFlow takes long to load.
    found = check_run(config, values.mode, model_dir, checkpoint, writes=not values.dry_run)
    if values.dry_run:
        config = before_tensorflow(config, model_dir, found)  # with the schedules of the run
        show_settings(config)
    with quiet_libraries():
        extras.require("tensorflow")
    if values.dry_run:
        show_model(config)
        return
    run_experiment(config, values.mode, model_dir, checkpoint=checkpoint)


def _settings(values: RunFlags, model_dir: str) -> ExperimentConfig:
    """Returns the config that the flags describe, for evaluation over that of the run itself."""
    files = [os.path.expanduser(path) for path in values.config_file]

    def resolved(*own: str) -> ExperimentConfig:
        return resolve_flags(
            values.experiment, [*own, *files], values.params_override, values.mode, doubted=not own
        )

    params = os.path.join(model_dir, PARAMS_FILE)
    if values.mode.startswith("train"):
        if model_dir and os.path.exists(params) and not (values.experiment or files):
            message = f"to go on with the run in {model_dir!r}, give --config_file={params}"
            raise TrainingError(f"--experiment is required; {message}")
        return resolved()
    check_directory(model_dir)
    if values.mode == "continuous_eval" and not os.path.exists(params):
        config = resolved() if values.experiment or files else None
        trainer = TrainerConfig() if config is None else config.trainer
        _wait_for_run(model_dir, trainer.continuous_eval_timeout)
    if os.path.exists(params):
        config = resolved(params)
        changed = ", changed by flags" if files or values.params_override else ""
        print(f"settings of {params}{changed}", flush=True)
        return config
    if not (values.experiment or files):
        kind = "holds no" if os.path.isdir(model_dir) else "does not exist: there is no"
        raise TrainingError(
            f"--model_dir {model_dir!r} {kind} {PARAMS_FILE}, which a run writes there; without it "
            "--experiment is required"
        )
    return resolved()


def _wait_for_run(model_dir: str, seconds: int | None) -> None:
    """Waits until a run has begun in `model_dir`, which has its settings before a checkpoint."""
    params = os.path.join(model_dir, PARAMS_FILE)
    if not awaited(lambda: os.path.exists(params) or latest_checkpoint(model_dir), seconds):
        raise CheckpointError(f"no checkpoint came to {model_dir!r} in {seconds} s")


def resolve_flags(
    experiment: str | None,
    config_files: Sequence[str] = (),
    overrides: Sequence[str] = (),
    mode: str = "train_and_eval",
    doubted: bool = True,
) -> ExperimentConfig:
    """Returns the config, complete for `mode`, that the flags of a training binary describe.

    It warns of what is doubtful; in the first file, the settings of a run, only if `doubted`.

    Raises:
        ConfigError: Every mistake of every layer at once.
        TrainingError: If there is no such experiment.
    """
    layers, unreadable = read_layers(config_files, overrides)
    name, disputes = _named(experiment, layers)
    if not name:
        if unreadable:
            raise ConfigError(unreadable)
        names = ", ".join(experiment_names()) or "none"
        unnamed = f", {' and '.join(map(str, config_files))} names none" if config_files else ""
        raise TrainingError(f"--experiment is required{unnamed}; registered: {names}")
    config, mistakes = layered(_experiment(name, experiment, layers), layers)
    errors, doubts = findings(config, [*unreadable, *mistakes])
    known = {problem.path for problem in errors}
    errors += [problem for problem in config.problems_in_mode(mode) if problem.path not in known]
    if errors:
        raise ConfigError([*disputes, *errors])
    if config.experiment != name:
        config.experiment = name
    quiet = () if doubted else (os.fspath(config_files[0]),)
    told = [d for d in of_the_layers(doubts) if not (d.origin and d.origin.source in quiet)]
    for doubt in [*disputes, *told]:
        warn(doubt)
    config._tell(doubts)
    return config


def _named(experiment: str | None, layers: Sequence[SourcedDict]) -> tuple[str, list[Problem]]:
    """Returns the experiment, and the layers that are of another one."""
    named = [layer for layer in layers if isinstance(layer.get("experiment"), str)]
    name = experiment or (named[-1]["experiment"] if named else "")
    disputes = [
        Problem(
            "experiment",
            "experiment",
            f"these are settings of {layer['experiment']!r}, not of {name!r}, which is taken",
            layer.origins["experiment"],
        )
        for layer in named
        if layer["experiment"] != name
    ]
    return name, disputes


def _experiment(name: str, flag: str | None, layers: Sequence[SourcedDict]) -> ExperimentConfig:
    try:
        return get_experiment(name)
    except TrainingError as error:
        if flag:
            raise
        (*_, origin) = (
            layer.origins["experiment"] for layer in layers if layer.get("experiment") == name
        )
        raise TrainingError(
            f"{origin}: {error} (import the module that registers it, or give --experiment if it "
            "has another name now)"
        ) from None
