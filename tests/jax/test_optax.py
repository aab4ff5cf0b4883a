"""The same algorithms as optax has them, and the same schedules."""

import numpy as np
import pytest

from optimization import OptimizationConfig
from tests.jax.common import OptimizerFactory, config, gradients, jax, optax, tree

STEPS, WARMUP = 50, 10
COSINE = {
    "learning_rate": {
        "type": "cosine",
        "cosine": {"initial_learning_rate": 0.1, "decay_steps": STEPS - WARMUP},
    },
    "warmup": {"type": "linear", "linear": {"warmup_steps": WARMUP, "mode": "delay"}},
}
RATE = optax.warmup_cosine_decay_schedule(0.0, 0.1, WARMUP, STEPS)
CORRECTED = {"epsilon_placement": "corrected", "epsilon": 1e-8}


def _bias_stays(params):
    return {name: {n: n != "bias" for n in part} for name, part in params.items()}


def _half_life(count, first, last, steps):
    """Returns the beta whose half-life is on the line between those of two, as the authors have it.

    A half-life h is that of beta^(h + 1) = 1/2.
    """
    share = jax.numpy.minimum((count + 1) / steps, 1.0)
    ends = [np.log(0.5) / np.log(beta) - 1 for beta in (first, last)]
    return 0.5 ** (1 / ((1 - share) * ends[0] + share * ends[1] + 1))


def _of_fast(tx):
    """Returns a transformation of fast parameters, of one of pairs of fast and slow ones."""

    def init(params):
        pair = optax.LookaheadParams.init_synced(params)
        return pair, tx.init(pair)

    def update(grads, state, params):
        pair, inner = state
        updates, inner = tx.update(grads, inner, pair)
        return updates.fast, (optax.apply_updates(pair, updates), inner)

    return optax.GradientTransformation(init, update)


# A name, our type and fields, optax's transformation of a rate.
SAME = {
    "sgd_torch": ("sgd_torch", {"momentum": 0.0}, optax.sgd),
    "sgd_torch momentum": ("sgd_torch", {"momentum": 0.9}, lambda rate: optax.sgd(rate, 0.9)),
    "sgd_torch nesterov": (
        "sgd_torch",
        {"momentum": 0.9, "nesterov": True},
        lambda rate: optax.sgd(rate, 0.9, nesterov=True),
    ),
    "adam": ("adam", CORRECTED, optax.adam),
    "adamw": (
        "adamw",
        {**CORRECTED, "weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias"]},
        lambda rate: optax.adamw(rate, weight_decay=0.1, mask=_bias_stays),
    ),
    "adamw lookahead": (
        "adamw",
        {**CORRECTED, "lookahead": True, "lookahead_steps": 3, "lookahead_share": 0.7},
        lambda rate: _of_fast(optax.lookahead(optax.adamw(rate, weight_decay=0.0), 3, 0.7)),
    ),
    "adam coupled": (
        "adam",
        {**CORRECTED, "weight_decay": 0.1, "decoupled_weight_decay": False},
        lambda rate: optax.chain(optax.add_decayed_weights(0.1), optax.adam(rate)),
    ),
    "radam": (
        "radam",
        {"beta_2": 0.99, "epsilon_placement": "corrected"},  # with more optax rounds by 1e-4
        lambda rate: optax.radam(rate, b2=0.99),
    ),
    "adopt": ("adopt", {}, optax.contrib.adopt),
    "adopt unclipped": (
        "adopt",
        {"beta_2": 0.99, "clip_exponent": None},
        lambda rate: optax.contrib.adopt(rate, b2=0.99, use_clipping=False),
    ),
    "nadam": ("adam", {**CORRECTED, "nesterov": True}, optax.nadam),
    "nadamw": (
        "adamw",
        {**CORRECTED, "nesterov": True, "weight_decay_rate": 0.1},
        lambda rate: optax.nadamw(rate, weight_decay=0.1),
    ),
    "lamb": (
        "lamb",
        {"weight_decay_rate": 0.1},
        lambda rate: optax.lamb(rate, weight_decay=0.1),
    ),
    "lars": (
        "lars",
        {"weight_decay_rate": 0.1, "eeta": 0.1},
        lambda rate: optax.lars(rate, weight_decay=0.1, trust_coefficient=0.1),
    ),
    "lars nesterov": (
        "lars",
        {"eeta": 0.1, "nesterov": True},
        lambda rate: optax.lars(rate, trust_coefficient=0.1, nesterov=True),
    ),
    "lion": ("lion", {"weight_decay": 0.1}, lambda rate: optax.lion(rate, weight_decay=0.1)),
    "ademamix": (
        "ademamix",
        {"weight_decay": 0.1, "exclude_from_weight_decay": ["bias"]},
        lambda rate: optax.contrib.ademamix(rate, weight_decay=0.1, mask=_bias_stays),
    ),
    "ademamix warmups": (
        "ademamix",
        {"beta_3": 0.999, "alpha": 8.0, "alpha_warmup": 20, "beta_3_warmup": 40},
        lambda rate: optax.contrib.ademamix(
            rate,
            b3=lambda count: _half_life(count, 0.9, 0.999, 40),
            alpha=lambda count: 8.0 * jax.numpy.minimum((count + 1) / 20, 1.0),
        ),
    ),
    "adagrad": ("adagrad", {}, optax.adagrad),
    "adadelta": (
        "adadelta",
        {"rho": 0.9, "epsilon": 1e-2},  # with less it hardly moves in so few steps
        lambda rate: optax.adadelta(rate, eps=1e-2),
    ),
    "adamax": ("adamax", {"epsilon": 1e-8, "epsilon_in_norm": True}, optax.adamax),
    "rmsprop": ("rmsprop", {"epsilon": 1e-8}, optax.rmsprop),
    "rmsprop centered": (
        "rmsprop",
        {"centered": True, "momentum": 0.9, "epsilon": 1e-4},
        lambda rate: optax.rmsprop(rate, centered=True, momentum=0.9, eps=1e-4),
    ),
    "rmsprop epsilon outside": (
        "rmsprop",
        {"epsilon_in_sqrt": False, "epsilon": 1e-8},
        lambda rate: optax.rmsprop(rate, eps_in_sqrt=False),
    ),
    "adafactor": (
        "adafactor",
        {"variant": "optax", "min_dim_size_to_factor": 4},
        lambda rate: optax.adafactor(rate, min_dim_size_to_factor=4),
    ),
    "adafactor momentum": (
        "adafactor",
        {"variant": "optax", "beta1": 0.9, "weight_decay": 0.01, "clipping_threshold": None},
        lambda rate: optax.adafactor(
            rate, momentum=0.9, weight_decay_rate=0.01, clipping_threshold=None
        ),
    ),
    "clip, adam": (
        "adam",
        {**CORRECTED, "global_clipnorm": 1.0},
        lambda rate: optax.chain(optax.clip_by_global_norm(1.0), optax.adam(rate)),
    ),
}
# The same under a constant rate only: the rate is inside the momentum, or the average of weights.
SAME_CONSTANT = {
    "sgd": ("sgd", {"momentum": 0.9}, lambda rate: optax.sgd(rate, 0.9)),
    "sgd nesterov": (
        "sgd",
        {"momentum": 0.9, "nesterov": True},
        lambda rate: optax.sgd(rate, 0.9, nesterov=True),
    ),
    "schedule_free_sgd": (
        "schedule_free_sgd",
        {"weight_decay": 0.1},
        lambda rate: optax.contrib.schedule_free_sgd(rate, weight_decay=0.1),
    ),
    "schedule_free_adamw": (
        "schedule_free_adamw",
        {"weight_decay": 0.1},
        lambda rate: optax.contrib.schedule_free_adamw(rate, weight_decay=0.1),
    ),
}


