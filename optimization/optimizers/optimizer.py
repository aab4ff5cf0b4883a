"""The optimizer that the factory returns: one visible order for everything in a step."""

import contextlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

import keras

from optimization.optimizers import distribution, gradients, paths, serialization
from optimization.optimizers.accumulation import Accumulation, checked_steps
from optimization.optimizers.averaging import AveragedWeights
from optimization.optimizers.clipping import Clip
from optimization.optimizers.copies import CopiesWeights
from optimization.optimizers.delegation import Delegates
from optimization.optimizers.ema import WeightAverage
from optimization.optimizers.finite import FiniteCheck
from optimization.optimizers.gradients import bare
from optimization.optimizers.groups import ParamGroup, owning_layer_types
from optimization.optimizers.hyperparameters import HyperparameterSchedules
from optimization.optimizers.inner import check_wrappable, share_iterations
from optimization.optimizers.iterate_average import IterateAverage, averages_iterates
from optimization.optimizers.masters import MasterWeights
from optimization.optimizers.members import Members
from optimization.optimizers.report import Report
from optimization.optimizers.saving import SavedByPath
from optimization.optimizers.slots import for_update
from optimization.optimizers.updates import Updates, checked_jit_compile

GradsAndVars = list[tuple[Any, Any]]
GradientFunction = Callable[[GradsAndVars], GradsAndVars]


