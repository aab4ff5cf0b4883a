"""The way back to transformers: `TrainingArguments` from a config, and what they can't say."""

from collections.abc import Iterator
from typing import Any

from optimization.bridges.draft import DIFFERS, LOST, NOTE, Finding
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.types import Duration
from optimization.rules.base import CLIPS

_AS_TRAINER = "Trainer decays all but biases and norms"


class Export:
    """Arguments of another library as they are made, and what there is to tell."""

    def __init__(self, config: OptimizationConfig):
        self.config = config
        self.values: dict[str, Any] = {}
        self.findings: list[Finding] = []

    def tell(self, kind: str, path: str, value: Any, why: str, todo: str = "") -> None:
        """Adds a finding about a value of our config."""
        self.findings.append(Finding(kind, path, value, why, todo))


def export(config: OptimizationConfig) -> tuple[dict[str, Any], list[Finding]]:
    """Returns `TrainingArguments` by name, and what they can't say."""
    made = Export(config)
    _optimizer(made)
    _rate(made)
    own = made.config.learning_rate.get()
    of_the_rate = " ".join(own.field_names()) if _is_theirs(made) and own else ""
    told = "variant step_size multiply_by_parameter_scale weight_lr_power r on_nonfinite use_ema"
    tell_unsaid(
        made, "TrainingArguments have no such field", f"{told} loss_scale_factor {of_the_rate}"
    )
    tell_sections(made, "TrainingArguments have no such thing")
    return made.values, made.findings


def _is_theirs(made: Export) -> bool:
    return (made.config.learning_rate.type or "").startswith("hf_")


def tell_sections(made: Any, why: str, said: tuple[str, ...] = ()) -> None:
    """Tells of the sections beside optimizer, rate and warmup that have no counterpart."""
    config = made.config
    names = (
        *("ema", "param_groups", "layer_decay", "schedules", "lr_scaling", "accumulation"),
        *("zclip", "skip_spikes"),
    )
    for name in names:
        value = getattr(config, name)
        if value and name not in said:
            made.tell(LOST, name, None, why, "do it in the training loop")


_SAID = {
    "optimizer": """
        name jit_compile beta_1 beta_2 epsilon epsilon_placement amsgrad correct_bias momentum
        nesterov rho centered epsilon_in_sqrt classic_momentum initial_accumulator_value
        beta_3 alpha alpha_warmup beta_3_warmup
        weight_decay weight_decay_rate weight_decay_order decoupled_weight_decay
        nesterov_correction exclude_from_weight_decay
        include_in_weight_decay weight_keys gradient_clip_norm global_clipnorm clipnorm clipvalue
        adaptive_clip_factor gradient_accumulation_steps
    """,
    "learning_rate": """
        name initial_learning_rate learning_rate decay_steps alpha end_learning_rate power cycle
        min_learning_rate offset decay_rate staircase
    """,
    "warmup": "name warmup_steps warmup_learning_rate mode",
}
"""The fields of a section that an export writes or tells of, those of no type but ours included."""


def tell_unsaid(made: Export, why: str, said: str = "") -> None:
    """Tells of what was written in a section and has no counterpart; `said` are further fields."""
    for name, fields in _SAID.items():
        oneof = getattr(made.config, name)
        section, usual = oneof.get(), None
        if section is None:
            continue
        usual = type(section)()
        for field in section.field_names():
            value = getattr(section, field)
            written = field in section._origins and value != getattr(usual, field, None)
            if written and field not in f"{fields} {said}".split():
                shown = list(value) if isinstance(value, tuple) else value
                made.tell(LOST, f"{name}.{oneof.type}.{field}", shown, why)


def _optimizer(made: Export) -> None:
    kind = made.config.optimizer.type
    section: Any = made.config.optimizer.get()
    place = f"optimizer.{kind}"
    name = _NAMES.get(kind or "")
    if name is None:
        made.tell(LOST, "optimizer.type", kind, "`optim` has no such optimizer")
        return
    made.values["optim"] = name
    if hasattr(section, "beta_1") and kind != "adafactor":
        made.values |= {"adam_beta1": section.beta_1, "adam_beta2": section.beta_2}
    if hasattr(section, "epsilon") and kind != "rmsprop" and kind != "adagrad":
        made.values["adam_epsilon"] = section.epsilon
    made.values["weight_decay"] = (
        getattr(section, "weight_decay_rate", 0.0) or section.weight_decay or 0.0
    )
    made.values["max_grad_norm"] = _clip(made, section, place)
    if section.gradient_accumulation_steps != 1:
        made.values["gradient_accumulation_steps"] = section.gradient_accumulation_steps
    args = _optim_args(kind or "", section)
    if args:
        made.values["optim_args"] = ",".join(f"{key}={value}" for key, value in args.items())
    for field, value, why in _unlike(kind or "", section):
        made.tell(DIFFERS, f"{place}.{field}", value, why)
    if made.values["weight_decay"]:
        _exclusions(made, section, place)
    for field in ("on_nonfinite", "use_ema", "loss_scale_factor"):
        if getattr(section, field):
            made.tell(LOST, f"{place}.{field}", getattr(section, field), "Trainer has its own")


