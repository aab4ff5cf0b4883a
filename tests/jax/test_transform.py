"""The parts of an update around the formula, and what other transformations do with it."""

import re

import numpy as np
import pytest

from tests.jax.common import (
    STEPS,
    assert_close,
    assert_same,
    factory,
    gradients,
    jax,
    optax,
    train,
    tree,
)
from tests.references import averages

jnp = jax.numpy
SGD = ("sgd", {"momentum": 0.5})


def built(*args, params=None, **kwargs):
    return factory(*args, **kwargs).build_optimizer(params)


# Clips


def _by_norm(bound):
    return lambda g: g * min(1.0, bound / np.sqrt(np.sum(np.square(np.float64(g)))))


def _globally(bound):
    def clip(grads):
        norm = np.sqrt(sum(np.sum(np.square(np.float64(g))) for g in jax.tree.leaves(grads)))
        return jax.tree.map(lambda g: g * min(1.0, bound / norm), grads)

    return clip


CLIPS = {
    "clipnorm": (0.7, lambda grads: jax.tree.map(_by_norm(0.7), grads)),
    "clipvalue": (0.2, lambda grads: jax.tree.map(lambda g: np.clip(g, -0.2, 0.2), grads)),
    "global_clipnorm": (1.5, _globally(1.5)),
}


@pytest.mark.parametrize("name", CLIPS)
def test_a_clip_changes_gradients(name):
    bound, clip = CLIPS[name]
    params, grads = tree(1), gradients()
    found, state = train(built("adam", {name: bound}), params, grads)
    expected, _ = train(built("adam"), params, [clip(g) for g in grads])
    assert_close(found, expected)
    assert int(state.clipped_steps) == STEPS
    norm = np.sqrt(sum(np.sum(np.square(np.float64(g))) for g in jax.tree.leaves(grads[-1])))
    assert float(state.gradient_norm) == pytest.approx(norm, rel=1e-6)


def test_berts_clip_comes_before_the_other():
    fields = {"gradient_clip_norm": 2.0, "clipvalue": 0.1}
    params, grads = tree(1), gradients()
    found, _ = train(built("adamw", fields), params, grads)
    clip = _globally(2.0)
    twice = [jax.tree.map(lambda g: np.clip(g, -0.1, 0.1), clip(g)) for g in grads]
    expected, _ = train(built("adamw"), params, twice)
    assert_close(found, expected)


def test_the_adaptive_clip_is_that_of_optax():
    params, grads = tree(1), gradients()
    found, _ = train(built("sgd", {"adaptive_clip_factor": 0.05}), params, grads)
    # optax counts the axes of kernels as this package does, of two at least.
    chain = optax.chain(optax.adaptive_grad_clip(0.05), optax.sgd(0.1))
    expected, _ = train(chain, params, grads)
    assert_close(found, expected)


@pytest.mark.parametrize("size", [1e-30, 1e30])
def test_norms_beyond_the_squares_of_float32(size):
    params = tree(1)
    grads = jax.tree.map(lambda g: g * size, tree(2))
    tx = built("sgd", {"global_clipnorm": size})
    updates, state = tx.update(grads, tx.init(params), params)
    largest = np.sqrt(sum(np.sum(np.square(np.float64(g))) for g in jax.tree.leaves(grads)))
    assert float(state.gradient_norm) == pytest.approx(largest, rel=1e-6)
    expected = jax.tree.map(lambda g: -0.1 * np.float64(g) * min(1, size / largest), grads)
    assert_close(updates, expected)


# Accumulation, the finite check, the loss scale


def test_accumulated_gradients_are_their_mean():
    params, grads = tree(1), gradients(6)
    fields = {**SGD[1], "global_clipnorm": 0.5}
    tx = built("sgd", {**fields, "gradient_accumulation_steps": 3}, ema={"average_decay": 0.5})
    found, state = train(tx, params, grads)
    means = [
        jax.tree.map(lambda *g: np.mean(g, axis=0), *grads[first : first + 3]) for first in (0, 3)
    ]
    expected, plain = train(built("sgd", fields, ema={"average_decay": 0.5}), params, means)
    assert_close(found, expected)
    assert_close(state.average, plain.average)
    assert int(state.step) == 2
    assert int(state.micro_step) == 0
    between, state = train(tx, found, grads[:1], state)
    assert_same(between, found)
    assert int(state.micro_step) == 1


