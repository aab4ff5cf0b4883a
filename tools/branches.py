"""Writes what the registries know: stub files for type checkers, and lists of types in the docs.

    python -m tools.branches

Run it after a type was added; a test says so if you forget. `configs/branches.pyi` has the types
of every oneof, `optimizers.pyi` of Keras and of PyTorch the classes that are made of rules, which
`torch/__init__.pyi` names too. README.md lists types; docs/torch.md has a table of them.
`schema.json` and `recipes`, copies of files of configs/optimization, ship in the package.
"""

import itertools
import pathlib
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterable
from typing import Any

import optimization
from optimization.cli.new import RECIPES
from optimization.configs.registry import Registry
from optimization.rules.rule import native_name, origins

_PACKAGE = pathlib.Path(optimization.__file__).parent
_ROOT = pathlib.Path(__file__).parents[1]
_WRITTEN = "# Written by `python -m tools.branches`.\n"

_CLASSES = {
    "OptimizerBranches": optimization.OPTIMIZERS_CLS,
    "LearningRateBranches": optimization.LR_CLS,
    "WarmupBranches": optimization.WARMUP_CLS,
}
_IMPORTS = {
    ("optimization.configs.fields", "Section"),
    ("optimization.configs.oneof", "OneOfConfig"),
}


def texts() -> dict[pathlib.Path, str]:
    """Returns the text of each file that has what is derived, by its path."""
    rules = [rule for rule in origins() if _is_own(rule)]
    keras = {rule.class_name: "rule_optimizer.RuleOptimizer" for rule in rules}
    torch = {
        native_name(rule): (
            "schedule_free.ScheduleFree" if rule.schedule_free else "rule_optimizer.RuleOptimizer"
        )
        for rule in rules
        if native_name(rule)
    }
    return {
        _PACKAGE / "configs" / "branches.pyi": _branches(),
        _PACKAGE / "keras" / "optimizers.pyi": _derived("optimization.keras", keras),
        _PACKAGE / "torch" / "optimizers.pyi": _derived("optimization.torch", torch),
        **_replaced(
            _PACKAGE / "torch" / "__init__.pyi", r"(from \.optimizers .*\n)+", _named(torch)
        ),
        **_readme(),
        **_shipped(),
        **_replaced(
            _ROOT / "docs" / "torch.md",
            r"(?<=\| otherwise \|\n\|---\|---\|---\|\n)(\|.*\n)+",
            _natively(),
        ),
    }


def _replaced(path: pathlib.Path, pattern: str, text: str) -> dict[pathlib.Path, str]:
    """Returns a file's text, in which what a pattern finds is replaced; nothing if it is absent."""
    if not path.exists():
        return {}
    return {path: re.sub(pattern, lambda match: text, path.read_text(encoding="utf-8"), count=1)}


def _readme() -> dict[pathlib.Path, str]:
    """Returns README's text with the types that there are."""
    path, texts = _ROOT / "README.md", {"optimizer": _listed(), "learning_rate": _rates()}
    if not path.exists():
        return {}
    text = path.read_text(encoding="utf-8")
    for name, listed in texts.items():
        text = re.sub(rf"(?<=\| `{name}` \| ).*(?= \|\n)", lambda _, t=listed: t, text, count=1)
    return {path: text}


def _rates() -> str:
    """Returns the types of learning rates, those of transformers by their beginning."""
    names = [name for name in _types(optimization.LR_CLS) if not name.startswith("hf_")]
    of_transformers = "all of [transformers](docs/transformers.md) as `hf_...`"
    return f"{' '.join(f'`{name}`' for name in names)}, and {of_transformers}"


def _named(classes: Iterable[str]) -> str:
    """Returns the imports of PyTorch's classes, but for the one that has its own module."""
    names = sorted({*classes} - {"Adafactor"}, key=lambda name: (not name.isupper(), name.lower()))
    return "".join(f"from .optimizers import {name} as {name}\n" for name in names)


