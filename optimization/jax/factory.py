"""`OptimizerFactory`: from a config to a gradient transformation of optax."""

from collections.abc import Iterable
from typing import Any

import jax
import optax

from optimization.configs.errors import Problem
from optimization.configs.factory import ConfiguredFactory
from optimization.jax.checks import native_problems
from optimization.jax.gradients import GroupClips
from optimization.jax.plan import Plan
from optimization.jax.rates import Schedule, rate_of, schedule
from optimization.jax.settings import Average, Settings
from optimization.jax.spikes import Spikes
from optimization.jax.state import Tree, state_of
from optimization.jax.transform import Transformation
from optimization.rules.state_config import StateConfig
from optimization.schedules.averages import AverageDecay


class OptimizerFactory(ConfiguredFactory):
    """Builds the gradient transformation and the schedule that a config describes.

        factory = OptimizerFactory(config, train_steps=10000)
        optimizer = factory.build_optimizer(params)
        schedule = factory.build_learning_rate()

    Args:
        config: What to build. It is validated and copied: later changes have no effect.
        train_steps: The length of the training in optimizer steps, for steps that are written as
            "10%" or "remaining", and for a decay that ends with the training.
        steps_per_epoch: Optimizer steps in one pass over the data, for "5 epochs".
        global_batch_size: Examples in one update, over all devices and all accumulated gradients,
            for "1M examples", and for `lr_scaling` that does not say it
            itself.
        tokens_per_step: Tokens in one update, counted as the examples are, for "300B tokens".
            With `accumulation` these are of micro-batches, and so are the steps of an epoch.

    Raises:
        ConfigError: All that is wrong with the config, or that JAX does not have.
    """

    def _problems(self) -> Iterable[Problem]:
        return native_problems(self._config)

    def build_learning_rate(self) -> Schedule:
        """Builds the learning rate, warmup and scaling included: an `optax.Schedule`.

        Returns:
            A function of the updates done, a number or an array, which JAX can trace; float32.
        """
        return rate_of(self._config, None, self._config.optimizer.get())

    def build_optimizer(self, params: Tree = None) -> optax.GradientTransformationExtraArgs:
        """Builds the optimizer.

        Its `update` needs the parameters: `update(grads, state, params)`. Its state is an
        `OptimizerState`, of arrays alone.

        Args:
            params: The parameters, any pytree of arrays or of what has their shape and dtype. It
                is needed for `param_groups`, `layer_decay` and `muon`, which go by paths such as
                "encoder/layer_0/kernel"; with it, patterns that match no path are an error.

        Raises:
            TypeError: If `params` are no arrays, such as a learning rate or its schedule.
            ValueError: If `params` is needed and not given; for groups and lists of patterns that
                match no parameter; if every parameter is frozen.
        """
        for leaf in jax.tree.leaves(params):
            if callable(leaf) or isinstance(params, int | float):
                message = f"must be the parameters, a tree of arrays, received: {leaf!r}"
                inside = "the learning rate is the config's, and the optimizer has it inside"
                raise TypeError(f"Argument `params` {message}; {inside}")
        transformation = Transformation(self._plan(params), self._settings())
        return optax.GradientTransformationExtraArgs(transformation.init, transformation.update)

    def averaged_params(self, state: Any, params: Tree) -> Tree:
        """Returns the averaged weights, to evaluate and to export, in the dtypes of `params`.

        That is the average of the `ema` section or of `use_ema`, or what a schedule-free optimizer
        makes of its state.

        Args:
            state: The state of what `build_optimizer` returned, also inside of that of a chain.
            params: The parameters.

        Raises:
            ValueError: If the config asks for no average.
        """
        transformation = Transformation(self._plan(params), self._settings())
        return transformation.averaged(state_of(state), params)

    def _settings(self) -> Settings:
        section = self._config.optimizer.get()
        arguments = section.pipeline_arguments()
        own = {group.label: group.own_clip() for group in self._config.groups()}
        return Settings(
            GroupClips.of(
                arguments,
                {label: clip for label, clip in own.items() if clip},
                self._config.zclip is not None,
            ),
            self._config.ramp(),
            section.on_nonfinite == "skip",
            section.loss_scale_factor,
            self._average(),
            section.state or StateConfig(),
            Spikes(self._config.zclip, self._config.skip_spikes),
        )

    def _average(self) -> Average | None:
        arguments, rate = self._config.average_arguments(), self._config.average_schedule()
        if arguments is None:
            return None
        frequency = arguments.get("overwrite_frequency")
        decay = AverageDecay.of(arguments)
        if rate is not None:
            decay.average_decay = schedule(rate, start=self._config._schedule_start)
        return Average(decay, frequency)

    def _plan(self, params: Tree) -> Plan:
        config = self._config
        needed = [name for name in ("param_groups", "layer_decay") if getattr(config, name)]
        if config.optimizer.get().goes_by_model:
            needed.append(f"{config.optimizer.type}")
        if needed and params is None:
            what = f"`{needed[0]}`, which goes by the paths of all parameters"
            raise ValueError(f"Argument `params` is needed for {what}")
        return Plan(config, params)
