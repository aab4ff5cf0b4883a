import json
import pathlib
import warnings

import keras
import numpy as np
import pytest

import optimization
from optimization.optimizers import PipelineOptimizer
from tests import golden_cases

PARAMS = {
    "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
    "learning_rate": {
        "type": "stepwise",
        "stepwise": {"boundaries": [10000, 20000], "values": [0.1, 0.01, 0.001]},
    },
    "warmup": {"type": "linear", "linear": {"warmup_steps": 500, "warmup_learning_rate": 0.01}},
}
CONSTANT = {"type": "constant", "constant": {"learning_rate": 0.5}}
GARDEN_LR = json.loads((pathlib.Path(__file__).parent / "golden/garden_lr.json").read_text())


def factory(optimizer, learning_rate=CONSTANT, **sections):
    config = optimization.OptimizationConfig(
        {"optimizer": optimizer, "learning_rate": learning_rate, **sections}
    )
    return optimization.OptimizerFactory(config)


def build(optimizer, learning_rate=CONSTANT, **sections):
    built = factory(optimizer, learning_rate, **sections)
    return built.build_optimizer(built.build_learning_rate())


def step(optimizer, value, gradient):
    """Returns the value of one variable after one step."""
    variable = keras.Variable(np.array(value, "float32"), name="kernel")
    optimizer.apply([keras.ops.convert_to_tensor(np.array(gradient, "float32"))], [variable])
    return keras.ops.convert_to_numpy(variable)


def test_the_form_that_users_know_word_for_word():
    params = PARAMS
    opt_config = optimization.OptimizationConfig(params)
    opt_factory = optimization.OptimizerFactory(opt_config)
    lr = opt_factory.build_learning_rate()
    optimizer = opt_factory.build_optimizer(lr)
    assert isinstance(lr, keras.optimizers.schedules.LearningRateSchedule)
    assert isinstance(optimizer, keras.optimizers.Optimizer)
    assert type(optimizer.optimizer) is optimization.OPTIMIZERS_CLS["sgd"]
    assert optimizer.momentum == 0.9
    assert float(optimizer.learning_rate) == pytest.approx(0.01)


def test_a_constant_rate_without_warmup_is_a_float():
    built = factory({"type": "sgd"})
    assert built.build_learning_rate() == 0.5
    assert type(built.build_learning_rate()) is float
    optimizer = built.build_optimizer(1)
    assert float(optimizer.learning_rate) == 1.0


def test_the_factory_keeps_a_locked_copy():
    config = optimization.OptimizationConfig(PARAMS)
    built = optimization.OptimizerFactory(config)
    config.optimizer.sgd.momentum = 0.1
    assert built.config.optimizer.sgd.momentum == 0.9
    with pytest.raises(optimization.ConfigError, match="locked"):
        built.config.optimizer.sgd.momentum = 0.2


def test_a_wrong_config_is_refused():
    with pytest.raises(optimization.ConfigError, match=r"optimizer.type: a type is required"):
        optimization.OptimizerFactory(optimization.OptimizationConfig({"learning_rate": CONSTANT}))
    with pytest.raises(TypeError, match=r"got dict; write `OptimizationConfig\(...\)` around it"):
        optimization.OptimizerFactory(PARAMS)
    with pytest.raises(TypeError, match="got str; `load_optimization_config` reads a file"):
        optimization.OptimizerFactory("a.yaml")


@pytest.mark.parametrize("name", list(optimization.OPTIMIZERS_CLS))
def test_every_type_is_built_and_goes_down_a_parabola(name):
    rate = {"type": "constant", "constant": {"learning_rate": 0.05}}
    optimizer = build({"type": name}, rate)
    assert isinstance(optimizer, PipelineOptimizer)
    assert isinstance(optimizer.optimizer, optimization.OPTIMIZERS_CLS[name])
    variable = keras.Variable(np.array([[1.0, -2.0], [0.5, 1.5]], "float32"), name="kernel")
    first = float(keras.ops.sum(variable**2))
    for _ in range(10):
        optimizer.apply([2.0 * keras.ops.convert_to_tensor(variable)], [variable])
    assert int(optimizer.iterations) == 10
    assert float(keras.ops.sum(variable**2)) < first


