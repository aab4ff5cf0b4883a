"""transformers: `TrainingArguments`, as JSON or as the YAML of its examples.

Names and defaults are those of transformers 5.24, and the names that 4.x had beside them.
"""

import math
from collections.abc import Callable, Mapping
from decimal import Decimal
from typing import Any

from optimization.bridges import hf_keys
from optimization.bridges.decay import DECAYED, SPARED
from optimization.bridges.draft import DIFFERS, LOST, NOTE, UNKNOWN, Draft, Source, Taken, as_number
from optimization.bridges.hf_export import export as export
from optimization.bridges.torch_classes import DEFAULTS as TORCH
from optimization.bridges.torch_classes import put_clip, put_optimizer, spare
from optimization.configs import yaml_file
from optimization.configs.errors import did_you_mean
from optimization.schedules.registry import LR_CLS

DEFAULTS: dict[str, Any] = {
    "learning_rate": 5e-5,
    "lr_scheduler_type": "linear",
    "warmup_steps": 0,
    "warmup_ratio": 0.0,
    "optim": "adamw_torch",
    "weight_decay": 0.0,
    "adam_beta1": 0.9,
    "adam_beta2": 0.999,
    "adam_epsilon": 1e-8,
    "max_grad_norm": 1.0,
    "gradient_accumulation_steps": 1,
    "max_steps": -1,
    "num_train_epochs": 3.0,
}
_OF_ADAM = ("adam_beta1", "adam_beta2", "adam_epsilon")
_SPARED = {
    "spared": SPARED,
    "decayed": DECAYED,
    "comment": "as get_decay_parameter_names: not biases and norms",
}
_CHOOSE = "choose an `optimizer.type` (`optfactory list optimizers`)"


def reads(mapping: Mapping[str, Any]) -> bool:
    """Says whether a mapping looks like `TrainingArguments`."""
    own = {"per_device_train_batch_size", "lr_scheduler_type", "adam_beta1", "num_train_epochs"}
    own |= {"optim", "lr_scheduler_kwargs", "warmup_ratio", "max_grad_norm", "max_steps"}
    own |= {"weight_decay", "learning_rate", "warmup_steps", "gradient_accumulation_steps"}
    others = {"micro_batch_size", "lr_scheduler", "base_model", "sched", "opt", "optimizer"}
    names = own & set(mapping)
    plain = not any(isinstance(mapping[name], Mapping) for name in names - {"lr_scheduler_kwargs"})
    return len(names) >= 2 and plain and not others & set(mapping)


def convert(mapping: yaml_file.SourcedDict, file: str, exact: bool = False) -> Draft:
    """Returns our config of `TrainingArguments`; the curve is always transformers' own."""
    draft = Draft()
    source = Source(mapping, file, defaults=DEFAULTS, library="transformers")
    build(draft, source)
    draft.sort_out(source, hf_keys.NO_MATTER, DEFAULTS)
    return draft


def build(
    draft: Draft, source: Source, schedule: bool = True, own: Mapping[str, Any] | None = None
) -> None:
    """Fills a draft from the arguments of a Trainer; without its schedule where `schedule` says.

    `own` are further names of optimizers, with what puts them, or the reason that nothing does.
    """
    put_the_optimizer(draft, source, own or {})
    if schedule:
        put_schedule(draft, source)
    for key in _OF_ADAM:
        if source.path(key) in source.unread():
            source.take(key)
            draft.no_matter.setdefault("not read by this optimizer", []).append(source.path(key))
    for key in ("deepspeed", "fsdp"):
        if key == "deepspeed" and source.has(key):
            why = "an optimizer or scheduler section of its file replaces what stands here"
            draft.tell(NOTE, source, key, why)
        source.take(key)


def put_the_optimizer(draft: Draft, source: Source, own: Mapping[str, Any]) -> None:
    """Puts the optimizer with its decay, clip and accumulation."""
    name = source.text("optim").value
    args = _optim_args(draft, source)
    known = {**OPTIMIZERS, **UNAVAILABLE, **own}
    make = known.get(name)
    if make is None or isinstance(make, str):
        why = make or f"there is no such optimizer{did_you_mean(name, known)}"
        draft.tell(LOST, source, "optim", why, _CHOOSE)
        others = ("weight_decay", "max_grad_norm", "gradient_accumulation_steps")
        draft.lose(source, (*_OF_ADAM, *others))
        return
    kind = make(draft, source, args)
    for key in args.unread():
        draft.tell(UNKNOWN, args, key, f"`{name}` has no such argument")
    put_clip(draft, kind, source.number("max_grad_norm"))
    steps = source.whole("gradient_accumulation_steps")
    if steps.value != 1:
        draft.put(f"optimizer.{kind}.gradient_accumulation_steps", steps)
        why = "in a loop of PyTorch, as Trainer's, the loop accumulates: leave it out there"
        draft.tell(NOTE, source, "gradient_accumulation_steps", why)


