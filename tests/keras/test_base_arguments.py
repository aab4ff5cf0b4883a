"""Keras' base arguments in every optimizer section: what they do, against Keras itself."""

import keras
import numpy as np
import pytest

from optimization import OPTIMIZERS_CLS, ConfigError, OptimizationConfig, OptimizerFactory
from optimization.keras.inner import is_decayed
from tests.golden_cases import make_variables, run
from tests.keras.common import data, problem, relative_error

pytestmark = pytest.mark.slow

RATE = 0.05
KERAS = {
    "sgd": keras.optimizers.SGD,
    "sgd_experimental": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
    "adadelta": keras.optimizers.Adadelta,
    "adamax": keras.optimizers.Adamax,
    "nadam": keras.optimizers.Nadam,
    "lion": keras.optimizers.Lion,
    "ftrl": keras.optimizers.Ftrl,
}


def config(name, section, **more):
    return OptimizationConfig(
        {
            "optimizer": {"type": name, name: section},
            "learning_rate": {"type": "constant", "constant": {"learning_rate": RATE}},
            **more,
        }
    )


def built(name, section, **more):
    factory = OptimizerFactory(config(name, section, **more))
    return factory.build_optimizer(factory.build_learning_rate())


def trained(optimizer, steps=6):
    """Returns the optimizer's variables' weights after training, and the optimizer."""
    initial, gradients = problem(steps=steps)
    variables = make_variables(initial)
    for _, weights in run(optimizer, variables, gradients):
        last = weights
    return last, variables


@pytest.mark.parametrize("name", KERAS)
def test_weight_decay_is_that_of_keras(name):
    expected, _ = trained(KERAS[name](RATE, weight_decay=0.3))
    actual, _ = trained(built(name, {"weight_decay": 0.3}))
    without, _ = trained(built(name, {}))
    # Own classes take the same float32 steps in another order; bias corrections are rounded at
    # 1e-7 / (1 - beta_2), and Ftrl is a difference of large sums.
    assert relative_error(actual, expected) < 5e-6
    assert relative_error(without, expected) > 1e-3


DECAYED = [name for name in sorted(OPTIMIZERS_CLS) if not name.startswith("schedule_free")]


@pytest.mark.parametrize("name", DECAYED)
def test_every_type_decays_and_says_so(name):
    others = {"muon": ("adam_weight_decay",)}.get(name, ())
    starts = {"prodigy": {"d0": 1.0}}.get(name, {})  # the size of its steps
    decayed, plain = (
        built(name, {**dict.fromkeys(("weight_decay", *others), value), **starts})
        for value in (0.3, 0.0)
    )
    with_decay, variables = trained(decayed)
    without, _ = trained(plain)
    assert relative_error(with_decay, without) > 1e-3
    assert any(row.decayed for row in decayed.group_table())
    assert not any(row.decayed for row in plain.group_table())
    assert len(variables) == len(decayed.group_table())


@pytest.mark.parametrize("name", ["lamb", "lars"])
def test_decay_outside_the_layer_wise_update(name):
    """On gradients of 0 it alone acts, and no ratio scales it."""
    excluded = {"exclude_from_weight_decay": ["bias"]}
    optimizer = built(name, {"weight_decay": 0.3, **excluded})
    initial = {"a/kernel": np.ones((2, 2), "float32"), "a/bias": np.ones(2, "float32")}
    variables = make_variables(initial)
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables], variables)
    # One float32 product.
    np.testing.assert_allclose(variables[0].numpy(), 1 - RATE * 0.3, rtol=1e-6)
    np.testing.assert_array_equal(variables[1].numpy(), 1.0)
    assert [is_decayed(optimizer.optimizer, v) for v in variables] == [True, False]


def test_both_names_of_the_decay_of_adamw_are_one():
    expected, _ = trained(built("adamw", {"weight_decay_rate": 0.3}))
    actual, _ = trained(built("adamw", {"weight_decay": 0.3}))
    assert relative_error(actual, expected) == 0


