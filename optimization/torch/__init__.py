"""Natively for PyTorch: optimizers and schedulers of torch, built from the same configuration.

    from optimization.torch import OptimizerFactory

    factory = OptimizerFactory(config, train_steps=10000)
    optimizer = factory.build_optimizer(model)
    scheduler = factory.build_scheduler(optimizer)

Neither Keras nor TensorFlow is imported. docs/torch.md says which class each type of optimizer is.
"""

import importlib.util

import lazy_loader

if importlib.util.find_spec("torch") is None:
    raise ImportError(
        "optimization.torch needs PyTorch, which is not installed: "
        "pip install 'optimizer-factory[torch]'"
    )

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
