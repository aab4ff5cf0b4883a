"""The optimizer that the factory returns: a tuple of stages, in the order in which they act."""

import contextlib
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import keras

from optimization.keras import control, gradients, paths
from optimization.keras.compiling import translation, unconverted
from optimization.keras.copies import CopiesWeights
from optimization.keras.inner import check_wrappable, portable, take_in
from optimization.keras.staged import Staged
from optimization.keras.stages.accumulate import Accumulate
from optimization.keras.stages.average import Average
from optimization.keras.stages.clip import Clip, FirstClip
from optimization.keras.stages.constrain import Constrain
from optimization.keras.stages.finite_check import FiniteCheck
from optimization.keras.stages.freeze import Freeze
from optimization.keras.stages.overwrite import Overwrite
from optimization.keras.stages.reduce import Reduce
from optimization.keras.stages.skip_spikes import SkipSpikes
from optimization.keras.stages.stage import Batch, Stage, fields, in_form
from optimization.keras.stages.sum_duplicates import SumDuplicates
from optimization.keras.stages.transform import Transform
from optimization.keras.stages.unscale import Unscale
from optimization.keras.stages.update import Update
from optimization.keras.state import SavedByPath

STAGES: tuple[type[Stage], ...] = (
    Reduce,
    SumDuplicates,
    Unscale,
    Accumulate,
    Freeze,
    FiniteCheck,
    SkipSpikes,
    Overwrite,
    FirstClip,
    Transform,
    Clip,
    Update,
    Constrain,
    Average,
)


