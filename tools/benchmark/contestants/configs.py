"""The variants as configs of this project."""

from typing import Any

import optimization
from tools.benchmark.contestants import UnsupportedError
from tools.benchmark.variants import (
    ACCUMULATOR,
    ADOPT_BETA_2,
    BETA_1,
    BETA_2,
    CLIP_NORM,
    EMA_DECAY,
    EPSILON,
    EXCLUDED,
    LION_BETA_2,
    MOMENTUM,
    MOMENTUM_DECAY,
    MUON_MOMENTUM,
    MUON_RMS,
    PRODIGY_FACTOR,
    PRODIGY_START,
    RHO,
    SLOW_ALPHA,
    SLOW_BETA,
    SOAP_BETA,
    SOAP_FREQUENCY,
    TRUST_COEFFICIENT,
    Variant,
)

_ADAM = {"beta_1": BETA_1, "beta_2": BETA_2, "epsilon": EPSILON}
_SECTIONS: dict[str, dict[str, Any]] = {
    "adamw": {**_ADAM, "gradient_clip_norm": 0.0},
    "lamb": _ADAM,
    "lars": {"momentum": MOMENTUM, "eeta": TRUST_COEFFICIENT},
    "adafactor": {"variant": "keras"},
    "sgd": {"momentum": MOMENTUM},
    "lion": {"beta_1": BETA_1, "beta_2": LION_BETA_2},
    "nadam": {**_ADAM, "momentum_decay": MOMENTUM_DECAY},
    "adamax": _ADAM,
    "adagrad": {"initial_accumulator_value": ACCUMULATOR, "epsilon": EPSILON},
    "rmsprop": {"rho": RHO, "epsilon": EPSILON},
    "ademamix": {**_ADAM, "beta_3": SLOW_BETA, "alpha": SLOW_ALPHA},
    "adopt": {"beta_1": BETA_1, "beta_2": ADOPT_BETA_2, "epsilon": EPSILON},
    "radam": _ADAM,
    "stable_adamw": {**_ADAM, "weight_decay": 0.0},
    "schedule_free_adamw": _ADAM,
    "prodigy": {
        **_ADAM,
        **{"d0": PRODIGY_START, "d_coef": PRODIGY_FACTOR, "use_bias_correction": True},
    },
    # Without Nesterov's momentum all kinds of it are the same: the matrix has norm 1 in any case.
    "muon": {
        **{"momentum": MUON_MOMENTUM, "nesterov": False, "rms_rate": MUON_RMS},
        **{"weight_decay": 0.0, "adam_weight_decay": 0.0, "epsilon": EPSILON},
        **{"adam_beta_1": BETA_1, "adam_beta_2": BETA_2},
        "include_layers": ["kernel"],  # the last one too, which could be an output layer's
    },
    "soap": {
        **{"beta_1": SOAP_BETA, "beta_2": SOAP_BETA, "epsilon": EPSILON, "weight_decay": 0.0},
        "precondition_frequency": SOAP_FREQUENCY,
    },
}


def config(
    variant: Variant,
    *,
    jit_compile: bool | None = None,
    accumulates: bool = True,
    native: bool = False,
) -> optimization.OptimizationConfig:
    """Returns the config of a variant.

    Args:
        variant: The variant.
        jit_compile: The section's field of that name; None for its default.
        accumulates: Whether the optimizer accumulates gradients, where the variant says so.
        native: Whether SGD's momentum is that of PyTorch and optax, which the rate multiplies
            afterwards, in place of Keras', which has the rate inside.

    Raises:
        UnsupportedError: If `jit_compile` is given and the section has no such field.
    """
    section = dict(_SECTIONS[variant.algorithm])
    kind = "sgd_torch" if native and variant.algorithm == "sgd" else variant.algorithm
    if variant.weight_decay:
        section["weight_decay_rate"] = variant.weight_decay
    if variant.exclude:
        section["exclude_from_weight_decay"] = list(EXCLUDED)
    if variant.clip:
        section["global_clipnorm"] = CLIP_NORM
    if variant.accumulation > 1 and accumulates:
        section["gradient_accumulation_steps"] = variant.accumulation
    if jit_compile is not None:
        fields = optimization.OPTIMIZERS_CLS.config_class(kind).field_names()
        if "jit_compile" not in fields:
            raise UnsupportedError(f"`{kind}` has no `jit_compile`")
        section["jit_compile"] = jit_compile
    params: dict[str, Any] = {
        "optimizer": {"type": kind, kind: section},
        "learning_rate": {"type": "constant", "constant": {"learning_rate": variant.learning_rate}},
    }
    if variant.ema:
        # The average equals the weights after the first update: the first counts as 1.
        params["ema"] = {"average_decay": EMA_DECAY, "dynamic_decay": False, "start_step": 2}
    return optimization.OptimizationConfig(params)
