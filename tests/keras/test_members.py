"""Parameter groups at work: who updates what, with which settings, and what is kept of it."""

import keras
import numpy as np
import pytest

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.optimizers import (
    AdafactorKeras,
    AdamWeightDecay,
    ParamGroup,
    PipelineOptimizer,
    SGDTorch,
)
from tests.golden_cases import make_variables
from tests.keras.common import (
    BACKEND,
    TableSchedule,
    final_weights,
    problem,
    relative_error,
    tensorflow_only,
)
from tests.rules import contracts

RATES = [0.1, 0.05, 0.02, 0.01]
SMALL = ["block/dense/bias", "block/norm/beta", "block/norm/gamma"]
# What is left of rounding when the same float32 operations are fused or ordered differently.
ROUNDING = 1e-6


def parts(initial, gradients, chosen):
    """Splits a problem in two: the chosen paths, and the others."""

    def split(values, keep):
        return {path: value for path, value in values.items() if (path in chosen) == keep}

    return [(split(initial, keep), [split(g, keep) for g in gradients]) for keep in (True, False)]


def make(inner=None, **kwargs):
    if inner is None:
        inner = keras.optimizers.AdamW(TableSchedule(RATES), weight_decay=0.1)
    return PipelineOptimizer(inner, **kwargs)


def trained_apart(chosen, other, paths=SMALL, steps=6):
    """The weights if two optimizers train the two parts of the problem."""
    initial, gradients = problem(steps=steps)
    weights = {}
    for optimizer, part in zip((chosen, other), parts(initial, gradients, paths), strict=True):
        weights.update(final_weights(optimizer, *part))
    return weights


def trained_together(optimizer, steps=6):
    return final_weights(optimizer, *problem(steps=steps))


class Scaled(TableSchedule):
    """Ten times smaller."""

    def __call__(self, step):
        return super().__call__(step) * 0.1


AdamW = keras.optimizers.AdamW
CASES = {
    "multiplier": (
        {"learning_rate_multiplier": 0.1},
        lambda: AdamW(Scaled(RATES), weight_decay=0.1),
    ),
    "hyperparameters": (
        {"hyperparameters": {"weight_decay": 0.0, "beta_1": 0.5}},
        lambda: AdamW(TableSchedule(RATES), weight_decay=0.0, beta_1=0.5),
    ),
    "rate": ({"learning_rate": 0.03}, lambda: AdamW(0.03, weight_decay=0.1)),
    "schedule": (
        {"learning_rate": TableSchedule([0.3, 0.2]), "learning_rate_multiplier": 0.1},
        lambda: AdamW(Scaled([0.3, 0.2]), weight_decay=0.1),
    ),
    "optimizer": (
        {"optimizer": keras.optimizers.Adagrad(0.2), "learning_rate_multiplier": 0.5},
        lambda: keras.optimizers.Adagrad(0.1),
    ),
    "optimizer, rate": (
        {"optimizer": keras.optimizers.Adagrad(0.2), "learning_rate": 0.1},
        lambda: keras.optimizers.Adagrad(0.1),
    ),
}


@pytest.mark.parametrize(("settings", "alone"), CASES.values(), ids=CASES)
def test_a_group_is_trained_as_if_it_were_alone(settings, alone):
    group = ParamGroup(ndim=[0, 1], **settings)
    other = make(AdamW(TableSchedule(RATES), weight_decay=0.1))
    expected = trained_apart(make(alone()), other)
    optimizer = make(param_groups=[group])
    assert relative_error(trained_together(optimizer), expected) < ROUNDING
    assert int(optimizer.iterations) == 6


@pytest.mark.parametrize("name", sorted(OPTIMIZERS_CLS))
def test_every_registered_optimizer_takes_a_multiplier(name):
    def cls(rate):
        return make(OPTIMIZERS_CLS[name](learning_rate=rate))

    expected = trained_apart(cls(0.001), cls(0.01))
    groups = [ParamGroup(ndim=[0, 1], learning_rate_multiplier=0.1)]
    optimizer = make(OPTIMIZERS_CLS[name](learning_rate=0.01), param_groups=groups)
    # FTRL computes each weight anew as a difference of large sums.
    tolerance = 1e-5 if name == "ftrl" else ROUNDING
    assert relative_error(trained_together(optimizer), expected) < tolerance


