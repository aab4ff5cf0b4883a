"""What transformers' optimization module offers, under its names and with its signatures.

    from optimization.transformers import create_optimizer, get_scheduler

The TensorFlow part is that of transformers 4.57.6, the last with one, on Keras 3; the `get_*`
functions are those of 5.23, for PyTorch's optimizers and for Keras'. docs/transformers.md says what
differs.
"""

from optimization import extras

__getattr__, __dir__, __all__ = extras.attach_stub(__name__, __file__)
