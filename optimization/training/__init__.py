"""Training: tasks, experiments by name, the trainer, and `main()` for binaries.

Importing this package imports neither TensorFlow nor Keras; what needs them imports them when it is
called, and `Trainer` as soon as it is asked for.
"""

from optimization import extras

__getattr__, __dir__, __all__ = extras.attach_stub(__name__, __file__)
