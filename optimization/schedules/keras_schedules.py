"""The Keras adapter: a `LearningRateSchedule` class for every registered learning rate and warmup.

Importing this module makes all of them known to Keras, so that saved models load; types that are
registered later follow at once.
"""

import html
import inspect
from typing import Any, ClassVar

import numpy as np

from optimization import extras

extras.require("keras")

import keras
from keras import ops
from keras.optimizers.schedules import LearningRateSchedule

from optimization.configs import printing
from optimization.configs.base import Config
from optimization.configs.errors import ConfigError
from optimization.configs.registry import Entry
from optimization.schedules import exact
from optimization.schedules.base import Array, BaseLrConfig, BaseWarmupConfig, Namespace
from optimization.schedules.compose import (
    check_schedule,
    incomplete,
    rate_at,
    warmup_target,
    with_warmup,
)
from optimization.schedules.constant import ConstantLrConfig
from optimization.schedules.registry import LR_CLS, WARMUP_CLS
from optimization.schedules.scaled import ScaledLearningRate, rate_text


class ConfiguredSchedule(LearningRateSchedule):
    """A schedule whose arguments are the fields of a config, which holds the formula."""

    config_class: ClassVar[type[Config]]
    _config: Config

    def __init__(self, **kwargs: Any):
        super().__init__()
        if kwargs.get("name", "") is None:  # Model Garden's way to ask for the default
            del kwargs["name"]
        self._config = self.config_class(kwargs)
        problems = incomplete(self._config)
        if problems:
            raise ConfigError(problems)
        self._config.lock()
        self.name = getattr(self._config, "name", None) or type(self).__name__

    def __call__(self, step: Any) -> Any:
        """Returns the learning rate after `step` optimizer steps, a float32 tensor."""
        return exact.evaluated(self.value, step)

    def value(self, step: Array, xp: Namespace) -> Array:
        """Returns the learning rate after `step` optimizer steps, by the formula."""
        raise NotImplementedError

    def curve(self, steps: Any) -> np.ndarray:
        """Returns the learning rate at each of `steps`, in float64, computed by NumPy.

        A Keras schedule of another kind that is wrapped is called for one step after the other.
        """
        return np.asarray(self.value(np.asarray(steps, np.float64), np))

    @property
    def config(self) -> Any:
        """The config, read-only."""
        return self._config

    def get_config(self) -> dict[str, Any]:
        return self._config.as_dict()

    def __repr__(self) -> str:
        return printing.call(type(self).__name__, **dict(self._config._changed()))

    def _repr_html_(self) -> str:
        return html_of(self)

    def __reduce__(self) -> tuple:
        # The class is made at run time, where pickle cannot find it by name.
        schedules = keras.optimizers.schedules
        return schedules.deserialize, (schedules.serialize(self),)


class _ConfiguredLearningRate(ConfiguredSchedule):
    kind: ClassVar[str] = "LearningRate"
    _config: BaseLrConfig

    def value(self, step: Array, xp: Namespace) -> Array:
        with keras.name_scope(self.name):
            return rate_at(self._config, step, xp)


class _ConfiguredWarmup(ConfiguredSchedule):
    """The Keras face of a warmup, around the learning rate that it precedes."""

    kind: ClassVar[str] = "Warmup"
    _config: BaseWarmupConfig

    def __init__(self, after_warmup_lr_sched: Any, **kwargs: Any):
        super().__init__(**kwargs)
        after = after_warmup_lr_sched
        is_number = isinstance(after, int | float | np.number) and not isinstance(after, bool)
        if not is_number and not isinstance(after, LearningRateSchedule):
            raise TypeError(
                "Argument `after_warmup_lr_sched` must be a number or a LearningRateSchedule, "
                f"received: after_warmup_lr_sched={after!r}"
            )
        after = schedule_class(ConstantLrConfig)(learning_rate=after) if is_number else after
        self.after_warmup_lr_sched = after
        self._target = warmup_target(
            self._config, lambda step: float(curve_of(self.after_warmup_lr_sched, step))
        )

    def value(self, step: Array, xp: Namespace) -> Array:
        after = self.after_warmup_lr_sched

        def rate(step: Array) -> Array:
            if isinstance(after, ConfiguredSchedule):
                return after.value(step, xp)
            return curve_of(after, step) if xp is np else exact.called(after, step)

        with keras.name_scope(self.name):
            if self._config.warmup_steps == 0:
                return rate(step)
            return with_warmup(self._config, rate, self._target, step, xp)

    def __repr__(self) -> str:
        after, changed = self.after_warmup_lr_sched, self._config._changed()
        return printing.call(type(self).__name__, rate_text(after), **dict(changed))

    def get_config(self) -> dict[str, Any]:
        after = keras.optimizers.schedules.serialize(self.after_warmup_lr_sched)
        return {"after_warmup_lr_sched": after, **super().get_config()}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "_ConfiguredWarmup":
        after = keras.optimizers.schedules.deserialize(config["after_warmup_lr_sched"])
        return cls(**{**config, "after_warmup_lr_sched": after})


