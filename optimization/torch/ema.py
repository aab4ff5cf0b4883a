"""The average of a model's weights, as an `AveragedModel` of torch."""

from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel


class WeightAverage:
    """The rule average <- average + (1 - d) * (w - average), for `AveragedModel`.

    With n the updates taken, d is 0 for n < start_step, and from then on

        d = min(average_decay, (1 + n - start_step) / (10 + n - start_step))   dynamic_decay
        d = average_decay                                                      otherwise

    Args:
        average_decay: The largest d, in [0, 1).
        start_step: Before this many updates the average is the weights themselves.
        dynamic_decay: Whether d grows from 1/10.
    """

    def __init__(
        self, average_decay: float = 0.99, start_step: int = 0, dynamic_decay: bool = True
    ):
        self.average_decay = average_decay
        self.start_step = start_step
        self.dynamic_decay = dynamic_decay

    def decay(self, steps: int) -> float:
        """Returns d after `steps` updates."""
        n = steps - self.start_step
        if n < 0:
            return 0.0
        return (
            min(self.average_decay, (1 + n) / (10 + n))
            if self.dynamic_decay
            else (self.average_decay)
        )

    @torch.no_grad()
    def __call__(self, averages: list[Tensor], weights: list[Tensor], steps: Tensor) -> None:
        """Moves averages towards weights, in place; integers are copied."""
        share = 1 - self.decay(int(steps))
        for average, weight in zip(averages, weights, strict=True):
            if average.is_floating_point():
                average.lerp_(weight.to(average.dtype), share)
            else:
                average.copy_(weight)


def build_average(
    model: torch.nn.Module, trainable_weights_only: bool = True, **rule: Any
) -> AveragedModel:
    """Returns the average of a model.

    Args:
        model: The model that is trained.
        trainable_weights_only: Whether buffers are the model's own, and not averaged.
        **rule: Arguments of `WeightAverage`.
    """
    buffers = not trainable_weights_only
    average = AveragedModel(model, multi_avg_fn=WeightAverage(**rule), use_buffers=buffers)
    # It holds the first weights already: with 0 torch would take those after the first update.
    average.n_averaged.fill_(1)
    return average
