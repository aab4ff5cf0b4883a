"""The registries of learning rates and warmups, and the oneofs that choose among them."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, ClassVar

from optimization.configs.branches import LearningRateBranches, WarmupBranches
from optimization.configs.registry import Entry, Registry
from optimization.schedules.base import BaseLrConfig, BaseWarmupConfig

_WRAPPED = "after_warmup_lr_sched"


def _keras_class(entry: Entry) -> type:
    from optimization.schedules.keras_schedules import schedule_class

    return schedule_class(entry.config_class)


def _formula(function: Callable, supplied: Sequence[str]) -> Callable:
    """Returns `function` as a method of a config that holds its other arguments."""
    parameters = inspect.signature(function).parameters.values()
    variadic = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    names = [parameter.name for parameter in parameters if parameter.kind not in variadic]
    if "step" not in names:
        raise TypeError(f"the formula `{function.__name__}` must take `step`, it takes {names}")

    def formula(config: Any, *values: Any) -> Any:
        given = dict(zip(supplied, values, strict=True))
        return function(**{n: given[n] if n in given else getattr(config, n) for n in names})

    return formula


def _check_schedule_class(decorated: type) -> None:
    # Compared by name, since Keras may not be imported here.
    if all(base.__name__ != "LearningRateSchedule" for base in decorated.__mro__):
        raise TypeError(f"{decorated.__name__} is not a keras LearningRateSchedule")


def _lr_members(decorated: Any) -> Mapping[str, Any]:
    if inspect.isclass(decorated):
        _check_schedule_class(decorated)
        parameters = inspect.signature(decorated).parameters

        def check(self: BaseLrConfig) -> Iterator[tuple[str, str]]:
            if self.per != 1 and "per" not in parameters:
                yield "per", f"{decorated.__name__} changes as it does, got {self.per!r}"

        return {"keras_class": decorated, "check": check}
    # `at`, not `value`: a function that takes an `offset` applies it itself.
    # What the first values of a formula mean is not known.
    return {"at": _formula(decorated, ("step", "xp")), "peak_is_asked": False}


def _warmup_members(decorated: Any) -> Mapping[str, Any]:
    if not inspect.isclass(decorated):
        return {"value": _formula(decorated, ("step", "target", "xp"))}
    _check_schedule_class(decorated)
    parameters = inspect.signature(decorated).parameters
    for name in (_WRAPPED, "warmup_steps"):
        if name not in parameters:
            message = f"the constructor of the warmup {decorated.__name__} must take `{name}`"
            raise TypeError(message)

    def check(self: BaseWarmupConfig) -> Iterator[tuple[str, str]]:
        if self.mode != "replace" and "mode" not in parameters:
            yield "mode", f"{decorated.__name__} has no modes, got {self.mode!r}"
        for name in ("leads_to", "counts_from", "ends_on", "per"):
            value = getattr(self, name)
            if value != self._spec_of(name).default() and name not in parameters:
                yield name, f"{decorated.__name__} counts as it does, got {value!r}"

    return {"keras_class": decorated, "check": check}


LR_CLS: Registry[BaseLrConfig] = Registry(
    "learning rate",
    BaseLrConfig,
    _keras_class,
    supplied=("step", "xp"),
    members=_lr_members,
    unavailable={
        "cosine_epoch": "`cosine_epoch` is a type of one of Model Garden's projects; write "
        "`cosine`, whose `decay_steps` may be epochs, such as '90 epochs'"
    },
)
"""Type -> Keras class of every learning rate. `register` takes, under a decorator,

- a formula, `def mine(step, *, initial_learning_rate: float, decay_steps: int = 100, xp)`, whose
  other parameters become the fields of its config;
- a dataclass that derives from `BaseLrConfig` and has the formula as its method `value`;
- a Keras `LearningRateSchedule`, the parameters of whose constructor become the fields.
"""

WARMUP_CLS: Registry[BaseWarmupConfig] = Registry(
    "warmup",
    BaseWarmupConfig,
    _keras_class,
    supplied=("step", "target", "xp", _WRAPPED),
    members=_warmup_members,
)
"""Type -> Keras class of every warmup. `register` takes what that of `LR_CLS` takes; a formula also
takes `target`, the rate to which it leads, and a Keras class `after_warmup_lr_sched`, the schedule
that it wraps.
"""


class LrConfig(LearningRateBranches):
    """Chooses the learning rate: `type` is one of `LR_CLS`.

    >>> LrConfig(type="constant", constant={"learning_rate": 0.5}).get()
    ConstantLrConfig(learning_rate=0.5)
    """

    registry: ClassVar[Registry] = LR_CLS

    def _section_to_write(self, value: Any) -> str:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return f"; write {{type: constant, constant: {{learning_rate: {value!r}}}}}"
        return super()._section_to_write(value)


class WarmupConfig(WarmupBranches):
    """Chooses the warmup of the learning rate: `type` is one of `WARMUP_CLS`, or None for none.

    >>> WarmupConfig(type="linear", linear={"warmup_steps": 100}).get()
    LinearWarmupConfig(warmup_steps=100)
    """

    registry: ClassVar[Registry] = WARMUP_CLS

    def _section_to_write(self, value: Any) -> str:
        if isinstance(value, int) and not isinstance(value, bool):
            return f"; write {{type: linear, linear: {{warmup_steps: {value}}}}}"
        return super()._section_to_write(value)
