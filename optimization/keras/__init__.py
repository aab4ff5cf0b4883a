"""What trains with Keras."""

import optimization.optimizers  # noqa: F401  the face of this package, which it needs in part