_NAMES = {
    **dict.fromkeys(("adamw", "adamw_experimental", "adam", "adam_experimental"), "adamw_torch"),
    "adafactor": "adafactor",
    "sgd": "sgd",
    "sgd_torch": "sgd",
    "rmsprop": "rmsprop",
    "adagrad": "adagrad",
    "lion": "lion_32bit",
    "ademamix": "ademamix",
    "stable_adamw": "stable_adamw",
    "schedule_free_adamw": "schedule_free_adamw",
    "schedule_free_sgd": "schedule_free_sgd",
}


def _clip(made: Any, section: Any, place: str) -> float:
    """Returns the clip of the global norm, 0 for none; tells of other clips."""
    norm = getattr(section, "gradient_clip_norm", 0.0) or 0.0
    for name in CLIPS:
        value = getattr(section, name)
        if value and name == "global_clipnorm":
            norm = min(norm, value) if norm else value
        elif value:
            made.tell(LOST, f"{place}.{name}", value, "`max_grad_norm` clips the global norm alone")
    return float(norm)


def _optim_args(kind: str, section: Any) -> dict[str, Any]:
    if kind in ("sgd", "sgd_torch", "sgd_experimental") and section.momentum:
        return {"momentum": section.momentum, "nesterov": str(section.nesterov).lower()}
    if kind == "rmsprop":
        args = {"alpha": section.rho, "eps": section.epsilon, "momentum": section.momentum}
        return {**args, "centered": str(section.centered).lower()}
    if kind == "adagrad":
        return {"eps": section.epsilon}
    if kind == "ademamix":
        warmups = {"t_alpha": section.alpha_warmup, "t_beta3": section.beta_3_warmup}
        args = {"beta3": section.beta_3, "alpha": section.alpha}
        known = {k: n for k, n in warmups.items() if n and not isinstance(n, Duration)}
        return {**args, **known}
    if kind.startswith("schedule_free"):
        return {"weight_lr_power": section.weight_lr_power, "r": section.r}
    return {}


def _unlike(kind: str, section: Any) -> Iterator[tuple[str, Any, str]]:
    """Yields settings of a formula that is not the one of the class that Trainer builds."""
    if getattr(section, "epsilon_placement", "corrected") != "corrected":
        why = "torch adds epsilon to the corrected root; in the first steps it weighs less there"
        yield "epsilon_placement", section.epsilon_placement, why
    if getattr(section, "weight_decay_order", "before") != "before":
        yield "weight_decay_order", "after", "torch decays before the step"
    if not getattr(section, "correct_bias", True):
        yield "correct_bias", False, "torch corrects the moments for their start from zero"
    if getattr(section, "amsgrad", False):
        yield "amsgrad", True, "Trainer does not pass it on"
    if kind in ("sgd", "sgd_experimental") and section.momentum:
        yield "momentum", section.momentum, "torch applies the rate after the momentum: type of it"
    decoupled = getattr(section, "decoupled_weight_decay", True)
    if kind in ("sgd", "rmsprop", "adagrad") and section.weight_decay and decoupled:
        yield "weight_decay", section.weight_decay, "torch adds it to the gradient"
    if kind.startswith("adam") and not decoupled:
        yield "decoupled_weight_decay", False, "Trainer's AdamW decays the weights by themselves"
    if kind.startswith("adam") and section.nesterov:
        yield "nesterov", True, "Trainer has no NAdamW"
    if kind in ("rmsprop", "adagrad") and section.epsilon_in_sqrt:
        yield "epsilon_in_sqrt", True, "torch adds epsilon to the root"
    if kind == "rmsprop" and section.momentum and section.classic_momentum:
        yield "classic_momentum", True, "torch applies the rate after the momentum"
    if kind == "adagrad" and section.initial_accumulator_value:
        value = section.initial_accumulator_value
        yield "initial_accumulator_value", value, "torch's sums start from 0 in Trainer"
    for name in ("alpha_warmup", "beta_3_warmup"):
        if isinstance(getattr(section, name, 0), Duration):
            yield name, str(getattr(section, name)), "it is a number of steps there: say how many"
    if kind == "adafactor":
        wanted = {"variant": "hf", "step_size": "absolute", "multiply_by_parameter_scale": False}
        for name, value in wanted.items():
            if getattr(section, name) != value:
                yield name, getattr(section, name), f"Trainer's Adafactor has {value!r}"


def _exclusions(made: Export, section: Any, place: str) -> None:
    from optimization.bridges.decay import DECAYED, SPARED

    lists = {
        "exclude_from_weight_decay": (SPARED,),
        "include_in_weight_decay": (DECAYED,),
        "weight_keys": (DECAYED,),
    }
    for name, trainers in lists.items():
        value = getattr(section, name, None)
        if value and tuple(value) != trainers:
            made.tell(DIFFERS, f"{place}.{name}", list(value), _AS_TRAINER)
    if not any(getattr(section, name, None) for name in lists) and not made.config.param_groups:
        why = f"everything decays here; {_AS_TRAINER}"
        made.tell(DIFFERS, f"{place}.weight_decay", made.values["weight_decay"], why)


