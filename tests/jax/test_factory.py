"""From configs to gradient transformations: groups, schedules, and what JAX does not have."""

import subprocess
import sys

import numpy as np
import pytest

from optimization import ConfigError, OptimizationConfig
from optimization import OptimizerFactory as Portable
from tests.jax.common import (
    OptimizerFactory,
    assert_close,
    assert_same,
    config,
    factory,
    gradients,
    jax,
    optax,
    train,
    tree,
)

jnp = jax.numpy
COSINE = {
    "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}},
    "warmup": {"type": "linear", "linear": {"warmup_steps": 10}},
}


def problems(*args, **kwargs):
    with pytest.raises(ConfigError) as caught:
        OptimizerFactory(config(*args, **kwargs), train_steps=100)
    return str(caught.value)


# Learning rates


def test_the_learning_rate_is_the_curve():
    made = factory("sgd", **COSINE)
    steps = np.asarray([0, 9, 10, 11, 50, 99, 100, 101, 10**7])
    curve = Portable(made.config).learning_rate_curve(steps)
    found = made.build_learning_rate()(steps)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, curve, rtol=2e-7, atol=0)
    np.testing.assert_allclose(jax.jit(made.build_learning_rate())(steps), curve, rtol=2e-7)


def test_what_lr_scaling_leaves_as_it_is_stays():
    cosine = {"initial_learning_rate": 0.1, "min_learning_rate": 0.02, "decay_steps": 90}
    warmup = {"warmup_steps": 10, "mode": "delay", "warmup_learning_rate": 0.01}
    made = factory(
        "sgd",
        learning_rate={"type": "cosine", "cosine": cosine},
        warmup={"type": "linear", "linear": warmup},
        lr_scaling={"global_batch_size": 1024, "scales": ["peak"]},
    )
    found = made.build_learning_rate()(np.asarray([0, 10, 100]))
    np.testing.assert_allclose(found, [0.01, 0.4, 0.02], rtol=2e-7)


def test_a_boundary_far_past_what_float32_counts():
    boundary = 2**24 + 1
    rate = {"type": "stepwise", "stepwise": {"boundaries": [boundary], "values": [0.1, 0.01]}}
    schedule = factory("sgd", learning_rate=rate, train_steps=2**25).build_learning_rate()
    found = jax.jit(schedule)(jnp.asarray([boundary - 1, boundary, boundary + 1]))
    curve = Portable(factory("sgd", learning_rate=rate, train_steps=2**25).config)
    expected = curve.learning_rate_curve([boundary - 1, boundary, boundary + 1])
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_rates_are_those_of_the_last_update():
    made = factory("sgd", {"decay": 0.5}, learning_rate=COSINE["learning_rate"])
    schedule, tx, params = made.build_learning_rate(), made.build_optimizer(), tree(1)
    state = tx.init(params)
    assert float(state.hyperparameters["learning_rate"]) == float(schedule(0))
    _, state = train(tx, params, gradients(3), state)
    assert float(state.hyperparameters["learning_rate"]) == float(schedule(2))


def test_a_scheduled_hyperparameter():
    falling = {"type": "linear", "linear": {"initial_learning_rate": 0.2}}
    made = factory("sgd", {"weight_decay": 0.2}, schedules={"weight_decay": falling})
    params, grads = tree(1), gradients(3)
    found, state = train(made.build_optimizer(), params, grads)
    for step, g in enumerate(grads):
        decay = np.float32(0.2 * (1 - step / 100))
        plain = factory("sgd", {"weight_decay": decay}).build_optimizer()
        params, _ = train(plain, params, [g])
    assert_close(found, params)
    assert float(state.hyperparameters["weight_decay"]) == pytest.approx(0.2 * 0.98)


# Groups


GROUPS = [
    {"match": "^embed/", "freeze": True},
    {"match": "^head/", "optimizer": {"type": "lion", "lion": {}}, "weight_decay": 0.5},
    {"ndim": [1], "name": "biases", "learning_rate_multiplier": 0.5, "weight_decay": 0.0},
    {
        "match": "layer_1",
        "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.03}},
    },
]


def test_groups_have_settings_of_their_own():
    params, grads = tree(1), gradients()
    made = factory("adam", {"weight_decay": 0.1}, param_groups=GROUPS)
    found, state = train(made.build_optimizer(params), params, grads)
    assert_same(found["embed"], params["embed"])

    def alone(kind, fields, rate, *path):
        tx = factory(kind, fields, rate=rate).build_optimizer()
        pick = lambda tree: {path[-1]: tree[path[0]][path[1]]}  # noqa: E731
        return train(tx, pick(params), [pick(g) for g in grads])[0][path[-1]]

    for name, part in (("layer_0", 0.1), ("layer_1", 0.03)):
        expected = alone("adam", {"weight_decay": 0.1}, part, name, "kernel")
        assert_close(found[name]["kernel"], expected)
    expected = alone("adam", {}, 0.05, "layer_1", "bias")
    assert_close(found["layer_1"]["bias"], expected)
    expected = alone("lion", {"weight_decay": 0.5}, 0.1, "head", "bias")
    assert_close(found["head"]["bias"], expected)
    rates = {name: float(rate) for name, rate in state.hyperparameters.items()}
    assert rates == {
        "learning_rate": pytest.approx(0.1),
        "learning_rate/layer_1": pytest.approx(0.03),
    }


