"""`optfactory new`: a file to start from, in which every value is explained."""

import textwrap
from collections.abc import Iterator
from importlib.resources import files
from pathlib import Path
from typing import Any

import click

from optimization.cli.command import Choice, Command
from optimization.cli.output import output_option, writing
from optimization.configs import yaml_file
from optimization.configs.base import Config
from optimization.configs.comments import Comment, key_lines, write_comments
from optimization.configs.documentation import field_doc, first_sentence
from optimization.configs.oneof import OneOfConfig
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.tree import configs_in

RECIPES = {
    "bert": "bert_pretraining",
    "resnet": "resnet50_imagenet",
    "vit": "vit_imagenet",
    "t5": "t5_pretraining",
    "llm": "llama2_7b",
}
"""The recipes of configs/optimization that ship in the package, by the names of `--like`."""

_PLAIN = """\
# AdamW, whose rate rises during the first twentieth of the training and falls along a cosine.
optimizer:
  type: adamw
  adamw:
    weight_decay_rate: 0.01
    exclude_from_weight_decay: [norm, bias]
learning_rate:
  type: cosine
  cosine:
    initial_learning_rate: 1e-3
    decay_steps: remaining
warmup:
  type: linear
  linear:
    warmup_steps: 5%
"""
_WIDTH = 88


@click.command(cls=Command)
@click.option(
    "--like",
    type=Choice([*RECIPES]),
    help="A published recipe to start from; AdamW with a cosine if left out.",
)
@output_option
@click.option("--force", is_flag=True, help="Write over a file that exists.")
def command(like: str | None, output: Path | None, force: bool) -> None:
    """Write a commented file to start from."""
    if force and output is None:
        raise click.BadParameter("it takes --output, the file", param_hint="--force")
    text = commented(recipe(like) if like else _PLAIN)
    if output is None:
        print(text, end="")
        return
    if output.exists() and not force:
        message = f"{output} exists; --force writes over it"
        raise click.BadParameter(message, param_hint="--output")
    with writing(output):
        output.write_text(text, encoding="utf-8")
    print(f"{output} is written; `optfactory validate {output}` checks it")


def recipe(name: str) -> str:
    """Returns the text of a shipped recipe, by its name in `RECIPES`."""
    return files("optimization").joinpath("recipes", f"{RECIPES[name]}.yaml").read_text("utf-8")


def commented(text: str) -> str:
    """Returns the text of an optimization section with a comment above each key that says it."""
    values, _ = yaml_file.read(text)
    meanings = dict(_meanings(OptimizationConfig(values)))
    comments = {}
    for path, line in key_lines(text):
        if meaning := meanings.get(path, ""):
            indent = len(text.splitlines()[line - 1]) - len(text.splitlines()[line - 1].lstrip())
            above = textwrap.wrap(meaning, _WIDTH - indent, break_on_hyphens=False)
            comments[path] = Comment(tuple(f"# {each}" for each in above))
    return write_comments(text, comments)


def _meanings(config: Config) -> Iterator[tuple[str, str]]:
    """Yields what each value means, by its path."""
    for name, value in config._items():
        doc = field_doc(type(config), name)
        if isinstance(config, OneOfConfig):
            if name == "type" and value is not None:
                yield config._join(name), _type_meaning(config)
        elif doc.default:  # no section
            facts = doc.facts[:1].upper() + doc.facts[1:]
            yield config._join(name), f"{doc.meaning} {facts}."
        for _, child in configs_in(value):
            yield from _meanings(child)  # type: ignore[arg-type]  # every Node is a Config


def _type_meaning(config: Any) -> str:
    kind = config.registry.kind.replace(" ", "_") + "s"
    meaning = first_sentence(type(config.get()))
    return f"{meaning} Others: `optfactory list {kind}`."