def _optim_args(draft: Draft, source: Source) -> Source:
    """Returns the source of `optim_args`, text such as "momentum=0.9, nesterov=true"."""
    text = source.take("optim_args").value
    args = yaml_file.SourcedDict()
    if isinstance(text, str):
        for setting in filter(None, text.replace(" ", "").split(",")):
            key, _, value = setting.partition("=")
            if not value:
                source.refuse("optim_args", f"expected settings such as momentum=0.9, got {text!r}")
            args.put(key, value, source.origin("optim_args"))
    elif isinstance(text, Mapping):
        for key, value in text.items():
            args.put(key, value, source.origin("optim_args"))
    return Source(args, source.file, prefix=f"{source.path('optim_args')}.", library="transformers")


def _torch(name: str, args: Source, **links: tuple[Source, str]) -> Source:
    """Returns the arguments of a class of torch: those of `optim_args`, and links."""
    args.defaults, args.library = TORCH[name], "torch"
    args.links = {key: link for key, link in links.items() if not args.has(key)}
    return args


def _adamw(bits: int = 32, order: str = "before", placement: str = "") -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        betas = {f"beta{i}": (source, f"adam_beta{i}") for i in (1, 2)}
        decay = {"eps": (source, "adam_epsilon"), "weight_decay": (source, "weight_decay")}
        kind = put_optimizer(draft, "AdamW", _torch("AdamW", args, **betas, **decay), _SPARED)
        if source.number("weight_decay").value and order != "before":
            comment = "this class decays weights after the step"
            draft.put(f"optimizer.{kind}.weight_decay_order", order, comment)
        if placement:
            draft.put(f"optimizer.{kind}.epsilon_placement", placement, "as in this class")
        _tell_bits(draft, source, bits)
        for key in ("use_kahan_summation", "block_size", "bf16_stochastic_round"):
            args.take(key)
        for key in ("momentum_dtype", "variance_dtype", "compensation_buffer_dtype"):
            if args.has(key) and args.take(key).value != "float32":
                draft.tell(LOST, args, key, "state is float32 here, or as wide as the weights")
        return kind

    return make


def _tell_bits(draft: Draft, source: Source, bits: int) -> None:
    if bits < 32:
        why = f"the formula is the same; its state has {bits} bits there and 32 here"
        draft.tell(DIFFERS, source, "optim", why)


def _of_torch(name: str, bits: int = 32) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        made = _torch(name, args, weight_decay=(source, "weight_decay"))
        kind = put_optimizer(draft, name, made, _SPARED)
        _tell_bits(draft, source, bits)
        return kind

    return make


def _adafactor(draft: Draft, source: Source, args: Source) -> str:
    place = "optimizer.adafactor."
    draft.put("optimizer.type", "adafactor")
    draft.put(f"{place}variant", "hf", "as in transformers")
    draft.put(f"{place}step_size", "absolute", "relative_step=False, as Trainer sets it")
    draft.put(f"{place}multiply_by_parameter_scale", False, "scale_parameter=False, likewise")
    rate = source.number("weight_decay")
    if rate.value:
        draft.put(f"{place}weight_decay", rate)
        draft.put(f"{place}include_in_weight_decay", [DECAYED], _SPARED["comment"])
    return "adafactor"


COUPLED_LION = "bitsandbytes' Lion of 32 bits adds it to the gradient; here weights decay alone"


def _lion(bits: int = 32) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        draft.put("optimizer.type", "lion")
        draft.put("optimizer.lion.beta_1", source.number("adam_beta1"))
        draft.put("optimizer.lion.beta_2", source.number("adam_beta2"))
        rate = source.number("weight_decay")
        if rate.value:
            draft.put("optimizer.lion.weight_decay", rate)
            spare(draft, _SPARED)
            if bits == 32:
                draft.tell(DIFFERS, source, "weight_decay", COUPLED_LION)
        _tell_bits(draft, source, bits)
        return "lion"

    return make


