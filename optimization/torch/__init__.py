"""Natively for PyTorch: optimizers and schedulers of torch, built from the same configuration.

    from optimization.torch import OptimizerFactory

    factory = OptimizerFactory(config, train_steps=10000)
    optimizer = factory.build_optimizer(model)
    scheduler = factory.build_scheduler(optimizer)

Neither Keras nor TensorFlow is imported. docs/torch.md says which class each type of optimizer is.
"""

from optimization import extras

extras.require("torch")

__getattr__, __dir__, __all__ = extras.attach_stub(__name__, __file__)
