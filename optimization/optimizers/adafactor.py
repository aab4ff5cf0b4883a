"""Adafactor in every variant that is in use, chosen by switches."""

import math
from collections.abc import Sequence
from typing import Any, ClassVar

import keras
from keras import ops

from optimization.configs.errors import ConfigError
from optimization.optimizers.paths import path_of
from optimization.optimizers.patterns import matches_any, require_matches
from optimization.optimizers.rates import ScaledRate, is_schedule
from optimization.optimizers.slots import (
    Float32Slots,
    as_dense,
    compute_dtype,
    root_mean_square,
    steps_since,
)
from optimization.optimizers.stages import SquareSum, Staged, Stages
from optimization.rules.adafactor import AdafactorConfig, keras_switches
from optimization.rules.adafactor_variants import axes_to_factor
from optimization.schedules.keras_schedules import schedule_class
from optimization.schedules.relative_step import RelativeStepLrConfig


@keras.saving.register_keras_serializable(package="optimization")
class Adafactor(Staged, Float32Slots, keras.optimizers.Optimizer):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), its memory factored for real.

    With t = 1, 2, ..., s = max(t - step_offset, 1) and b = min(beta_2_cap, 1 - s^-decay_rate):

        G = g^2 + epsilon1                            with epsilon1_mode="clamp": G = g^2
        R <- b R + (1 - b) mean(G, d0)                d0, d1: the axes that are factored
        C <- b C + (1 - b) mean(G, d1)
        V = R C / mean(R, d1)                         not factored: V <- b V + (1 - b) G
        u = g / sqrt(V);  u <- u / max(1, RMS(u) / clipping_threshold)
        rho = lr, min(lr, 1 / sqrt(t)) or min(1e-2, 1 / sqrt(t))        by `step_size`
        alpha = rho max(RMS(w), epsilon2)             without the scale: alpha = rho
        u <- alpha u
        u <- m <- beta1 m + (1 - beta1) u             with `beta1`
        w <- (1 - k) w - u,  k = weight_decay, weight_decay lr or weight_decay alpha

    With "clamp", V = R C / max(mean(R, d1), epsilon1) and u = g / sqrt(max(V, epsilon1^2)), as
    PyTorch reads the paper. With momentum_of="update" m averages u before it is multiplied by
    alpha; with weight_decay_first=True w <- (1 - k) w comes before RMS(w).

    A factored variable has R and C and nothing of its own size, unless there is a momentum. All
    state is float32 at least. The first step's b is 0, so that nothing has to be corrected.

    `AdafactorConfig` has the switches' values in the Adafactors of transformers, PyTorch, Keras,
    optax, T5X, timm and Big Vision, and in the paper. The defaults are T5X's.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the step. None is 0.001, and with
            step_size="relative" all that may be given.
        factored: Keep row and column means instead of the whole second moment.
        multiply_by_parameter_scale: Take steps relative to the RMS of the weights.
        beta1: Decay of a momentum, in [0, 1); None keeps no momentum.
        decay_rate: Exponent of the second moment's decay, > 0.
        step_offset: Optimizer step at which fine-tuning starts. Up to it s is 1, where T5X has no
            number.
        clipping_threshold: Bound on the update's RMS, > 0; None turns it off.
        min_dim_size_to_factor: Smallest axis that is factored; for "timm" the largest that isn't.
        epsilon1: Added to the squared gradient, or a bound on sqrt(V) from below; None, with
            "clamp", is the epsilon of the dtype that is computed in.
        epsilon2: Floor of the parameter scale.
        weight_decay: See k above; None turns it off.
        include_in_weight_decay: Regular expressions searched in the full path: only these
            decay; None: all variables.
        step_size: "absolute", "capped" or "relative": the three values of rho.
        warmup_init: With "relative", rho = min(1e-6 t, 1 / sqrt(t)).
        epsilon1_mode: "added" or "clamp".
        factored_axes: "two_largest", "last_two", or "timm"; see `axes_to_factor`.
        beta_2_cap: Bound on b, in [0, 1); None for none.
        momentum_of: "scaled_update" or "update".
        weight_decay_kind: "plain", "learning_rate" or "step_size": the three values of k.
        weight_decay_first: Decay before RMS(w) is taken.
        step_count: What t counts: "global", all updates, or "per_parameter", those in which the
            variable had a gradient.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For a value out of its range, switches that contradict each other, an invalid
            regular expression; at build, for expressions of which none matches a variable.
    """

    argument_attributes: ClassVar[dict[str, str]] = {"weight_decay": "decoupled_decay"}
    rate_multiplier = 1.0  # that of a parameter group, in `learning_rate` already

    def __init__(
        self,
        learning_rate: Any = None,
        factored: bool = True,
        multiply_by_parameter_scale: bool = True,
        beta1: float | None = None,
        decay_rate: float = 0.8,
        step_offset: int = 0,
        clipping_threshold: float | None = 1.0,
        min_dim_size_to_factor: int = 128,
        epsilon1: float | None = 1e-30,
        epsilon2: float = 1e-3,
        weight_decay: float | None = None,
        include_in_weight_decay: Sequence[str] | str | None = None,
        step_size: str = "absolute",
        warmup_init: bool = False,
        epsilon1_mode: str = "added",
        factored_axes: str = "two_largest",
        beta_2_cap: float | None = None,
        momentum_of: str = "scaled_update",
        weight_decay_kind: str = "plain",
        weight_decay_first: bool = False,
        step_count: str = "global",
        name: str = "Adafactor",
        **kwargs: Any,
    ):
        switches = _checked(
            factored=factored,
            multiply_by_parameter_scale=multiply_by_parameter_scale,
            beta1=beta1,
            decay_rate=decay_rate,
            step_offset=step_offset,
            clipping_threshold=clipping_threshold,
            min_dim_size_to_factor=min_dim_size_to_factor,
            epsilon1=epsilon1,
            epsilon2=epsilon2,
            weight_decay=weight_decay,
            include_in_weight_decay=include_in_weight_decay,
            step_size=step_size,
            warmup_init=warmup_init,
            epsilon1_mode=epsilon1_mode,
            factored_axes=factored_axes,
            beta_2_cap=beta_2_cap,
            momentum_of=momentum_of,
            weight_decay_kind=weight_decay_kind,
            weight_decay_first=weight_decay_first,
            step_count=step_count,
        )
        relative_step = switches.own_learning_rate()
        learning_rate = _checked_rate(learning_rate, relative_step)
        # The base class would decay every variable times the rate: its argument stays unset.
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self._relative_step = relative_step
        values = {**switches.arguments(), "weight_decay": weight_decay}
        del values["name"]
        self._switches = tuple(values)
        for switch, value in values.items():
            setattr(self, self.argument_attributes.get(switch, switch), value)

    def build(self, variables: Sequence[keras.Variable]) -> None:
        """Creates row and column means, or whole second moments, and momentums."""
        if self.built:
            return
        require_matches(self.include_in_weight_decay, variables, "include_in_weight_decay")
        super().build(variables)
        self._decays = [self._is_to_decay(variable) for variable in variables]
        self._axes = [self._factored_axes_of(variable) for variable in variables]
        self._rows, self._columns, self._velocities = [], [], []
        for variable, axes in zip(variables, self._axes, strict=True):
            shape = tuple(variable.shape)
            d0, d1 = axes or (None, None)
            whole = shape if axes is None else None
            self._rows.append(self._moment(variable, _without(shape, d0), "row"))
            self._columns.append(self._moment(variable, _without(shape, d1), "column"))
            self._velocities.append(self._moment(variable, whole, "velocity"))
        if self.beta1 is not None:
            self._momentums = self.add_optimizer_variables(variables, "momentum")
        if self.step_count == "per_parameter":
            self._counts = [self._moment(variable, (), "count", "int") for variable in variables]

    def _is_to_decay(self, variable: Any) -> bool:
        included = self.include_in_weight_decay
        return (
            bool(self.decoupled_decay)
            and self._use_weight_decay(variable)
            and (included is None or matches_any(path_of(variable), included))
        )

    def _factored_axes_of(self, variable: Any) -> tuple[int, int] | None:
        if not self.factored:
            return None
        shape = tuple(variable.shape)
        return axes_to_factor(shape, self.factored_axes, self.min_dim_size_to_factor)

    def _moment(
        self, variable: Any, shape: tuple[int, ...] | None, name: str, dtype: str | None = None
    ) -> keras.Variable | None:
        if shape is None or self._overwrite_variable_with_gradient(variable):
            return None
        path = path_of(variable).replace("/", "_")
        dtype = dtype or compute_dtype(variable)
        return self.add_variable(shape, dtype=dtype, name=f"{path}_{name}")

    def update_stages(self, gradient: Any, variable: Any, learning_rate: Any) -> Stages:
        """Updates one variable and its moments."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        squares: Any = ()
        wanted = self._wanted_squares(index, gradient, variable)
        if wanted:
            _, squares = yield (), wanted
        t = self._next_step(index, dtype)
        size = math.prod(variable.shape)
        rms = ops.sqrt(squares[-1] / size) if self.multiply_by_parameter_scale else None
        lr, alpha = self._rates(index, rms, t, ops.cast(learning_rate, dtype))
        axes = self._axes[index] or ()
        means = [total / variable.shape[axis] for total, axis in zip(squares, axes, strict=False)]
        self._average_squares(index, as_dense(gradient, dtype), means)
        excess = 1.0
        if self.clipping_threshold is not None:
            # Computed twice, so that a fused update need not keep it.
            update = self._normalized(index, as_dense(gradient, dtype))
            (lr, alpha), (square,) = yield (lr, alpha), [SquareSum(update)]
            excess = ops.maximum(ops.sqrt(square / size) / self.clipping_threshold, 1.0)
        update = self._normalized(index, as_dense(gradient, dtype)) / excess
        if self.momentum_of == "scaled_update":
            update = self._with_momentum(index, alpha * update)
        else:
            update = alpha * self._with_momentum(index, update)
        if self._decays[index]:
            update = update + self._decay(lr, alpha) * ops.cast(variable, dtype)
        if self.step_count == "per_parameter":
            self.assign(self._counts[index], self._counts[index] + 1)
        self.assign_sub(variable, ops.cast(update, variable.dtype))

    def _wanted_squares(self, index: int, gradient: Any, variable: Any) -> list[SquareSum]:
        """Returns those of rows and columns where it is factored, and that for RMS(w) if needed."""
        wanted = [SquareSum(gradient, axis) for axis in self._axes[index] or ()]
        if self.multiply_by_parameter_scale:
            wanted.append(SquareSum(variable))
        return wanted

    def _next_step(self, index: int, dtype: str, since: int = 0) -> Any:
        """Returns t of the update to come, less a number of steps."""
        counts_itself = self.step_count == "per_parameter"
        done = self._counts[index] if counts_itself else self.iterations
        return steps_since(done, since, dtype) + 1.0

    def _rates(self, index: int, rms: Any, t: Any, lr: Any) -> tuple[Any, Any]:
        """Returns the learning rate, and alpha, of a variable at its step t, of RMS(w) = rms."""
        if self._relative_step is not None and self.step_count == "per_parameter":
            lr = self.rate_multiplier * self._relative_step.value(t - 1.0, ops)
        alpha = ops.minimum(lr, ops.rsqrt(t)) if self._is_capped() else lr
        if self.multiply_by_parameter_scale:
            if self._decays[index] and self.weight_decay_first:
                rms = ops.abs(1 - self._decay(lr, alpha)) * rms
            alpha = alpha * ops.maximum(rms, self.epsilon2)
        return lr, alpha

    def _is_capped(self) -> bool:
        return self.step_size == "capped"

    def _decay(self, lr: Any, alpha: Any) -> Any:
        """Returns the share of itself that a weight loses."""
        factors = {"plain": 1.0, "learning_rate": lr, "step_size": alpha}
        return self.decoupled_decay * factors[self.weight_decay_kind]

    def _with_momentum(self, index: int, update: Any) -> Any:
        if self.beta1 is None:
            return update
        momentum = self._momentums[index]
        self.assign(momentum, self.beta1 * momentum + (1 - self.beta1) * update)
        return ops.convert_to_tensor(momentum)

    def _average_squares(self, index: int, g: Any, means: Sequence[Any]) -> None:
        """Updates the second moments.

        Args:
            index: The variable's.
            g: Its gradient.
            means: If it is factored, the means of g^2 along its two axes.
        """
        t = self._next_step(index, g.dtype, self.step_offset)
        new_share = self._share_of_new(ops.maximum(t, 1.0))
        if self.beta_2_cap is not None:
            new_share = ops.maximum(new_share, 1 - self.beta_2_cap)
        added = 0.0 if self.epsilon1_mode == "clamp" else self.epsilon1

        def average(moment: keras.Variable, new_value: Any) -> None:
            self.assign(moment, (1 - new_share) * moment + new_share * (new_value + added))

        if self._axes[index] is None:
            average(self._velocities[index], ops.square(g))
        else:
            average(self._rows[index], means[0])
            average(self._columns[index], means[1])

    def _normalized(self, index: int, g: Any) -> Any:
        """Returns g / sqrt(V), with V factored or whole."""
        floor = self._floor(g.dtype) if self.epsilon1_mode == "clamp" else None
        if self._axes[index] is None:
            v = ops.convert_to_tensor(self._velocities[index])
            return g * ops.rsqrt(v if floor is None else ops.maximum(v, floor * floor))
        d0, d1 = self._axes[index]
        rows = ops.convert_to_tensor(self._rows[index])
        columns = ops.expand_dims(ops.convert_to_tensor(self._columns[index]), d1)
        # R has lost axis d0, so d1 may have moved down by one.
        mean_of_rows = ops.mean(rows, axis=d1 - (d1 > d0), keepdims=True)
        if floor is None:
            # Apart, roots do not underflow where that of a product or a quotient would: of a row
            # of zeros beside large gradients, for one.
            of_rows = ops.sqrt(mean_of_rows) * ops.rsqrt(rows)
            return g * ops.expand_dims(of_rows, d0) * ops.rsqrt(columns)
        v = ops.expand_dims(rows / ops.maximum(mean_of_rows, floor), d0) * columns
        return g * ops.rsqrt(ops.maximum(v, floor * floor))

    def _share_of_new(self, step: Any) -> Any:
        return step**-self.decay_rate

    def _floor(self, dtype: Any) -> Any:
        if self.epsilon1 is not None:
            return self.epsilon1
        return _EPSILONS[keras.backend.standardize_dtype(dtype)]

    def is_decayed(self, variable: Any) -> bool:
        """Says whether weight decay acts on a variable."""
        return self._decays[self._get_variable_index(variable)]

    def effective_rate(self, variable: Any) -> Any:
        """Returns alpha of the update to come for a variable; see `effective_learning_rates`."""
        dtype = compute_dtype(variable)
        index = self._get_variable_index(variable)
        t = self._next_step(index, dtype)
        lr = ops.cast(self.learning_rate, dtype)
        return self._rates(index, root_mean_square(ops.cast(variable, dtype)), t, lr)[1]

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        attributes = self.argument_attributes
        switches = {name: getattr(self, attributes.get(name, name)) for name in self._switches}
        included = self.include_in_weight_decay
        switches["include_in_weight_decay"] = None if included is None else list(included)
        return {**super().get_config(), **switches}


