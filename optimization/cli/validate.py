"""`optfactory validate`: checks files."""

import sys

import typer

from optimization.cli.experiments import Experiment, Modules, load
from optimization.cli.files import Files, matching, read
from optimization.configs.errors import ConfigError
from optimization.configs.optimization_config import OptimizationConfig


def command(files: Files, modules: Modules = None, experiment: Experiment = None) -> None:
    """Check YAML files, every error of every file at once. Exit code 1 if any is wrong."""
    base = load(modules, experiment)
    failed = False
    for path in matching(files):
        try:
            config, doubts = read(path, base)
        except ConfigError as error:
            failed = True
            print(f"{error}", file=sys.stderr)
            continue
        for doubt in doubts:
            print(f"{doubt} (warning)", file=sys.stderr)
        print(f"{path}: fine{_summary(config)}")
    if failed:
        raise typer.Exit(1)


def _summary(config: OptimizationConfig) -> str:
    """Returns what the config selects, in brackets; "" if nothing."""
    parts = [
        f"{name} {section.type}"
        for name in ("optimizer", "learning_rate", "warmup")
        if (section := getattr(config, name)).type is not None
    ]
    parts += ["ema"] if config.ema else []
    return f" ({', '.join(parts)})" if parts else ""