@pytest.mark.parametrize(
    ("name", "section"),
    [
        ("sgd", {"weight_decay": 0.3}),
        ("adamw", {"weight_decay": 0.3}),
        ("lamb", {"weight_decay": 0.3}),
        ("lamb", {"weight_decay_rate": 0.3}),
    ],
)
def test_groups_and_schedules_follow_the_decay_that_is_used(name, section):
    constant = {"type": "constant", "constant": {"learning_rate": 0.3}}
    groups = [{"match": "bias$", "weight_decay": 0.0}]
    optimizer = built(name, section, param_groups=groups, schedules={"weight_decay": constant})
    actual, _ = trained(optimizer)
    expected, _ = trained(built(name, section, param_groups=groups))
    # The value is a float32 tensor here, and a Python float there.
    assert relative_error(actual, expected) < 2e-6
    decayed = {row.path: row.decayed for row in optimizer.group_table()}
    assert decayed["block/dense/kernel"]
    assert not decayed["block/dense/bias"]


class Plain(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.1, name="plain"):
        super().__init__(learning_rate=learning_rate, name=name)


class Own(keras.optimizers.SGD):
    def __init__(self, learning_rate=0.1, weight_decay: float = 0.25, name="own"):
        super().__init__(learning_rate=learning_rate, name=name)
        self.own = weight_decay


def test_a_registered_class_that_takes_no_decay(monkeypatch):
    monkeypatch.setattr(OPTIMIZERS_CLS, "_entries", dict(OPTIMIZERS_CLS._entries))
    OPTIMIZERS_CLS.register("plain")(Plain)
    assert type(built("plain", {}).optimizer) is Plain
    with pytest.raises(ConfigError, match="plain.weight_decay: the class of this type takes none"):
        built("plain", {"weight_decay": 0.1})
    with pytest.raises(ConfigError, match=r"param_groups\[0\].weight_decay: `plain` has no weight"):
        built("plain", {}, param_groups=[{"match": "a", "weight_decay": 0.1}])


def test_a_registered_class_with_a_decay_of_its_own_keeps_its_default(monkeypatch):
    monkeypatch.setattr(OPTIMIZERS_CLS, "_entries", dict(OPTIMIZERS_CLS._entries))
    OPTIMIZERS_CLS.register("own")(Own)
    assert built("own", {}).optimizer.own == 0.25
    assert built("own", {"weight_decay": 0.0}).optimizer.own == 0.0


EMA = {"use_ema": True, "ema_momentum": 0.7}
# float32 roundings of ten steps; and Keras' Adam rounds its bias corrections, which are exact here.
ROUNDING = {"sgd": 1e-6, "adam": 3e-6}


@pytest.mark.parametrize("frequency", [None, 1, 3])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_use_ema_is_the_rule_of_keras(name, frequency):
    """Weights while training, averages, and the weights at the end; Keras' own optimizer."""
    arguments = {**EMA, "ema_overwrite_frequency": frequency}
    theirs = KERAS[name](RATE, **arguments)
    ours = built(name, arguments)
    initial, gradients = problem(steps=10)
    pairs = [make_variables(initial), make_variables(initial)]
    for gradient in gradients:
        for optimizer, variables in zip((theirs, ours), pairs, strict=True):
            values = [keras.ops.convert_to_tensor(gradient[v.path]) for v in variables]
            optimizer.apply(values, variables)
        expected, actual = ({v.path: v.numpy() for v in variables} for variables in pairs)
        assert relative_error(actual, expected) < ROUNDING[name]
    named = ours.variables_by_path()
    averages = {path: named[f"average/{path}"].numpy() for path in initial}
    kept = theirs._model_variables_moving_average
    expected = {v.path: a.numpy() for v, a in zip(pairs[0], kept, strict=True)}
    assert relative_error(averages, expected) < ROUNDING[name]
    for optimizer, variables in zip((theirs, ours), pairs, strict=True):
        optimizer.finalize_variable_values(variables)
    expected, actual = ({v.path: v.numpy() for v in variables} for variables in pairs)
    assert relative_error(actual, expected) < ROUNDING[name]


