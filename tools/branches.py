"""Writes `optimization/configs/branches.pyi`: the types of every oneof, for type checkers.

    python -m tools.branches

Run it after a type was added; a test says so if you forget. Which types there are, the registries
know; type checkers can't ask them.
"""

import pathlib

import optimization
from optimization.configs.registry import Registry

PATH = pathlib.Path(optimization.__file__).parent / "configs" / "branches.pyi"

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


def text() -> str:
    """Returns the text of the stub file."""
    types = {name: _types(registry) for name, registry in _CLASSES.items()}
    classes = {cls for branches in types.values() for cls in branches.values()}
    imports = _IMPORTS | {(cls.__module__, cls.__name__) for cls in classes}
    parts = ["# Written by `python -m tools.branches`.\n"]
    parts += [f"from {module} import {name}" for module, name in sorted(imports)]
    for name, branches in types.items():
        parts.append(f"\n@config_dataclass\nclass {name}(OneOfConfig):")
        parts += [f"    {kind}: Section[{cls.__name__}] = ..." for kind, cls in branches.items()]
    return "\n".join(parts) + "\n"


def _types(registry: Registry) -> dict[str, type]:
    """Returns the config class of each type of this package's own."""
    classes = {name: entry.config_class for name, entry in registry.entries()}
    return {k: cls for k, cls in classes.items() if cls.__module__.startswith("optimization.")}


if __name__ == "__main__":
    PATH.write_text(text(), encoding="utf-8")