def test_a_ramp_takes_the_mean_of_more_and_more():
    params, grads = tree(1), gradients(8)
    ramp = {"accumulation": {"micro_batches": [1, 3, 2], "boundaries": [1, 2]}}
    tx = built(*SGD, **ramp)
    found, state = train(tx, params, grads)
    means = [
        jax.tree.map(lambda *g: np.mean(g, axis=0), *grads[first:last])
        for first, last in ((0, 1), (1, 4), (4, 6), (6, 8))
    ]
    assert_close(found, train(built(*SGD), params, means)[0])
    assert (int(state.step), int(state.micro_step), int(state.due_updates)) == (4, 0, 4)
    # An update that is skipped was due too.
    tx = built("sgd", {**SGD[1], "on_nonfinite": "skip"}, **ramp)
    bad = jax.tree.map(lambda g: g * jnp.nan, grads[0])
    _, state = train(tx, params, [bad, *grads[:2]])
    assert (int(state.step), int(state.micro_step), int(state.due_updates)) == (0, 2, 1)


def test_gradients_that_are_not_finite_are_skipped():
    params, grads = tree(1), gradients(4)
    bad = jax.tree.map(lambda g: g.at[0].set(jnp.nan), grads[1])
    tx = built("adam", {"on_nonfinite": "skip", "clipnorm": 0.5}, ema={})
    found, state = train(tx, params, [grads[0], bad, bad, grads[1]])
    expected, plain = train(tx, params, [grads[0], grads[1]])
    assert_same(found, expected)
    assert int(state.nonfinite_steps) == 2
    assert int(state.consecutive_nonfinite) == 0
    assert_same(state._replace(nonfinite_steps=None), plain._replace(nonfinite_steps=None))
    _, state = train(tx, found, [bad], state)
    assert int(state.consecutive_nonfinite) == 1


def test_the_loss_scale_is_undone_first():
    params, grads = tree(1), gradients(3)
    fields = {**SGD[1], "global_clipnorm": 0.5}
    scaled = [jax.tree.map(lambda g: g * 1024, g) for g in grads]
    found, _ = train(built("sgd", {**fields, "loss_scale_factor": 1024.0}), params, scaled)
    assert_same(found, train(built("sgd", fields), params, grads)[0])


# Averages


def test_the_average_follows_the_weights():
    params, grads = tree(1), gradients(5)
    made = factory(*SGD, ema={"average_decay": 0.8, "start_step": 2})
    tx = made.build_optimizer()
    state, average = tx.init(params), params
    for count, g in enumerate(grads, start=1):
        params, state = train(tx, params, [g], state)
        n = count - 2
        decay = 0.0 if n < 0 else min(0.8, (1 + n) / (10 + n))
        average = jax.tree.map(lambda a, w, d=decay: d * a + (1 - d) * w, average, params)
        assert_close(state.average, average)
    assert_close(made.averaged_params(state, params), average)


@pytest.mark.parametrize("name", [*averages.FORMS, "scheduled"])
def test_every_form_of_decay_is_its_origin_s(name):
    params, grads = {"w": jnp.ones(2)}, [{"w": jnp.array([n % 3 - 1.5, 1.0])} for n in range(12)]
    settings, decay = {"dynamic_decay": False}, averages.scheduled
    more = {"schedules": {"average_decay": averages.SCHEDULE}}
    if name in averages.FORMS:
        (settings, decay), more = averages.FORMS[name], {}
    tx = factory(*SGD, ema=settings, **more).build_optimizer()
    state, average = tx.init(params), np.ones(2)
    for n, g in enumerate(grads, start=1):
        params, state = train(tx, params, [g], state)
        average = average + (1 - decay(n)) * (np.asarray(params["w"], "float64") - average)
        np.testing.assert_allclose(
            state.average["w"], average, rtol=5e-6
        )  # 12 roundings of float32
    told = state.hyperparameters.get("average_decay")
    assert told is None if name in averages.FORMS else told == decay(12)