def _ademamix(bits: int = 32) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        args.defaults, args.library = {"beta3": 0.9999, "alpha": 5.0}, "transformers"
        _put_adam(draft, source, args, "ademamix")
        place = "optimizer.ademamix."
        draft.put(f"{place}beta_3", args.number("beta3"))
        draft.put(f"{place}alpha", args.number("alpha"))
        for ours, theirs in (("alpha_warmup", "t_alpha"), ("beta_3_warmup", "t_beta3")):
            if args.has(theirs):
                draft.put(place + ours, args.whole(theirs))
        _tell_bits(draft, source, bits)
        return "ademamix"

    return make


def _stable_adamw(draft: Draft, source: Source, args: Source) -> str:
    _put_adam(draft, source, Source({}, source.file), "stable_adamw")
    for key in ("decouple_lr", "max_lr"):
        if args.has(key):
            why = "the decay is times the rate here, and not times its share of the highest one"
            draft.tell(LOST, args, key, why)
        args.take(key)
    args.take("kahan_sum")  # of low precision alone
    return "stable_adamw"


def _put_adam(draft: Draft, source: Source, args: Source, kind: str) -> None:
    """Puts a type of Adam's numbers, and its decay with the list of what does not decay."""
    links = {"beta1": "adam_beta1", "beta2": "adam_beta2", "eps": "adam_epsilon"}
    args.links = {key: (source, own) for key, own in links.items() if not args.has(key)}
    place = f"optimizer.{kind}."
    draft.put("optimizer.type", kind)
    for ours, theirs in (("beta_1", "beta1"), ("beta_2", "beta2"), ("epsilon", "eps")):
        draft.put(place + ours, args.number(theirs))
    rate = source.number("weight_decay")
    if rate.value:
        draft.put(f"{place}weight_decay", rate)
        draft.put(f"{place}exclude_from_weight_decay", [SPARED], _SPARED["comment"])


def _schedule_free(kind: str) -> Callable:
    def make(draft: Draft, source: Source, args: Source) -> str:
        draft.put("optimizer.type", kind)
        place = f"optimizer.{kind}."
        if kind == "schedule_free_adamw":
            draft.put(f"{place}beta_1", source.number("adam_beta1"))
            draft.put(f"{place}beta_2", source.number("adam_beta2"))
            draft.put(f"{place}epsilon", source.number("adam_epsilon"))
        else:
            draft.put(f"{place}momentum", 0.9, "schedulefree's default")
        rate = source.number("weight_decay")
        if rate.value:
            draft.put(f"{place}weight_decay", rate)
            spare(draft, _SPARED)
        args.defaults, args.library = {"weight_lr_power": 2.0, "r": 0.0}, "transformers"
        for key in ("weight_lr_power", "r"):
            draft.put(place + key, args.number(key))
        steps = source.whole("warmup_steps")
        if steps.value:
            draft.put(f"{place}warmup_steps", steps)
        return kind

    return make


def adopt(draft: Draft, source: Source, args: Source) -> str:
    """Puts ADOPT as its authors have it, with the numbers of Adam."""
    _put_adam(draft, source, args, "adopt")
    return "adopt"


OPTIMIZERS: dict[str, Callable[[Draft, Source, Source], str]] = {
    **dict.fromkeys(
        ("adamw_torch", "adamw_torch_fused", "adamw_torch_xla", "adamw_torch_npu_fused"), _adamw()
    ),
    **dict.fromkeys(("adamw_anyprecision", "adamw_apex_fused"), _adamw()),
    "adamw_hf": _adamw(order="after", placement="uncorrected"),
    "adamw_torch_8bit": _adamw(8),
    "adamw_torch_4bit": _adamw(4),
    "paged_adamw_32bit": _adamw(32, "after"),
    **dict.fromkeys(("adamw_bnb_8bit", "adamw_8bit", "paged_adamw_8bit"), _adamw(8, "after")),
    "adafactor": _adafactor,
    "sgd": _of_torch("SGD"),
    "adagrad": _of_torch("Adagrad"),
    **dict.fromkeys(("rmsprop", "rmsprop_bnb", "rmsprop_bnb_32bit"), _of_torch("RMSprop")),
    "rmsprop_bnb_8bit": _of_torch("RMSprop", 8),
    **dict.fromkeys(("lion_32bit", "paged_lion_32bit"), _lion()),
    **dict.fromkeys(("lion_8bit", "paged_lion_8bit"), _lion(8)),
    **dict.fromkeys(("ademamix", "paged_ademamix_32bit"), _ademamix()),
    **dict.fromkeys(("ademamix_8bit", "paged_ademamix_8bit"), _ademamix(8)),
    "stable_adamw": _stable_adamw,
    "schedule_free_adamw": _schedule_free("schedule_free_adamw"),
    "schedule_free_sgd": _schedule_free("schedule_free_sgd"),
}
"""The names of `OptimizerNames` that have a counterpart, and of 4.x, and what writes it."""
_LOW_RANK = "gradients are projected to a low rank there, which no type here does"
UNAVAILABLE = {
    **dict.fromkeys(("galore_adamw", "galore_adamw_8bit", "galore_adafactor"), _LOW_RANK),
    **dict.fromkeys(("galore_adamw_layerwise", "galore_adamw_8bit_layerwise"), _LOW_RANK),
    **dict.fromkeys(("galore_adafactor_layerwise", "apollo_adamw"), _LOW_RANK),
    "apollo_adamw_layerwise": _LOW_RANK,
    **dict.fromkeys(("lomo", "adalomo"), "it updates inside of the backward pass"),
    "grokadamw": "it amplifies slow gradients, which no type here does",
    "schedule_free_radam": "of the schedule-free types there are AdamW and SGD here",
}
"""The other names of `OptimizerNames`, and why there is nothing here."""