def test_layers_are_those_of_the_tree_as_it_was_written():
    decay = {"rate": 0.5, "depth": r"layer_(\d+)/"}
    params, ones = tree(1), jax.tree.map(jnp.ones_like, tree(1))
    tx = factory("sgd", rate=1.0, layer_decay=decay).build_optimizer(params)
    updates, _ = jax.jit(tx.update)(ones, tx.init(params), params)
    multipliers = {name: -float(next(iter(u.values())).ravel()[0]) for name, u in updates.items()}
    assert multipliers == {"embed": 0.125, "layer_0": 0.25, "layer_1": 0.5, "head": 1.0}


def test_the_last_layer_is_that_of_the_tree_as_it_was_written():
    params = {name: {"kernel": jnp.ones((4, 3))} for name in ("z_first", "hidden", "a_last")}
    made = factory("muon")
    with pytest.raises(ValueError, match="`params` is needed for `muon`"):
        made.build_optimizer()
    tx = made.build_optimizer(params)
    velocities = jax.jit(tx.init)(params).slots["velocity"]  # AdamW's, of what is no hidden matrix
    assert [name for name in params if jax.tree.leaves(velocities[name])] == ["a_last"]


def test_groups_need_the_parameters():
    made = factory("sgd", param_groups=GROUPS[:1])
    with pytest.raises(ValueError, match="`params` is needed for `param_groups`"):
        made.build_optimizer()
    with pytest.raises(ValueError, match="embd"):
        factory("sgd", param_groups=[{"match": "embd", "freeze": True}]).build_optimizer(tree(1))
    tx = made.build_optimizer(tree(1))
    with pytest.raises(ValueError, match="was not built with a parameter 'other'"):
        tx.init({"other": jnp.ones(3)})
    everything = factory("sgd", param_groups=[{"match": ".", "freeze": True}])
    with pytest.raises(ValueError, match="Every parameter is frozen"):
        everything.build_optimizer(tree(1))


def test_patterns_that_match_nothing():
    made = factory("lamb", {"exclude_from_weight_decay": ["norm"], "weight_decay_rate": 0.1})
    with pytest.raises(ValueError, match="norm"):
        made.build_optimizer(tree(1))


@pytest.mark.parametrize(
    ("params", "paths"),
    [
        ([jnp.ones(2), (jnp.ones(2),)], ["0", "1/0"]),
        ({"a": {"b": jnp.ones(2), "c": jnp.ones(2)}}, ["a/b", "a/c"]),
    ],
)
def test_paths(params, paths):
    for path in paths:
        groups = [{"match": f"^{path}$", "freeze": True}]
        tx = factory("sgd", param_groups=groups).build_optimizer(params)
        updates, _ = tx.update(jax.tree.map(jnp.ones_like, params), tx.init(params), params)
        moved = [float(u[0]) != 0 for u in jax.tree.leaves(updates)]
        assert moved == [p != path for p in paths]


def test_two_parameters_of_one_path():
    with pytest.raises(ValueError, match="Two parameters have the path 'a/b'"):
        factory("sgd").build_optimizer().init({"a": {"b": jnp.ones(2)}, "a/b": jnp.ones(2)})


# What JAX does not have


def test_what_a_function_cannot_do():
    text = problems(
        "sgd",
        {"on_nonfinite": "raise"},
        ema={"trainable_weights_only": False},
        param_groups=[{"layer_type": "Dense", "freeze": True}],
    )
    assert "optimizer.sgd.on_nonfinite: cannot be `raise`" in text
    assert "ema.trainable_weights_only: must be true" in text
    assert "param_groups[0].layer_type: needs layers" in text
    fields = {"on_nonfinite": "skip", "max_consecutive_nonfinite": 3}
    assert "look at `state.consecutive_nonfinite`" in problems("sgd", fields)


def test_rates_that_follow_a_metric():
    rate = {"type": "hf_reduce_lr_on_plateau", "hf_reduce_lr_on_plateau": {}}
    rate["hf_reduce_lr_on_plateau"] = {"initial_learning_rate": 0.1}
    assert "optax.contrib.reduce_on_plateau" in problems("sgd", learning_rate=rate)


def test_lengths_and_types_are_checked():
    with pytest.raises(TypeError, match="expected an OptimizationConfig"):
        OptimizerFactory({"optimizer": {"type": "sgd"}})
    with pytest.raises(ConfigError, match="adm"):
        OptimizationConfig({"optimizer": {"type": "adm"}})


@pytest.mark.parametrize("rate", [0.1, optax.constant_schedule(0.1)])
def test_a_learning_rate_is_no_parameters(rate):
    with pytest.raises(TypeError, match="`params` must be the parameters.*the config's"):
        factory("sgd").build_optimizer(rate)


def test_the_state_is_that_of_init():
    tx, params = factory("sgd").build_optimizer(), tree(1)
    with pytest.raises(TypeError, match="that `init` returned, received: tuple"):
        tx.update(params, optax.adam(0.1).init(params), params)
    with pytest.raises(ValueError, match=r"its slots are \['momentum', 'velocity'.*Set that one"):
        tx.update(params, factory("adamw").build_optimizer().init(params), params)


def test_optax_may_wrap_it():
    made = factory("adamw", ema={})
    tx = optax.chain(made.build_optimizer(), optax.identity())
    params, state = train(tx, tree(1), gradients(3))
    averages = made.averaged_params(state, params)
    assert jax.tree.structure(averages) == jax.tree.structure(params)


def test_neither_keras_nor_tensorflow_is_imported():
    code = """
import sys
from optimization import OptimizationConfig
from optimization.jax import OptimizerFactory
import jax
config = OptimizationConfig({
    "optimizer": {"type": "adamw"},
    "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}},
    "ema": {},
})
optimizer = OptimizerFactory(config, train_steps=10).build_optimizer()
weights = jax.numpy.ones(3)
optimizer.update(weights, optimizer.init(weights), weights)
print(sorted({"keras", "tensorflow", "torch"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr
