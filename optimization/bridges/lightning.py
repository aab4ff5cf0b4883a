"""Lightning: the YAML of a `LightningCLI`. Classes are torch's, schedules those of torch 2.13.

`LightningCLI` steps a schedule once an epoch, unless the module's own `configure_optimizers` says
otherwise: lengths of schedules are epochs.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

from optimization.bridges.draft import LOST, NOTE, Draft, Source, Taken
from optimization.bridges.epochs import (
    MOST,
    MOST_ROWS,
    check_rows,
    difference,
    put_boundaries,
    put_table,
)
from optimization.bridges.torch_classes import DEFAULTS as TORCH
from optimization.bridges.torch_classes import NO_MATTER as OF_TORCH
from optimization.bridges.torch_classes import put_clip, put_optimizer
from optimization.configs.errors import did_you_mean
from optimization.configs.yaml_file import SourcedDict

NO_MATTER = {
    "trainer": {
        "devices, output and evaluation": """
            accelerator strategy devices num_nodes precision logger callbacks fast_dev_run
            limit_train_batches limit_val_batches limit_test_batches limit_predict_batches
            overfit_batches val_check_interval check_val_every_n_epoch num_sanity_val_steps
            log_every_n_steps enable_checkpointing enable_progress_bar enable_model_summary
            deterministic benchmark inference_mode use_distributed_sampler profiler detect_anomaly
            barebones plugins sync_batchnorm reload_dataloaders_every_n_epochs default_root_dir
            enable_autolog_hparams model_registry min_epochs min_steps max_time
        """
    },
    "": {"the rest of the experiment": "seed_everything model data ckpt_path config verbose"},
}


def reads(mapping: Mapping[str, Any]) -> bool:
    """Says whether a mapping looks like a file of a `LightningCLI`."""
    optimizer = mapping.get("optimizer")
    return isinstance(optimizer, Mapping) and "class_path" in optimizer


def convert(mapping: SourcedDict, file: str, exact: bool = False) -> Draft:
    """Returns our config of a file of a `LightningCLI`."""
    draft = Draft()
    source = Source(mapping, file, library="Lightning")
    trainer, optimizer = source.section("trainer"), source.section("optimizer")
    name, arguments = _object(optimizer)
    short = _class_name(name, ("torch.optim.",))
    arguments.defaults, arguments.library = TORCH.get(short, {}), "torch"
    kind, rate = None, arguments.number("lr")
    if short in TORCH:
        kind = put_optimizer(draft, short, arguments)
        draft.sort_out(arguments, OF_TORCH)
    else:
        _unknown(draft, optimizer, name, TORCH)
        draft.lose(arguments, arguments.unread())
    _trainer(draft, trainer, kind)
    _schedule(draft, source, trainer, rate, exact)
    if "learning_rate" not in draft.values:
        draft.lose(arguments, ["lr"], "learning rate")
    draft.sort_out(optimizer, {})
    draft.sort_out(trainer, NO_MATTER["trainer"], ("max_epochs", "gradient_clip_val"))
    draft.sort_out(source, NO_MATTER[""])
    return draft


def _object(source: Source) -> tuple[str, Source]:
    """Returns the class path, and the arguments."""
    return str(source.text("class_path").value or ""), source.section("init_args")


def _class_name(path: str, places: tuple[str, ...]) -> str:
    """Returns the name of a class in one of the modules; the whole path of any other."""
    module, _, name = path.rpartition(".")
    return name if not module or any(f"{module}.".startswith(p) for p in places) else path


def _unknown(draft: Draft, source: Source, path: str, known: Mapping[str, Any]) -> None:
    hint = did_you_mean(path.rpartition(".")[2], known)
    todo = "choose a type (`optfactory list`), or register the class"
    draft.tell(LOST, source, "class_path", f"there is no such class here{hint}", todo)
    source.take("init_args")


def _trainer(draft: Draft, trainer: Source, kind: str | None) -> None:
    clip, way = trainer.number("gradient_clip_val"), trainer.text("gradient_clip_algorithm")
    steps = trainer.whole("accumulate_grad_batches")
    if kind is None:
        keys = ("gradient_clip_val", "gradient_clip_algorithm", "accumulate_grad_batches")
        draft.lose(trainer, keys)
        return
    if way.value == "value" and clip.value:
        if kind == "adamw":
            put_clip(draft, kind, Taken(0.0, ""))
        draft.put(f"optimizer.{kind}.clipvalue", float(clip.value), clip.comment)
    elif clip.value or kind == "adamw":
        put_clip(draft, kind, clip)
    if steps.value not in (None, 1):
        draft.put(f"optimizer.{kind}.gradient_accumulation_steps", steps)
        why = "in Lightning its trainer accumulates: leave it out there"
        draft.tell(NOTE, trainer, "accumulate_grad_batches", why)


def _schedule(draft: Draft, source: Source, trainer: Source, rate: Taken, exact: bool) -> None:
    length = trainer.whole("max_epochs").value
    length = length if length and length > 0 else None  # -1 is for ever
    if length and length > MOST:
        trainer.refuse("max_epochs", f"expected at most {MOST:,} epochs, got {length!r}")
    steps = trainer.whole("max_steps")
    if steps.value and steps.value > 0:
        draft.tell(NOTE, trainer, "max_steps", "give it as `train_steps` where you train")
    if not source.has("lr_scheduler"):
        source.take("lr_scheduler")
        if rate.value is not None:
            draft.put("learning_rate.type", "constant", "there is no lr_scheduler")
            draft.put("learning_rate.constant.learning_rate", float(rate.value), rate.comment)
        return
    scheduler = source.section("lr_scheduler")
    path, arguments = _object(scheduler)
    places = ("torch.optim.lr_scheduler.", "lightning.pytorch.cli.", "pytorch_lightning.cli.")
    name = _class_name(path, places)
    if name not in _SCHEDULES or not rate.value:
        _unknown(draft, scheduler, path, _SCHEDULES)
        draft.lose(arguments, arguments.unread(), "learning rate")
        return
    arguments.defaults, arguments.library = _DEFAULTS.get(name, {}), "torch"
    _SCHEDULES[name](draft, arguments, rate._replace(value=float(rate.value)), length, exact)
    for key in ("verbose", "last_epoch"):
        arguments.take(key)
    draft.sort_out(arguments, {}, _DEFAULTS.get(name, {}))
    draft.sort_out(scheduler, {})


def _step(draft: Draft, source: Source, rate: Taken, length: int | None, exact: bool) -> None:
    every, gamma = source.positive("step_size"), source.number("gamma")
    _staircase(draft, rate, every._replace(value=f"{every.value} epochs"), gamma)


def _exponential(draft: Draft, source: Source, rate: Taken, *_: Any) -> None:
    if source.number("gamma").value is None:
        source.refuse("gamma", "a value is required")
    _staircase(draft, rate, Taken("1 epochs", "once an epoch"), source.number("gamma"))


def _staircase(draft: Draft, rate: Taken, every: Taken, gamma: Taken) -> None:
    place = "learning_rate.exponential."
    draft.put("learning_rate.type", "exponential", "lr_scheduler.class_path")
    draft.put(f"{place}initial_learning_rate", rate)
    draft.put(f"{place}decay_steps", every)
    draft.put(f"{place}decay_rate", float(gamma.value), gamma.comment)
    draft.put(f"{place}staircase", True, "at once")


def _multi_step(draft: Draft, source: Source, rate: Taken, *_: Any) -> None:
    milestones, gamma = source.numbers("milestones"), source.number("gamma")
    draft.put("learning_rate.type", "stepwise", "lr_scheduler.class_path")
    put_boundaries(draft, sorted(milestones.value), milestones.comment)
    values = [rate.value * gamma.value**n for n in range(len(milestones.value) + 1)]
    draft.put("learning_rate.stepwise.values", values, f"{rate.comment}, {gamma.comment}")


def _constant(draft: Draft, source: Source, rate: Taken, *_: Any) -> None:
    factor, total = source.number("factor"), source.positive("total_iters", MOST_ROWS)
    rates = [rate.value * factor.value] * total.value + [rate.value]
    put_table(draft, rates, "lr_scheduler.class_path ConstantLR")


def _linear(draft: Draft, source: Source, rate: Taken, *_: Any) -> None:
    first, last = source.number("start_factor").value, source.number("end_factor").value
    total = source.positive("total_iters", MOST_ROWS).value
    rates = [rate.value * (first + (last - first) * e / total) for e in range(total + 1)]
    put_table(draft, rates, "lr_scheduler.class_path LinearLR: its rate in each epoch")


def _polynomial(draft: Draft, source: Source, rate: Taken, length: Any, exact: bool) -> None:
    total, power = source.positive("total_iters"), source.number("power")

    def theirs(epoch: float) -> float:
        return rate.value * (1 - min(epoch, total.value) / total.value) ** power.value

    def put() -> None:
        place = "learning_rate.polynomial."
        draft.put("learning_rate.type", "polynomial", "lr_scheduler.class_path")
        draft.put(f"{place}initial_learning_rate", rate)
        draft.put(f"{place}decay_steps", f"{total.value} epochs", total.comment)
        draft.put(f"{place}end_learning_rate", 0.0, "PolynomialLR ends at 0")
        draft.put(f"{place}power", float(power.value), power.comment)

    _smooth_or_table(draft, source, "total_iters", theirs, total.value + 1, put, exact)


def _cosine(draft: Draft, source: Source, rate: Taken, length: int | None, exact: bool) -> None:
    total, low = source.positive("T_max"), source.number("eta_min")

    def theirs(epoch: float) -> float:
        wave = (1 + math.cos(math.pi * epoch / total.value)) / 2
        return low.value + (rate.value - low.value) * wave

    def put() -> None:
        # torch's goes up again after T_max, as this one does.
        kind = "hf_cosine_with_min_lr" if (length or 0) > total.value else "cosine"
        place = f"learning_rate.{kind}."
        draft.put("learning_rate.type", kind, "lr_scheduler.class_path")
        draft.put(f"{place}initial_learning_rate", rate)
        steps = Taken(f"{total.value} epochs", total.comment)
        if kind == "cosine":
            draft.put(f"{place}decay_steps", steps)
            if low.value:
                draft.put(
                    f"{place}alpha", low.value / rate.value, f"{low.comment} {low.value} / lr"
                )
            return
        draft.put(f"{place}num_training_steps", steps)
        draft.put(f"{place}min_lr", float(low.value), low.comment)

    epochs = max(length or 0, total.value)
    _smooth_or_table(draft, source, "T_max", theirs, epochs, put, exact)


def _restarts(draft: Draft, source: Source, rate: Taken, length: int | None, exact: bool) -> None:
    first, multiple = source.positive("T_0"), source.positive("T_mult")
    low = source.number("eta_min")

    def theirs(epoch: float) -> float:
        start, long = 0, first.value
        while epoch >= start + long:
            start, long = start + long, long * multiple.value
        wave = (1 + math.cos(math.pi * (epoch - start) / long)) / 2
        return low.value + (rate.value - low.value) * wave

    def put() -> None:
        place = "learning_rate.cosine_restarts."
        draft.put("learning_rate.type", "cosine_restarts", "lr_scheduler.class_path")
        draft.put(f"{place}initial_learning_rate", rate)
        draft.put(f"{place}first_decay_steps", f"{first.value} epochs", first.comment)
        draft.put(f"{place}t_mul", float(multiple.value), multiple.comment)
        if low.value:
            draft.put(f"{place}alpha", low.value / rate.value, f"{low.comment} {low.value} / lr")

    _smooth_or_table(draft, source, "T_0", theirs, length or 3 * first.value, put, exact)


def _smooth_or_table(
    draft: Draft,
    source: Source,
    key: str,
    theirs: Callable[[float], float],
    epochs: int,
    put: Callable[[], None],
    exact: bool,
) -> None:
    if epochs > MOST:
        source.refuse(key, f"expected at most {MOST:,} epochs, got {epochs!r}")
    put()
    kind = draft.values["learning_rate"]["type"]
    draft.put(f"learning_rate.{kind}.per", "epoch", "Lightning steps once an epoch")
    share, _ = difference(draft, lambda epoch: theirs(math.floor(epoch + 1e-9)), epochs)
    if exact or share > 1e-9:
        check_rows(source, key, epochs)
        draft.drop("learning_rate")
        rates = [theirs(epoch) for epoch in range(epochs)]
        put_table(draft, rates, "lr_scheduler: its rate in each epoch")


def _plateau(draft: Draft, source: Source, rate: Taken, *_: Any) -> None:
    place = "learning_rate.hf_reduce_lr_on_plateau."
    draft.put("learning_rate.type", "hf_reduce_lr_on_plateau", "lr_scheduler.class_path")
    draft.put(f"{place}initial_learning_rate", rate)
    monitor = source.text("monitor")
    if monitor.value:
        metric = monitor.value.removeprefix("val_").removeprefix("val/")
        draft.put(f"{place}metric", metric, f"{monitor.comment}, of the validation")
    if isinstance(source.take("min_lr").value, list):
        draft.tell(LOST, source, "min_lr", "there is one for all groups here")
    for key in ("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "min_lr"):
        if source.has(key) and not isinstance(source.take(key).value, list):
            draft.put(place + key, source.take(key))
    if source.has("eps"):
        draft.put(f"{place}eps", source.number("eps"))


_SCHEDULES: dict[str, Callable] = {
    "StepLR": _step,
    "MultiStepLR": _multi_step,
    "ConstantLR": _constant,
    "LinearLR": _linear,
    "ExponentialLR": _exponential,
    "PolynomialLR": _polynomial,
    "CosineAnnealingLR": _cosine,
    "CosineAnnealingWarmRestarts": _restarts,
    "ReduceLROnPlateau": _plateau,
}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "StepLR": {"gamma": 0.1},
    "MultiStepLR": {"gamma": 0.1},
    "ConstantLR": {"factor": 1 / 3, "total_iters": 5},
    "LinearLR": {"start_factor": 1 / 3, "end_factor": 1.0, "total_iters": 5},
    "PolynomialLR": {"total_iters": 5, "power": 1.0},
    "CosineAnnealingLR": {"eta_min": 0.0},
    "CosineAnnealingWarmRestarts": {"T_mult": 1, "eta_min": 0.0},
}
