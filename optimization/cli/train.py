"""`optfactory train`: trains as a training binary does."""

import enum
import inspect
import re
from typing import Annotated, Any

import typer

from optimization.cli.experiments import check_registered, load
from optimization.training.flags import FLAGS, RunFlags
from optimization.training.registries import experiment_names, summary_of


def command(modules: list[str] | None = None, verbosity: int = 0, **values: Any) -> None:
    """Train, evaluate, or both: what a training binary does, with the same flags."""
    from optimization.training.binary import reporting, run_flags

    del modules  # `_imported` has imported them.
    check_registered()
    values["mode"] = str(values["mode"])
    flags = RunFlags(**{name: v for name, v in values.items() if v is not None})
    raise typer.Exit(reporting(lambda: run_flags(flags), verbosity > 0))


def _imported(context: typer.Context, modules: list[str] | None) -> list[str] | None:
    """Imports the modules, at once, so that a `--help` that follows lists what they register."""
    load(modules, None)
    known = "".join(f"\n\n{name}: {summary_of(name)}" for name in experiment_names())
    context.command.epilog = f"Experiments:{known}" if known else None
    return modules


_HELP = (
    "Import a module that registers types, tasks or experiments; may be repeated. A --help after "
    "it lists the experiments."
)


def _spelled(text: str) -> str:
    """Returns a text in which flags have dashes in their names, as all options here."""
    return re.sub(r"--\w+", lambda flag: flag[0].replace("_", "-"), text)


def _parameters() -> list[inspect.Parameter]:
    """Returns the parameters of the command: `--import`, each flag of a binary, `--verbosity`."""
    imports = typer.Option(
        "--import", metavar="MODULE", help=_HELP, callback=_imported, is_eager=True
    )
    kinds: dict[str, Any] = {"modules": Annotated[list[str] | None, imports]}
    for field in FLAGS:
        words = field.metadata
        choices = words["choices"]
        kind = enum.StrEnum(field.name, {c: c for c in choices}) if choices else field.type
        option = typer.Option(
            _spelled(f"--{field.name}"),
            help=_spelled(words["help"]),
            metavar=words["metavar"] or None,
        )
        kinds[field.name] = Annotated[kind, option]
    text = "1 adds the traceback to the text of an error."
    kinds["verbosity"] = Annotated[int, typer.Option("--verbosity", help=text)]
    defaults = {"modules": None, **vars(RunFlags()), "verbosity": 0}
    keyword = inspect.Parameter.KEYWORD_ONLY
    return [
        inspect.Parameter(name, keyword, default=defaults[name], annotation=kind)
        for name, kind in kinds.items()
    ]


command.__signature__ = inspect.Signature(_parameters())  # type: ignore[attr-defined]
command.__annotations__ = {p.name: p.annotation for p in _parameters()}
