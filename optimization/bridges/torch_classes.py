"""Optimizers of PyTorch in our words: the class, its arguments with their defaults, our fields."""

from collections.abc import Callable, Mapping
from typing import Any

from optimization.bridges.draft import LARGEST, LOST, Draft, Source, Taken, as_number
from optimization.configs.errors import did_you_mean

_ADAM = {"lr": 1e-3, "betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, "amsgrad": False}
DEFAULTS: dict[str, dict[str, Any]] = {
    "Adam": {**_ADAM, "decoupled_weight_decay": False},
    "AdamW": {**_ADAM, "weight_decay": 1e-2},
    "NAdam": {**_ADAM, "lr": 2e-3, "momentum_decay": 4e-3, "decoupled_weight_decay": False},
    "RAdam": {**_ADAM, "decoupled_weight_decay": False},
    "Adamax": {**_ADAM, "lr": 2e-3},
    "SGD": {"lr": 1e-3, "momentum": 0, "dampening": 0, "weight_decay": 0.0, "nesterov": False},
    "RMSprop": {
        **{"lr": 1e-2, "alpha": 0.99, "eps": 1e-8, "weight_decay": 0.0},
        **{"momentum": 0, "centered": False},
    },
    "Adagrad": {
        **{"lr": 1e-2, "lr_decay": 0, "weight_decay": 0.0},
        **{"initial_accumulator_value": 0, "eps": 1e-10},
    },
    "Adadelta": {"lr": 1.0, "rho": 0.9, "eps": 1e-6, "weight_decay": 0.0},
    "Adafactor": {
        **{"lr": 1e-2, "beta2_decay": -0.8, "eps": [None, 1e-3]},
        **{"d": 1.0, "weight_decay": 0.0},
    },
    "Muon": {
        **{"lr": 1e-3, "weight_decay": 0.1, "momentum": 0.95, "nesterov": True, "eps": 1e-7},
        **{"ns_coefficients": [3.4445, -4.775, 2.0315], "ns_steps": 5, "adjust_lr_fn": None},
    },
}
"""The arguments of each class that concern the update, with torch's defaults."""
NO_MATTER = {"torch's implementation": "foreach fused capturable differentiable"}


def put_optimizer(
    draft: Draft, name: str, source: Source, decay: Mapping[str, Any] | None = None
) -> str:
    """Puts an optimizer of `torch.optim` into a draft; returns our type of it.

    `source` has its arguments by torch's names, the defaults of `DEFAULTS` included. `decay` says
    where weight decay acts: `spared` and `decayed` are expressions; without it on everything.
    """
    kind, put = _PUT[name]
    draft.put("optimizer.type", kind)
    put(draft, f"optimizer.{kind}.", source, decay or {})
    _refuse_switches(draft, source)
    return kind


def known_class(draft: Draft, name: str, source: Source, key: str) -> bool:
    """Says whether a class is known; tells where it is not."""
    if name in DEFAULTS:
        return True
    hint = did_you_mean(name, DEFAULTS)
    todo = "choose an `optimizer.type` (`optfactory list optimizers`)"
    draft.tell(LOST, source, key, f"there is no such optimizer here{hint}", todo)
    return False


def put_clip(draft: Draft, kind: str, clip: Taken) -> None:
    """Puts a clip of the norm over all gradients; `adamw` has one unless it is set to 0."""
    norm = clip.value or 0.0
    if kind == "adamw":
        draft.put(f"optimizer.{kind}.gradient_clip_norm", float(norm), clip.comment)
    elif norm:
        draft.put(f"optimizer.{kind}.global_clipnorm", float(norm), clip.comment)


def put_betas(draft: Draft, place: str, source: Source) -> None:
    """Puts the betas: `betas`, or `beta1` and `beta2` where the source has them so."""
    if "beta1" in source.links:
        for name in ("beta1", "beta2"):
            draft.put(f"{place}beta_{name[-1]}", source.number(name))
        return
    betas = source.numbers("betas", 2)
    for index, name in enumerate(("beta_1", "beta_2")):
        draft.put(place + name, float(betas.value[index]), f"{betas.comment}[{index}]")


def spare(draft: Draft, decay: Mapping[str, Any], why: str = "no_decay") -> None:
    """Adds the group without decay, for types that have no list of what decays."""
    if "spared" in decay:
        group = {"name": why, "match": decay["spared"], "weight_decay": 0.0}
        draft.put("param_groups", [group], decay["comment"])


def _adamw(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    put_betas(draft, place, source)
    draft.put(f"{place}epsilon", source.number("eps"))
    draft.put(f"{place}epsilon_placement", "corrected", "as in torch")
    if source.flag("amsgrad"):
        draft.put(f"{place}amsgrad", True, source.path("amsgrad"))
    rate = source.number("weight_decay")
    draft.put(f"{place}weight_decay_rate", rate)
    if rate.value and "spared" in decay:
        draft.put(f"{place}exclude_from_weight_decay", [decay["spared"]], decay["comment"])


def _adam(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    put_betas(draft, place, source)
    draft.put(f"{place}epsilon", source.number("eps"))
    draft.put(f"{place}epsilon_placement", "corrected", "as in torch")
    if source.flag("amsgrad"):
        draft.put(f"{place}amsgrad", True, source.path("amsgrad"))
    put_decay(draft, place, source, decay)


def _nadam(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    put_betas(draft, place, source)
    draft.put(f"{place}epsilon", source.number("eps"))
    draft.put(f"{place}momentum_decay", source.number("momentum_decay"))
    put_decay(draft, place, source, decay)


def _radam(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    put_betas(draft, place, source)
    draft.put(f"{place}epsilon", source.number("eps"))
    put_decay(draft, place, source, decay)


def _adamax(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    put_betas(draft, place, source)
    draft.put(f"{place}epsilon", source.number("eps"))
    draft.put(f"{place}epsilon_in_norm", True, "as in torch")
    put_decay(draft, place, source, decay)


def _sgd(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    draft.put(f"{place}momentum", source.number("momentum"))
    if source.flag("nesterov"):
        draft.put(f"{place}nesterov", True, source.take("nesterov").comment)
    rate = source.number("weight_decay")
    if rate.value:
        draft.put(f"{place}weight_decay", rate)
        keys = decay.get("decayed", ".")
        draft.put(f"{place}weight_keys", [keys], decay.get("comment", "everything decays"))
    dampening = source.number("dampening").value
    if dampening:
        draft.tell(LOST, source, "dampening", "the momentum here takes the whole gradient")


def _rmsprop(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    draft.put(f"{place}rho", source.number("alpha"))
    draft.put(f"{place}epsilon", source.number("eps"))
    draft.put(f"{place}epsilon_in_sqrt", False, "as in torch")
    momentum = source.number("momentum")
    if momentum.value:
        draft.put(f"{place}momentum", momentum)
        draft.put(f"{place}classic_momentum", False, "as in torch")
    if source.flag("centered"):
        draft.put(f"{place}centered", True, source.path("centered"))
    put_decay(draft, place, source, decay)


def _adagrad(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    initial = source.number("initial_accumulator_value")
    draft.put(f"{place}initial_accumulator_value", float(initial.value), initial.comment)
    draft.put(f"{place}epsilon", source.number("eps"))
    draft.put(f"{place}epsilon_in_sqrt", False, "as in torch")
    if source.number("lr_decay").value:
        todo = "write `learning_rate: {type: inverse_time, inverse_time: {decay_steps: 1, ...}}`"
        draft.tell(LOST, source, "lr_decay", "the learning rate is the schedule's here", todo)
    put_decay(draft, place, source, decay)


def _adadelta(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    draft.put(f"{place}rho", source.number("rho"))
    draft.put(f"{place}epsilon", source.number("eps"))
    put_decay(draft, place, source, decay)


def _adafactor(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    draft.put(f"{place}variant", "torch", "as in torch")
    beta = source.number("beta2_decay")
    draft.put(f"{place}decay_rate", -float(beta.value), beta.comment)
    eps = source.take("eps")
    if isinstance(eps.value, list | tuple) and eps.value[:1] == [None] and len(eps.value) == 2:
        eps = eps._replace(value=[None, as_number(eps.value[1])])  # the dtype's epsilon
    else:
        eps = source.numbers("eps", 2)
        draft.put(f"{place}epsilon1", float(eps.value[0]), f"{eps.comment}[0]")
    if eps.value[1] is None:
        source.refuse("eps", "expected two numbers")
    draft.put(f"{place}epsilon2", float(eps.value[1]), f"{eps.comment}[1]")
    draft.put(f"{place}clipping_threshold", source.number("d"))
    rate = source.number("weight_decay")
    if rate.value:
        draft.put(f"{place}weight_decay", rate)
        if "decayed" in decay:
            draft.put(f"{place}include_in_weight_decay", [decay["decayed"]], decay["comment"])


_SCALES: dict[str, dict[str, Any]] = {
    "original": {"scale": "shape", "rms_rate": 1.0},
    "match_rms_adamw": {"scale": "spectral", "rms_rate": 0.2},
}


def _muon(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    draft.put(f"{place}variant", "torch", "as in torch")
    draft.put(f"{place}include_layers", ["."], "it is given matrices alone, and updates them all")
    for key in ("momentum", "weight_decay"):
        draft.put(place + key, source.number(key))
    draft.put(f"{place}nesterov", source.flag("nesterov"), source.take("nesterov").comment)
    draft.put(f"{place}ns_steps", source.positive("ns_steps"))
    rows = rows_of_three(source.take("ns_coefficients").value)
    if rows is None or len(rows) != 1:
        source.refuse("ns_coefficients", "expected three numbers")
    for name, value in zip("abc", rows[0], strict=True):
        draft.put(f"{place}muon_{name}", value, source.path("ns_coefficients"))
    draft.put(f"{place}ns_dtype", "bfloat16", "as in torch")
    scale = source.text("adjust_lr_fn").value or "original"
    if scale not in _SCALES:
        source.refuse("adjust_lr_fn", f"expected one of {', '.join(_SCALES)}, got {scale!r}")
    for field, value in _SCALES[scale].items():
        draft.put(place + field, value, source.take("adjust_lr_fn").comment)
    # The least norm by which a matrix is divided, below which none is in a training.
    source.number("eps")
    spare(draft, decay)


def rows_of_three(value: Any) -> list[list[float]] | None:
    """Returns coefficients of Muon, three numbers or lists of three, as lists; None for others."""
    if not isinstance(value, list | tuple) or not value:
        return None
    rows = list(value) if isinstance(value[0], list | tuple) else [value]
    found = []
    for row in rows:
        numbers = [as_number(n) for n in row] if isinstance(row, list | tuple) else []
        known = [float(n) for n in numbers if n is not None and abs(n) <= LARGEST]
        if len(numbers) != 3 or len(known) != 3:
            return None
        found.append(known)
    return found


def put_decay(draft: Draft, place: str, source: Source, decay: Mapping[str, Any]) -> None:
    """Puts the decay of a class that adds it to the gradient unless told otherwise."""
    rate = source.number("weight_decay")
    asks = "decoupled_weight_decay" in source.defaults
    decoupled = asks and source.flag("decoupled_weight_decay")
    if not rate.value:
        return
    draft.put(f"{place}weight_decay", rate)
    if not decoupled:
        draft.put(f"{place}decoupled_weight_decay", False, "added to the gradient, as in torch")
    spare(draft, decay)


def _refuse_switches(draft: Draft, source: Source) -> None:
    for key in ("maximize", "sparse"):
        if key in source.mapping and source.flag(key):
            draft.tell(LOST, source, key, "optimizers here minimize, densely", "negate the loss")


Put = Callable[[Draft, str, Source, Mapping[str, Any]], None]
_PUT: dict[str, tuple[str, Put]] = {
    "Adam": ("adam", _adam),
    "AdamW": ("adamw", _adamw),
    "NAdam": ("nadam", _nadam),
    "RAdam": ("radam", _radam),
    "Adamax": ("adamax", _adamax),
    "SGD": ("sgd_torch", _sgd),
    "RMSprop": ("rmsprop", _rmsprop),
    "Adagrad": ("adagrad", _adagrad),
    "Adadelta": ("adadelta", _adadelta),
    "Adafactor": ("adafactor", _adafactor),
    "Muon": ("muon", _muon),
}