def test_use_ema_sees_updates_not_micro_steps():
    arguments = {**EMA, "ema_overwrite_frequency": 2}
    initial, gradients = problem(steps=6)
    expected, _ = trained(built("sgd", arguments), steps=6)
    accumulated = built("sgd", {**arguments, "gradient_accumulation_steps": 2})
    variables = make_variables(initial)
    for gradient in gradients:
        for _ in range(2):  # the mean of two equal gradients is exact
            values = [keras.ops.convert_to_tensor(gradient[v.path]) for v in variables]
            accumulated.apply(values, variables)
    # Keras' form sums before it divides.
    assert relative_error({v.path: v.numpy() for v in variables}, expected) < 1e-6


def test_an_average_that_overwrites_low_precision_reaches_the_float32_copies():
    optimizer = built("sgd", {**EMA, "ema_overwrite_frequency": 1})
    # 0.001 is lost in bfloat16 next to 1, and adds up in the copy.
    variable = keras.Variable(np.ones(3, "float32"), dtype="bfloat16", name="w")
    for _ in range(3):
        optimizer.apply([keras.ops.convert_to_tensor(np.full(3, 0.02, "float32"))], [variable])
    named = optimizer.variables_by_path()
    np.testing.assert_array_equal(named["master/w"].numpy(), named["average/w"].numpy())


def fitted(optimizer):
    """Returns weights after `fit`, and the averages that a custom optimizer keeps."""
    model = keras.Sequential(
        [keras.layers.Input((4,)), keras.layers.Dense(3, activation="tanh"), keras.layers.Dense(1)]
    )
    random = np.random.default_rng(1)
    for variable in model.trainable_variables:
        variable.assign(random.normal(size=variable.shape) * 0.5)
    model.compile(optimizer, loss="mse")
    x, y = data()
    model.fit(x, y, batch_size=16, epochs=2, shuffle=False, verbose=0)
    return dict(enumerate(model.get_weights()))


@pytest.mark.parametrize("frequency", [None, 3])
def test_fit_ends_with_the_averages_as_keras_does(frequency):
    arguments = {**EMA, "ema_overwrite_frequency": frequency}
    expected = fitted(keras.optimizers.SGD(RATE, **arguments))
    actual = fitted(built("sgd", arguments))
    without = fitted(built("sgd", {}))
    # Eight float32 steps.
    assert relative_error(actual, expected) < 1e-6
    assert relative_error(without, expected) > 1e-3


def test_the_loss_scale_is_that_of_keras():
    expected = fitted(keras.optimizers.SGD(RATE, loss_scale_factor=1024.0))
    optimizer = built("sgd", {"loss_scale_factor": 1024.0, "global_clipnorm": 1e6})
    assert float(optimizer.scale_loss(2.0)) == 2048.0
    # A power of two scales exactly.
    assert relative_error(fitted(optimizer), expected) < 1e-6


def test_the_average_survives_serialization():
    optimizer = built("sgd", {**EMA, "ema_overwrite_frequency": 4})
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.ema == optimizer.ema
    assert optimizer.ema["overwrite_frequency"] == 4
    assert optimizer.ema["overwrite_at_end"]


def test_weights_swapped_with_their_averages_are_not_finalized():
    optimizer = built("sgd", EMA)
    _, variables = trained(optimizer, steps=2)
    with optimizer.averaged(), pytest.raises(RuntimeError, match="swapped"):
        optimizer.finalize_variable_values(variables)


def test_two_averages_are_an_error():
    with pytest.raises(ConfigError, match="ema: `sgd` keeps an average already, by `use_ema`"):
        OptimizerFactory(config("sgd", {"use_ema": True}, ema={}))


def test_a_groups_optimizer_keeps_no_average():
    group = {"match": "bias$", "optimizer": {"type": "adam", "adam": {"use_ema": True}}}
    with pytest.raises(ConfigError, match="use_ema"):
        OptimizerFactory(config("sgd", {}, param_groups=[group]))
