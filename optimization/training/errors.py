"""Mistakes of a user that only a run brings to light."""


class TrainingError(ValueError):
    """Something that the user can put right, told by the message alone.

    The command line prints the message without a traceback.
    """


class CheckpointError(TrainingError):
    """A checkpoint that is not there, or does not fit the model and the optimizer."""


class MisfitError(CheckpointError):
    """A checkpoint of other variables than those of the model and the optimizer.

    Attributes:
        sections: Where they differ: "model", "optimizer", "trainer".
    """

    def __init__(self, message: str, sections: set[str]):
        self.sections = sections
        super().__init__(message)

    def __reduce__(self):
        return type(self), (str(self), self.sections)


class NonFiniteLossError(TrainingError):
    """A loss that became infinite or not a number."""


class NonFiniteGradientsError(TrainingError):
    """Gradients that are infinite or not a number, where the config lets that end the run."""
