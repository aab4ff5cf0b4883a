"""`TaskConfig` describes what is trained on, and what the model starts from."""

from typing import Annotated

from annotated_types import Interval

from optimization.configs.base import Config
from optimization.configs.fields import Section, field
from optimization.configs.types import NonNegativeInt, Unit

Seed = Annotated[int, Interval(ge=0, lt=2**32)]
"""What NumPy takes as a seed."""


class DataConfig(Config):
    """Says which data a task reads, for training or for validation.

    >>> DataConfig(global_batch_size=32, shuffle=True)
    DataConfig(global_batch_size=32, shuffle=True)

    Attributes:
        global_batch_size: Examples in one batch over all replicas; 0 where there is no such data.
            A training step takes as many batches as gradients are accumulated.
        is_training: Whether batches go on for ever, epoch after epoch, or end after one.
        drop_remainder: Whether the examples at the end of an epoch that fill no batch are left
            out. If not, a training batch runs on into the next epoch, and the last validation
            batch is smaller.
        shuffle: Whether each epoch has an order of its own.
        seed: Of that order; None for `runtime.seed`.
    """

    global_batch_size: Annotated[NonNegativeInt, Unit("examples")] = 0
    is_training: bool = False
    drop_remainder: bool = False
    shuffle: bool = False
    seed: Seed | None = None


class TaskConfig(Config):
    """The base class of the configs of tasks; derive from it to add settings of your own.

    >>> class DigitsConfig(TaskConfig):
    ...     units: int = 64
    >>> DigitsConfig(units=128, train_data={"global_batch_size": 32}).train_data.shuffle
    True

    Attributes:
        init_checkpoint: A checkpoint of this trainer, or a directory of them, from which the
            model's weights start where `model_dir` holds none; "" for the model's own values. Of
            an optimizer that averages, the best checkpoint's directory holds the averages.
        train_data: What is trained on.
        validation_data: What is evaluated.
    """

    init_checkpoint: str = ""
    train_data: Section[DataConfig] = field(
        default_factory=lambda: DataConfig(is_training=True, drop_remainder=True, shuffle=True)
    )
    validation_data: Section[DataConfig] = field(default_factory=DataConfig)