def test_frozen_variables_stay_and_have_no_part_in_anything():
    frozen = [path for path in problem(steps=1)[0] if path.startswith("block/norm")]
    initial, gradients = problem(steps=4)
    optimizer = make(
        param_groups=[ParamGroup(match="block/norm", freeze=True)],
        global_clipnorm=1.0,
        ema={},
        gradient_accumulation_steps=2,
        on_nonfinite="raise",
    )
    for gradient in gradients:
        for path in frozen:
            gradient[path] = gradient[path] * np.inf
    weights = final_weights(optimizer, initial, gradients)
    _, (rest, rest_gradients) = parts(initial, gradients, frozen)
    alone = make(global_clipnorm=1.0, gradient_accumulation_steps=2)
    assert relative_error(weights, final_weights(alone, rest, rest_gradients)) < ROUNDING
    for path in frozen:
        np.testing.assert_array_equal(weights[path], initial[path])
    assert not [name for name in optimizer.variables_by_path() if "block/norm" in name]
    assert len(optimizer.get_config()["variable_paths"]) == len(initial)


def test_freezing_everything_is_an_error():
    optimizer = make(param_groups=[ParamGroup(match="", freeze=True)])
    with pytest.raises(ValueError, match="Every variable is frozen"):
        optimizer.build(make_variables(problem(steps=1)[0]))


def test_one_clip_over_all_groups():
    initial, gradients = problem(steps=1)
    norm = np.sqrt(sum((g.astype("float64") ** 2).sum() for g in gradients[0].values()))
    groups = [ParamGroup(ndim=[0, 1], learning_rate_multiplier=0.5)]
    optimizer = make(keras.optimizers.SGD(1.0), param_groups=groups, global_clipnorm=1.0)
    weights = final_weights(optimizer, initial, gradients)
    for path, gradient in gradients[0].items():
        factor = (0.5 if path in SMALL else 1.0) / norm
        # One step in float32.
        np.testing.assert_allclose(weights[path], initial[path] - factor * gradient, atol=1e-6)
    assert float(optimizer.last_gradient_norm) == pytest.approx(norm, rel=1e-6)


@pytest.mark.parametrize("name", contracts.ONE_OF_EACH_KIND)
def test_the_default_group_may_be_empty(name):
    groups = [ParamGroup(match="", learning_rate_multiplier=0.1)]
    optimizer = make(OPTIMIZERS_CLS[name](learning_rate=0.01), param_groups=groups)
    expected = trained_together(make(OPTIMIZERS_CLS[name](learning_rate=0.001)), steps=2)
    tolerance = 1e-5 if name == "ftrl" else ROUNDING
    assert relative_error(trained_together(optimizer, steps=2), expected) < tolerance
    assert list(optimizer.learning_rates()) == ["all"]


def test_layer_decay_multiplies_with_the_groups():
    paths = ["embed/kernel", "layer_0/kernel", "layer_0/bias", "layer_1/kernel", "head/kernel"]
    initial = {path: np.zeros(1 if "bias" in path else (1, 1), "float32") for path in paths}
    optimizer = make(
        keras.optimizers.SGD(1.0),
        param_groups=[ParamGroup(match="bias$", name="bias", learning_rate_multiplier=2.0)],
        layer_decay={"rate": 0.5, "depth": r"layer_(\d+)/"},
    )
    weights = final_weights(optimizer, initial, [{p: np.ones_like(v) for p, v in initial.items()}])
    steps = {path: -float(value.sum()) for path, value in weights.items()}
    assert list(steps.values()) == [0.125, 0.25, 0.5, 0.5, 1.0]
    rates = {name: float(rate) for name, rate in optimizer.learning_rates().items()}
    assert rates == {
        "default": 1.0,
        "default/layer_0": 0.125,
        "default/layer_1": 0.25,
        "default/layer_2": 0.5,
        "bias/layer_1": 0.5,
    }


def test_groups_follow_the_learning_rate_that_is_set():
    groups = [
        ParamGroup(match="bias$", learning_rate_multiplier=0.5),
        ParamGroup(match="norm", name="own", learning_rate=0.3, learning_rate_multiplier=2.0),
    ]
    optimizer = make(keras.optimizers.SGD(0.1), param_groups=groups)
    optimizer.build(make_variables(problem(steps=1)[0]))
    optimizer.learning_rate = 0.8
    rates = {name: float(rate) for name, rate in optimizer.learning_rates().items()}
    assert rates == pytest.approx({"default": 0.8, "bias$": 0.4, "own": 0.6})
    assert "groups/own/learning_rate" in optimizer.variables_by_path()


