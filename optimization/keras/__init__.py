"""What belongs to Keras 3: the optimizer that the factory returns, and the stages of its step."""

import optimization.optimizers  # noqa: F401  # makes the classes known to Keras