def test_weights_become_the_average_at_times():
    params, grads = tree(1), gradients(2)
    fields = {"use_ema": True, "ema_momentum": 0.5, "ema_overwrite_frequency": 2}
    tx = built("sgd", fields)
    once, state = train(tx, params, grads[:1])
    plain, _ = train(built("sgd"), once, grads[1:])
    found, state = train(tx, once, grads[1:], state)
    assert_close(found, jax.tree.map(lambda a, b: (a + b) / 2, once, plain))
    assert_close(found, state.average)


def test_schedule_free_evaluates_x():
    params, grads = tree(1), gradients()
    made = factory("schedule_free_sgd", {"momentum": 0.9}, rate=0.5)
    found, state = train(made.build_optimizer(), params, grads)
    chain = optax.contrib.schedule_free(optax.sgd(0.5), learning_rate=0.5, b1=0.9)
    expected, theirs = train(chain, params, grads)
    assert_close(found, expected)
    theirs = optax.contrib.schedule_free_eval_params(theirs, expected)
    assert_close(made.averaged_params(state, found), theirs)


def test_no_average_is_an_error():
    made, params = factory("sgd"), tree(1)
    with pytest.raises(ValueError, match="neither `ema` nor `use_ema`"):
        made.averaged_params(made.build_optimizer().init(params), params)


# Low precision, and what is not trained


def test_weights_in_low_precision_have_copies():
    low = tree(1, dtype="bfloat16")
    wide = jax.tree.map(lambda w: w.astype("float32"), low)
    grads = gradients(40, scale=0.02)
    tx = built("adamw", {"weight_decay_rate": 0.1}, rate=1e-4)
    found, state = train(tx, low, grads)
    expected, _ = train(tx, wide, grads)
    assert_same(found, jax.tree.map(lambda w: w.astype("bfloat16"), state.masters))
    assert_close(state.masters, expected, 1e-7)
    moved = jax.tree.map(lambda w: w + 1, found)
    again, state = train(tx, moved, grads[:1], state)
    assert_close(again, moved, 1e-2)


def test_complex_parameters_are_split_by_optax():
    params = {"w": jnp.ones(3, jnp.complex64), "b": jnp.ones(3)}
    tx = built("adam")
    with pytest.raises(ValueError, match="'w' is complex: .*split_real_and_imaginary"):
        tx.init(params)
    grads = {"w": jnp.full(3, 1 + 2j), "b": jnp.ones(3)}
    found, _ = train(optax.contrib.split_real_and_imaginary(tx), params, [grads])
    np.testing.assert_allclose(found["w"], np.full(3, 0.9 - 0.1j), rtol=1e-5)


def test_integers_stay_as_they_are():
    params = {"w": jnp.ones(3), "step": jnp.int32(7)}
    grads = {"w": jnp.ones(3), "step": jnp.int32(0)}
    found, _ = train(built(*SGD), params, [grads])
    assert int(found["step"]) == 7
    assert_close(found["w"], np.full(3, 0.9))


# Beside other transformations


def test_inside_a_chain():
    params, grads = tree(1), gradients()
    tx = optax.chain(optax.scale(2.0), built(*SGD), optax.scale(0.5))
    found, _ = train(tx, params, grads)
    doubled = [jax.tree.map(lambda g: g * 2, g) for g in grads]
    plain, halved = built(*SGD), params
    state = plain.init(params)
    for g in doubled:
        updates, state = plain.update(g, state, halved)
        halved = optax.apply_updates(halved, jax.tree.map(lambda u: u / 2, updates))
    assert_close(found, halved)


def test_inside_of_multi_steps_and_masked():
    params, grads = tree(1), gradients(6)
    ours = built("sgd", {**SGD[1], "gradient_accumulation_steps": 3})
    found, _ = train(optax.MultiSteps(built(*SGD), 3).gradient_transformation(), params, grads)
    assert_close(found, train(ours, params, grads)[0])
    mask = {
        name: jax.tree.map(lambda _, n=name: n == "head", part) for name, part in params.items()
    }
    found, _ = train(optax.masked(built(*SGD), mask), params, grads)
    # `optax.masked` passes the gradients of the others on.
    expected, _ = train(built(*SGD), params, grads)
    assert_same(found["head"], expected["head"])