@pytest.mark.parametrize(
    ("clip", "expected"),
    [
        ({"clipnorm": 1.0}, [0.6, 0.8]),
        ({"global_clipnorm": 1.0}, [0.6, 0.8]),
        ({"clipvalue": 1.0}, [1.0, 1.0]),
        ({}, [3.0, 4.0]),
    ],
)
def test_clips_reach_the_optimizer(clip, expected):
    rate = {"type": "constant", "constant": {"learning_rate": 1.0}}
    moved = step(build({"type": "sgd", "sgd": clip}, rate), [0.0, 0.0], [3.0, 4.0])
    # float32 rounding of one division and one product
    np.testing.assert_allclose(-moved, expected, rtol=3e-7)


def test_adamw_clips_by_the_global_norm_first():
    # One step of Adam is lr * sign(g) whatever the scale, so the clip shows in the second moment.
    plain, clipped = (
        build({"type": "adamw", "adamw": {"gradient_clip_norm": norm}}) for norm in (0.0, 1.0)
    )
    for optimizer, length in ((plain, 5.0), (clipped, 1.0)):
        step(optimizer, [0.0, 0.0], [3.0, 4.0])
        moments = [v for v in optimizer.variables if "velocity" in v.path]
        total = float(sum(keras.ops.sum(v) for v in moments))
        assert total == pytest.approx(0.001 * length**2, rel=1e-5)  # 1 - beta_2 in float32


def test_inverse_time_decay_of_sgd_is_honored_once():
    built = factory({"type": "sgd", "sgd": {"decay": 0.5}})
    lr = built.build_learning_rate()
    rates = [0.5, 0.5 / 1.5, 0.25]
    np.testing.assert_array_equal(built.learning_rate_curve([0, 1, 2]), rates)
    np.testing.assert_array_equal([float(lr(t)) for t in (0, 1, 2)], np.float32(rates))
    for rate in (lr, 0.5):
        optimizer = built.build_optimizer(rate)
        variable = keras.Variable(np.zeros(1, "float32"), name="kernel")
        for _ in range(2):
            optimizer.apply([keras.ops.ones(1)], [variable])
        # float32 rounding of two updates
        assert float(variable[0]) == pytest.approx(-(0.5 + 0.5 / 1.5), rel=1e-6)


def test_gradient_transformers_and_aggregator_are_applied():
    built = factory({"type": "sgd"})
    calls = []

    def double(pairs):
        calls.append("transformer")
        return [(2 * gradient, variable) for gradient, variable in pairs]

    optimizer = built.build_optimizer(0.5, gradient_transformers=[double])
    np.testing.assert_array_equal(step(optimizer, [1.0], [1.0]), [0.0])
    assert calls == ["transformer"]


def test_transformers_and_clips_exclude_each_other():
    def same(pairs):
        return pairs

    for clip in ("clipnorm", "clipvalue", "global_clipnorm"):
        with pytest.raises(ValueError, match="transformers"):
            factory({"type": "sgd", "sgd": {clip: 1.0}}).build_optimizer(
                0.1, gradient_transformers=[same]
            )


def test_berts_clip_acts_before_the_transformers():
    norms = []

    def measure(pairs):
        norms.append(float(keras.ops.norm(pairs[0][0])))
        return pairs

    built = factory({"type": "adamw"})
    for config in (built.config, optimization.OptimizationConfig(built.config.as_dict())):
        optimizer = optimization.OptimizerFactory(config).build_optimizer(
            0.1, gradient_transformers=[measure]
        )
        step(optimizer, [0.0, 0.0], [3.0, 4.0])
    # 5 clipped to the default of 1, in float32
    assert norms == pytest.approx([1.0, 1.0], rel=1e-6)


def test_postprocessor():
    built = factory({"type": "sgd"})
    wrapped = built.build_optimizer(0.1, postprocessor=keras.optimizers.LossScaleOptimizer)
    assert isinstance(wrapped, keras.optimizers.LossScaleOptimizer)
    with pytest.raises(TypeError, match="must return a Keras optimizer, received: int"):
        built.build_optimizer(0.1, postprocessor=lambda optimizer: 3)


