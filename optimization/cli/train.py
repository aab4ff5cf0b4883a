"""`optfactory train`: trains as a training binary does."""

import re
from collections.abc import Iterator, Sequence
from typing import Any

import click

from optimization.cli.command import Choice, Command
from optimization.cli.experiments import check_registered, load
from optimization.training.flags import FLAGS, RunFlags
from optimization.training.registries import experiment_names, summary_of


def _train(modules: Sequence[str], verbosity: int, **values: Any) -> int:
    """Train, evaluate, or both: what a training binary does, with the same flags."""
    from optimization.training.binary import reporting, run_flags

    del modules  # `_imported` has imported them.
    check_registered()
    given: dict[str, Any] = {k: [*v] if isinstance(v, tuple) else v for k, v in values.items()}
    flags = RunFlags(**given)
    return reporting(lambda: run_flags(flags), verbosity > 0)


def _imported(context: click.Context, _: Any, modules: Sequence[str]) -> Sequence[str]:
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


def _options() -> Iterator[click.Option]:
    """Yields the options of the command: `--import`, each flag of a binary, `--verbosity`."""
    yield click.Option(
        ["--import", "modules"],
        metavar="MODULE",
        multiple=True,
        help=_HELP,
        callback=_imported,
        is_eager=True,
    )
    for field in FLAGS:
        words, name = field.metadata, _spelled(f"--{field.name}")
        help_text, default = _spelled(words["help"]), getattr(RunFlags(), field.name)
        if field.type is bool:
            flag = f"{name}/{name.replace('--', '--no-')}"
            yield click.Option([flag, field.name], default=default, help=help_text)
            continue
        is_path = words["metavar"] in ("FILE", "DIR")
        choices = Choice(words["choices"]) if words["choices"] else None
        yield click.Option(
            [name, field.name],
            type=choices or (click.Path() if is_path else str),
            metavar=words["metavar"],
            multiple=isinstance(default, list),
            default=default,
            help=help_text,
        )
    text = "1 adds the traceback to the text of an error."
    yield click.Option(["--verbosity"], type=int, metavar="N", default=0, help=text)


command = Command("train", params=[*_options()], callback=_train, help=str(_train.__doc__))
