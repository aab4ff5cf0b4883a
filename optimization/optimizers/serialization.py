"""The config of `PipelineOptimizer`: what its constructor needs, in a form that JSON can hold."""

from typing import Any

import keras

from optimization.optimizers.groups import ParamGroup
from optimization.optimizers.inner import portable

# What is known from the model, or was set later, and no argument of the constructor.
_SAVED = ("variable_paths", "layer_types", "excluded_names", "excluded_paths")


def config_of(optimizer: Any) -> dict[str, Any]:
    """Returns everything that `arguments_of` needs."""
    serialize = keras.saving.serialize_keras_object
    decay = optimizer._members.layer_decay
    schedules = optimizer._schedules.schedules
    return {
        "name": optimizer.name,
        "optimizer": portable(serialize(optimizer.optimizer)),
        "clipnorm": optimizer.clipnorm,
        "clipvalue": optimizer.clipvalue,
        "global_clipnorm": optimizer.global_clipnorm,
        "gradient_clip_norm": optimizer.gradient_clip_norm,
        "adaptive_clip_factor": optimizer.adaptive_clip_factor,
        "adaptive_clip_epsilon": optimizer.adaptive_clip_epsilon,
        "ema": optimizer.ema,
        "gradient_aggregator": serialize(optimizer.gradient_aggregator),
        "gradient_transformers": [serialize(f) for f in optimizer.gradient_transformers],
        "jit_compile": optimizer.jit_compile,
        "loss_scale_factor": optimizer.loss_scale_factor,
        "gradient_accumulation_steps": optimizer.gradient_accumulation_steps or 1,
        "on_nonfinite": optimizer._finite_check.on_nonfinite,
        "max_consecutive_nonfinite": optimizer._finite_check.max_consecutive,
        "param_groups": [group.get_config() for group in optimizer._members.groups],
        "layer_decay": decay and decay.get_config(),
        "schedules": {name: serialize(schedule) for name, schedule in schedules.items()},
        "variable_paths": list(optimizer._paths) or optimizer._saved_paths,
        "layer_types": dict(optimizer._saved_layer_types),
        "excluded_names": list(optimizer._members.excluded_names),
        "excluded_paths": list(optimizer._members.excluded_paths),
    }


def arguments_of(
    config: dict[str, Any], custom_objects: dict[str, Any] | None
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Returns the constructor's arguments, and what else was saved."""

    def deserialize(value: Any) -> Any:
        return keras.saving.deserialize_keras_object(value, custom_objects=custom_objects)

    config = dict(config)
    saved = {key: config.pop(key, None) for key in _SAVED}
    for key in ("optimizer", "gradient_aggregator"):
        config[key] = deserialize(config.get(key))
    transformers = config.get("gradient_transformers") or ()
    config["gradient_transformers"] = [deserialize(function) for function in transformers]
    groups = config.get("param_groups") or ()
    config["param_groups"] = [ParamGroup.from_config(group, custom_objects) for group in groups]
    schedules = config.get("schedules") or {}
    config["schedules"] = {name: deserialize(value) for name, value in schedules.items()}
    return config, saved