@pytest.mark.parametrize("lr", ["0.1", None, True, [0.1]])
def test_a_learning_rate_must_be_one(lr):
    with pytest.raises(TypeError, match="must be a number or a learning rate schedule"):
        factory({"type": "sgd"}).build_optimizer(lr)


def test_what_stands_in_the_place_of_the_learning_rate_or_the_model_is_told():
    built = factory({"type": "sgd"})
    dense = keras.layers.Dense(1)
    for lr, name in ((keras.Sequential([dense]), "Sequential"), (built.build_learning_rate, "met")):
        with pytest.raises(TypeError, match=rf"`build_learning_rate\(\)` .* received: {name}"):
            built.build_optimizer(lr)
    with pytest.raises(TypeError, match="expected a Keras model, received: list; PyTorch and JAX"):
        built.build_optimizer(0.1, model=[dense])


@pytest.mark.parametrize("lr", [-0.1, float("nan"), float("inf"), 1e39])
def test_a_learning_rate_must_be_finite_and_not_negative(lr):
    with pytest.raises(ValueError, match="must be >= 0"):
        factory({"type": "sgd"}).build_optimizer(lr)


def test_ema_is_built():
    optimizer = build({"type": "sgd"}, ema={"average_decay": 0.5, "dynamic_decay": False})
    variable = keras.Variable(np.ones(1, "float32"), name="kernel")
    optimizer.apply([keras.ops.ones(1)], [variable])
    optimizer.swap()
    assert float(variable[0]) == 0.75  # halfway between 1 and 0.5


def test_a_registered_optimizer_works_everywhere(monkeypatch, tmp_path):
    monkeypatch.setattr(
        optimization.OPTIMIZERS_CLS, "_entries", dict(optimization.OPTIMIZERS_CLS._entries)
    )

    @optimization.register_optimizer("halving")
    class Halving(keras.optimizers.Optimizer):
        def __init__(self, learning_rate=0.1, factor: float = 0.5, name="halving", **kwargs):
            super().__init__(learning_rate=learning_rate, name=name, **kwargs)
            self.factor = factor

        def update_step(self, gradient, variable, learning_rate):
            self.assign(variable, variable * self.factor)

    assert optimization.OPTIMIZERS_CLS["halving"] is Halving
    path = tmp_path / "halving.yaml"
    path.write_text(
        "optimizer: {type: halving, halving: {factor: 0.25, clipnorm: 1}}\n"
        "learning_rate: {type: constant}\n"
    )
    config = optimization.load_optimization_config(path)
    config.override(optimization.parse_override("optimizer.halving.factor=0.125"))
    built = optimization.OptimizerFactory(config)
    moved = step(built.build_optimizer(built.build_learning_rate()), [8.0], [1.0])
    np.testing.assert_array_equal(moved, [1.0])
    with pytest.raises(optimization.ConfigError, match="factr: unknown key; did you mean"):
        config.optimizer.override({"halving": {"factr": 1}})
    with pytest.raises(ValueError, match="registered already"):
        optimization.register_optimizer("halving")


def test_a_model_with_a_registered_optimizer_is_saved_and_loaded(monkeypatch, tmp_path):
    monkeypatch.setattr(
        optimization.OPTIMIZERS_CLS, "_entries", dict(optimization.OPTIMIZERS_CLS._entries)
    )

    @optimization.register_optimizer("sign")
    class Sign(keras.optimizers.Optimizer):
        def __init__(self, learning_rate=0.1, scale: float = 1.0, name="sign", **kwargs):
            super().__init__(learning_rate=learning_rate, name=name, **kwargs)
            self.scale = scale

        def update_step(self, gradient, variable, learning_rate):
            self.assign_sub(variable, learning_rate * self.scale * keras.ops.sign(gradient))

        def get_config(self):
            return {**super().get_config(), "scale": self.scale}

    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(optimizer=build({"type": "sign", "sign": {"scale": 3.0}}), loss="mse")
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.optimizer.scale == 3.0
    assert int(loaded.optimizer.iterations) == 1