def trained(tx, dtype="float32"):
    """Returns the parameters after `STEPS` updates, in a dtype."""
    owner = jax if hasattr(jax, "enable_x64") else jax.experimental
    with owner.enable_x64(dtype == "float64"):
        cast = lambda tree: jax.tree.map(lambda x: np.asarray(x, dtype), tree)  # noqa: E731
        stacked = jax.tree.map(lambda *g: np.stack(g), *map(cast, gradients(STEPS)))

        @jax.jit
        def run(params, stacked):
            def step(carry, grads):
                updates, state = tx.update(grads, carry[1], carry[0])
                return (optax.apply_updates(carry[0], updates), state), None

            return jax.lax.scan(step, (params, tx.init(params)), stacked)[0][0]

        return jax.tree.map(np.asarray, run(cast(tree(1)), stacked))


def distance(one, other):
    """Returns max |difference| / max |value|."""
    pairs = list(zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True))
    return max(np.abs(a - b.astype("float64")).max() for a, b in pairs) / max(
        np.abs(b).max() for _, b in pairs
    )


def assert_same_training(ours, theirs):
    found, expected, exact = trained(ours), trained(theirs), trained(theirs, "float64")
    assert distance(tree(1), exact) > 0.05  # it trains
    rounding = distance(expected, exact)
    assert rounding < 1e-4  # what is compared with is a number
    assert distance(found, expected) < 2e-6 + rounding
    assert distance(found, exact) < 2e-6 + rounding


@pytest.mark.parametrize("name", SAME)
def test_the_same_algorithm_under_a_schedule(name):
    kind, fields, theirs = SAME[name]
    factory = OptimizerFactory(config(kind, fields, **COSINE), train_steps=STEPS)
    assert_same_training(factory.build_optimizer(tree(1)), theirs(RATE))


@pytest.mark.parametrize("name", SAME_CONSTANT)
def test_the_same_algorithm_under_a_constant_rate(name):
    kind, fields, theirs = SAME_CONSTANT[name]
    factory = OptimizerFactory(config(kind, fields, rate=0.05))
    assert_same_training(factory.build_optimizer(tree(1)), theirs(0.05))


