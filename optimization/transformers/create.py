"""`create_optimizer` of transformers' TensorFlow part."""

import typing
from collections.abc import Sequence
from typing import Any

from optimization.configs.optimization_config import OptimizationConfig
from optimization.optimizer_factory import OptimizerFactory

if typing.TYPE_CHECKING:
    import keras

_EXCLUDED = ("LayerNorm", "layer_norm", "bias")


def create_optimizer(
    init_lr: float,
    num_train_steps: int,
    num_warmup_steps: int,
    min_lr_ratio: float = 0.0,
    adam_beta1: float = 0.9,
    adam_beta2: float = 0.999,
    adam_epsilon: float = 1e-8,
    adam_clipnorm: float | None = None,
    adam_global_clipnorm: float | None = None,
    weight_decay_rate: float = 0.0,
    power: float = 1.0,
    include_in_weight_decay: Sequence[str] | None = None,
) -> "tuple[keras.optimizers.Optimizer, keras.optimizers.schedules.LearningRateSchedule]":
    """Returns an optimizer, Adam with or without weight decay, and its learning rate.

    The rate goes up to `init_lr` in a line, for `num_warmup_steps`, and then down to `init_lr *
    min_lr_ratio` by a polynomial, for the steps that are left. A config says the same with a
    `polynomial` learning rate and a `linear` warmup of `mode: delay`; the factory builds it. The
    clips are those of its step, over the gradient of the whole batch.

    >>> optimizer, rate = create_optimizer(0.5, num_train_steps=110, num_warmup_steps=10)
    >>> [round(float(rate(step)), 4) for step in (0, 5, 10, 60, 110)]
    [0.0, 0.25, 0.5, 0.25, 0.0]

    Args:
        init_lr: The highest learning rate.
        num_train_steps: Optimizer steps in all, more than `num_warmup_steps`.
        num_warmup_steps: Optimizer steps of the warmup; 0 for none.
        min_lr_ratio: The last rate as a fraction of `init_lr`.
        adam_beta1: Decay of the first moment.
        adam_beta2: Decay of the second moment.
        adam_epsilon: Added to the root of the second moment.
        adam_clipnorm: A bound on the norm of each variable's gradient.
        adam_global_clipnorm: A bound on the norm over all gradients.
        weight_decay_rate: Before each update, w -= lr * weight_decay_rate * w, except for paths
            with LayerNorm, layer_norm or bias; 0 for none.
        power: Of the polynomial.
        include_in_weight_decay: Parts of paths that decay even so.

    Returns:
        The optimizer, a `PipelineOptimizer` around Adam or `AdamWeightDecay`, and the schedule.

    Raises:
        ConfigError: For numbers that make no sense, or both clips.
        ValueError: For a weight decay below 0.
    """
    if weight_decay_rate < 0:
        raise ValueError(
            "Argument `weight_decay_rate` must be >= 0, "
            f"received: weight_decay_rate={weight_decay_rate}"
        )
    moments: dict[str, Any] = {"beta_1": adam_beta1, "beta_2": adam_beta2, "epsilon": adam_epsilon}
    clips = {"clipnorm": adam_clipnorm, "global_clipnorm": adam_global_clipnorm}
    polynomial = {
        "initial_learning_rate": init_lr,
        "decay_steps": num_train_steps - num_warmup_steps,
        "end_learning_rate": init_lr * min_lr_ratio,
        "power": power,
    }
    linear = {"warmup_steps": num_warmup_steps, "mode": "delay"}
    config = OptimizationConfig(
        {
            "optimizer": {"type": "adam", "adam": {**moments, **clips}},
            "learning_rate": {"type": "polynomial", "polynomial": polynomial},
            "warmup": {"type": "linear", "linear": linear},
        }
    )
    factory = OptimizerFactory(config)
    schedule = factory.build_learning_rate()
    if not weight_decay_rate:
        return factory.build_optimizer(schedule), schedule

    from optimization.optimizers import PipelineOptimizer
    from optimization.transformers.adam_weight_decay import AdamWeightDecay

    inner = AdamWeightDecay(
        schedule,
        **moments,
        weight_decay_rate=weight_decay_rate,
        include_in_weight_decay=include_in_weight_decay,
        exclude_from_weight_decay=_EXCLUDED,
    )
    return PipelineOptimizer(inner, **clips, name=inner.name), schedule