_classes: dict[type[Config], type[LearningRateSchedule]] = {}


def _add(name: str, entry: Entry) -> None:
    """Makes the class of a registered type, or takes it, and tells Keras of it."""
    config_class = entry.config_class
    is_warmup = issubclass(config_class, BaseWarmupConfig)
    base = _ConfiguredWarmup if is_warmup else _ConfiguredLearningRate
    cls = config_class.keras_class
    if cls is None:
        doc = vars(config_class).get("__doc__")
        members = {"config_class": config_class, "__doc__": doc, "__module__": __name__}
        # The default of the field `name` may be a class's name, as `CosineDecay` is.
        class_name = getattr(config_class, "name", None) or ""
        if not class_name.isidentifier() or not class_name[0].isupper():
            class_name = "".join(part.capitalize() for part in name.split("_")) + base.kind
        cls = type(class_name, (base,), members)
    _classes[config_class] = cls
    if keras.saving.get_registered_name(cls) == cls.__name__:  # not known to Keras yet
        # By its type, which is unique; a user's class may have the name of another.
        keras.saving.register_keras_serializable("optimization", f"{base.kind}.{name}")(cls)


LR_CLS.subscribe(_add)
WARMUP_CLS.subscribe(_add)


def schedule_class(config_class: type[Config]) -> type[LearningRateSchedule]:
    """Returns the Keras class of a registered config class."""
    if config_class not in _classes:
        raise TypeError(f"{config_class.__name__} is not registered as a learning rate or warmup")
    return _classes[config_class]


def build_schedule(
    lr_config: BaseLrConfig, warmup_config: BaseWarmupConfig | None = None
) -> LearningRateSchedule | float:
    """Builds a learning rate with its warmup: a float where the rate is constant.

    Raises:
        ConfigError: If the configs are not complete and right.
    """
    check_schedule(lr_config, warmup_config)
    if warmup_config is not None and warmup_config.warmup_steps == 0:
        warmup_config = None
    if warmup_config is None and lr_config.constant_value() is not None:
        return lr_config.constant_value()
    schedule = schedule_class(type(lr_config))(**lr_config.as_dict())
    if warmup_config is None:
        return schedule
    cls, arguments = schedule_class(type(warmup_config)), warmup_config.as_dict()
    if warmup_config.keras_class is not None:
        # Its own constructor need not have all that every warmup's config has.
        accepted = inspect.signature(cls).parameters
        arguments = {name: value for name, value in arguments.items() if name in accepted}
    return cls(after_warmup_lr_sched=schedule, **arguments)


def curve_of(rate: Any, steps: Any) -> np.ndarray:
    """Returns the values of any learning rate, in float64, by NumPy where there is a formula."""
    if isinstance(rate, ScaledLearningRate):
        steps = np.maximum(np.asarray(steps) - rate.start, 0)
        return rate.factor / (1 + rate.decay * steps) * curve_of(rate.learning_rate, steps)
    return rate.curve(steps) if isinstance(rate, ConfiguredSchedule) else sample(rate, steps)


def html_of(schedule: LearningRateSchedule) -> str:
    """Returns what a notebook shows: the curve and the settings; code where Keras computes it."""
    from optimization.configs.rate_curve import RateCurve
    from optimization.plots.notebook import html_of_rate

    rate, warmup, factor, decay, start = schedule, None, 1.0, 0.0, 0
    if isinstance(rate, ScaledLearningRate):
        factor, decay, start = rate.factor, rate.decay, rate.start
        rate = rate.learning_rate
    if isinstance(rate, _ConfiguredWarmup):
        rate, warmup = rate.after_warmup_lr_sched, rate.config
    if not isinstance(rate, _ConfiguredLearningRate):
        return f"<pre>{html.escape(repr(schedule))}</pre>"
    return html_of_rate(schedule.name, RateCurve(rate.config, warmup, factor, decay, start))


def is_formula(rate: Any) -> bool:
    """Says whether NumPy computes all of a learning rate."""
    if isinstance(rate, ScaledLearningRate):
        return is_formula(rate.learning_rate)
    after = getattr(rate, "after_warmup_lr_sched", None)
    return not callable(rate) or (
        isinstance(rate, ConfiguredSchedule) and (after is None or is_formula(after))
    )


def sample(schedule: LearningRateSchedule | float, steps: Any) -> np.ndarray:
    """Returns the values of any Keras schedule, called for one step after the other, in float64."""
    steps = np.asarray(steps)
    if not isinstance(schedule, LearningRateSchedule):
        return np.full(steps.shape, schedule, np.float64)
    values = [float(ops.convert_to_numpy(schedule(int(step)))) for step in steps.ravel()]
    return np.asarray(values, np.float64).reshape(steps.shape)