MUON = {
    # optax corrects the momentum's bias, of which nothing is left in an orthogonal matrix.
    "keras": (
        {"nesterov": False, "weight_decay": 0.1},
        {"nesterov": False, "weight_decay": 0.1, "consistent_rms": 0.2},
    ),
    "optax": ({"variant": "optax", "weight_decay": 0.1}, {"weight_decay": 0.1}),
    "dion": (
        {"variant": "optax", "coefficients": "quintic", "nesterov": False},
        {"ns_coeffs": "dion", "nesterov": False},
    ),
}


@pytest.mark.parametrize("name", MUON)
def test_muon_of_hidden_matrices(name):
    # What is no hidden matrix here is AdamW's, and in optax every matrix is one.
    fields, arguments = MUON[name]
    ours = OptimizerFactory(config("muon", fields, **COSINE), train_steps=STEPS)
    theirs = optax.contrib.muon(RATE, **arguments)
    paths = [("layer_0", "kernel"), ("layer_1", "kernel")]
    if name == "optax":  # whose Adam is Nadam
        paths += [("layer_0", "bias"), ("layer_1", "bias")]
    found, expected, exact = (
        [weights[layer][leaf] for layer, leaf in paths]
        for weights in (
            trained(ours.build_optimizer(tree(1))),
            trained(theirs),
            trained(theirs, "float64"),
        )
    )
    assert distance(found, expected) < 2e-6 + distance(expected, exact)


def test_muon_in_bfloat16_is_that_of_float32_roundly():
    exact, found = (
        trained(
            OptimizerFactory(config("muon", fields), train_steps=STEPS).build_optimizer(tree(1))
        )
        for fields in ({}, {"ns_dtype": "bfloat16"})
    )
    (a, b) = (np.asarray(weights["layer_0"]["kernel"]) for weights in (exact, found))
    assert 1e-5 < np.abs(a - b).max() / np.abs(a).max() < 0.02


def test_the_auxiliary_optimizer_of_muon():
    """Beside a pair of optax's, parted by hand."""
    adamw = {"type": "adamw", "adamw": {**CORRECTED, "weight_decay_rate": 0.3}}
    fields = {"variant": "optax", "auxiliary": {**adamw, "learning_rate_multiplier": 0.1}}
    ours = OptimizerFactory(config("muon", fields, **COSINE), train_steps=STEPS)
    start, hidden = tree(1), {("layer_0", "kernel"), ("layer_1", "kernel")}
    labels = {
        layer: {n: "muon" if (layer, n) in hidden else "rest" for n in part}
        for layer, part in start.items()
    }
    parts = {
        "muon": optax.contrib.muon(RATE),
        "rest": optax.adamw(lambda count: 0.1 * RATE(count), weight_decay=0.3),
    }
    theirs = optax.multi_transform(parts, labels)
    found, expected, exact = (
        [leaf for part in weights.values() for leaf in part.values()]
        for weights in (
            trained(ours.build_optimizer(start)),
            trained(theirs),
            trained(theirs, "float64"),
        )
    )
    assert distance(found, expected) < 2e-6 + distance(expected, exact)


# Schedules

SCHEDULES = {
    "constant": ({"learning_rate": 0.1}, optax.constant_schedule(0.1)),
    "stepwise": (
        # A boundary is the last step before the change, as in Keras, and the first after it.
        {"boundaries": [10, 30], "values": [0.1, 0.05, 0.01]},
        optax.piecewise_constant_schedule(0.1, {11: 0.5, 31: 0.2}),
    ),
    "cosine": (
        {"initial_learning_rate": 0.1, "decay_steps": 60, "alpha": 0.1},
        optax.cosine_decay_schedule(0.1, 60, 0.1),
    ),
    "exponential": (
        {"initial_learning_rate": 0.1, "decay_steps": 7, "decay_rate": 0.5, "staircase": True},
        optax.exponential_decay(0.1, 7, 0.5, staircase=True),
    ),
    "polynomial": (
        {
            "initial_learning_rate": 0.1,
            "decay_steps": 60,
            "end_learning_rate": 0.01,
            "power": 2.0,
        },
        optax.polynomial_schedule(0.1, 0.01, 2.0, 60),
    ),
    "linear": (
        {"initial_learning_rate": 0.1, "decay_steps": 60, "end_learning_rate": 0.01},
        optax.linear_schedule(0.1, 0.01, 60),
    ),
}


@pytest.mark.parametrize("kind", SCHEDULES)
def test_schedules(kind):
    fields, theirs = SCHEDULES[kind]
    rate = {"type": kind, kind: fields}
    made = OptimizationConfig({"optimizer": {"type": "sgd"}, "learning_rate": rate})
    ours = OptimizerFactory(made, train_steps=60).build_learning_rate()
    steps = np.arange(100)
    expected = np.broadcast_to(jax.vmap(theirs)(steps), steps.shape)
    # optax computes in float32.
    np.testing.assert_allclose(jax.jit(ours)(steps), expected, rtol=1e-6, atol=1e-8)


def test_a_warmup_and_a_decay():
    ours = OptimizerFactory(config("sgd", **COSINE), train_steps=STEPS).build_learning_rate()
    steps = np.arange(STEPS + 10)
    np.testing.assert_allclose(ours(steps), jax.vmap(RATE)(steps), rtol=1e-6, atol=1e-8)
