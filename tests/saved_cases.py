"""The optimizers of which `golden/saved` has files: every type, and every layout of state.

The goldens have a copy of what makes them: what is here is read by `tools/saved_goldens.py` alone.
A type that is not listed is saved with its defaults, and with all its switches.
"""

from typing import Any

from optimization import OPTIMIZERS_CLS
from tests.rules import contracts

Config = dict[str, Any]

RATE = {
    "learning_rate": {
        "type": "cosine",
        "cosine": {"initial_learning_rate": 0.05, "decay_steps": 8, "alpha": 0.1},
    },
    "warmup": {"type": "linear", "linear": {"warmup_steps": 2, "warmup_learning_rate": 0.01}},
}
CONSTANT = {"learning_rate": {"type": "constant", "constant": {"learning_rate": 0.05}}}
FALLING = {"type": "linear", "linear": {"initial_learning_rate": 0.9, "decay_steps": 10}}
SMALLER = {
    "type": "exponential",
    "exponential": {"initial_learning_rate": 1.0, "decay_rate": 0.5, "decay_steps": 4},
}

# What types have files of: their defaults, and what changes their state or their names.
SECTIONS: dict[str, dict[str, Config]] = {
    "sgd": {
        "defaults": {},
        "momentum": {"momentum": 0.9},
        "nesterov": {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        "decay": {"momentum": 0.9, "decay": 0.1},
    },
    "sgd_experimental": {"defaults": {}, "momentum": {"momentum": 0.9}},
    "sgd_torch": {
        "defaults": {},
        "plain": {"momentum": 0.0},
        "nesterov": {"nesterov": True, "weight_decay": 0.1},
        "warmup": {"momentum_start": 0.5, "warmup_steps": 5},
    },
    "rmsprop": {
        "defaults": {},
        "momentum": {"momentum": 0.9},
        "centered": {"centered": True},
        "everything": {
            **{"momentum": 0.9, "centered": True},
            **{"epsilon_in_sqrt": False, "classic_momentum": False},
        },
    },
    "adagrad": {"defaults": {}, "epsilon outside": {"epsilon_in_sqrt": False}},
    "adadelta": {"defaults": {}},
    "ftrl": {
        "defaults": {},
        "everything": {
            **{"l1_regularization_strength": 0.01, "l2_regularization_strength": 0.01},
            **{"l2_shrinkage_regularization_strength": 0.01, "beta": 0.1},
        },
    },
    "adam": {
        "defaults": {},
        "amsgrad": {"amsgrad": True},
        "uncorrected": {"correct_bias": False},
        "corrected epsilon": {"epsilon_placement": "corrected", "weight_decay": 0.1},
        "nesterov, coupled": {
            **{"nesterov": True, "nesterov_correction": "same"},
            **{"weight_decay": 0.1, "decoupled_weight_decay": False},
        },
    },
    "adam_experimental": {"defaults": {}, "amsgrad": {"amsgrad": True}},
    "adamw": {
        "defaults": {},
        "amsgrad": {"amsgrad": True, "weight_decay_rate": 0.1},
        "exclusions": {
            **{"weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias", "norm"]},
            **{"weight_decay_order": "after", "epsilon_placement": "corrected"},
        },
    },
    "adamw_experimental": {"defaults": {}, "decay": {"weight_decay": 0.1, "amsgrad": True}},
    "adamax": {"defaults": {}, "epsilon in norm": {"epsilon_in_norm": True}},
    "nadam": {"defaults": {}, "momentum decay": {"momentum_decay": 0.004}},
    "lamb": {
        "defaults": {},
        "exclusions": {
            **{"weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias", "norm"]},
            "exclude_from_layer_adaptation": ["bias"],
        },
    },
    "lars": {
        "defaults": {},
        "nesterov": {"nesterov": True, "weight_decay_rate": 0.1, "eeta": 0.1},
        "popular momentum": {
            **{"classic_momentum": False, "eeta": 0.1},
            "exclude_from_layer_adaptation": ["bias"],
        },
    },
    "adafactor": {
        "defaults": {},
        "momentum": {"beta1": 0.9, "min_dim_size_to_factor": 2},
        "not factored": {"factored": False, "weight_decay": 0.01},
        **{
            variant: {
                **{"variant": variant, "min_dim_size_to_factor": 2},
                **{"beta1": 0.8, "weight_decay": 0.01},
            }
            for variant in ("paper", "hf", "torch", "keras", "optax", "t5x", "timm", "big_vision")
        },
        "without momentum": {"variant": "paper", "min_dim_size_to_factor": 2},
        "last two axes": {"factored_axes": "last_two", "min_dim_size_to_factor": 2},
    },
    "adafactor_keras": {
        "defaults": {},
        "absolute": {"relative_step": False, "weight_decay": 0.01},
    },
    "lion": {"defaults": {}, "decay": {"weight_decay": 0.1}},
    "muon": {
        "defaults": {},
        "exclusions": {"exclude_layers": ["layer_0"], "nesterov": False, "rms_rate": None},
        "normuon": {"variant": "normuon"},
        "adamuon": {"variant": "adamuon"},
        "polar express": {"variant": "polar_express", "include_layers": ["head"]},
        "auxiliary": {
            "auxiliary": {
                **{"type": "lion", "lion": {"weight_decay": 0.1}},
                "learning_rate_multiplier": 0.5,
            }
        },
    },
    # From so far on that float32 can tell a weight from the first one.
    "prodigy": {
        "estimate": {"d0": 0.01, "d_coef": 8.0},
        "everything": {
            **{"d0": 0.01, "d_coef": 8.0, "growth_rate": 1.5, "beta_3": 0.9},
            **{"use_bias_correction": True, "safeguard_warmup": True, "weight_decay": 0.1},
        },
    },
    "soap": {
        "defaults": {},
        "often, merged": {"precondition_frequency": 2, "merge_dims": True},
        "kl": {"kl": True, "precondition_frequency": 2, "normalize_gradients": True},
    },
    "schedule_free_adamw": {
        "defaults": {},
        "warmup": {"warmup_steps": 5, "weight_decay": 0.1, "r": 1.0},
    },
    "schedule_free_sgd": {"defaults": {}, "warmup": {"warmup_steps": 5, "weight_decay": 0.1}},
}

