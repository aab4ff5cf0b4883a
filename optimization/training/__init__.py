"""Training: tasks, experiments by name, the trainer, and `main()` for binaries.

Importing this package imports neither TensorFlow nor Keras; what needs them imports them when it is
called.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)