@keras.saving.register_keras_serializable(package="optimization")
class AdafactorKeras(Adafactor):
    """`Adafactor` with the arguments of `keras.optimizers.Adafactor`, meant as documented.

    Keras documents that a constant learning rate with `relative_step=True` is adjusted by the
    current iteration, but its code caps every rate. Here, with t = iterations + 1, the rate is

        min(lr, 1 / sqrt(t))     if the learning rate is a constant and relative_step is True
        lr                       with a schedule, or with relative_step=False

    Keras also keeps a second moment of the variable's size, which it does not need; here a
    factored variable has row and column means alone.

    Args:
        learning_rate: A float, or a `LearningRateSchedule` of the step.
        beta_2_decay: Second moments decay by 1 - t ** beta_2_decay; < 0.
        epsilon_1: Added to the squared gradient.
        epsilon_2: Floor of the parameter scale.
        clip_threshold: Bound on the update's RMS, > 0.
        relative_step: See above.
        weight_decay: Before each update w -= lr * weight_decay * w; None turns it off.
        name: Name of the optimizer.
        **kwargs: Arguments of `keras.optimizers.Optimizer`.

    Raises:
        ValueError: For a value out of its range.
    """

    argument_attributes: ClassVar[dict[str, str]] = {
        **Adafactor.argument_attributes,
        "epsilon_1": "epsilon1",
        "epsilon_2": "epsilon2",
        "clip_threshold": "clipping_threshold",
    }

    def __init__(
        self,
        learning_rate: Any = 0.001,
        beta_2_decay: float = -0.8,
        epsilon_1: float = 1e-30,
        epsilon_2: float = 1e-3,
        clip_threshold: float = 1.0,
        relative_step: bool = True,
        weight_decay: float | None = None,
        name: str = "Adafactor",
        **kwargs: Any,
    ):
        switches = keras_switches(
            beta_2_decay,
            epsilon_1,
            epsilon_2,
            clip_threshold,
            relative_step,
            constant_rate=True,  # it may change: `_is_capped` looks at each step
        )
        switches["weight_decay"] = weight_decay
        super().__init__(learning_rate, **switches, name=name, **kwargs)
        self.beta_2_decay = beta_2_decay
        self.relative_step = relative_step

    def _share_of_new(self, step: Any) -> Any:
        return step**self.beta_2_decay

    def _is_capped(self) -> bool:
        return super()._is_capped() and not is_schedule(self._learning_rate)

    def get_config(self) -> dict[str, Any]:
        """Returns everything the constructor needs."""
        return {
            **keras.optimizers.Optimizer.get_config(self),
            "beta_2_decay": self.beta_2_decay,
            "epsilon_1": self.epsilon1,
            "epsilon_2": self.epsilon2,
            "clip_threshold": self.clipping_threshold,
            "relative_step": self.relative_step,
            "weight_decay": self.decoupled_decay,
        }