def _listed() -> str:
    """Returns the types of optimizers, those under Keras' names last."""
    names = list(_types(optimization.OPTIMIZERS_CLS))
    experimental = [name for name in names if name.endswith("_experimental")]
    first, last = (
        " ".join(f"`{name}`" for name in group)
        for group in ([name for name in names if name not in experimental], experimental)
    )
    free = "[`schedule_free_`](docs/schedule_free.md) ones average by themselves"
    return f"{first}, and {last} under Keras' names; {free}"


def _natively() -> str:
    """Returns the rows of the table that says which class of PyTorch a type is."""
    rows: dict[tuple[str, str], list[str]] = {}
    for name, rule in _types(optimization.OPTIMIZERS_CLS).items():
        rows.setdefault(_cells(rule), []).append(f"`{name}`")
    found = [(", ".join(names), *cells) for cells, names in rows.items()]
    return "".join(" ".join(f"| {cell}".rstrip() for cell in row) + " |\n" for row in found)


def _cells(rule: Any) -> tuple[str, str]:
    """Returns the classes of a type: torch's own, and when that is it, and this library's."""
    torchs = f"`torch.optim.{rule.torch_class}`" if rule.torch_class else ""
    ours = f"`{native_name(rule.origin())}`" if native_name(rule.origin()) else ""
    first, second = ((torchs, rule.torch_note), (ours, rule.native_note))
    return ": ".join(filter(None, first)), ": ".join(filter(None, second))


def _derived(package: str, bases: dict[str, str]) -> str:
    """Returns the stub of classes, each with the base that it has in a package."""
    imports = [base.split(".") for base in sorted({*bases.values()})]
    lines = [f"from {package}.{module} import {name}" for module, name in imports]
    lines += [f"\nclass {name}({bases[name].split('.')[1]}): ..." for name in sorted(bases)]
    return "\n".join([_WRITTEN, *lines]).replace(": ...\n\n", ": ...\n") + "\n"


def _branches() -> str:
    types = {name: _types(registry) for name, registry in _CLASSES.items()}
    classes = {cls for branches in types.values() for cls in branches.values()}
    imports = sorted(_IMPORTS | {(cls.__module__, cls.__name__) for cls in classes})
    parts = [_WRITTEN]
    for module, found in itertools.groupby(imports, key=lambda pair: pair[0]):
        start, names = f"from {module} import ", ", ".join(name for _, name in found)
        lines = textwrap.wrap(names, 100 - len(start))
        parts += [start + line.removesuffix(",") for line in lines]
    for name, branches in types.items():
        parts.append(f"\nclass {name}(OneOfConfig):")
        parts += [f"    {kind}: Section[{cls.__name__}] = ..." for kind, cls in branches.items()]
    return "\n".join(parts) + "\n"


def _types(registry: Registry) -> dict[str, type]:
    """Returns the config class of each type of this package's own."""
    classes = {name: entry.config_class for name, entry in registry.entries()}
    return {name: cls for name, cls in sorted(classes.items()) if _is_own(cls)}


def _shipped() -> dict[pathlib.Path, str]:
    """Returns the schema, and the recipes as they are in configs/optimization."""
    # In a process of its own, which knows no types but this package's.
    # `optfactory schema` prints what ships, this very file.
    code = "from optimization.cli.schema import text; print(text(), end='')"
    command = [sys.executable, "-c", code]
    made = subprocess.run(command, capture_output=True, check=True, encoding="utf-8").stdout
    return {_PACKAGE / "schema.json": made} | {
        _PACKAGE / "recipes" / f"{name}.yaml": (
            _ROOT / "configs" / "optimization" / f"{name}.yaml"
        ).read_text()
        for name in RECIPES.values()
    }


def _is_own(cls: type) -> bool:
    return cls.__module__.startswith("optimization.")


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")
