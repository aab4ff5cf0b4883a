"""Mistakes of a user that only a run brings to light."""


class TrainingError(ValueError):
    """Something that the user can put right, told by the message alone.

    The command line prints the message without a traceback.
    """


class CheckpointError(TrainingError):
    """A checkpoint that is not there, or does not fit the model and the optimizer."""


class NonFiniteLossError(TrainingError):
    """A loss that became infinite or not a number."""


class NonFiniteGradientsError(TrainingError):
    """Gradients that are infinite or not a number, where the config lets that end the run."""
