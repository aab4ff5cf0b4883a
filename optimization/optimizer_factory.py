"""`OptimizerFactory`: from a config to a learning rate and an optimizer."""

import typing
from collections.abc import Callable, Sequence
from typing import Any

from optimization import extras
from optimization.configs.auxiliary_groups import AuxiliaryGroup, Group
from optimization.configs.branches import OptimizerBranches
from optimization.configs.factory import ConfiguredFactory
from optimization.configs.float32 import in_float32
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.rules.base import BaseOptimizerConfig
from optimization.schedules import LR_CLS, WARMUP_CLS, BaseLrConfig, curve

if typing.TYPE_CHECKING:
    import keras
    import numpy as np

    from optimization.keras.groups import ParamGroup
    from optimization.optimizers import PipelineOptimizer

register_optimizer = OPTIMIZERS_CLS.register
register_learning_rate = LR_CLS.register
register_warmup = WARMUP_CLS.register

GradientFunction = Callable[[list[tuple[Any, Any]]], list[tuple[Any, Any]]]
OptimizerT = typing.TypeVar("OptimizerT", bound="keras.optimizers.Optimizer")


class OptimizerFactory(ConfiguredFactory):
    """Builds the learning rate and the optimizer that a config describes.

    >>> cosine = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 100}}
    >>> config = OptimizationConfig({"optimizer": {"type": "lamb"}, "learning_rate": cosine})
    >>> factory = OptimizerFactory(config)
    >>> factory.learning_rate_curve([0, 50, 100]).round(4)
    array([0.1 , 0.05, 0.  ])
    >>> optimizer = factory.build_optimizer(factory.build_learning_rate())

    Args:
        config: What to build. It is validated and copied: later changes have no effect.
        train_steps: The length of the training in optimizer steps, for steps that are written as
            "10%" or "remaining", and for a decay that ends with the training.
        steps_per_epoch: Optimizer steps in one pass over the data, for "5 epochs".
        global_batch_size: Examples in one update, over all replicas and all accumulated gradients,
            for "1M examples", and for `lr_scaling` that does not say it
            itself.
        tokens_per_step: Tokens in one update, counted as the examples are, for "300B tokens".
            With `accumulation` these are of micro-batches, and so are the steps of an epoch.

    Raises:
        ConfigError: All that is wrong with the config.
    """

    def build_learning_rate(self) -> "keras.optimizers.schedules.LearningRateSchedule | float":
        """Builds the learning rate with its warmup: a Keras schedule, or a float if constant."""
        extras.require("keras")
        from optimization.schedules.keras_schedules import build_schedule
        from optimization.schedules.scaled import scaled

        lr, section = build_schedule(*self._config.learning_rate_of()), self._config.optimizer.get()
        start = self._config.schedule_start_of(section)
        return scaled(lr, self.learning_rate_factor, _decay_of(section), start)

    def learning_rate_curve(self, steps: "Sequence[int] | np.ndarray") -> "np.ndarray":
        """Returns the learning rate after each number of `steps`, in float64, by NumPy alone."""
        import numpy as np

        section = self._config.optimizer.get()
        steps, start = np.asarray(steps), self._config.schedule_start_of(section)
        steps = np.maximum(steps - start, 0) if start else steps
        values = curve(*self._config.learning_rate_of(), steps)
        decay = _decay_of(section)
        return self.learning_rate_factor * values / (1 + decay * steps if decay else 1)

    @property
    def learning_rate_factor(self) -> float:
        """The factor of `lr_scaling`, 1 without it."""
        scaling = self._config.lr_scaling
        return 1.0 if scaling is None else scaling.factor()

    @typing.overload
    def build_optimizer(
        self,
        lr: "keras.optimizers.schedules.LearningRateSchedule | float",
        gradient_aggregator: GradientFunction | None = None,
        gradient_transformers: Sequence[GradientFunction] | None = None,
        postprocessor: None = None,
        model: "keras.Model | None" = None,
    ) -> "PipelineOptimizer": ...
    @typing.overload
    def build_optimizer(
        self,
        lr: "keras.optimizers.schedules.LearningRateSchedule | float",
        gradient_aggregator: GradientFunction | None = None,
        gradient_transformers: Sequence[GradientFunction] | None = None,
        *,
        postprocessor: "Callable[[PipelineOptimizer], OptimizerT]",
        model: "keras.Model | None" = None,
    ) -> "OptimizerT": ...
    def build_optimizer(
        self,
        lr: "keras.optimizers.schedules.LearningRateSchedule | float",
        gradient_aggregator: GradientFunction | None = None,
        gradient_transformers: Sequence[GradientFunction] | None = None,
        postprocessor: "Callable[[PipelineOptimizer], OptimizerT] | None" = None,
        model: "keras.Model | None" = None,
    ) -> "PipelineOptimizer | OptimizerT":
        """Builds the optimizer.

        Args:
            lr: The learning rate: what `build_learning_rate()` returns, or any number or schedule.
            gradient_aggregator: Replaces the sum over replicas. Takes and returns a list of
                (gradient, variable).
            gradient_transformers: Applied in turn to the list of (gradient, variable), after
                aggregation. They may not be combined with clips.
            postprocessor: Applied to the `PipelineOptimizer`; its result, a Keras optimizer, is
                returned.
            model: The model that is trained, for parameter groups by `layer_type` and for an
                average of all weights; not needed otherwise.

        Raises:
            ValueError: For transformers together with a clip.
            TypeError: If `lr` is no learning rate, `model` no Keras model, or `postprocessor`
                returns no optimizer.
        """
        keras = extras.require("keras")
        from optimization.optimizers import PipelineOptimizer

        is_uncalled = getattr(lr, "__func__", None) is type(self).build_learning_rate
        if is_uncalled or isinstance(lr, keras.layers.Layer):
            message = "Argument `lr` must be what `build_learning_rate()` returns, or a number"
            raise TypeError(f"{message}, received: {type(lr).__name__}; a model goes to `model=`")
        lr = _checked_learning_rate(lr)
        section = self._config.optimizer.get()
        optimizer = PipelineOptimizer(
            self._inner_optimizer(self._config.optimizer, lr),
            ema=self._average_arguments(),
            gradient_aggregator=gradient_aggregator,
            gradient_transformers=gradient_transformers,
            name=section.name,
            **self._step_arguments(section),
            **self._group_arguments(lr),
        )
        if model is not None:
            optimizer.set_model(model)
        if postprocessor is None:
            return optimizer
        processed = postprocessor(optimizer)
        if not isinstance(processed, keras.optimizers.Optimizer):
            raise TypeError(
                "`postprocessor` must return a Keras optimizer, "
                f"received: {type(processed).__name__}"
            )
        return processed

    def _inner_optimizer(self, config: OptimizerBranches, lr: Any) -> "keras.optimizers.Optimizer":
        from optimization.schedules.scaled import ScaledLearningRate, scaled

        section = config.get()
        decay = _decay_of(section)
        if not isinstance(lr, ScaledLearningRate) or lr.decay != decay:
            if isinstance(lr, ScaledLearningRate) and lr.start:  # once for all of it
                lr = ScaledLearningRate(lr.learning_rate, lr.factor, lr.decay)
            lr = scaled(lr, decay=decay, start=self._config.schedule_start_of(section))
        kind = typing.cast(str, config.type)  # a validated config has one
        return OPTIMIZERS_CLS[kind](learning_rate=lr, **section.arguments())

    def _step_arguments(self, section: BaseOptimizerConfig) -> dict[str, Any]:
        arguments = section.pipeline_arguments()
        arguments.pop("decay", None)
        arguments["on_nonfinite"] = arguments["on_nonfinite"] or "propagate"
        arguments["state"] = None if section.state is None else section.state.as_dict()
        if self._config.accumulation is not None:
            arguments["accumulation"] = self._config.accumulation.as_dict()
        if section.adaptive_clip_factor is None:
            del arguments["adaptive_clip_factor"], arguments["adaptive_clip_epsilon"]
        return arguments

    def _average_arguments(self) -> dict[str, Any] | None:
        arguments, rate = self._config.average_arguments(), self._config.average_schedule()
        if arguments is not None and rate is not None:
            arguments["average_decay"] = self._schedule(rate)
        return arguments

    def _schedule(self, rate: BaseLrConfig) -> Any:
        """Returns what a number other than the learning rate follows, as a function of the step."""
        from optimization.schedules.keras_schedules import schedule_class
        from optimization.schedules.scaled import scaled

        built = schedule_class(type(rate))(**rate.as_dict())
        return scaled(built, start=self._config._schedule_start)

    def _group_arguments(self, lr: Any) -> dict[str, Any]:
        config = self._config
        arguments: dict[str, Any] = {}
        groups = config.groups()
        if groups:
            arguments["param_groups"] = [self._group(group, lr) for group in groups]
        for name in ("layer_decay", "zclip", "skip_spikes"):
            if getattr(config, name) is not None:
                arguments[name] = getattr(config, name).as_dict()
        if schedules := config.number_schedules():
            section = config.optimizer.get()
            arguments["schedules"] = {
                section.argument_name(name): self._schedule(choice.get())
                for name, choice in schedules.items()
            }
        return arguments

    def _group(self, group: Group, lr: Any) -> "ParamGroup":
        from optimization.keras.groups import ParamGroup
        from optimization.schedules.keras_schedules import build_schedule
        from optimization.schedules.scaled import scaled

        section = group.optimizer.get() or self._config.optimizer.get()
        has_rate = section.own_learning_rate() is not None
        found = self._config.learning_rate_of(group)
        own_rate = None if found is None else build_schedule(*found)
        if found is not None and not has_rate:  # the optimizer's own knows nothing of batches
            factor, start = self.learning_rate_factor, self._config._schedule_start
            own_rate = scaled(own_rate, factor, _decay_of(section), start)
        hyperparameters = {}
        if group.weight_decay is not None:
            hyperparameters[section.argument_name("weight_decay")] = group.weight_decay
        own_optimizer = None
        if group.optimizer.type is not None:
            own_optimizer = self._inner_optimizer(group.optimizer, own_rate if has_rate else lr)
        beside = None
        if isinstance(group, AuxiliaryGroup):
            beside = OPTIMIZERS_CLS["muon"](**group.muon.arguments())
        return ParamGroup(
            match=group.match,
            layer_type=group.layer_type,
            ndim=group.ndim,
            name=group.name,
            learning_rate_multiplier=group.learning_rate_multiplier,
            learning_rate=own_rate,
            hyperparameters=hyperparameters,
            optimizer=own_optimizer,
            freeze=group.freeze,
            beside=beside,
            also=group.also,
            freeze_steps=group.freeze_steps,
            clip=dict(filter(None, [group.own_clip()])),
        )


def _decay_of(section: BaseOptimizerConfig) -> float:
    """Returns the inverse time decay of a section; an argument of that name is the class's own."""
    return section.pipeline_arguments().get("decay", 0.0)


def _checked_learning_rate(lr: Any) -> Any:
    if callable(lr):  # a schedule, or another function
        return lr
    try:
        if isinstance(lr, bool | str):
            raise TypeError
        value = float(lr)
    except (TypeError, ValueError):
        raise TypeError(
            f"Argument `lr` must be a number or a learning rate schedule, received: lr={lr!r}"
        ) from None
    if not 0 <= in_float32(value) < float("inf"):
        message = "Argument `lr` must be >= 0 and finite in float32"
        raise ValueError(f"{message}, received: lr={lr!r}")
    return value