@pytest.mark.parametrize("case", GARDEN_LR["cases"], ids=lambda case: case["source"][-60:])
def test_model_gardens_learning_rates(case):
    config = optimization.OptimizationConfig(case["base"])
    config.override(case["optimizer_config"])
    exported = config.as_dict()
    for section, values in case["resolved"].items():
        assert_holds(exported[section], values, section)
    built = optimization.OptimizerFactory(config)
    # float32 rounding on either side, and cancellation where a cosine ends
    tolerance = {"rtol": 1e-6, "atol": 1e-9}
    np.testing.assert_allclose(built.learning_rate_curve(case["steps"]), case["lr"], **tolerance)
    lr = built.build_learning_rate()
    values = [float(lr(s)) if callable(lr) else lr for s in case["steps"]]
    np.testing.assert_allclose(values, case["lr"], **tolerance)


def assert_holds(exported, values, path):
    """Asserts that `exported` has all of `values`, and perhaps more keys."""
    if isinstance(values, dict):
        for key, value in values.items():
            assert_holds(exported[key], value, f"{path}.{key}")
    else:
        assert exported == values, path


@pytest.mark.parametrize("case", golden_cases.load_cases(), ids=golden_cases.case_id)
def test_model_gardens_updates(case):
    def build_case(case):
        return build(**case["config"])

    golden_cases.run_case(case, build_case)


def test_the_learning_rate_scales_with_the_batch():
    config = optimization.OptimizationConfig(PARAMS)
    config.lr_scaling = {"base_batch_size": 256}
    with pytest.raises(
        optimization.ConfigError, match=r"lr_scaling.global_batch_size: is not known"
    ):
        optimization.OptimizerFactory(config)
    built = optimization.OptimizerFactory(config, global_batch_size=1024)
    plain = optimization.OptimizerFactory(optimization.OptimizationConfig(PARAMS))
    steps = [0, 250, 500, 15000, 30000]
    np.testing.assert_array_equal(
        built.learning_rate_curve(steps), 4 * plain.learning_rate_curve(steps)
    )
    lr, lr_plain = built.build_learning_rate(), plain.build_learning_rate()
    assert [float(lr(s)) for s in steps] == [4 * float(lr_plain(s)) for s in steps]
    config.override({"learning_rate": CONSTANT, "warmup": {"type": None}})
    config.lr_scaling.override({"global_batch_size": 64, "rule": "sqrt"})
    assert optimization.OptimizerFactory(config).build_learning_rate() == 0.25


def test_what_lr_scaling_leaves_as_it_is_stays():
    cosine = {"initial_learning_rate": 0.1, "min_learning_rate": 0.02, "decay_steps": 90}
    warmup = {"warmup_steps": 10, "mode": "delay", "warmup_learning_rate": 0.01}
    built = factory(
        {"type": "sgd"},
        learning_rate={"type": "cosine", "cosine": cosine},
        warmup={"type": "linear", "linear": warmup},
        lr_scaling={"global_batch_size": 1024, "scales": ["peak"]},
    )
    lr = built.build_learning_rate()
    schedules = keras.optimizers.schedules
    for schedule in (lr, schedules.deserialize(schedules.serialize(lr))):
        found = [float(schedule(step)) for step in (0, 10, 100)]
        np.testing.assert_allclose(found, [0.01, 0.4, 0.02], rtol=2e-7)


def test_a_scaled_schedule_survives_serialization():
    built = factory(
        {"type": "sgd", "sgd": {"decay": 0.1}},
        lr_scaling={"base_batch_size": 1, "global_batch_size": 3},
    )
    lr = built.build_learning_rate()
    schedules = keras.optimizers.schedules
    twin = schedules.deserialize(schedules.serialize(lr))
    assert [float(twin(s)) for s in (0, 7)] == [float(lr(s)) for s in (0, 7)]
    assert float(lr(0)) == 1.5


def one_update(config, values, model=None):
    """Returns the values of variables, by path, after one update with gradients of 1."""
    built = optimization.OptimizerFactory(optimization.OptimizationConfig(config))
    optimizer = built.build_optimizer(built.build_learning_rate(), model=model)
    variables = golden_cases.make_variables(
        {path: np.array(value, "float32") for path, value in values.items()}
    )
    optimizer.apply([keras.ops.ones(v.shape) for v in variables], variables)
    return {v.path: v.numpy() for v in variables}, optimizer