def test_patterns_of_the_optimizer_are_searched_among_all_variables():
    inner = AdamWeightDecay(0.1, weight_decay_rate=0.1, exclude_from_weight_decay=["bias", "norm"])
    groups = [ParamGroup(match="bias$", learning_rate_multiplier=0.5)]
    optimizer = make(inner, param_groups=groups)
    optimizer.build(make_variables(problem(steps=1)[0]))
    assert {row.path for row in optimizer.group_table() if row.decayed} == {
        "embedding/embeddings",
        "block/conv/kernel",
        "block/dense/kernel",
    }
    inner = AdamWeightDecay(0.1, weight_decay_rate=0.1, exclude_from_weight_decay=["biass"])
    with pytest.raises(ValueError, match="biass"):
        make(inner, param_groups=groups).build(make_variables(problem(steps=1)[0]))


def test_exclusions_by_keras_method_hold_in_groups():
    inner = keras.optimizers.AdamW(0.1, weight_decay=0.1)
    inner.exclude_from_weight_decay(var_names=["beta"])
    optimizer = make(inner, param_groups=[ParamGroup(match="norm", learning_rate_multiplier=0.5)])
    optimizer.build(make_variables(problem(steps=1)[0]))
    decayed = {row.path: row.decayed for row in optimizer.group_table()}
    assert (decayed["block/norm/beta"], decayed["block/norm/gamma"]) == (False, True)


def test_weight_decay_by_its_common_name():
    inner = AdamWeightDecay(0.1, weight_decay_rate=0.1)
    groups = [ParamGroup(match="bias$", hyperparameters={"weight_decay": 0.0})]
    optimizer = make(inner, param_groups=groups)
    optimizer.build(make_variables(problem(steps=1)[0]))
    assert {row.path for row in optimizer.group_table() if not row.decayed} == {"block/dense/bias"}


@pytest.mark.parametrize(
    ("hyperparameters", "message"),
    [
        ({"beta1": 0.5}, "did you mean 'beta_1'"),
        ({"learning_rate": 0.5}, "no hyperparameter 'learning_rate'"),
        ({"clipnorm": 0.5}, "no hyperparameter 'clipnorm'"),
    ],
)
def test_unknown_hyperparameters_are_errors_when_the_optimizer_is_made(hyperparameters, message):
    with pytest.raises(ValueError, match=message):
        make(param_groups=[ParamGroup(match="a", hyperparameters=hyperparameters)])


def test_the_cap_of_keras_adafactor_holds_for_a_constant_rate_in_a_group():
    initial, gradients = problem(steps=3)
    groups = [ParamGroup(ndim=[0, 1], learning_rate_multiplier=0.5)]
    optimizer = make(AdafactorKeras(2.0), param_groups=groups)
    expected = trained_apart(make(AdafactorKeras(1.0)), make(AdafactorKeras(2.0)), steps=3)
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < ROUNDING


def test_a_multiplier_also_acts_on_the_rates_of_biases_of_yolos_sgd():
    def sgd(scale):
        return SGDTorch(
            0.1 * scale, bias_learning_rate=0.4 * scale, other_learning_rate=0.2 * scale
        )

    groups = [ParamGroup(ndim=[0, 1], learning_rate_multiplier=0.5)]
    expected = trained_apart(make(sgd(0.5)), make(sgd(1.0)))
    assert (
        relative_error(trained_together(make(sgd(1.0), param_groups=groups)), expected) < ROUNDING
    )


# Kept


GROUPS = [
    ParamGroup(match="frozen/", freeze=True),
    ParamGroup(layer_type="Embedding", optimizer=keras.optimizers.Adagrad(0.3), name="tables"),
    ParamGroup(match="bias$", learning_rate=0.05, hyperparameters={"weight_decay": 0.0}),
]


def model_with_groups(**kwargs):
    model = keras.Sequential(
        [
            keras.layers.Input((3,), dtype="int32"),
            keras.layers.Embedding(5, 4, name="table"),
            keras.layers.Flatten(),
            keras.layers.Dense(4, activation="tanh", name="frozen"),
            keras.layers.Dense(4, activation="tanh", name="block_0"),
            keras.layers.Dense(1, name="head"),
        ],
        name="model",
    )
    random = np.random.default_rng(1)
    model.set_weights([random.normal(size=w.shape) * 0.5 for w in model.get_weights()])
    optimizer = make(
        param_groups=GROUPS,
        layer_decay={"rate": 0.5, "depth": r"block_(\d+)/"},
        schedules={"weight_decay": TableSchedule([0.1, 0.2, 0.3])},
        **kwargs,
    )
    optimizer.set_model(model)
    model.compile(optimizer, loss="mse")
    return model


def fit(model):
    random = np.random.default_rng(0)
    x = random.integers(0, 5, size=(32, 3))
    model.fit(x, x[:, :1].astype("float32"), batch_size=8, shuffle=False, verbose=0)


