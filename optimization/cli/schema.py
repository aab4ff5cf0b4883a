"""`optfactory schema`: the JSON Schema of the files."""

import json
from pathlib import Path
from typing import Annotated

import typer

from optimization.cli.experiments import Experiment, Modules, load
from optimization.cli.output import writing

SHIPPED = Path(__file__).parents[1] / "schema.json"


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
    if modules or experiment:
        base = load(modules, experiment)
        made = text(None if base is None else type(base.task))
    else:  # it is made in half a second, and ships
        made = SHIPPED.read_text(encoding="utf-8")
    if output is None:
        print(made, end="")
        return
    with writing(output):
        output.write_text(made, encoding="utf-8")
    print(f"{output} is written; the first line of a file names it to an editor:")
    print(f"# yaml-language-server: $schema={output}")


def text(task: type | None = None) -> str:
    """Returns the schema as it is printed, and as it ships in the package."""
    from optimization.configs.json_schema import schema

    return json.dumps(schema(task), indent=1, ensure_ascii=False) + "\n"