_EPSILONS = {"float32": 2.0**-23, "float64": 2.0**-52}


def _checked(**switches: Any) -> AdafactorConfig:
    """Returns the switches if they are right, in one place with the config's own checks."""
    config = AdafactorConfig(switches)
    problems = [config._problem("conflict", *conflict) for conflict in config.impossible()]
    if problems:
        raise ConfigError(problems)
    return config


def _checked_rate(learning_rate: Any, relative_step: RelativeStepLrConfig | None) -> Any:
    if relative_step is None:
        return 0.001 if learning_rate is None else learning_rate
    if learning_rate is None:
        return schedule_class(RelativeStepLrConfig)(warmup_init=relative_step.warmup_init)
    # A group's or layer's part of that rate is as right.
    given = getattr(learning_rate, "config", None)
    same = isinstance(given, RelativeStepLrConfig) and (
        given.warmup_init == relative_step.warmup_init
    )
    if not (same or isinstance(learning_rate, ScaledRate)):
        raise ValueError(
            'Argument `learning_rate` must be None with step_size="relative", which makes the '
            f"rate itself, received: learning_rate={learning_rate!r}"
        )
    return learning_rate


def _without(shape: tuple[int, ...], axis: int | None) -> tuple[int, ...] | None:
    return None if axis is None else shape[:axis] + shape[axis + 1 :]