def training_steps(source: Source) -> Taken:
    """Returns the length of the training: a number of steps, or a duration in epochs."""
    steps, epochs = source.whole("max_steps"), source.number("num_train_epochs")
    if steps.value > 0:
        return steps
    return epochs._replace(value=f"{epochs.value:g} epochs")


def warmup_steps(source: Source, total: Any) -> Taken:
    """Returns the length of the warmup: a share of the steps is rounded up, as transformers does.

    The share is a part of the training's length where `total` is no number yet.
    """
    steps, ratio = source.number("warmup_steps"), source.number("warmup_ratio")
    if steps.value >= 1:
        return steps._replace(value=int(steps.value))
    share = steps if steps.value else ratio
    if not share.value:
        return Taken(0, share.comment)
    if isinstance(total, int):
        comment = f"{share.comment} {share.value} of {total}, rounded up"
        return Taken(math.ceil(total * share.value), comment)
    percent = (Decimal(repr(share.value)) * 100).normalize()
    return Taken(f"{percent:f}%", f"{share.comment} {share.value}, rounded up")


def put_schedule(draft: Draft, source: Source, warmup: Taken | None = None) -> None:
    """Puts the type of that name, with transformers' keywords; `warmup` in place of its own."""
    name = source.text("lr_scheduler_type").value
    kind = f"hf_{name}"
    kwargs = _scheduler_kwargs(source)
    if kind not in LR_CLS:
        names = [known.removeprefix("hf_") for known in LR_CLS if known.startswith("hf_")]
        why = f"there is no such schedule{did_you_mean(name, names)}"
        draft.tell(LOST, source, "lr_scheduler_type", why, "choose a `learning_rate.type`")
        return
    fields = LR_CLS.config_class(kind).field_names()
    place = f"learning_rate.{kind}."
    draft.put("learning_rate.type", kind, source.text("lr_scheduler_type").comment)
    draft.put(f"{place}initial_learning_rate", source.number("learning_rate"))
    total = training_steps(source)
    warmup = warmup_steps(source, total.value) if warmup is None else warmup
    if "num_warmup_steps" in fields:
        if warmup.value:
            draft.put(f"{place}num_warmup_steps", warmup)
    elif warmup.value:
        key = "warmup_steps" if source.has("warmup_steps") else "warmup_ratio"
        draft.tell(NOTE, source, key, f"`{name}` has no warmup: transformers ignores it too")
    if "num_training_steps" in fields:
        draft.put(f"{place}num_training_steps", total)
    for key in kwargs.mapping:
        if key in fields and key != "name":
            value = kwargs.take(key)
            number = as_number(value.value)
            draft.put(place + key, value if number is None else value._replace(value=number))
        else:
            why = f"`{name}` has no such argument{did_you_mean(key, fields)}"
            draft.tell(UNKNOWN, kwargs, key, why)
    metric = source.take("metric_for_best_model").value
    if "metric" in fields and isinstance(metric, str):
        comment = source.path("metric_for_best_model")
        draft.put(f"{place}metric", metric.removeprefix("eval_"), comment)


def _scheduler_kwargs(source: Source) -> Source:
    """Returns the source of `lr_scheduler_kwargs`, a mapping or the text of one."""
    value: Any = source.take("lr_scheduler_kwargs").value or {}
    if isinstance(value, str):
        value, _ = yaml_file.read(value)
    if not isinstance(value, Mapping):
        source.refuse("lr_scheduler_kwargs", "expected a mapping")
    return Source(value, source.file, prefix=f"{source.path('lr_scheduler_kwargs')}.")
