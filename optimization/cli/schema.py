"""`optfactory schema`: the JSON Schema of the files."""

import json
from collections.abc import Sequence
from pathlib import Path

import click

from optimization.cli.command import Command
from optimization.cli.experiments import experiment_option, load, modules_option
from optimization.cli.output import output_option, writing

SHIPPED = Path(__file__).parents[1] / "schema.json"


@click.command(cls=Command)
@output_option
@modules_option
@experiment_option
def command(output: Path | None, modules: Sequence[str], experiment: str | None) -> None:
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