def test_parameter_groups_reach_the_optimizer():
    config = {
        "optimizer": {"type": "sgd_experimental", "sgd_experimental": {"weight_decay": 0.5}},
        "learning_rate": CONSTANT,
        "param_groups": [
            {"match": "backbone/", "learning_rate_multiplier": 0.1},
            {"match": "bias$", "weight_decay": 0.0},
            {"ndim": [0], "freeze": True},
            {
                "match": "embeddings",
                "optimizer": {"type": "adagrad", "adagrad": {"initial_accumulator_value": 3.0}},
                "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.25}},
            },
        ],
        "lr_scaling": {"base_batch_size": 1, "global_batch_size": 2},
    }
    values = {
        "backbone/kernel": [1.0],
        "head/kernel": [1.0],
        "head/bias": [1.0],
        "scale": 1.0,
        "embeddings": [1.0],
    }
    weights, optimizer = one_update(config, values)
    lr = 2 * 0.5
    expected = {
        "backbone/kernel": 1 - 0.1 * lr * 0.5 * 1 - 0.1 * lr,
        "head/kernel": 1 - lr * 0.5 - lr,
        "head/bias": 1 - lr,
        "scale": 1.0,
        "embeddings": 1 - 2 * 0.25 / (3 + 1) ** 0.5,
    }
    for path, value in expected.items():
        # float32 rounding of a few operations
        np.testing.assert_allclose(weights[path], value, rtol=1e-6, atol=1e-7, err_msg=path)
    assert [row.group for row in optimizer.group_table()] == [
        "backbone/",
        "default",
        "bias$",
        "ndim 0",
        "embeddings",
    ]


def test_a_group_that_matches_nothing_is_an_error_that_names_the_nearest():
    config = {
        "optimizer": {"type": "sgd"},
        "learning_rate": CONSTANT,
        "param_groups": [{"match": "bais", "freeze": True}],
    }
    with pytest.raises(ValueError, match=r"'bais'.* matches no trainable variable .*head/bias"):
        one_update(config, {"head/kernel": [1.0], "head/bias": [1.0]})


GARDENS_LIST = ["LayerNorm", "layer_norm", "bias"]
NAMES = ["dense/kernel", "dense/bias", "layer_norm/gamma"]


@pytest.mark.parametrize(
    ("kind", "section", "decayed"),
    [
        ("adamw", {"exclude_from_weight_decay": GARDENS_LIST}, ["dense/kernel"]),
        ("lamb", {"exclude_from_weight_decay": GARDENS_LIST}, ["dense/kernel"]),
        ("adamw", {"include_in_weight_decay": [".*(kernel|weight):0$"]}, ["dense/kernel"]),
        ("lars", {"exclude_from_weight_decay": ["bias:0", "gamma:0$"]}, ["dense/kernel"]),
        ("sgd_torch", {"weight_keys": ["kernel:0", "gamma:0"]}, ["dense/kernel", NAMES[2]]),
    ],
)
def test_lists_of_model_garden(kind, section, decayed):
    rate = "weight_decay" if kind == "sgd_torch" else "weight_decay_rate"
    config = {
        "optimizer": {"type": kind, kind: {rate: 0.1, **section}},
        "learning_rate": CONSTANT,
        # Two optimizers inside, and one warning even so.
        "param_groups": [{"match": "^dense.*:0$", "learning_rate_multiplier": 0.5}],
    }
    factory = optimization.OptimizerFactory(optimization.OptimizationConfig(config))
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    variables = [golden_cases.make_variable(name, [1.0]) for name in NAMES]
    warns = "LayerNorm" in str(section)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", optimization.ConfigWarning)
        optimizer.build(variables)
    assert len([each for each in caught if "'LayerNorm'" in str(each.message)]) == warns
    rows = optimizer.group_table()
    assert [row.path for row in rows if row.decayed] == decayed
    assert [row.multiplier for row in rows] == [0.5, 0.5, 1.0]