# What cases of a type have besides. Muon's iterations magnify rounding, SOAP does by as much as
# eigenvalues are near to each other, and Prodigy by what it divides; its gradients go one way, so
# that there is something to estimate.
OF_TYPE: dict[str, Config] = {
    "muon": {"tolerance": 1e-5},
    "soap": {"tolerance": 1e-3},
    "prodigy": {"tolerance": 1e-4, "goes_somewhere": True},
}

# Settings of all optimizers alike; `native` says whether PyTorch has them natively.
ADAMW = {"optimizer": {"type": "adamw", "adamw": {"weight_decay_rate": 0.1}}, **RATE}
MOMENTUM = {"optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}}, **RATE}
FREE = {
    "optimizer": {"type": "schedule_free_adamw", "schedule_free_adamw": {"warmup_steps": 2}},
    **CONSTANT,
}
GROUPS = [
    {"match": "bias", "weight_decay": 0.0, "name": "biases"},
    {"match": "norm", "freeze": True},
    {
        "match": "head",
        "learning_rate_multiplier": 2.0,
        "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.02}},
    },
]


def _with(config: Config, **section: Any) -> Config:
    """Returns a config with other settings of its optimizer."""
    kind = config["optimizer"]["type"]
    optimizer = {"type": kind, kind: {**config["optimizer"][kind], **section}}
    return {**config, "optimizer": optimizer}


def _following(kind: str, **settings: Any) -> Config:
    rate = {"type": kind, kind: {"initial_learning_rate": 0.1, "patience": 0, **settings}}
    return {"optimizer": MOMENTUM["optimizer"], "learning_rate": rate}


def _unlisted(kind: str) -> dict[str, Config]:
    return {"defaults": {}, "everything": contracts.busiest(kind)}


def _of_types() -> dict[str, Config]:
    cases = {}
    others = {kind: _unlisted(kind) for kind in OPTIMIZERS_CLS if kind not in SECTIONS}
    for kind, sections in {**SECTIONS, **others}.items():
        for name, section in sections.items():
            config = {"optimizer": {"type": kind, kind: section}}
            if kind.startswith("schedule_free") or f"{kind}, {name}" == "adafactor_keras, defaults":
                config |= CONSTANT
            elif section.get("variant") not in ("paper", "hf", "timm"):  # with rates of their own
                config |= RATE
            cases[f"{kind}, {name}"] = {"config": config, **OF_TYPE.get(kind, {})}
    for name in ("adafactor, torch", "adafactor, hf", "sgd, momentum", "adam, amsgrad"):
        cases[f"{name}, a gradient missing"] = {**cases[name], "without": True}
    return cases


CASES: dict[str, dict[str, Any]] = {
    **_of_types(),
    "ema": {"config": {**ADAMW, "ema": {"average_decay": 0.9}}},
    "ema, late": {
        "config": {
            **MOMENTUM,
            "ema": {"average_decay": 0.9, "start_step": 2, "dynamic_decay": False},
        }
    },
    "ema of all weights": {
        "config": {**MOMENTUM, "ema": {"average_decay": 0.9, "trainable_weights_only": False}},
        "all_weights": True,
    },
    "ema, averages in place": {
        "config": {**ADAMW, "ema": {"average_decay": 0.9}},
        "swapped": True,
        "native": False,
    },
    "use_ema": {"config": _with(ADAMW, use_ema=True, ema_momentum=0.8)},
    "use_ema, overwriting": {
        "config": _with(ADAMW, use_ema=True, ema_overwrite_frequency=2),
        "native": False,
    },
    "schedule-free, averages in place": {"config": FREE, "swapped": True},
    "accumulation": {"config": _with(ADAMW, gradient_accumulation_steps=2), "native": False},
    "accumulation, average, skipping": {
        "config": {
            **_with(ADAMW, gradient_accumulation_steps=2, on_nonfinite="skip"),
            "ema": {"average_decay": 0.9},
        },
        "overflow": True,
        "native": False,
    },
    "skipping": {
        "config": _with(MOMENTUM, on_nonfinite="skip", max_consecutive_nonfinite=3),
        "overflow": True,
        "native": False,
    },
    "dynamic loss scale": {
        "config": {**ADAMW, "ema": {"average_decay": 0.9}},
        "runtime": {"mixed_precision_dtype": "float16"},
        "overflow": True,
        "native": False,
    },
    "dynamic loss scale, accumulation": {
        "config": _with(ADAMW, gradient_accumulation_steps=2),
        "runtime": {"mixed_precision_dtype": "float16", "loss_scale": "dynamic"},
        "native": False,
    },
    "static loss scale": {"config": _with(ADAMW, loss_scale_factor=8.0), "native": False},
    "clipnorm": {"config": _with(MOMENTUM, clipnorm=0.5)},
    "clipvalue": {"config": _with(MOMENTUM, clipvalue=0.1)},
    "global_clipnorm": {"config": _with(MOMENTUM, global_clipnorm=0.5, on_nonfinite="raise")},
    "adaptive clip": {"config": _with(MOMENTUM, adaptive_clip_factor=0.1)},
    "groups": {"config": {**ADAMW, "param_groups": GROUPS}},
    "groups by dimensions, average": {
        "config": {
            **ADAMW,
            "param_groups": [{"ndim": [0, 1], "learning_rate_multiplier": 0.5}],
            "ema": {"average_decay": 0.9},
        }
    },
    "groups by layer type": {
        "config": {
            **ADAMW,
            "param_groups": [{"layer_type": "BatchNormalization", "weight_decay": 0.0}],
        },
        "native": False,  # by other names of layers, below
    },
    "groups by layer type, natively": {
        "config": {**ADAMW, "param_groups": [{"layer_type": "BatchNorm1d", "weight_decay": 0.0}]},
        "keras": False,
    },
    "group with another optimizer": {
        "config": {
            **ADAMW,
            "param_groups": [
                {"match": "head", "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}}},
                {"match": "norm", "optimizer": {"type": "adam", "adam": {"amsgrad": True}}},
            ],
        },
        "native": False,
    },
    "group with another optimizer of the same class": {
        "config": {
            **MOMENTUM,
            "param_groups": [
                {"match": "head", "optimizer": {"type": "sgd", "sgd": {"momentum": 0.5}}}
            ],
        },
        "native": False,
    },
    "layer_decay": {"config": {**ADAMW, "layer_decay": {"rate": 0.5, "depth": r"layer_(\d+)[/.]"}}},
    "layer_decay with groups": {
        "config": {
            **MOMENTUM,
            "layer_decay": {"rate": 0.5, "depth": r"layer_(\d+)[/.]"},
            "param_groups": GROUPS,
        }
    },
    "lr_scaling": {
        "config": {
            **MOMENTUM,
            "lr_scaling": {"rule": "sqrt", "base_batch_size": 64, "global_batch_size": 128},
        }
    },
    "schedule of weight_decay": {"config": {**ADAMW, "schedules": {"weight_decay": FALLING}}},
    "schedule of momentum": {"config": {**MOMENTUM, "schedules": {"momentum": FALLING}}},
    "schedules of both betas": {
        "config": {
            **_with(ADAMW, amsgrad=True),
            "schedules": {"beta_1": FALLING, "beta_2": FALLING},
        }
    },
    **{
        f"bfloat16, {name}": {"config": config, "task": {"dtype": "bfloat16"}}
        for name, config in {
            "adamw": ADAMW,
            "momentum, average": {**MOMENTUM, "ema": {"average_decay": 0.9}},
            "schedule-free": FREE,
            "adafactor": {
                "optimizer": {
                    "type": "adafactor",
                    "adafactor": {"min_dim_size_to_factor": 2, "beta1": 0.9},
                },
                **RATE,
            },
            "lamb in groups": {
                "optimizer": {"type": "lamb", "lamb": {"weight_decay_rate": 0.1}},
                **RATE,
                "param_groups": GROUPS,
            },
        }.items()
    },
    "float16, momentum": {"config": MOMENTUM, "task": {"dtype": "float16"}},
    "modifiers, adamw": {
        "config": {
            **_with(
                ADAMW,
                **{"cautious": True, "max_update_rms": 0.5, "centralize_gradients": True},
                **{"cautious_weight_decay": True, "mars": True},
                **{"lookahead": True, "lookahead_steps": 2},
            ),
        }
    },
    "modifiers, momentum": {
        "config": _with(MOMENTUM, mars=True, mars_beta=0.8, lookahead=True, lookahead_steps=2)
    },
    # Where the last bit of a moment is rounded the other way, the step is another one by 1/256.
    **{
        f"state, {name}": {"config": config, "task": task, "tolerance": 2.0**-8}
        for name, task, config in (
            ("stochastic", {}, _with(ADAMW, state={"dtype": "bfloat16"})),
            (
                "nearest, one slot",
                {},
                _with(
                    ADAMW,
                    state={"dtype": "bfloat16", "rounding": "nearest", "slots": ["velocity"]},
                ),
            ),
            (
                "weights without copies",
                {"dtype": "bfloat16"},
                _with(ADAMW, state={"dtype": "bfloat16", "weights": "stochastic", "seed": 3}),
            ),
        )
    },
    "zclip": {"config": {**MOMENTUM, "zclip": {"warmup_steps": 2, "z_threshold": 0.5}}},
    "skip_spikes": {
        "config": {**ADAMW, "skip_spikes": {"window": 4, "warmup_steps": 2, "sigma": 0.5}}
    },
    "freeze_steps": {
        "config": {
            **ADAMW,
            "param_groups": [
                {"match": "head", "freeze_steps": 2, "name": "late"},
                {"match": "layer_0", "freeze_steps": 1, "clipnorm": 0.5},
            ],
        }
    },
    "accumulation that grows": {
        "config": {**ADAMW, "accumulation": {"micro_batches": [1, 2], "boundaries": [2]}},
        "native": False,
    },
    **{
        f"ema, {growth}": {
            "config": {
                **ADAMW,
                "ema": {"average_decay": 0.9, "dynamic_decay": growth, **settings},
            }
        }
        for growth, settings in {
            "power": {"gamma": 2.0},
            "cosine": {"rise_steps": 5},
        }.items()
    },
    "schedules of a clip and of the average": {
        "config": {
            **_with(MOMENTUM, global_clipnorm=1.0),
            "ema": {"average_decay": 0.5},
            "schedules": {"global_clipnorm": SMALLER, "average_decay": FALLING},
        }
    },
    "learning rate in phases": {
        "config": {
            "optimizer": ADAMW["optimizer"],
            "learning_rate": {
                "type": "sequence",
                "sequence": {
                    "phases": [
                        {
                            **{"type": "linear", "until": 2},
                            "linear": {
                                "initial_learning_rate": 0.0,
                                "end_learning_rate": 0.05,
                            },
                        },
                        {
                            **{"type": "constant", "until": 4},
                            "constant": {"learning_rate": 0.05},
                        },
                        {"type": "cosine", "join": True, "cosine": {"decay_steps": 4}},
                    ]
                },
            },
        }
    },
    "rate that follows a metric, plateau": {
        "config": _following("hf_reduce_lr_on_plateau", threshold=0.5, factor=0.5),
        "follows": True,
    },
    "rate that follows a metric, greedy": {
        "config": _following("hf_greedy", factor=0.8, smooth=True, window_size=2),
        "follows": True,
    },
}

_WARMUP = {
    "module": "optimization.transformers",
    "class_name": "WarmUp",
    "config": {
        "initial_learning_rate": 0.05,
        "decay_schedule_fn": {
            "module": "keras.optimizers.schedules",
            "class_name": "PolynomialDecay",
            "config": {"initial_learning_rate": 0.05, "decay_steps": 10},
            "registered_name": None,
        },
        "warmup_steps": 2,
    },
    "registered_name": "optimization.transformers>WarmUp",
}

# Keras classes by themselves, as code has them that compiles a model without a config.
KERAS_CLASSES: dict[str, dict[str, Any]] = {
    f"class {name}": {
        **{"module": "optimization.optimizers", "class": name, "arguments": arguments},
        **OF_TYPE.get(name.lower(), {}),
    }
    for name, arguments in {
        "Adafactor": {"min_dim_size_to_factor": 2, "beta1": 0.9},
        "AdafactorKeras": {},
        "Adagrad": {},
        "Adam": {"amsgrad": True},
        "AdamWeightDecay": {"weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias"]},
        "Adamax": {},
        "LAMB": {"weight_decay_rate": 0.1},
        "LARS": {},
        "Muon": {},
        "Nadam": {},
        "ADOPT": {},
        "AdEMAMix": {"alpha_warmup": 5, "beta_3_warmup": 5},
        "Prodigy": {"d0": 0.01, "d_coef": 8.0},
        "RAdam": {},
        "SOAP": {"precondition_frequency": 2},
        "StableAdamW": {},
        "RMSprop": {"momentum": 0.9, "centered": True},
        "SGDTorch": {"weight_decay": 0.1},
        "ScheduleFreeAdamW": {"warmup_steps": 2},
        "ScheduleFreeSGD": {"warmup_steps": 2},
    }.items()
} | {
    "class AdamWeightDecay of transformers": {
        "module": "optimization.transformers",
        "class": "AdamWeightDecay",
        "arguments": {"learning_rate": _WARMUP, "weight_decay_rate": 0.1},
    }
}