def test_scan_vmap_and_donation():
    params, grads = tree(1), gradients()
    tx = built("adamw", ema={})
    expected, last = train(tx, params, grads)
    stacked = jax.tree.map(lambda *g: jnp.stack(g), *grads)

    def run(params):
        def step(carry, grads):
            updates, state = tx.update(grads, carry[1], carry[0])
            return (optax.apply_updates(carry[0], updates), state), None

        return jax.lax.scan(step, (params, tx.init(params)), stacked)[0]

    found, state = jax.jit(run)(params)
    assert_close(found, expected)
    assert_close(state.average, last.average)
    seeds = jax.tree.map(lambda a, b: jnp.stack([a, b]), params, tree(2))
    both, _ = jax.jit(jax.vmap(run))(seeds)
    assert_close(jax.tree.map(lambda x: x[0], both), expected)
    donated = jax.jit(
        lambda p, s, g: (lambda u, s: (optax.apply_updates(p, u), s))(*tx.update(g, s, p)),
        donate_argnums=(0, 1),
    )
    params = jax.tree.map(jnp.copy, params)
    state = tx.init(params)
    for g in grads:
        params, state = donated(params, state, g)
    assert_close(params, expected)


@pytest.mark.parametrize(
    ("dtype", "wide"),
    [("float32", False), ("bfloat16", False), ("float32", True), ("float64", True)],
)
def test_the_state_keeps_its_types(dtype, wide):
    falling = {"type": "linear", "linear": {"initial_learning_rate": 0.2}}
    fields = {
        "weight_decay": 0.1,
        "gradient_accumulation_steps": 2,
        "on_nonfinite": "skip",
        "clipnorm": 1.0,
        "loss_scale_factor": 2.0,
    }
    groups = [
        {"match": "head", "learning_rate": falling},
        {"match": "embed", "optimizer": {"type": "adamw"}},
    ]
    made = factory(
        "nadam", fields, ema={}, schedules={"weight_decay": falling}, param_groups=groups
    )
    owner = jax if hasattr(jax, "enable_x64") else jax.experimental
    with owner.enable_x64(wide):
        params = tree(1, dtype=dtype)
        tx = made.build_optimizer(jax.eval_shape(lambda: params))
        shapes, state = jax.eval_shape(tx.init, params), tx.init(params)

        def step(params, state, grads):
            updates, state = tx.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        once = jax.jit(step, donate_argnums=(0, 1))
        for grads in gradients(4):
            params, state = once(params, state, grads)
        assert once._cache_size() == 1  # types that change would be compiled again
        types = lambda tree: jax.tree.map(lambda x: (x.shape, x.dtype), tree)  # noqa: E731
        assert types(state) == types(shapes)
        assert int(state.step) == 2


@pytest.mark.parametrize("kind", ["lars", "lamb"])
def test_norms_of_float32_are_float32_beside_float64(kind):
    owner = jax if hasattr(jax, "enable_x64") else jax.experimental
    params = tree(1, dtype="bfloat16")
    with owner.enable_x64(True):
        tx = built(kind, {"clipnorm": 1.0}, ema={})
        state = tx.init(params)
        updates, moved = jax.eval_shape(tx.update, params, state, params)
    assert {x.dtype for x in jax.tree.leaves(updates)} == {jnp.dtype("float32")}
    assert [x.dtype for x in jax.tree.leaves(moved)] == [x.dtype for x in jax.tree.leaves(state)]


@pytest.mark.parametrize(
    "clip", [None, "global_clipnorm", "clipnorm", "clipvalue", "adaptive_clip_factor"]
)
def test_a_tree_without_parameters(clip):
    clips = {clip: 0.1} if clip else {}
    tx = built("adam", {**clips, "on_nonfinite": "skip"}, ema={}, params={})
    found, state = train(tx, {"none": None}, [{"none": None}])
    assert (found, int(state.step), int(state.nonfinite_steps)) == ({"none": None}, 1, 0)


