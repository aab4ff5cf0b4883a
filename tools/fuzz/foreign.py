"""Files of other libraries, as `optfactory convert` reads them, by the keys that bridges know."""

import ast
import functools
import importlib
import inspect
from typing import Any

from optimization.bridges.bridges import BRIDGES
from tools.fuzz.choices import Choices
from tools.fuzz.values import Maker, hostile

_NUMBERS = [0, 1, 2, 5, 100, 10**4, 10**9, 0.0, 0.1, 0.9, 1e-3, 1e-8, 0.5, "0.1", "1e-4"]
# What a file must have to be taken for one of a library, and what most have.
_CORES: dict[str, dict[str, Any]] = {
    "garden": {"trainer": {"optimizer_config": {"optimizer": {"type": "sgd"}}, "train_steps": 100}},
    "hf": {
        "learning_rate": 1e-4,
        "lr_scheduler_type": "cosine",
        "adam_beta1": 0.9,
        "optim": "adamw_torch",
    },
    "timm": {"opt": "sgd", "sched": "cosine", "lr": 0.1, "epochs": 10, "warmup_epochs": 2},
    "keras": {
        "class_name": "Adam",
        "config": {
            "learning_rate": {
                "class_name": "CosineDecay",
                "config": {"initial_learning_rate": 0.1, "decay_steps": 100},
            },
            "beta_1": 0.9,
        },
    },
    "torchtitan": {
        "optimizer": {"name": "AdamW", "lr": 1e-3},
        "lr_scheduler": {"warmup_steps": 10},
        "training": {"steps": 100},
    },
    "lightning": {
        "optimizer": {"class_path": "torch.optim.AdamW", "init_args": {"lr": 0.1}},
        "lr_scheduler": {
            "class_path": "torch.optim.lr_scheduler.CosineAnnealingLR",
            "init_args": {"T_max": 5},
        },
        "trainer": {"max_epochs": 10},
    },
    "axolotl": {
        **{"micro_batch_size": 2, "base_model": "a", "num_epochs": 2, "learning_rate": 1e-4},
        **{"lr_scheduler": "cosine", "optimizer": "adamw_torch", "warmup_steps": 10},
    },
}


@functools.cache
def words(library: str) -> list[str]:
    """Returns the words that the code of a bridge knows: keys and names of the library."""
    module = importlib.import_module(f"optimization.bridges.{library}")
    parts = [module, *(m for m in vars(module).values() if inspect.ismodule(m))]
    parts += [inspect.getmodule(v) for v in vars(module).values() if callable(v)]
    own = {part for part in parts if part and part.__name__.startswith("optimization.bridges.")}
    texts = (
        node.value
        for part in own
        for node in ast.walk(ast.parse(inspect.getsource(part)))
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    )
    return sorted({word for text in texts for word in text.split() if word.isidentifier()})


def file(choices: Choices, library: str) -> dict[str, Any]:
    """Returns a mapping that looks like a file of a library, right or wrong."""
    known = words(library)

    def value(choices: Choices) -> Any:
        match choices.up_to(3):
            case 0 | 1:
                return choices.one_of(_NUMBERS)
            case 2:
                return choices.one_of(known)
        return hostile(choices) if choices.up_to(1) else choices.listed(value, 3)

    made = _varied(_CORES[library], choices, value)
    for key in choices.some(known, 6):
        places = [made, *(part for part in made.values() if isinstance(part, dict))]
        choices.one_of(places)[key] = value(choices)
    return made


def _varied(core: Any, choices: Choices, value: Maker) -> Any:
    if not isinstance(core, dict):
        return value(choices) if choices.rarely(4) else core
    return {k: _varied(v, choices, value) for k, v in core.items() if not choices.rarely(10)}


LIBRARIES = tuple(BRIDGES)
