"""Saved configs that name code: nothing of this package runs it, or takes it for a part."""

import base64
import marshal

import keras
import pytest

import optimization
from optimization.keras.groups import ParamGroup
from optimization.optimizers import PipelineOptimizer
from optimization.schedules import LR_CLS, WARMUP_CLS
from optimization.schedules.scaled import ScaledLearningRate
from tools.fuzz.guard import watched

_BYTES = base64.b64encode(marshal.dumps((lambda pairs: pairs).__code__)).decode()
HOSTILE = {
    "a lambda": {
        "class_name": "__lambda__",
        "config": {"value": {"code": _BYTES, "defaults": None, "closure": None}},
    },
    "a function of a module": {
        **{"class_name": "function", "config": "system", "module": "os"},
        "registered_name": "system",
    },
    "a built-in function": {
        **{"class_name": "function", "config": "eval", "module": "builtins"},
        "registered_name": "eval",
    },
    "a class of a module": {
        **{"class_name": "Popen", "config": {"args": ["true"]}, "module": "subprocess"},
        "registered_name": None,
    },
    "a module that is not imported": {
        **{"class_name": "This", "config": {}, "module": "this", "registered_name": "This"},
    },
    "a function of Keras that reads files": {
        **{"class_name": "function", "config": "load_model", "module": "keras.saving"},
        "registered_name": "load_model",
    },
}


def built():
    config = optimization.OptimizationConfig(
        {
            "optimizer": {"type": "adamw"},
            "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}},
            "param_groups": [{"match": "bias", "optimizer": {"type": "sgd"}}],
        }
    )
    factory = optimization.OptimizerFactory(config, train_steps=100)
    return factory.build_optimizer(factory.build_learning_rate())


def pipeline(name, value):
    return lambda hostile: (PipelineOptimizer, {**built().get_config(), name: value(hostile)})


def _group(key):
    return lambda hostile: (ParamGroup, {"match": "a", key: hostile})


PLACES = {
    "the optimizer": pipeline("optimizer", lambda hostile: hostile),
    "the aggregator": pipeline("gradient_aggregator", lambda hostile: hostile),
    "a transformer": pipeline("gradient_transformers", lambda hostile: [hostile]),
    "a group's optimizer": _group("optimizer"),
    "a group's rate": _group("learning_rate"),
    "a group's numbers": lambda hostile: (
        *(ParamGroup, {"match": "a", "hyperparameters": {"beta_1": hostile}}),
    ),
    "a scaled rate": lambda hostile: (ScaledLearningRate, {"learning_rate": hostile}),
    "what a warmup precedes": lambda hostile: (
        *(WARMUP_CLS["linear"], {"after_warmup_lr_sched": hostile, "warmup_steps": 10}),
    ),
    "a schedule's number": lambda hostile: (
        *(LR_CLS["cosine"], {"initial_learning_rate": hostile, "decay_steps": 10}),
    ),
    "an optimizer's rate": lambda hostile: (
        *(optimization.optimizers.LAMB, {"learning_rate": hostile}),
    ),
    "an optimizer's number": lambda hostile: (optimization.optimizers.LAMB, {"beta_1": hostile}),
}


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("name", HOSTILE)
def test_code_in_a_saved_config_is_refused(place, name):
    cls, config = PLACES[place](HOSTILE[name])
    with watched(), pytest.raises((TypeError, ValueError)):
        cls.from_config(config)


def test_what_is_registered_is_made():
    config = built().get_config()
    assert keras.saving.serialize_keras_object(
        PipelineOptimizer.from_config(config)
    ) == keras.saving.serialize_keras_object(built())
