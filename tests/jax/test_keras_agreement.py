"""What surrounds a formula, the same as in Keras on the backend of the run."""

import numpy as np
import pytest

from tests.jax.common import OptimizerFactory, config, gradients, jax, train, tree

pytest.importorskip("keras")

from optimization import OptimizerFactory as OfKeras
from tests.golden_cases import make_variables, run

STEPS = 24
COSINE = {
    "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.05, "alpha": 0.1}},
    "warmup": {"type": "linear", "linear": {"warmup_steps": 4}},
}
CORRECTED = {"epsilon_placement": "corrected"}
EXCLUDED = {"exclude_from_weight_decay": ["bias"]}
LAYERS = {"layer_decay": {"rate": 0.8, "depth": r"layer_(\d+)/"}}
CONSTANT = {"learning_rate": {"type": "constant", "constant": {"learning_rate": 0.02}}}
GROWING = {
    "type": "linear",
    "linear": {"initial_learning_rate": 0.05, "end_learning_rate": 0.4, "decay_steps": 9},
}
FROZEN = [{"match": "^embed/", "freeze": True}]
SCHEDULED = {"schedules": {"weight_decay": GROWING}}


def flat(tree):
    """Returns arrays by path."""
    leaves = jax.tree_util.tree_leaves_with_path(tree)
    path = lambda keys: jax.tree_util.keystr(keys, simple=True, separator="/")  # noqa: E731
    return {path(keys): np.asarray(leaf) for keys, leaf in leaves}


def keras_weights(config, initial, grads, averages):
    """Returns weights by path after an update with each gradient, or their averages."""
    made = OfKeras(config, train_steps=STEPS)
    optimizer = made.build_optimizer(made.build_learning_rate())
    paths, arrays = (
        [f"{layer}/{name}" for layer in initial for name in initial[layer]],
        flat(initial),
    )
    variables = make_variables({path: arrays[path] for path in paths})
    for _ in run(optimizer, variables, [flat(g) for g in grads]):
        pass
    if averages:
        optimizer.swap()
    return {v.path: v.numpy() for v in variables}


def assert_as_in_keras(*args, averages=False, **sections):
    made = config(*args, **{**COSINE, **sections})
    params, grads = tree(1), gradients(STEPS)
    factory = OptimizerFactory(made, train_steps=STEPS)
    after, state = train(factory.build_optimizer(params), params, grads)
    found = flat(factory.averaged_params(state, after) if averages else after)
    expected = keras_weights(made, params, grads, averages)
    largest = max(np.abs(w).max() for w in expected.values())
    difference = max(np.abs(found[path] - w).max() for path, w in expected.items())
    assert difference / largest < 1e-5
    moved = max(np.abs(found[path] - w).max() for path, w in flat(params).items())
    assert moved / largest > 0.01


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("sgd", {"momentum": 0.9, "global_clipnorm": 0.5}),
        ("adamw", {"gradient_clip_norm": 1.0, "clipvalue": 0.2, "weight_decay_rate": 0.1}),
        ("lamb", {"clipnorm": 0.3, "loss_scale_factor": 4.0}),
        ("adam", {"adaptive_clip_factor": 0.05, **CORRECTED}),
        ("rmsprop", {"gradient_accumulation_steps": 3, "momentum": 0.9, "global_clipnorm": 0.5}),
        ("nadam", {"on_nonfinite": "skip", "gradient_accumulation_steps": 2}),
        ("adam", {"use_ema": True, "ema_momentum": 0.9, "ema_overwrite_frequency": 5}),
    ],
    ids=str,
)
def test_stages_are_those_of_keras(kind, fields):
    assert_as_in_keras(kind, fields)


@pytest.mark.parametrize(
    ("kind", "fields", "sections"),
    [
        ("sgd", {"momentum": 0.9}, {"ema": {"average_decay": 0.9, "start_step": 3}}),
        ("adam", {"gradient_accumulation_steps": 2}, {"ema": {"dynamic_decay": False}}),
        ("adamw", {"use_ema": True, "ema_momentum": 0.8}, {"param_groups": FROZEN}),
        ("schedule_free_sgd", {"warmup_steps": 4}, {**CONSTANT, "warmup": {}}),
    ],
    ids=str,
)
def test_averages_are_those_of_keras(kind, fields, sections):
    assert_as_in_keras(kind, fields, averages=True, **sections)


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("sgd", {}),
        ("adamw", {"weight_decay_rate": 0.2, **EXCLUDED}),
        ("lamb", {"weight_decay_rate": 0.2, **EXCLUDED}),
        ("lars", {"weight_decay": 0.2}),
        ("muon", {}),
        ("adafactor", {"variant": "torch"}),
        ("schedule_free_adamw", {"weight_decay": 0.1}),
    ],
    ids=str,
)
def test_a_group_decays_as_in_keras(kind, fields):
    group = {"match": "layer_1", "weight_decay": 0.5, "learning_rate_multiplier": 0.5}
    rate = CONSTANT if kind.startswith("schedule_free") else {}
    warmup = {"warmup": {}} if rate else {}
    assert_as_in_keras(kind, fields, **rate, **warmup, param_groups=[group], **LAYERS)


@pytest.mark.parametrize(
    ("kind", "fields", "own", "own_fields", "group"),
    [
        ("sgd", {"momentum": 0.9, "global_clipnorm": 0.5}, "lion", {"weight_decay": 0.1}, {}),
        ("sgd", {"decay": 0.1}, "adam", CORRECTED, CONSTANT),
        ("sgd", {"decay": 0.1, "weight_decay": 0.1}, "adamw", {"weight_decay_rate": 0.1}, {}),
        ("adamw", {"weight_decay_rate": 0.1, **EXCLUDED}, "muon", {}, {"weight_decay": 0.2}),
        ("lamb", {"weight_decay_rate": 0.1}, "adafactor", {"variant": "hf"}, {}),
        ("adafactor", {"variant": "timm"}, "adafactor_keras", {}, CONSTANT),
        ("adam", {}, "schedule_free_adamw", {}, CONSTANT),
        ("sgd_torch", {"warmup_steps": 5}, "sgd_torch", {"momentum": 0.5}, {}),
    ],
    ids=str,
)
def test_a_group_has_a_rule_of_its_own_as_in_keras(kind, fields, own, own_fields, group):
    own = {"match": "layer_1", "name": "own", "optimizer": {"type": own, own: own_fields}, **group}
    decays = fields.get("weight_decay", fields.get("weight_decay_rate"))
    sections = {**LAYERS, **(SCHEDULED if decays else {}), "param_groups": [own]}
    relative = fields.get("variant") == "timm"
    if relative:
        sections |= {"learning_rate": {}, "warmup": {}}
    assert_as_in_keras(kind, fields, **sections)