@keras.saving.register_keras_serializable(package="optimization")
class PipelineOptimizer(
    Delegates, Report, SavedByPath, AveragedWeights, CopiesWeights, keras.optimizers.Optimizer
):
    """Wraps a Keras optimizer and owns the whole step around its update.

    A step acts in this order, all of it in `_step` and `_take_update`: sum over replicas, sum
    duplicate sparse indices, undo the static loss scale, accumulate, finite check, clip by
    `gradient_clip_norm`, gradient transformers, the other clip, weight decay and update by the
    optimizer of each group, constraints, iteration count, weight average. So every clip sees the
    gradient of the whole batch, where Keras clips what each replica has.

    With `gradient_accumulation_steps=k`, k calls of `apply` make one update with the mean of their
    gradients, and what comes after acts once. Clipping each micro-batch before would not equal
    the clip of one batch of k times the size. (In Keras, schedules and the weight average follow
    the micro-batches.)

    Weights in float16 and bfloat16 are updated through float32 copies (`MasterWeights`); their
    gradients are float32 once they are summed over replicas.

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
        ema: Arguments of `WeightAverage`, or None for no average but that of a schedule-free
            optimizer.
        gradient_aggregator: Takes (gradient, variable) pairs and returns them aggregated, instead
            of the sum over replicas. Without a strategy it is called by `apply`.
        gradient_transformers: Functions from pairs to pairs, applied one after the other.
        jit_compile: Compile updates with XLA on TensorFlow: "auto" where they are part of a
            `tf.function` and can be fused (see `fused`), at any place in the step; True
            everywhere, on one replica, with sparse gradients made dense; False nowhere. JAX: the
            step is compiled as a whole by whoever jits it. PyTorch: True is an error.
        loss_scale_factor: Static loss scale: `scale_loss` multiplies, a step divides.
        adaptive_clip_factor: Bound on the norm of each unit's gradient, as a multiple of the norm
            of the unit's weights (Brock et al. 2021, arXiv:2102.06171).
        adaptive_clip_epsilon: Least norm of weights in that.
        gradient_accumulation_steps: Calls of `apply` in one update, >= 1.
        on_nonfinite: What happens if a gradient of an update is infinite or NaN: "propagate" does
            not look; "skip" leaves weights, moments, average and `iterations` as they are and
            counts in `nonfinite_steps` and `consecutive_nonfinite`; "raise" raises what
            `FiniteCheck` says.
        max_consecutive_nonfinite: With "skip", one more skip in a row raises; None: none does.
        param_groups: Settings for some of the variables; the first group that matches counts.
        layer_decay: Arguments of `LayerDecay`, or None.
        schedules: Functions of the updates taken, by hyperparameter, such as `weight_decay`,
            `momentum` or `beta_1`. Groups that replace it, or do not have it, keep theirs.
        name: Name of the optimizer.

    Raises:
        TypeError: If `optimizer` is not a Keras optimizer, or takes its steps in a way of its own.
        ValueError: For an inner optimizer that is built or has one of the arguments above; two
            of `clipnorm`, `clipvalue`, `global_clipnorm`, `adaptive_clip_factor`; a bound not > 0;
            transformers together with one of these; `jit_compile=True` on PyTorch;
            `gradient_accumulation_steps` < 1; a choice of `on_nonfinite` that is unknown; groups
            or schedules with a hyperparameter that there is not.
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
        jit_compile: bool | Literal["auto"] = "auto",
        loss_scale_factor: float | None = None,
        adaptive_clip_factor: float | None = None,
        adaptive_clip_epsilon: float = 1e-3,
        gradient_accumulation_steps: int = 1,
        on_nonfinite: str = "propagate",
        max_consecutive_nonfinite: int | None = None,
        param_groups: Sequence[ParamGroup] = (),
        layer_decay: Mapping[str, Any] | None = None,
        schedules: Mapping[str, Callable[[Any], Any]] | None = None,
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
        self.adaptive_clip_factor = adaptive_clip_factor
        self.adaptive_clip_epsilon = adaptive_clip_epsilon
        self._clip = Clip(self)
        self.gradient_accumulation_steps = checked_steps(gradient_accumulation_steps)
        self._accumulation = Accumulation.of(self.gradient_accumulation_steps)
        self._finite_check = FiniteCheck(on_nonfinite, max_consecutive_nonfinite)
        self._paths: list[str] = []
        self._saved_paths: list[str] | None = None
        self._made_under_strategy = distribution.has_strategy()
        distribution.reduce_only_once(optimizer)
        share_iterations(optimizer, self._iterations)
        self.optimizer = optimizer
        self._masters = MasterWeights()
        self._members = Members(optimizer, param_groups, layer_decay)
        self._average = self._made_average(ema)
        self._schedules = HyperparameterSchedules(schedules, self._members.own_optimizers())
        self._updates = Updates(self._members, self._schedules, checked_jit_compile(jit_compile))
        self._layer_types: dict[int, str] = {}
        self._saved_layer_types: dict[str, str] = {}

    def _made_average(self, ema: Mapping[str, Any] | None) -> WeightAverage | IterateAverage | None:
        if any(map(averages_iterates, self._members.own_optimizers())):
            if ema is not None:
                raise ValueError(
                    "Argument `ema` must be None with a schedule-free optimizer, which averages "
                    f"by itself, received: {ema=}"
                )
            return IterateAverage(self._members, self._masters)
        return None if ema is None else WeightAverage(**ema)

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
        self._fill_copies()
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
        pairs = self._reduced(self._without_frozen(pairs))
        if not pairs:
            return
        pairs = [
            (g if self._overwrite_variable_with_gradient(v) else for_update(g, v), v)
            for g, v in pairs
        ]
        pairs = self._unscaled(self._updates.postponed(pairs))
        if self._accumulation is None:
            self._check_and_update(pairs)
        else:
            # Lazily, sums are cleared after the update, which an error would leave out.
            lazily = self._updates.are_fused and not self._finite_check.may_raise
            self._accumulation.add(pairs, self._check_and_update, self._all_variables(), lazily)

    def _check_and_update(self, pairs: GradsAndVars) -> None:
        if self._finite_check.on_nonfinite == "propagate":
            self._take_update(pairs)
            return
        names = self._paths_of(variable for _, variable in pairs)
        self._finite_check.take(pairs, names, self._take_update, self._all_variables())

    def _take_update(self, pairs: GradsAndVars) -> None:
        """The update, in the order in which it acts."""
        grads, variables = _unzip(self._without_overwritten(pairs))
        grads, before = self._clip.first(grads)
        pairs = list(zip(grads, variables, strict=True))
        if self.gradient_transformers:  # They take tensors.
            pairs = [(bare(gradient), variable) for gradient, variable in pairs]
        for transform in self.gradient_transformers:
            pairs = list(transform(pairs))
        grads, variables = _unzip(pairs)
        grads = self._clip.rest(grads, variables, before)
        updated = self._masters.brought_up_to_date(variables)
        moved = self._updates.take(grads, variables, updated, self._iterations, self._average)
        for variable, target in zip(variables, updated, strict=True):
            if variable.constraint is not None:
                target.assign(variable.constraint(target))
        self._masters.write_back(variables)
        self._iterations.assign_add(1)
        if self._average is not None:
            self._average.update(self._iterations, moved)
            self._average.overwrite(self._iterations, self._masters.of(self._average.weights))

    def _without_frozen(self, pairs: GradsAndVars) -> GradsAndVars:
        if not self._members.frozen:
            return pairs
        frozen = self._members.frozen
        return [pair for pair in pairs if self._get_variable_index(pair[1]) not in frozen]

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
                variable.assign(bare(gradient))
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
            return [(self._updates.local_gradient(self, g), variable) for g, variable in pairs]
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

    # Variables

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates all state for the given trainable variables.

        Raises:
            ValueError: If the variables belong to a `tf.distribute` strategy and the optimizer
                was made outside its scope, or if `jit_compile=True` meets several replicas.
        """
        if self.built:
            return
        variables = list(variables)
        self._check_strategy(variables)
        self._early_names = set(self.variables_by_path())
        saved = self._saved_paths and self._saved_paths[: len(variables)]
        self._paths = paths.settled(variables, saved)
        with distribution.creation_scope(self), paths.known_as(variables, self._paths):
            self._build_members(variables)
            frozen = self._members.frozen
            learning = [variable for i, variable in enumerate(variables) if i not in frozen]
            if self._average is not None:
                self._average.build(self, learning)
            if self._accumulation is not None:
                self._accumulation.build(self, learning)
            self._finite_check.build(self)
            self._clip.build()
            # Otherwise Keras would make accumulators of its own.
            steps, self.gradient_accumulation_steps = self.gradient_accumulation_steps, None
            super().build(variables)
            self.gradient_accumulation_steps = steps
            self._load_what_waited()

    def _build_members(self, variables: list[Any]) -> None:
        types = [
            self._layer_types.get(id(variable), self._saved_layer_types.get(path))
            for variable, path in zip(variables, self._paths, strict=True)
        ]
        self._saved_layer_types = {p: t for p, t in zip(self._paths, types, strict=True) if t}
        self._members.resolve(variables, self._paths, types)
        targets = self._masters.build(self, variables, self._paths, self._members.frozen)
        with paths.known_as(targets, self._paths):
            self._members.build(self, variables, targets, self._paths)
        self._schedules.build(self._members.scheduled())

    def set_model(self, model: keras.Model) -> None:
        """Creates all state for a built model, before the first step.

        Needed by groups with `layer_type` and by averages with `trainable_weights_only=False`;
        otherwise the first step, or `build`, does the same.

        Raises:
            ValueError: If the model is not built, and as `build` raises.
        """
        if not model.built:
            raise ValueError("`set_model` needs a built model: its weights must exist.")
        self._layer_types = owning_layer_types(model)
        if self._average is None:
            self.build(model.trainable_variables)
        else:
            self.shadow_copy(model)

    def _check_strategy(self, variables: list[Any]) -> None:
        distributed = any(distribution.strategy_of(variable) is not None for variable in variables)
        if distributed and not self._made_under_strategy:
            raise ValueError(
                "The variables were made under a tf.distribute strategy: make the optimizer inside "
                "the same `strategy.scope()`."
            )
        if self.jit_compile is True and distribution.replicas_of(self) > 1:
            raise ValueError(
                'Argument `jit_compile` must be "auto" or False on more than one replica, '
                f"received: {distribution.replicas_of(self)} replicas"
            )

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, those of the inner optimizers included, each once."""
        return self._variables[:] + self._members.variables()

    # Serialization

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs, the inner optimizer included."""
        return serialization.config_of(self)

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "PipelineOptimizer":
        """Rebuilds the optimizer, without its state, from `get_config()`."""
        arguments, saved = serialization.arguments_of(config, custom_objects)
        optimizer = cls(**arguments)
        optimizer._saved_paths = saved["variable_paths"]
        optimizer._saved_layer_types = saved["layer_types"] or {}
        optimizer._members.excluded_names = saved["excluded_names"] or []
        optimizer._members.excluded_paths = saved["excluded_paths"] or []
        return optimizer


def _unzip(pairs: GradsAndVars) -> tuple[list[Any], list[Any]]:
    return [gradient for gradient, _ in pairs], [variable for _, variable in pairs]
