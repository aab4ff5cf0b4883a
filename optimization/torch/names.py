"""Names of parameters, without what wrappers of models put into them."""

from collections.abc import Sequence
from typing import Any

import torch

# Of torch.compile, of FSDP and of activation checkpoints, which no model has of its own.
_PRIVATE = {"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"}
# Wrappers with a `module`, known by their classes' names: not all of them are torch's.
_WRAPPERS = {"AveragedModel", "DataParallel", "DeepSpeedEngine", "DistributedDataParallel"}
_MODULE = "module"


def bare_names(names: Sequence[str], model: torch.nn.Module | None = None) -> list[str]:
    """Returns names as they are in the model itself, for one that is wrapped or compiled.

    `module._orig_mod.head.weight` is `head.weight`. A `module` is a wrapper's where the model shows
    that it is; where only names are known, if all of them start with it.
    """
    modules = () if model is None else model.named_modules()
    wrappers = [name for name, module in modules if is_wrapper(module)]
    wrapped = [[*filter(None, name.split(".")), _MODULE] for name in wrappers]
    bare = []
    for each in (name.split(".") for name in names):
        dropped = {len(path) - 1 for path in wrapped if each[: len(path)] == path}
        own = [x for i, x in enumerate(each) if i not in dropped and x not in _PRIVATE]
        bare.append(own or each)
    if model is None:
        while bare and all(len(each) > 1 and each[0] == _MODULE for each in bare):
            bare = [each[1:] for each in bare]
    joined = [".".join(each) for each in bare]
    return joined if len(set(joined)) == len(set(names)) else list(names)


def is_wrapper(module: Any) -> bool:
    """Says whether a module only wraps the one in its attribute `module`, to run it otherwise."""
    classes = {cls.__name__ for cls in type(module).__mro__}
    return bool(classes & _WRAPPERS) and isinstance(getattr(module, _MODULE, None), torch.nn.Module)


def unwrapped(model: torch.nn.Module) -> torch.nn.Module:
    """Returns the model inside what compiles it or runs it on several devices."""
    while True:
        inner = model.module if is_wrapper(model) else getattr(model, "_orig_mod", None)
        if not isinstance(inner, torch.nn.Module):
            return model
        model = inner
