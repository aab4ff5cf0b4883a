"""An example of each type of a schedule: settings that show what it is for, and its picture."""

from typing import Any

from optimization.configs.documentation import field_doc
from optimization.configs.durations import TrainingLength
from optimization.configs.errors import ConfigError
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.rate_curve import curve_of
from optimization.configs.registry import Registry
from optimization.plots.curves import line_of_rate
from optimization.plots.drawing import drawn_together
from optimization.plots.picture import Picture
from optimization.schedules import LR_CLS

LENGTH = 1000
"""Optimizer steps of the training of an example."""

# What an example sets of the fields that must be given, by their names.
_GIVEN: dict[str, Any] = {
    "initial_learning_rate": 0.1,
    "max_learning_rate": 0.1,
    "warmup_learning_rate": 0.001,
    "boundaries": [300, 600, 900],
    "values": [0.1, 0.05, 0.02, 0.01],
    "first_decay_steps": 250,
    "stable_steps": 600,
    "num_decay_steps": 300,
    "decay_rate": 0.5,
    "warmup_steps": "40%",
}
# What it sets besides, so that the picture shows what the type is for.
_SHOWN: dict[str, dict[str, Any]] = {
    "cosine_restarts": {"t_mul": 1.5, "m_mul": 0.7},
    "exponential": {"decay_steps": 200},
    "inverse_time": {"decay_steps": 100},
    "inverse_sqrt": {"timescale": 100.0},
    "polynomial": {"power": 2.0},
    "power_with_offset": {"offset": 200, "pre_offset_learning_rate": 0.01},
    "power_law": {"batch_size": 128, "tokens_per_step": 5_000_000},
    "relative_step": {"warmup_init": True},
    "step_cosine_with_offset": {"boundaries": [0, 500, 1000], "values": [0.1, 0.05, 0.0]},
    "sequence": {
        "phases": [
            {"until": "60%", "type": "constant", "constant": {"learning_rate": 0.1}},
            {"until": "70%", "type": "linear", "join": True, "linear": {"end_learning_rate": 0.04}},
            {"type": "cosine", "join": True, "cosine": {}},
        ]
    },
    "hf_constant_with_warmup": {"num_warmup_steps": "20%"},
    "hf_cosine": {"num_warmup_steps": "10%"},
    "hf_cosine_warmup_with_min_lr": {"num_warmup_steps": "10%", "min_lr_rate": 0.2},
    "hf_cosine_with_min_lr": {"num_warmup_steps": "10%", "min_lr_rate": 0.2},
    "hf_cosine_with_restarts": {"num_warmup_steps": "10%", "num_cycles": 3},
    "hf_inverse_sqrt": {"num_warmup_steps": "10%"},
    "hf_linear": {"num_warmup_steps": "10%"},
    "hf_polynomial": {"num_warmup_steps": "10%", "power": 2.0},
    "hf_reduce_lr_on_plateau": {"factor": 0.5, "patience": 5},
    "hf_greedy": {"factor": 0.9, "patience": 2},
    "hf_warmup_stable_decay": {"num_warmup_steps": "10%", "num_decay_steps": "20%"},
    "warmup_stable_decay": {"stable_steps": "60%"},
}


def example(registry: Registry, kind: str) -> dict[str, Any]:
    """Returns the fields that the example of a type sets."""
    config_class = registry.config_class(kind)
    docs = {name: field_doc(config_class, name) for name in config_class.field_names()}
    needed = {name: doc for name, doc in docs.items() if doc.default == "required"}
    given = {name: _GIVEN[name] for name in _GIVEN if name in needed}
    for name in (name for name in needed if name not in given):  # of a type of one's own
        given[name] = "25%" if needed[name].unit == "optimizer steps" else 1.0
    return given | (_SHOWN.get(kind, {}) if registry is LR_CLS else {})


def picture_of_example(registry: Registry, kind: str) -> Picture | None:
    """Returns the picture of the example of a learning rate, or of a warmup to a rate of 1.

    None is for a type of one's own whose fields take other values than those of an example.
    """
    fields = example(registry, kind)
    params = {"learning_rate": {"type": "constant", "constant": {"learning_rate": 1.0}}}
    params |= {registry.kind.replace(" ", "_"): {"type": kind, kind: fields}}
    given = ", ".join(f"{name} {value}" for name, value in fields.items())
    title = f"Over {LENGTH} steps" + (f", with {given}" if given else "")
    try:
        config, _ = OptimizationConfig(params).sized(TrainingLength(LENGTH, LENGTH // 10))
        curve = curve_of(config, config)
        return curve and drawn_together([line_of_rate(curve, kind, LENGTH)], title)
    except ConfigError:
        return None
