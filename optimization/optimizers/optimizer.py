"""The optimizer that the factory returns: one visible order for everything in a step."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import keras

from optimization.optimizers import clipping, distribution, gradients, paths, state
from optimization.optimizers.accumulation import Accumulation
from optimization.optimizers.averaging import AveragedWeights
from optimization.optimizers.ema import WeightAverage
from optimization.optimizers.finite import FiniteCheck
from optimization.optimizers.inner import check_wrappable, portable

GradsAndVars = list[tuple[Any, Any]]
GradientFunction = Callable[[GradsAndVars], GradsAndVars]


@keras.saving.register_keras_serializable(package="optimization")
class PipelineOptimizer(AveragedWeights, keras.optimizers.Optimizer):
    """Wraps a Keras optimizer and owns the whole step around its update.

    A step acts in this order, all of it in `_step` and `_take_update`: sum over replicas, sum
    duplicate sparse indices, undo the static loss scale, accumulate, finite check, gradient
    transformers, clip, weight decay and update of the inner optimizer, constraints, iteration
    count, weight average. So every clip sees the gradient of the whole batch, where Keras clips
    what each replica has.

    With `gradient_accumulation_steps=k`, k calls of `apply` make one update with the mean of their
    gradients, and what comes after acts once. Clipping each micro-batch before would not equal
    the clip of one batch of k times the size. (In Keras, schedules and the
    weight average follow the micro-batches.)

    With `tf.distribute` on several replicas, reduce the gradients inside `strategy.run` and step
    once outside, so that the step is computed once:

        def replica_step(batch):
            ...
            pairs = optimizer.aggregate_gradients(zip(grads, variables))
            return [gradient for gradient, _ in pairs]

        optimizer.apply(strategy.run(replica_step, args=(batch,)), variables)

    `apply` inside `strategy.run`, as `model.fit` calls it, reduces by itself. Inside the
    strategy's scope, but outside `run`, it is an error.

    Hyperparameters of the inner optimizer are read and set through this one
    (`optimizer.momentum`); `optimizer.optimizer` is the inner one. Both count the same iterations.

    Args:
        optimizer: A `keras.optimizers.Optimizer`, not built, without clips, EMA, accumulation or
            loss scale of its own.
        clipnorm: Bound on the norm of each variable's gradient.
        clipvalue: Bound on the absolute value of each entry.
        global_clipnorm: Bound on the norm over all gradients.
        gradient_clip_norm: BERT's bound on the norm over all gradients. It acts before the
            transformers, as in Model Garden, and before the other clip; with `global_clipnorm` the
            smaller bound decides. None or 0 turns it off.
        ema: Arguments of `WeightAverage`, or None for no average.
        gradient_aggregator: Takes (gradient, variable) pairs and returns them aggregated, instead
            of the sum over replicas. Without a strategy it is called by `apply`.
        gradient_transformers: Functions from pairs to pairs, applied one after the other.
        jit_compile: Compile the inner update with XLA. TensorFlow: in a `tf.function` of its own,
            for one replica; sparse gradients are made dense there. JAX: the step is compiled
            as a whole by whoever jits it. PyTorch: an error.
        loss_scale_factor: Static loss scale: `scale_loss` multiplies, a step divides.
        gradient_accumulation_steps: Calls of `apply` in one update, >= 1.
        on_nonfinite: What happens if a gradient of an update is infinite or NaN: "propagate" does
            not look; "skip" leaves weights, moments, average and `iterations` as they are and
            counts in `nonfinite_steps` and `consecutive_nonfinite`; "raise" raises what
            `FiniteCheck` says.
        max_consecutive_nonfinite: With "skip", one more skip in a row raises; None: none does.
        name: Name of the optimizer.

    Raises:
        TypeError: If `optimizer` is not a Keras optimizer, or takes its steps in a way of its own.
        ValueError: For an inner optimizer that is built or has one of the arguments above; more
            than one of `clipnorm`, `clipvalue`, `global_clipnorm`; a bound that is not > 0;
            transformers together with one of these; `jit_compile` on PyTorch;
            `gradient_accumulation_steps` < 1; a choice of `on_nonfinite` that is unknown.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        *,
        clipnorm: float | None = None,
        clipvalue: float | None = None,
        global_clipnorm: float | None = None,
        gradient_clip_norm: float | None = None,
        ema: Mapping[str, Any] | None = None,
        gradient_aggregator: GradientFunction | None = None,
        gradient_transformers: Sequence[GradientFunction] | None = None,
        jit_compile: bool = False,
        loss_scale_factor: float | None = None,
        gradient_accumulation_steps: int = 1,
        on_nonfinite: str = "propagate",
        max_consecutive_nonfinite: int | None = None,
        name: str | None = None,
    ):
        check_wrappable(optimizer)
        # A callable rate makes no variable here: the inner optimizer has it.
        super().__init__(
            learning_rate=self._inner_learning_rate,
            clipnorm=clipnorm,
            clipvalue=clipvalue,
            global_clipnorm=global_clipnorm,
            loss_scale_factor=loss_scale_factor,
            name=name,
        )
        del self.weight_decay  # Read through to the inner optimizer, which decays.
        self.gradient_clip_norm = gradient_clip_norm or None
        self.gradient_aggregator = gradient_aggregator
        self.gradient_transformers = list(gradient_transformers or ())
        clipping.check(self)
        if jit_compile and keras.backend.backend() == "torch":
            raise ValueError("Argument `jit_compile` must be False on the PyTorch backend.")
        self.jit_compile = jit_compile
        self.gradient_accumulation_steps = _checked_steps(gradient_accumulation_steps)
        self._accumulation = None
        if gradient_accumulation_steps > 1:
            self._accumulation = Accumulation(gradient_accumulation_steps)
        self._finite_check = FiniteCheck(on_nonfinite, max_consecutive_nonfinite)
        self._average = None if ema is None else WeightAverage(**ema)
        self._compiled_update = distribution.CompiledUpdate(self._inner_update)
        self._paths: list[str] = []
        self._saved_paths: list[str] | None = None
        self._made_under_strategy = distribution.has_strategy()
        distribution.reduce_only_once(optimizer)
        # One counter: bias corrections and schedules of the inner optimizer see every step.
        optimizer._untrack_variable(optimizer._iterations)
        optimizer._iterations = self._iterations
        self.optimizer = optimizer

    # The step

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Takes one step.

        Args:
            grads: One gradient for each variable, dense, sparse (`tf.IndexedSlices`) or None; or
                what `strategy.run` returned.
            trainable_variables: The variables; None: those the optimizer was built with.

        Raises:
            ValueError: If no gradient is given, or for a variable that the optimizer was not
                built with.
            RuntimeError: If weights and averages are swapped, or inside a strategy's scope but
                outside its `run`.
        """
        if distribution.in_cross_replica():
            raise RuntimeError(
                "`apply` must be called outside `strategy.scope()`, or inside `strategy.run`."
            )
        if len(grads) == 0:
            return
        variables = self._known_variables(grads, trainable_variables)
        grads, variables = self._filter_empty_gradients(grads, variables)
        guard = contextlib.nullcontext() if self._average is None else self._average.guard()
        with guard, gradients.without_autograd():
            self._step(list(zip(grads, variables, strict=True)))

    def _known_variables(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None
    ) -> list[Any]:
        if trainable_variables is not None and not self.built:
            self.build(trainable_variables)
        if not self.built:
            raise ValueError(
                "The optimizer is not built: pass the variables, or call `build(variables)` first."
            )
        variables = list(trainable_variables or self._trainable_variables)
        if len(grads) != len(variables):
            raise ValueError(
                "Argument `grads` must hold one gradient for each variable, "
                f"received: {len(grads)} gradients, {len(variables)} variables"
            )
        self._check_variables_are_known(variables)
        return variables

    def _step(self, pairs: GradsAndVars) -> None:
        """The step up to the update, in the order in which it acts."""
        pairs = self._reduced(pairs)
        pairs = [(gradients.sum_duplicates(gradient), variable) for gradient, variable in pairs]
        pairs = self._unscaled(pairs)
        if self._accumulation is None:
            self._check_and_update(pairs)
        else:
            self._accumulation.add(pairs, self._check_and_update, self._all_variables())

    def _check_and_update(self, pairs: GradsAndVars) -> None:
        if self._finite_check.on_nonfinite == "propagate":
            self._take_update(pairs)
            return
        names = self._paths_of(variable for _, variable in pairs)
        self._finite_check.take(pairs, names, self._take_update, self._all_variables())

    def _take_update(self, pairs: GradsAndVars) -> None:
        """The update, in the order in which it acts."""
        pairs = clipping.clipped_first(self, self._without_overwritten(pairs))
        for transform in self.gradient_transformers:
            pairs = list(transform(pairs))
        grads, variables = _unzip(pairs)
        grads = clipping.clipped(self, grads)
        if variables:
            self._update(grads, variables)
        for variable in variables:
            if variable.constraint is not None:
                variable.assign(variable.constraint(variable))
        self._iterations.assign_add(1)
        if self._average is not None:
            self._average.update(self._iterations)

    def _unscaled(self, pairs: GradsAndVars) -> GradsAndVars:
        if self.loss_scale_factor is None:
            return pairs
        factor = 1 / self.loss_scale_factor
        return [
            (g if self._overwrite_variable_with_gradient(v) else gradients.scale(g, factor), v)
            for g, v in pairs
        ]

    def _without_overwritten(self, pairs: GradsAndVars) -> GradsAndVars:
        """Assigns what is no gradient but a new value, as float8 layers compute for scales."""
        for gradient, variable in pairs:
            if self._overwrite_variable_with_gradient(variable):
                variable.assign(gradient)
        return [pair for pair in pairs if not self._overwrite_variable_with_gradient(pair[1])]

    def _all_variables(self) -> list[keras.Variable]:
        """What a step may read or assign."""
        weights = [] if self._average is None else self._average.weights
        together = [*self.variables, *self._trainable_variables, *weights]
        return list({id(variable): variable for variable in together}.values())

    def _paths_of(self, variables: Iterable[Any]) -> list[str]:
        return [self._paths[self._get_variable_index(variable)] for variable in variables]

    def _reduced(self, pairs: GradsAndVars) -> GradsAndVars:
        if distribution.in_replica():
            return self.aggregate_gradients(pairs)
        if self._made_under_strategy:
            # Outside `run`: what it returned was aggregated there, by `aggregate_gradients`.
            return [(distribution.local_value(self, gradient), v) for gradient, v in pairs]
        return self._aggregated(pairs)

    def aggregate_gradients(self, grads_and_vars: Any) -> GradsAndVars:
        """Aggregates gradients over replicas, for a step outside `strategy.run`.

        Inside `strategy.run`: the sum over replicas, or what `gradient_aggregator` returns. With
        no strategy: the pairs as they are; `apply` calls the aggregator. So each gradient is
        aggregated once. None gradients stay None, in place.

        Args:
            grads_and_vars: (gradient, variable) pairs.

        Returns:
            A list of pairs.
        """
        pairs = list(grads_and_vars)
        return self._aggregated(pairs) if distribution.in_replica() else pairs

    def _aggregated(self, pairs: GradsAndVars) -> GradsAndVars:
        present = [pair for pair in pairs if pair[0] is not None]
        if not present:
            return pairs
        if self.gradient_aggregator is not None:
            present = list(self.gradient_aggregator(present))
        elif distribution.in_replica():
            grads, variables = _unzip(present)
            present = list(zip(distribution.sum_over_replicas(grads), variables, strict=True))
        remaining = iter(present)
        return [pair if pair[0] is None else next(remaining) for pair in pairs]

    def _update(self, grads: list[Any], variables: list[Any]) -> None:
        # On JAX the caller's jit compiles this along with everything else.
        if self.jit_compile and keras.backend.backend() == "tensorflow":
            self._compiled_update(grads, variables)
        else:
            self._inner_update(grads, variables)

    def _inner_update(self, grads: list[Any], variables: list[Any]) -> None:
        self.optimizer._apply_weight_decay(variables)
        self.optimizer._backend_update_step(grads, variables, self.optimizer.learning_rate)

    # Variables

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates all state for the given trainable variables.

        Raises:
            ValueError: If the variables belong to a `tf.distribute` strategy and the optimizer
                was made outside its scope, or if `jit_compile` meets several replicas.
        """
        if self.built:
            return
        variables = list(variables)
        self._check_strategy(variables)
        saved = self._saved_paths and self._saved_paths[: len(variables)]
        self._paths = paths.settled(variables, saved)
        with distribution.creation_scope(self), paths.known_as(variables, self._paths):
            self.optimizer.build(variables)
            if self._average is not None:
                self._average.build(self, variables)
            if self._accumulation is not None:
                self._accumulation.build(self, variables, self._paths)
            self._finite_check.build(self)
            # Otherwise Keras would make accumulators of its own.
            steps, self.gradient_accumulation_steps = self.gradient_accumulation_steps, None
            super().build(variables)
            self.gradient_accumulation_steps = steps

    def _check_strategy(self, variables: list[Any]) -> None:
        distributed = any(distribution.strategy_of(variable) is not None for variable in variables)
        if distributed and not self._made_under_strategy:
            raise ValueError(
                "The variables were made under a tf.distribute strategy: make the optimizer inside "
                "the same `strategy.scope()`."
            )
        if self.jit_compile and distribution.replicas_of(self) > 1:
            raise ValueError(
                "Argument `jit_compile` must be False on more than one replica, "
                f"received: {distribution.replicas_of(self)} replicas"
            )

    @property
    def iterations(self) -> keras.Variable:
        """Updates taken; Keras' own count is of micro-batches."""
        return self._iterations

    @property
    def micro_step(self) -> Any:
        """Micro-batches added up since the last update; always 0 without accumulation."""
        built = self._accumulation is not None and self._accumulation.micro_step is not None
        return self._accumulation.micro_step if built else 0

    @property
    def nonfinite_steps(self) -> Any:
        """Updates skipped so far because of a gradient that was not finite."""
        return 0 if self._finite_check.total is None else self._finite_check.total

    @property
    def consecutive_nonfinite(self) -> Any:
        """Those of them since the last update that was taken."""
        return 0 if self._finite_check.total is None else self._finite_check.consecutive

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, those of the inner optimizer included, each once."""
        inner = [v for v in self.optimizer.variables if v is not self._iterations]
        return self._variables[:] + inner

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns all variables under unique names that are the same in every process.

        For example `iteration`, `optimizer/momentums/encoder/dense/kernel`,
        `average/encoder/dense/kernel`: checkpoints by these names don't depend on any order.
        `tf.train.Checkpoint(optimizer=...)` uses them too; build before restoring one.
        """
        named = {"iteration": self._iterations}
        if self._average is not None and self.built:
            named.update(self._average.variables_by_path())
        if self._accumulation is not None and self.built:
            named.update(self._accumulation.variables_by_path())
        named.update(self._finite_check.variables_by_path())
        inner = state.inner_variables_by_path(
            self.optimizer, self._paths[: len(self._trainable_variables)]
        )
        named.update(
            (f"optimizer/{path}", variable)
            for path, variable in inner.items()
            if variable is not self._iterations
        )
        return named

    def set_weights(self, weights: Sequence[Any]) -> None:
        """Sets all variables, in the order of `variables`."""
        if len(weights) != len(self.variables):
            raise ValueError(
                f"Argument `weights` must hold {len(self.variables)} arrays, received: "
                f"{len(weights)}"
            )
        for variable, weight in zip(self.variables, weights, strict=True):
            variable.assign(weight)

    def save_own_variables(self, store: Any) -> None:
        """Writes all variables by path, for Keras' saving."""
        state.save(self.variables_by_path(), store)

    def load_own_variables(self, store: Any) -> None:
        """Reads all variables by path, for Keras' saving.

        Raises:
            ValueError: Listing what is missing and what is left over; nothing is changed then.
        """
        later = None if self._average is None else self._average.loads_later
        waiting = state.load(self.variables_by_path(), store, later)
        if waiting:
            self._average.load(waiting)

    def _trackable_children(self, save_type: str = "checkpoint", **kwargs: Any) -> dict[str, Any]:
        # `tf.train.Checkpoint(optimizer=...)` saves by these names too, not by position.
        return dict(self.variables_by_path())

    def __dir__(self) -> list[str]:
        # Keras' saving walks `dir` and would save the inner optimizer a second time, by position.
        return [name for name in super().__dir__() if name != "optimizer"]

    # Hyperparameters

    def _inner_learning_rate(self) -> Any:
        return self.optimizer.learning_rate

    @property
    def learning_rate(self) -> Any:
        """The learning rate at the present step; setting it sets the inner optimizer's."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.optimizer.learning_rate = learning_rate

    def __getattr__(self, name: str) -> Any:
        # Private names are Keras' own bookkeeping, which probes for them.
        if name.startswith("_") or "optimizer" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.__dict__["optimizer"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        if not own and hasattr(self.__dict__.get("optimizer"), name):
            setattr(self.optimizer, name, value)
        else:
            super().__setattr__(name, value)

    # Serialization

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs, the inner optimizer included."""
        serialize = keras.saving.serialize_keras_object
        return {
            "name": self.name,
            "optimizer": portable(serialize(self.optimizer)),
            "clipnorm": self.clipnorm,
            "clipvalue": self.clipvalue,
            "global_clipnorm": self.global_clipnorm,
            "gradient_clip_norm": self.gradient_clip_norm,
            "ema": self.ema,
            "gradient_aggregator": serialize(self.gradient_aggregator),
            "gradient_transformers": [serialize(f) for f in self.gradient_transformers],
            "jit_compile": self.jit_compile,
            "loss_scale_factor": self.loss_scale_factor,
            "gradient_accumulation_steps": self.gradient_accumulation_steps or 1,
            "on_nonfinite": self._finite_check.on_nonfinite,
            "max_consecutive_nonfinite": self._finite_check.max_consecutive,
            "variable_paths": list(self._paths) or self._saved_paths,
        }

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "PipelineOptimizer":
        """Rebuilds the optimizer, without its state, from `get_config()`."""

        def deserialize(value: Any) -> Any:
            return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)

        config = dict(config)
        config["optimizer"] = deserialize(config["optimizer"])
        config["gradient_aggregator"] = deserialize(config.get("gradient_aggregator"))
        config["gradient_transformers"] = [
            deserialize(function) for function in config.get("gradient_transformers") or ()
        ]
        saved_paths = config.pop("variable_paths", None)
        optimizer = cls(**config)
        optimizer._saved_paths = saved_paths
        return optimizer


def _unzip(pairs: GradsAndVars) -> tuple[list[Any], list[Any]]:
    return [gradient for gradient, _ in pairs], [variable for _, variable in pairs]


def _checked_steps(steps: int) -> int | None:
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(
            "Argument `gradient_accumulation_steps` must be an integer >= 1, "
            f"received: gradient_accumulation_steps={steps!r}"
        )
    return steps if steps > 1 else None  # None is Keras' word for no accumulation
