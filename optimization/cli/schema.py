"""`optfactory schema`: the JSON Schema of the files."""

import json
from pathlib import Path
from typing import Annotated

import typer

from optimization.cli.experiments import Experiment, Modules, load
from optimization.cli.output import writing
from optimization.configs.json_schema import schema


def command(
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="The file to write; none: print it."),
    ] = None,
    modules: Modules = None,
    experiment: Experiment = None,
) -> None:
    """Print the JSON Schema of experiments, optimization sections and sweeps, for editors.

    Types of one's own are in it with --import, the settings of a task with --experiment.
    """
    base = load(modules, experiment)
    made = text(None if base is None else type(base.task))
    if output is None:
        print(made, end="")
        return
    with writing(output):
        output.write_text(made, encoding="utf-8")
    print(f"{output} is written; the first line of a file names it to an editor:")
    print(f"# yaml-language-server: $schema={output}")


def text(task: type | None = None) -> str:
    """Returns the schema as it is printed, and as it ships in the package."""
    return json.dumps(schema(task), indent=1, ensure_ascii=False) + "\n"