@keras.saving.register_keras_serializable(package="optimization")
class PipelineOptimizer(Staged, SavedByPath, CopiesWeights, keras.optimizers.Optimizer):
    """Wraps a Keras optimizer and owns the whole step around its update.

    A step goes through the stages in `stages`, in this order: sum over replicas, sum duplicate
    sparse indices, undo the static loss scale, accumulate, leave out what is frozen for now, finite
    check, skip spikes, clip by `zclip` and `gradient_clip_norm`, gradient transformers, the other
    clip, weight decay and update by the optimizer of each group, constraints, weight average. So
    every clip sees the gradient of the whole batch, where Keras clips what each replica has.

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

    A subclass with other `stage_types` takes the arguments of these, and steps through them.

    >>> weight = keras.Variable([3.0, 4.0])
    >>> optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0), global_clipnorm=1.0)
    >>> optimizer.apply([keras.ops.convert_to_tensor([30.0, 40.0])], [weight])
    >>> keras.ops.convert_to_numpy(weight).round(3).tolist()
    [2.4000000953674316, 3.200000047683716]

    Args:
        optimizer: A `keras.optimizers.Optimizer`, not built, without clips, EMA, accumulation or
            loss scale of its own.
        name: Name of the optimizer.
        {arguments}

    Raises:
        TypeError: If `optimizer` is not a Keras optimizer, or takes its steps in a way of its own;
            for an argument that no stage has.
        ValueError: For an inner optimizer that is built or has one of the arguments above; two
            of `clipnorm`, `clipvalue`, `global_clipnorm`, `adaptive_clip_factor`; a bound not > 0;
            transformers together with one of these; `jit_compile=True` on PyTorch;
            `gradient_accumulation_steps` < 1; a choice of `on_nonfinite` that is unknown; groups
            or schedules with a hyperparameter that there is not.
    """

    stage_types = STAGES

    def __init__(
        self, optimizer: keras.optimizers.Optimizer, *, name: str | None = None, **arguments: Any
    ):
        check_wrappable(optimizer)
        stages = self._made_stages(arguments)
        # A callable rate makes no variable here: the inner optimizer has it.
        super().__init__(learning_rate=self._inner_learning_rate, name=name)
        del self.weight_decay  # Read through to the inner optimizer, which decays.
        self._paths: list[str] = []
        self._path_by_key: dict[Any, str] = {}
        self._saved_paths: list[str] | None = None
        take_in(optimizer, self._iterations)
        self.optimizer = optimizer
        self._attach(stages)

    # The step

    def apply(self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None = None) -> None:
        """Takes one step.

        Args:
            grads: One gradient for each variable, dense, sparse (`tf.IndexedSlices`) or None; or
                what `strategy.run` returned.
            trainable_variables: The variables; None: those the optimizer was built with.

        Raises:
            ValueError: If no gradient is given, for one of another shape than its variable, and for
                a variable that the optimizer was not built with.
            RuntimeError: If weights and averages are swapped, or inside a strategy's scope but
                outside its `run`.
        """
        self._apply(grads, trainable_variables, translation())

    # Of what `tf.function` would translate only the user's functions gain by it.
    @unconverted
    def _apply(
        self, grads: Sequence[Any], trainable_variables: Sequence[Any] | None, translation: Any
    ) -> None:
        if control.has_strategy() and not control.in_replica():
            raise RuntimeError(
                "`apply` must be called outside `strategy.scope()`, or inside `strategy.run`."
            )
        if len(grads) == 0:
            return
        variables = self._known_variables(grads, trainable_variables)
        grads, variables = self._filter_empty_gradients(grads, variables)
        self.fill_copies()
        update = self.stage(Update)
        batch = Batch(grads, variables, update.updates, translation)
        frozen = update.members.frozen
        if frozen:
            pairs = [(g, v) for g, v in batch.pairs if self._get_variable_index(v) not in frozen]
            batch = batch.with_pairs(pairs)
        with contextlib.ExitStack() as guards:
            for stage in self.stages:
                guards.enter_context(stage.guard())
            guards.enter_context(gradients.without_autograd())
            self._step(batch, self.stages)

    def _step(self, batch: Batch, stages: tuple[Stage, ...]) -> None:
        if not isinstance(batch, Batch):
            before = type(self.stages[-len(stages) - 1]).__name__
            raise TypeError(f"{before} must call `rest` with a Batch, received: {batch!r:.60}")
        if not stages:
            return
        left = stages[0](batch, functools.partial(self._step, stages=stages[1:]))
        if left is not None:
            raise TypeError(
                f"{type(stages[0]).__name__} must call `rest` with the batch that the following "
                f"stages are to have, and return nothing; it returned {left!r:.60}"
            )

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
        if others := gradients.of_other_shapes(grads, variables):
            raise ValueError(
                f"Argument `grads` must have the shapes of the variables, got {others}"
            )
        return variables

    # What it passes on to the inner optimizers

    def _inner_learning_rate(self) -> Any:
        return self.optimizer.learning_rate

    @property
    def learning_rate(self) -> Any:
        """The learning rate at the present step; setting it sets the inner optimizer's."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.optimizer.learning_rate = learning_rate

    @property
    def iterations(self) -> keras.Variable:
        """Updates taken; Keras' own count is of micro-batches."""
        return self._iterations

    def exclude_from_weight_decay(
        self, var_list: Sequence[Any] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Spares variables the weight decay of Keras' optimizers, in every group.

        Unlike Keras', it searches in full paths, on every backend, and is saved.

        Args:
            var_list: Variables.
            var_names: Regular expressions searched (`re.search`) in the path.

        Raises:
            ValueError: If the optimizer is built, or decays by rules of its own; for an invalid
                expression; at build, if none matches a variable.
        """
        if self.built:
            raise ValueError("`exclude_from_weight_decay` must be called before `build`.")
        self.stage(Update).members.exclude(var_list or (), var_names or ())

    def finalize_variable_values(self, var_list: Sequence[Any]) -> None:
        """Ends a training, as `model.fit` does.

        With `use_ema` the weights become their averages. With a schedule-free optimizer they are
        swapped for them: a further training needs a `swap()`, or the callback `EvaluateAverages`.

        Args:
            var_list: The model's trainable variables, which the average knows.

        Raises:
            RuntimeError: If the weights are swapped with their averages.
        """
        del var_list
        if self.built:
            self.fill_copies()
            for stage in self.stages:
                stage.finalize()

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
        for stage in self.stages:
            stage.check(variables)
        self._early_names = set(self.variables_by_path())
        self._paths = []
        with self.naming(variables):
            # The update begins, since it knows what is frozen. This is the order of `variables`.
            update = self.stage(Update)
            first = self.stages.index(update)
            for stage in (*self.stages[first:], *self.stages[:first]):
                frozen = update.members.frozen
                stage.build([v for i, v in enumerate(variables) if i not in frozen])
            # Otherwise Keras would make accumulators of its own.
            self.__dict__["gradient_accumulation_steps"] = None
            super().build(variables)
            del self.__dict__["gradient_accumulation_steps"]
            self._load_what_waited()

    def set_model(self, model: keras.Model) -> None:
        """Creates all state for a built model, before the first step.

        Needed by groups with `layer_type` and by averages with `trainable_weights_only=False`;
        otherwise the first step, or `build`, does the same.

        Raises:
            TypeError: If it is no Keras model.
            ValueError: If the model is not built, and as `build` raises.
        """
        if not hasattr(model, "trainable_variables"):
            raise TypeError(
                f"expected a Keras model, received: {type(model).__name__}; PyTorch and JAX have "
                "factories of their own, `optimization.torch` and `optimization.jax`"
            )
        if not model.built:
            raise ValueError("`set_model` needs a built model: its weights must exist.")
        for stage in self.stages:
            stage.set_model(model)
        self.build(model.trainable_variables)

    @contextlib.contextmanager
    def naming(self, variables: Sequence[Any]) -> Iterator[None]:
        """Gives more variables of the model their paths; in the block state is made for them."""
        start = len(self._paths)
        saved = self._saved_paths and self._saved_paths[start : start + len(variables)]
        found = paths.settled(variables, saved)
        self._paths = [*self._paths, *found]
        keys = map(self._var_key, variables)
        self._path_by_key = {**self._path_by_key, **dict(zip(keys, found, strict=True))}
        with control.creation_scope(self):
            yield

    def path_of(self, variable: Any) -> str:
        """Returns the path of a variable of the model that `naming` was given."""
        return self._path_by_key[self._var_key(variable)]

    @property
    def variable_paths(self) -> list[str]:
        """The paths of the variables that it was built with, then of others that it averages."""
        return list(self._paths)

    @property
    def variables(self) -> list[keras.Variable]:
        """All variables, those of the inner optimizers included, each once."""
        return [*self._variables, *(v for stage in self.stages for v in stage.inner_variables())]

    def all_variables(self) -> list[keras.Variable]:
        """Returns what a step may read or assign: its variables, and weights of the model."""
        weights = [weight for stage in self.stages for weight in stage.weights]
        together = [*self.variables, *self._trainable_variables, *weights]
        return list({id(variable): variable for variable in together}.values())

    # Serialization

    def get_config(self) -> dict[str, Any]:
        config = {
            "name": self.name,
            "optimizer": portable(keras.saving.serialize_keras_object(self.optimizer)),
            "variable_paths": self.variable_paths or self._saved_paths,
        }
        for stage in self.stages:
            config.update(stage.get_config())
        return config

    @classmethod
    def from_config(
        cls, config: dict[str, Any], custom_objects: dict[str, Any] | None = None
    ) -> "PipelineOptimizer":
        config = dict(config)
        saved_paths = config.pop("variable_paths", None)
        saved = {n: config.pop(n, None) for stage in cls.stage_types for n in stage.remembers}
        with keras.saving.custom_object_scope(custom_objects):
            config["optimizer"] = keras.saving.deserialize_keras_object(config["optimizer"])
            for field in (field for stage in cls.stage_types for field in fields(stage)):
                if field.name in config:
                    config[field.name] = in_form(field, "load", config[field.name])
        optimizer = cls(**config)
        optimizer._saved_paths = saved_paths
        for stage in optimizer.stages:
            stage.remember(saved)
        return optimizer
