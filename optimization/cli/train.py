"""`optfactory train`: trains as a training binary does."""

import enum
import inspect
from typing import Annotated, Any

import typer

from optimization.cli.experiments import Modules, load
from optimization.training.flags import FLAGS, RunFlags


def command(modules: Modules = None, verbosity: int = 0, **values: Any) -> None:
    """Train, evaluate, or both: what a training binary does, with the same flags."""
    from optimization.training.binary import reporting, run_flags

    load(modules, None)
    values["mode"] = str(values["mode"])
    flags = RunFlags(**{name: v for name, v in values.items() if v is not None})
    raise typer.Exit(reporting(lambda: run_flags(flags), verbosity > 0))


def _parameters() -> list[inspect.Parameter]:
    """Returns the parameters of the command: `--import`, each flag of a binary, `--verbosity`."""
    kinds: dict[str, Any] = {"modules": Modules}
    for field in FLAGS:
        words = field.metadata
        choices = words["choices"]
        kind = enum.StrEnum(field.name, {c: c for c in choices}) if choices else field.type
        option = typer.Option(
            f"--{field.name}", help=words["help"], metavar=words["metavar"] or None
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