def test_keys_of_sgd_torch_that_were_written_must_match():
    section = {"weight_decay": 0.1, "weight_keys": ["kernal"]}
    config = {"optimizer": {"type": "sgd_torch", "sgd_torch": section}, "learning_rate": CONSTANT}
    with pytest.raises(ValueError, match=r"`weight_keys` .*'kernal' \(nearest: 'head/kernel'"):
        one_update(config, {"head/kernel": [1.0]})
    del section["weight_keys"]
    one_update(config, {"head/embeddings": [1.0]})


def test_layer_decay_reaches_the_optimizer():
    config = {
        "optimizer": {"type": "sgd"},
        "learning_rate": {"type": "constant", "constant": {"learning_rate": 1.0}},
        "layer_decay": {"rate": 0.5, "depth": r"layer_(\d+)/"},
    }
    paths = ["embeddings", "layer_0/kernel", "layer_1/kernel", "head/kernel"]
    weights, _ = one_update(config, {path: [0.0] for path in paths})
    assert [-float(weights[path][0]) for path in paths] == [0.125, 0.25, 0.5, 1.0]


def test_a_hyperparameter_follows_a_schedule():
    values = {"initial_learning_rate": 0.9, "decay_steps": 2, "end_learning_rate": 0.1}
    built = factory(
        {"type": "sgd", "sgd": {"momentum": 0.9}},
        {"type": "constant", "constant": {"learning_rate": 1.0}},
        schedules={"momentum": {"type": "linear", "linear": values}},
    )
    optimizer = built.build_optimizer(built.build_learning_rate())
    variable = keras.Variable(np.zeros(1, "float32"), name="kernel")
    weight = velocity = 0.0
    for momentum in (0.9, 0.5, 0.1, 0.1):
        optimizer.apply([keras.ops.ones(1)], [variable])
        velocity = momentum * velocity - 1.0
        weight += velocity
        # float32 rounding of a few updates
        assert float(variable[0]) == pytest.approx(weight, rel=1e-6)
    assert optimizer.momentum == 0.9


def test_accumulated_gradients_make_one_update():
    built = factory({"type": "sgd", "sgd": {"clipnorm": 1.0, "gradient_accumulation_steps": 2}})
    optimizer = built.build_optimizer(1.0)
    variable = keras.Variable(np.zeros(2, "float32"), name="kernel")
    for gradient in ([6.0, 0.0], [0.0, 8.0]):
        optimizer.apply([keras.ops.convert_to_tensor(np.array(gradient, "float32"))], [variable])
    # the mean, (3, 4), clipped to length 1, in float32
    np.testing.assert_allclose(variable.numpy(), [-0.6, -0.8], rtol=3e-7)
    assert int(optimizer.iterations) == 1


def test_a_registered_optimizer_may_have_a_decay_of_its_own(monkeypatch):
    monkeypatch.setattr(
        optimization.OPTIMIZERS_CLS, "_entries", dict(optimization.OPTIMIZERS_CLS._entries)
    )

    @optimization.register_optimizer("decaying")
    class Decaying(keras.optimizers.SGD):
        def __init__(self, learning_rate=0.1, decay: float = 0.0, name="decaying"):
            super().__init__(learning_rate=learning_rate, name=name)
            self.own_decay = decay

    built = factory({"type": "decaying", "decaying": {"decay": 0.5}})
    assert built.build_learning_rate() == 0.5
    np.testing.assert_array_equal(built.learning_rate_curve([0, 2]), [0.5, 0.5])
    assert built.build_optimizer(0.5).own_decay == 0.5


@pytest.mark.parametrize("name", ["train_steps", "steps_per_epoch", "global_batch_size"])
@pytest.mark.parametrize("value", ["10", -2, 0, 1.5, True])
def test_a_length_is_a_whole_number(name, value):
    with pytest.raises(ValueError, match=f"`{name}` must be an integer > 0, received: {name}="):
        optimization.OptimizerFactory(optimization.OptimizationConfig(), **{name: value})


def test_a_length_may_be_a_quotient():
    rate = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}}
    params = {"optimizer": {"type": "sgd"}, "learning_rate": rate}
    config = optimization.OptimizationConfig(params)
    built = optimization.OptimizerFactory(config, train_steps=3 * 320 / 32)
    assert repr(built.config.learning_rate.cosine.decay_steps) == "30"