def test_numbers_of_python_are_parameters():
    fields = {"global_clipnorm": 1.0, "gradient_accumulation_steps": 2}
    arrays = {"w": jnp.float32(0.5), "b": jnp.float32(2.0)}
    numbers = {"w": 0.5, "b": 2.0}
    tx = built("adamw", fields, ema={})
    found, state = tx.update(numbers, tx.init(numbers), numbers)
    expected, expected_state = tx.update(arrays, tx.init(arrays), arrays)
    assert_same(found, expected)
    assert_same(state, expected_state)
    assert_same(train(tx, numbers, [numbers] * 4)[0], train(tx, arrays, [arrays] * 4)[0])


def test_trees_that_no_parameter_needs_are_none():
    params = tree(1)
    tx = built("adamw", {"weight_decay_rate": 0.1})
    first = tx.init(params)
    _, last = train(tx, params, [params])
    for state in (first, last):
        assert state.slots["velocity_hat"] is None
        assert state.masters is None
        assert jax.tree.structure(state) == jax.tree.structure(first)
    mapped = optax.tree_map_params(tx, lambda x: x + 1, first)
    assert_close(mapped.slots["momentum"], jax.tree.map(jnp.ones_like, params))


def test_state_is_a_tree_that_optax_can_map():
    params = tree(1)
    followed = {"weight_decay": {"type": "constant", "constant": {"learning_rate": 0.1}}}
    tx = built("adamw", {"weight_decay_rate": 0.1}, ema={}, schedules=followed)
    shapes = jax.eval_shape(tx.init, params)
    state = tx.init(params)
    assert jax.tree.structure(shapes) == jax.tree.structure(state)
    mapped = optax.tree_map_params(tx, lambda x: x + 1, state)
    assert_close(mapped.slots["momentum"], jax.tree.map(jnp.ones_like, params))
    assert_close(mapped.average, jax.tree.map(lambda x: x + 1, params))
    assert int(mapped.step) == 0
    assert float(optax.tree.get(state, "learning_rate")) == pytest.approx(0.1)


def test_what_update_needs():
    params, tx = tree(1), built(*SGD)
    with pytest.raises(ValueError, match="Argument `params` is needed"):
        tx.update(params, tx.init(params))
    with pytest.raises(ValueError, match="must have the structure of `params`"):
        tx.update({"embed": 1.0}, tx.init(params), params)


@pytest.mark.parametrize("shape", [(), (1,), (3, 1), (4,)])
def test_a_gradient_of_another_shape_is_told(shape):
    params = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(3)}}
    grads = {"dense": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(shape)}}
    tx = built(*SGD)
    message = f"must have the shapes of `params`, got {shape} for 'dense/bias' of (3,)"
    with pytest.raises(ValueError, match=re.escape(message)):
        jax.jit(tx.update)(grads, tx.init(params), params)


@pytest.mark.parametrize("shape", [(8,), (9,), (4, 3), (3, 4), (2, 2, 3), (4, 2, 2), (1, 1, 8)])
def test_sums_of_large_arrays(shape, monkeypatch):
    from optimization.jax import gradients

    monkeypatch.setattr(gradients, "_ROWS", 2)
    monkeypatch.setattr(gradients, "_NARROW", 3)
    x = np.random.default_rng(0).normal(size=shape)
    found = gradients.sum_of_squares(jnp.float32(x))
    np.testing.assert_allclose(found, np.sum(np.square(x)), rtol=1e-6)


def test_an_abstract_state_without_a_mesh_is_as_init_says():
    from optimization.jax import abstract_state

    params = tree(1)
    tx = built("adafactor", {"min_dim_size_to_factor": 4}, params=params)
    like, state = abstract_state(tx, params), tx.init(params)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), like) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )


def test_what_modifiers_keep_is_state_where_they_act():
    fields = {"momentum": 0.5, "mars": True, "lookahead": True, "lookahead_steps": 2}
    params, grads = tree(1), gradients()
    tx = built("sgd", fields)
    _, state = train(tx, params, grads[:2])
    assert sorted(state.slots) == ["last_gradient", "lead", "momentum"]
    assert_same(state.slots["last_gradient"], grads[1])
    assert not any(leaf.any() for leaf in jax.tree.leaves(state.slots["lead"]))  # it went back
    assert sorted(built("sgd", {"momentum": 0.5}).init(params).slots) == ["momentum"]
