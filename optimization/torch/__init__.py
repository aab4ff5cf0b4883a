"""Natively for PyTorch: optimizers and schedulers of torch, built from the same configuration.

    from optimization.torch import OptimizerFactory

    factory = OptimizerFactory(config, train_steps=10000)
    optimizer = factory.build_optimizer(model)
    scheduler = factory.build_scheduler(optimizer)

Neither Keras nor TensorFlow is imported. docs/torch.md says which class each type of optimizer is.
"""

import importlib
from typing import Any

from optimization import extras

extras.require("torch")

_stubbed, __dir__, __all__ = extras.attach_stub(__name__, __file__)


def __getattr__(name: str) -> Any:
    if name in __all__ or not name[0].isupper():
        return _stubbed(name)
    # That of a rule which was registered.
    return getattr(importlib.import_module("optimization.torch.optimizers"), name)