@pytest.mark.parametrize("accumulated", [1, 2])
def test_training_goes_on_exactly_from_a_saved_model(tmp_path, accumulated):
    whole = model_with_groups(ema={}, gradient_accumulation_steps=accumulated, clipnorm=0.5)
    fit(whole)
    whole.save(tmp_path / "model.keras")
    fit(whole)
    resumed = keras.models.load_model(tmp_path / "model.keras")
    assert resumed.optimizer.get_config() == whole.optimizer.get_config()
    fit(resumed)
    for ours, theirs in zip(whole.weights, resumed.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    states = [model.optimizer.variables_by_path() for model in (whole, resumed)]
    assert set(states[0]) == set(states[1])
    for path, variable in states[0].items():
        np.testing.assert_array_equal(variable.numpy(), states[1][path].numpy(), err_msg=path)


def test_serialization_loses_nothing():
    optimizer = model_with_groups(adaptive_clip_factor=0.1, on_nonfinite="skip").optimizer
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    assert again.get_config()["layer_types"]["model/table/embeddings"] == "Embedding"


def test_an_average_of_all_weights_holds_frozen_ones_as_they_are(tmp_path):
    if BACKEND == "jax":
        pytest.skip("An average of all weights is an error in JAX's fit.")

    def make_model():
        model = model_with_groups(ema={"average_decay": 0.9, "trainable_weights_only": False})
        fit(model)
        return model

    model = make_model()
    frozen = [w.numpy() for w in model.get_layer("frozen").weights]
    with model.optimizer.averaged():
        for actual, expected in zip(model.get_layer("frozen").weights, frozen, strict=True):
            np.testing.assert_array_equal(actual.numpy(), expected)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    loaded.optimizer.set_model(loaded)
    states = [m.optimizer.variables_by_path() for m in (model, loaded)]
    assert set(states[0]) == set(states[1])
    for path, variable in states[0].items():
        np.testing.assert_array_equal(variable.numpy(), states[1][path].numpy(), err_msg=path)


def test_set_model_needs_a_built_model():
    with pytest.raises(ValueError, match="built model"):
        make().set_model(keras.Sequential([keras.layers.Dense(1)]))


def test_in_fit_frozen_layers_stay_and_the_others_learn():
    model, before = model_with_groups(), model_with_groups()
    fit(model)
    for ours, theirs in zip(model.weights, before.weights, strict=True):
        assert np.array_equal(ours.numpy(), theirs.numpy()) == ("frozen" in ours.path)


def test_the_state_of_every_group_has_a_unique_path_and_is_listed_once():
    optimizer = model_with_groups(ema={}).optimizer
    named = optimizer.variables_by_path()
    assert {id(v) for v in named.values()} == {id(v) for v in optimizer.variables}
    assert len(named) == len(optimizer.variables)
    assert "groups/tables/layer_0/accumulators/model/table/embeddings" in named


@tensorflow_only
@pytest.mark.parametrize("steps", [1, 2])
def test_a_compiled_update_equals_the_plain_one(steps):
    groups = [ParamGroup(ndim=[0, 1], learning_rate_multiplier=0.5)]
    schedules = {"beta_1": TableSchedule([0.5, 0.6, 0.9])}

    def trained(**kwargs):
        arguments = {"gradient_accumulation_steps": steps, "on_nonfinite": "skip", **kwargs}
        return trained_together(make(param_groups=groups, schedules=schedules, **arguments))

    # XLA fuses and reorders the same float32 operations.
    assert relative_error(trained(jit_compile=True), trained()) < 1e-6


@pytest.mark.skipif(BACKEND != "jax", reason="JAX's own way of a step")
def test_stateless_steps_equal_the_others():
    import jax

    groups = [ParamGroup(ndim=[0, 1], learning_rate=0.03)]
    initial, gradients = problem(steps=4)
    optimizer = make(param_groups=groups, gradient_accumulation_steps=2, global_clipnorm=1.0)
    expected = final_weights(
        make(param_groups=groups, gradient_accumulation_steps=2, global_clipnorm=1.0),
        initial,
        gradients,
    )
    variables = make_variables(initial)
    optimizer.build(variables)
    step = jax.jit(optimizer.stateless_apply)
    state, weights = ([v.value for v in group] for group in (optimizer.variables, variables))
    for gradient in gradients:
        weights, state = step(state, [gradient[v.path] for v in variables], weights)
    actual = {v.path: np.asarray(w) for v, w in zip(variables, weights, strict=True)}
    assert relative_error(actual, expected) < ROUNDING
