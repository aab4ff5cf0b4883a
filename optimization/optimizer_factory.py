"""`OptimizerFactory`: from a config to a learning rate and an optimizer."""

import typing
from collections.abc import Callable, Sequence
from typing import Any

from optimization.configs.durations import TrainingLength, with_length
from optimization.configs.errors import ConfigError, warn
from optimization.configs.layers import findings
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.schedules import LR_CLS, WARMUP_CLS

if typing.TYPE_CHECKING:
    import keras
    import numpy as np

__all__ = [
    "LR_CLS",
    "OPTIMIZERS_CLS",
    "WARMUP_CLS",
    "OptimizerFactory",
    "register_learning_rate",
    "register_optimizer",
    "register_warmup",
]

register_optimizer = OPTIMIZERS_CLS.register
register_learning_rate = LR_CLS.register
register_warmup = WARMUP_CLS.register

GradientsAndVariables = list[tuple[Any, Any]]


class OptimizerFactory:
    """Builds the learning rate and the optimizer that a config describes.

        factory = OptimizerFactory(config)
        optimizer = factory.build_optimizer(factory.build_learning_rate())

    Args:
        config: What to build. It is validated and copied: later changes have no effect.
        train_steps: The length of the training in optimizer steps, for steps that are written as
            "10%" or "remaining", and for a decay that ends with the training.
        steps_per_epoch: Optimizer steps in one pass over the data, for "5 epochs".

    Raises:
        ConfigError: All that is wrong with the config.
    """

    def __init__(
        self,
        config: OptimizationConfig,
        train_steps: int | None = None,
        steps_per_epoch: int | None = None,
    ):
        if not isinstance(config, OptimizationConfig):
            raise TypeError(f"expected an OptimizationConfig, got {type(config).__name__}")
        length = TrainingLength(train_steps, steps_per_epoch)
        self._config, problems = with_length(config, length)
        errors, doubts = findings(self._config, problems)
        if errors:
            raise ConfigError(errors)
        for doubt in doubts:
            warn(doubt)
        self._config.lock()

    @property
    def config(self) -> OptimizationConfig:
        """The config, read-only."""
        return self._config

    def build_learning_rate(self) -> "keras.optimizers.schedules.LearningRateSchedule | float":
        """Builds the learning rate with its warmup.

        Returns:
            A Keras schedule, a function of the number of optimizer steps done; a float where the
            rate is constant.
        """
        from optimization.schedules.keras_schedules import build_schedule

        lr = build_schedule(self._config.learning_rate.get(), self._config.warmup.get())
        return self._with_decay(lr)

    def learning_rate_curve(self, steps: "Sequence[int] | np.ndarray") -> "np.ndarray":
        """Returns the learning rate at each of `steps`, computed by NumPy alone.

        Args:
            steps: Numbers of optimizer steps done, of any shape.

        Returns:
            Float64 values, of the shape of `steps`.
        """
        import numpy as np

        from optimization.schedules import curve

        steps = np.asarray(steps)
        values = curve(self._config.learning_rate.get(), self._config.warmup.get(), steps)
        decay = self._decay
        return values / (1 + decay * steps) if decay else values

    def build_optimizer(
        self,
        lr: "keras.optimizers.schedules.LearningRateSchedule | float",
        gradient_aggregator: Callable[[GradientsAndVariables], GradientsAndVariables] | None = None,
        gradient_transformers: (
            Sequence[Callable[[GradientsAndVariables], GradientsAndVariables]] | None
        ) = None,
        postprocessor: "Callable[[keras.Optimizer], keras.Optimizer] | None" = None,
    ) -> "keras.optimizers.Optimizer":
        """Builds the optimizer.

        Args:
            lr: The learning rate: what `build_learning_rate()` returns, or any number or schedule.
            gradient_aggregator: Replaces the sum over replicas. Takes and returns a list of
                (gradient, variable).
            gradient_transformers: Applied in turn to the list of (gradient, variable), after
                aggregation. They may not be combined with clips.
            postprocessor: Applied to the optimizer; its result is returned.

        Returns:
            A Keras optimizer.

        Raises:
            ValueError: For transformers together with `clipnorm`, `clipvalue`, `global_clipnorm`,
                or a `gradient_clip_norm` that was set.
            TypeError: If `lr` is no learning rate, or `postprocessor` returns no optimizer.
        """
        import keras

        from optimization.optimizers import PipelineOptimizer

        section = self._config.optimizer.get()
        arguments = section.pipeline_arguments()
        arguments.pop("decay", None)
        if arguments.get("gradient_clip_norm") == 0:
            arguments["gradient_clip_norm"] = None
        if gradient_transformers and "gradient_clip_norm" not in section._origins:
            # adamw's default clip gives way to transformers; one that was asked for does not.
            arguments.pop("gradient_clip_norm", None)
        optimizer = PipelineOptimizer(
            OPTIMIZERS_CLS[self._config.optimizer.type](
                learning_rate=self._with_decay(_checked_learning_rate(lr)), **section.arguments()
            ),
            ema=self._config.ema.arguments() if self._config.ema else None,
            gradient_aggregator=gradient_aggregator,
            gradient_transformers=gradient_transformers,
            name=section.name,
            **arguments,
        )
        if postprocessor is not None:
            optimizer = postprocessor(optimizer)
            if not isinstance(optimizer, keras.optimizers.Optimizer):
                raise TypeError(
                    "`postprocessor` must return a Keras optimizer, "
                    f"received: {type(optimizer).__name__}"
                )
        return optimizer

    @property
    def _decay(self) -> float:
        return getattr(self._config.optimizer.get(), "decay", 0.0)

    def _with_decay(self, lr: Any) -> Any:
        """Divides `lr` by 1 + decay * step where the optimizer's section asks for it, once."""
        if not self._decay:
            return lr
        from optimization.schedules.inverse_time_scaled import InverseTimeScaled

        already = isinstance(lr, InverseTimeScaled) and lr.decay == self._decay
        return lr if already else InverseTimeScaled(lr, self._decay)


def _checked_learning_rate(lr: Any) -> Any:
    import keras

    if isinstance(lr, keras.optimizers.schedules.LearningRateSchedule) or callable(lr):
        return lr
    try:
        if isinstance(lr, bool | str):
            raise TypeError
        value = float(lr)
    except (TypeError, ValueError):
        raise TypeError(
            f"Argument `lr` must be a number or a learning rate schedule, received: lr={lr!r}"
        ) from None
    if not value >= 0:
        raise ValueError(f"Argument `lr` must be >= 0, received: lr={lr!r}")
    return value
