"""`main()` of training binaries: flags, layers of settings, errors without tracebacks."""

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any

from absl import app, flags, logging

from optimization import extras
from optimization.configs.errors import ConfigError, ConfigWarning, warn
from optimization.configs.experiment_config import MODES, ExperimentConfig
from optimization.configs.layers import findings, layered, read_layers
from optimization.training.errors import TrainingError
from optimization.training.imports import quiet_libraries
from optimization.training.registries import experiment_names, get_experiment


def define_flags(flag_values: flags.FlagValues = flags.FLAGS) -> None:
    """Defines the flags of a training binary, once."""
    if "params_override" in flag_values:
        return
    flags.DEFINE_string(
        "experiment", None, "The name of a registered experiment.", flag_values=flag_values
    )
    flags.DEFINE_multi_string(
        "config_file",
        [],
        "A YAML file of settings that go over those of the experiment. May be repeated; the later "
        "one wins.",
        flag_values=flag_values,
    )
    flags.DEFINE_multi_string(
        "params_override",
        [],
        "Settings that go over those of the files: `a.b=1,c.d=[1,2]`, or YAML or JSON text, or the "
        "path of a .yaml or .json file. May be repeated; the later one wins.",
        flag_values=flag_values,
    )
    flags.DEFINE_enum("mode", "train_and_eval", MODES, "What to do.", flag_values=flag_values)
    flags.DEFINE_string(
        "model_dir",
        None,
        "The directory of the run: checkpoints, summaries, params.yaml. A run that stopped goes on "
        "from its latest checkpoint there.",
        flag_values=flag_values,
    )


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line of a training binary, and exits.

    A binary of one's own imports the modules that register its tasks and calls this:

        from optimization import training

        import my_tasks  # registers experiments and tasks

        if __name__ == "__main__":
            training.main()

    The settings are those of `--experiment`, then each `--config_file`, then each
    `--params_override`; later ones win. The result is written to `params.yaml` in `--model_dir`, a
    config file that repeats the run. What a user can put right is told on standard error without a
    traceback, with exit status 1; `--verbosity=1` adds the traceback.

    Args:
        argv: The command line, the program's name first; None for `sys.argv`.
    """
    define_flags()
    app.run(_run, None if argv is None else list(argv))


def _run(argv: Sequence[str]) -> None:
    if not flags.FLAGS["verbosity"].present:
        # `app.run` shows TensorFlow's own notes on every checkpoint otherwise.
        logging.set_verbosity(logging.WARNING)
    sys.exit(_reporting(lambda: _run_flags(argv, flags.FLAGS)))


def _reporting(run: Callable[[], None]) -> int:
    """Runs and returns the exit status, 1 after a mistake of the user's, told in words."""
    with warnings.catch_warnings():
        # Python's own list of filters shows a warning once for each place; ours have none.
        warnings.simplefilter("always", ConfigWarning)
        warnings.showwarning = _show_warning(warnings.showwarning)
        try:
            run()
        except (ConfigError, TrainingError) as error:
            if _is_verbose():
                raise
            print(f"error: {error}", file=sys.stderr)
            return 1
        except Exception as error:
            if not _is_of_the_machine(error) or _is_verbose():
                raise
            if isinstance(error, ModuleNotFoundError):
                error = extras.explained(error)
            kind, text = type(error).__name__, str(error).strip().partition("\n")[0]
            print(f"error: {kind}: {text} (--verbosity=1 shows where)", file=sys.stderr)
            return 1
        except KeyboardInterrupt:
            print("interrupted; the same command goes on from the last checkpoint", file=sys.stderr)
            return 130
    return 0


def _is_verbose() -> bool:
    return flags.FLAGS.is_parsed() and flags.FLAGS.verbosity > 0


def _is_of_the_machine(error: Exception) -> bool:
    """Whether a file, a device, the memory or a missing package is at fault, not the code."""
    if isinstance(error, OSError | ImportError | MemoryError):
        return True
    tensorflow = sys.modules.get("tensorflow")
    return tensorflow is not None and isinstance(error, tensorflow.errors.OpError)


def _show_warning(default: Callable[..., None]) -> Callable[..., None]:
    def show(message: Any, category: type, *place: Any, **kwargs: Any) -> None:
        if issubclass(category, ConfigWarning):
            print(f"warning: {message}", file=sys.stderr)
        else:
            default(message, category, *place, **kwargs)

    return show


def _run_flags(argv: Sequence[str], values: flags.FlagValues) -> None:
    if len(argv) > 1:
        raise TrainingError(f"unexpected argument {argv[1]!r}; settings go to --params_override")
    if not values.model_dir:
        raise TrainingError("--model_dir is required")
    config = resolve_flags(
        values.experiment, values.config_file, values.params_override, values.mode
    )
    with quiet_libraries():
        extras.require("tensorflow")
        from optimization.training.run import run_experiment
    run_experiment(config, values.mode, values.model_dir)


def resolve_flags(
    experiment: str | None,
    config_files: Sequence[str] = (),
    overrides: Sequence[str] = (),
    mode: str = "train_and_eval",
) -> ExperimentConfig:
    """Returns the config that the flags of a training binary describe.

    Raises:
        ConfigError: Every mistake of every layer at once.
        TrainingError: If there is no such experiment.
    """
    if not experiment:
        names = ", ".join(experiment_names()) or "none"
        raise TrainingError(f"--experiment is required; registered: {names}")
    layers, unreadable = read_layers(config_files, overrides)
    config, mistakes = layered(get_experiment(experiment), layers)
    errors, doubts = findings(config, [*unreadable, *mistakes])
    known = {problem.path for problem in errors}
    errors += [problem for problem in config.problems_in_mode(mode) if problem.path not in known]
    if errors:
        raise ConfigError(errors)
    for doubt in doubts:
        # What a file or a flag wrote. That another type is selected than the experiment's own
        # needs no warning.
        if doubt.origin is not None:
            warn(doubt)
    return config
