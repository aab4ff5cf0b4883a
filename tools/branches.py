"""Writes what the registries know and type checkers can't ask: stub files.

    python -m tools.branches

Run it after a type was added; a test says so if you forget. `configs/branches.pyi` has the types
of every oneof, `optimizers.pyi` of Keras and of PyTorch the classes that are made of rules.
"""

import itertools
import pathlib
import textwrap

import optimization
from optimization.configs.registry import Registry
from optimization.rules.rule import native_name, origins

_PACKAGE = pathlib.Path(optimization.__file__).parent
_WRITTEN = "# Written by `python -m tools.branches`.\n"

_CLASSES = {
    "OptimizerBranches": optimization.OPTIMIZERS_CLS,
    "LearningRateBranches": optimization.LR_CLS,
    "WarmupBranches": optimization.WARMUP_CLS,
}
_IMPORTS = {
    ("optimization.configs.base", "config_dataclass"),
    ("optimization.configs.fields", "Section"),
    ("optimization.configs.oneof", "OneOfConfig"),
}


def texts() -> dict[pathlib.Path, str]:
    """Returns the text of each stub file, by its path."""
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
    }


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
        parts.append(f"\n@config_dataclass\nclass {name}(OneOfConfig):")
        parts += [f"    {kind}: Section[{cls.__name__}] = ..." for kind, cls in branches.items()]
    return "\n".join(parts) + "\n"


def _types(registry: Registry) -> dict[str, type]:
    """Returns the config class of each type of this package's own."""
    classes = {name: entry.config_class for name, entry in registry.entries()}
    return {name: cls for name, cls in sorted(classes.items()) if _is_own(cls)}


def _is_own(cls: type) -> bool:
    return cls.__module__.startswith("optimization.")


if __name__ == "__main__":
    for path, text in texts().items():
        path.write_text(text, encoding="utf-8")