def _rate(made: Export) -> None:
    kind = made.config.learning_rate.type or ""
    section: Any = made.config.learning_rate.get()
    warmup: Any = made.config.warmup.get()
    place = f"learning_rate.{kind}"
    if kind.startswith("hf_"):
        _own_type(made, kind, section)
        return
    steps = 0
    if warmup is not None:
        steps = _warmup(made, warmup, kind)
    if kind == "constant":
        made.values["learning_rate"] = section.learning_rate
        made.values["lr_scheduler_type"] = "constant_with_warmup" if steps else "constant"
        return
    name, kwargs = _decay(made, kind, section)
    if name is None:
        made.tell(LOST, "learning_rate.type", kind, "`lr_scheduler_type` has no such schedule")
        return
    made.values["learning_rate"] = section.initial_learning_rate
    made.values["lr_scheduler_type"] = name
    if kwargs:
        made.values["lr_scheduler_kwargs"] = kwargs
    if section.offset:
        made.tell(LOST, f"{place}.offset", section.offset, "schedules there start at step 0")
    decay = section.decay_steps
    whole = isinstance(decay, int) and isinstance(steps, int)
    delays = warmup is not None and warmup.mode == "delay"
    if whole:
        _length(made, decay + steps if delays else decay)
    elif not delays or not steps:
        _length(made, decay)
    else:
        why = "the length of warmup and decay together is not known"
        made.tell(
            LOST, f"{place}.decay_steps", str(decay), why, "set max_steps or num_train_epochs"
        )


def _decay(made: Export, kind: str, section: Any) -> tuple[str | None, dict[str, Any]]:
    if kind == "cosine" and section.min_learning_rate:
        return "cosine_with_min_lr", {"min_lr": section.min_learning_rate}
    if kind == "cosine" and section.alpha:
        return "cosine_with_min_lr", {"min_lr_rate": section.alpha}
    if kind == "cosine":
        return "cosine", {}
    if kind in ("polynomial", "linear"):
        power = getattr(section, "power", 1.0)
        if getattr(section, "cycle", False):
            made.tell(LOST, "learning_rate.polynomial.cycle", True, "there is no cycle there")
        end = section.lowest(section.end_learning_rate)
        if power == 1.0 and not end:
            return "linear", {}
        return "polynomial", {"lr_end": end, "power": power}
    return None, {}


def _warmup(made: Export, warmup: Any, rate: str) -> Any:
    kind = made.config.warmup.type
    place = f"warmup.{kind}"
    if kind != "linear":
        made.tell(LOST, "warmup.type", kind, "warmups of transformers are lines")
        return 0
    if warmup.warmup_learning_rate:
        value = warmup.warmup_learning_rate
        made.tell(DIFFERS, f"{place}.warmup_learning_rate", value, "warmups there start from 0")
    if warmup.mode != "delay" and rate != "constant":
        why = "the decay starts after the warmup there, from the full rate"
        made.tell(DIFFERS, f"{place}.mode", warmup.mode, why)
    made.values["warmup_steps"] = _steps(made, f"{place}.warmup_steps", warmup.warmup_steps)
    return warmup.warmup_steps


def _own_type(made: Export, kind: str, section: Any) -> None:
    made.values["lr_scheduler_type"] = kind.removeprefix("hf_")
    made.values["learning_rate"] = section.initial_learning_rate
    usual, kwargs = type(section)(), {}
    for name in section.field_names():
        value = getattr(section, name)
        if name == "num_warmup_steps":
            if value:
                place = f"learning_rate.{kind}.{name}"
                made.values["warmup_steps"] = _steps(made, place, value)
        elif name == "num_training_steps":
            _length(made, value)
        elif name == "min_learning_rate":
            if value:
                why = "it has no lowest rate there"
                made.tell(LOST, f"learning_rate.{kind}.{name}", value, why)
        elif name == "metric":
            made.values["metric_for_best_model"] = value
        elif name not in ("name", "initial_learning_rate") and value != getattr(usual, name):
            kwargs[name] = value
    if kwargs:
        made.values["lr_scheduler_kwargs"] = kwargs


def _steps(made: Export, place: str, value: Any) -> float | int | None:
    """Returns a warmup as transformers has it: steps, or below 1 the share of the training."""
    if isinstance(value, int):
        return value
    if value.endswith("%"):
        return float(value.removesuffix("%")) / 100
    made.tell(LOST, place, str(value), "a warmup there is no number of epochs", "write steps")
    return 0


def _length(made: Export, value: Any) -> None:
    if isinstance(value, int):
        made.values["max_steps"] = value
    elif isinstance(value, Duration) and "epoch" in value:
        made.values["num_train_epochs"] = float(value.split()[0])
    elif value is not None:
        why = "the length of the training is not in the file"
        made.tell(NOTE, "learning_rate", None, f"{why}: set max_steps or num_train_epochs")
