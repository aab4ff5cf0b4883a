"""The flags of a training, defined once: for binaries by absl, for `optfactory train` by click."""

import dataclasses
from typing import Any

from optimization.configs.experiment_config import MODES
from optimization.training.errors import TrainingError


def _flag(default: Any, help: str, metavar: str = "", choices: tuple[str, ...] = ()) -> Any:
    """Declares a flag: its default, what it is for, what its value is called.

    A list may be given several times; a `bool` takes no value; `choices` are its only values.
    """
    make = {"default_factory": list} if default == [] else {"default": default}
    words = {"help": help, "metavar": metavar, "choices": choices}
    return dataclasses.field(metadata=words, **make)


@dataclasses.dataclass
class RunFlags:
    """What a command line says of a run; the help of each flag is in its metadata.

    >>> RunFlags(experiment="tiny").mode
    'train_and_eval'
    """

    experiment: str | None = _flag(
        None,
        "The registered experiment. It can be left out where a file of settings names it, as "
        "params.yaml does.",
        "NAME",
    )
    config_file: list[str] = _flag(  # noqa: RUF009  it makes a new list each time
        [],
        "A YAML file of settings that go over those of the experiment. May be repeated; the later "
        "one wins.",
        "FILE",
    )
    params_override: list[str] = _flag(  # noqa: RUF009  it makes a new list each time
        [],
        "Settings that go over those of the files: `a.b=1,c.d=[1,2]`, or YAML or JSON text, or the "
        "path of a .yaml or .json file. May be repeated; the later one wins.",
        "SETTINGS",
    )
    mode: str = _flag("train_and_eval", f"What to do: {', '.join(MODES)}.", "MODE", MODES)
    model_dir: str | None = _flag(
        None,
        "The directory of the run: checkpoints, summaries, params.yaml. A run that stopped goes on "
        "from its latest checkpoint there. The modes that evaluate take its params.yaml in the "
        "place of the experiment's settings; so does export.",
        "DIR",
    )
    checkpoint: str | None = _flag(
        None,
        "What --mode=eval evaluates and --mode=export exports: latest (the default), best, or the "
        "path of a checkpoint.",
        "CHECKPOINT",
    )
    sweep: str | None = _flag(
        None,
        "A YAML file of a sweep: which settings to try, over those of the other flags. Each trial "
        "is a run in a directory of its own in --model_dir, which has the summary.",
        "FILE",
    )
    dry_run: bool = _flag(
        False,
        "Show what a training would be, and stop: the settings and where each comes from, the "
        "learning rate, the group of each variable, the memory. Nothing is written.",
    )

    def refuse(self, flag: str, *others: str) -> None:
        """Raises a `TrainingError` if one of `others` is set, which don't go with `flag`."""
        usual = RunFlags()
        for name in others:
            if getattr(self, name) != getattr(usual, name):
                raise TrainingError(f"--{name} can't be combined with --{flag}")


FLAGS = dataclasses.fields(RunFlags)
