"""Examples of every learning rate and warmup, and how tests call them."""

import numpy as np

from optimization.configs.types import REQUIRED, is_pending
from optimization.schedules import LR_CLS, WARMUP_CLS, LrConfig, WarmupConfig, curve

T = 1000  # the length, in steps, of every example

# Float32 carries 24 bits. A formula rounds its inputs, constants and a handful of operations, half
# of 2**-23 each; where it subtracts, what is lost is relative to the larger term, for which the
# highest rate stands.
FLOAT32 = 2.0**-23
RTOL = 8 * FLOAT32

# What a field is set to that has no default. A new type with fields of these names is covered by
# the contract tests as it stands.
_VALUES = {
    "initial_learning_rate": 0.1,
    "max_learning_rate": 0.1,
    "learning_rate": 0.1,
    "warmup_learning_rate": 0.002,
    "decay_steps": T,
    "total_decay_steps": T,
    "total_steps": T,
    "first_decay_steps": 150,
    "stable_steps": 300,
    "warmup_steps": 100,
    "decay_rate": 0.9,
    "num_training_steps": T,
    "num_decay_steps": 400,
}

# Where the names do not say it, and further settings that take another path through a formula.
_SETTINGS = {
    "stepwise": [{"boundaries": [300, 600, T], "values": [0.1, 0.02, 0.05, 0.001]}],
    "step_cosine_with_offset": [
        {"boundaries": [0, 400, T], "values": [0.1, 0.03, 0.01]},
        {"boundaries": [250], "values": [0.1]},
    ],
    "exponential": [
        {"decay_steps": 100},
        {"decay_steps": 100, "staircase": True},
        {"decay_steps": 100, "min_learning_rate": 0.05},
    ],
    "inverse_time": [{"decay_steps": 100}, {"decay_steps": 100, "staircase": True}],
    "polynomial": [{}, {"power": 2.5, "decay_steps": 300, "cycle": True}],
    "cosine": [{}, {"alpha": 0.1}, {"min_learning_rate": 0.02}],
    "linear": [{}, {"min_learning_rate": 0.02}],
    "power_law": [
        {"batch_size": 100, "tokens_per_step": 10_000},
        {"batch_size": 100, "tokens_per_step": 10_000, "min_learning_rate": 0.06},
    ],
    "cosine_restarts": [{}, {"t_mul": 1, "m_mul": 0.8}, {"t_mul": 1.3, "m_mul": 0.7, "alpha": 0.1}],
    "power_linear": [{}, {"linear_decay_fraction": 0}],
    "power_with_offset": [{"pre_offset_learning_rate": 0.05}, {"offset": 120}],
    "inverse_sqrt": [{"timescale": 200}, {"timescale": 200, "min_learning_rate": 0.06}],
    "warmup_stable_decay": [
        {"decay_steps": 700, "min_lr_ratio": 0.1, "decay_type": kind}
        for kind in ("linear", "cosine", "1-sqrt", "exponential", "inverse")
    ],
    "sequence": [
        {
            "phases": [
                {"until": 300, "type": "linear", "linear": {"initial_learning_rate": 0.1}},
                {"until": 600, "type": "cosine", "cosine": {"initial_learning_rate": 0.02}},
                {"type": "inverse_sqrt", "inverse_sqrt": {"initial_learning_rate": 0.05}},
            ]
        },
        {
            "phases": [
                {"until": 400, "type": "constant", "constant": {"learning_rate": 0.1}},
                {"until": 600, "join": True, "type": "polynomial", "polynomial": {"power": 2.5}},
                {
                    "until": T,
                    "type": "exponential",
                    "exponential": {"initial_learning_rate": 0.05, "decay_rate": 0.1},
                },
            ]
        },
    ],
    "hf_constant_with_warmup": [{}, {"num_warmup_steps": 100}],
    "hf_linear": [
        {},
        {"num_warmup_steps": 100},
        {"num_warmup_steps": 100, "min_learning_rate": 0.02},
    ],
    "hf_cosine": [{}, {"num_warmup_steps": 100}, {"num_cycles": 2.5}],
    "hf_cosine_with_restarts": [{}, {"num_warmup_steps": 100, "num_cycles": 3}],
    "hf_polynomial": [{}, {"num_warmup_steps": 100, "lr_end": 0.01, "power": 2.5}],
    "hf_inverse_sqrt": [{}, {"num_warmup_steps": 100}],
    "hf_cosine_with_min_lr": [
        {"min_lr": 0.01},
        {"min_lr": None, "min_lr_rate": 0.1, "num_warmup_steps": 100},
    ],
    "hf_cosine_warmup_with_min_lr": [
        {"min_lr": 0.01},
        {"min_lr": 0.02, "num_warmup_steps": 100, "warmup_lr_rate": 0.2},
    ],
    "hf_warmup_stable_decay": [
        {},
        *(
            {"num_warmup_steps": 100, "warmup_type": form, "decay_type": form, "min_lr_ratio": 0.1}
            for form in ("linear", "cosine", "1-sqrt")
        ),
    ],
    "one_cycle": [{}, {"three_phase": True, "anneal_strategy": "linear"}],
}


def _settings(name):
    return _SETTINGS.get(name, [{}])


def _fill(config, settings):
    given = dict(settings)
    for name in config.field_names():
        value = getattr(config, name)
        if (value is REQUIRED or is_pending(value)) and name not in given:
            assert name in _VALUES, f"say in tests/schedules/common.py what `{name}` is to be"
            given[name] = _VALUES[name]
    config.override(given)
    return config


def lr_config(name, **settings):
    """Returns a learning rate's config, what is required filled in."""
    return _fill(LrConfig({"type": name}).get(), {**_settings(name)[0], **settings})


def warmup_config(name, **settings):
    """Returns a warmup's config, what is required filled in."""
    config = WarmupConfig({"type": name}).get()
    if "warmup_learning_rate" in config.field_names():  # a start that shows
        settings = {"warmup_learning_rate": _VALUES["warmup_learning_rate"], **settings}
    return _fill(config, settings)


def lr_examples():
    """Returns (id, config) of every registered learning rate, in each of its settings."""
    return [
        (f"{name}{index or ''}", lr_config(name, **settings))
        for name in LR_CLS
        for index, settings in enumerate(_settings(name))
    ]


def lr_examples_without_warmup():
    """Returns those of `lr_examples` before which a warmup can come."""
    return [(name, config) for name, config in lr_examples() if not any(config.warmup_conflicts())]


def warmup_examples():
    """Returns (id, config) of every registered warmup in every mode."""
    return [
        (f"{name}-{mode}", warmup_config(name, mode=mode))
        for name in WARMUP_CLS
        for mode in ("replace", "delay", "multiply")
    ]


def rate(config, steps, warmup=None):
    """Returns the curve of a config as a list, or as a float for one step."""
    return curve(config, warmup, steps).tolist()


def keras_values(schedule, steps):
    """Returns what a Keras schedule gives for a vector of steps, in one call."""
    from keras import ops

    return np.asarray(ops.convert_to_numpy(schedule(np.asarray(steps))), np.float64)
