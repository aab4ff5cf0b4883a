"""From Keras: by what Keras itself serializes and saves."""

import json
import zipfile

import numpy as np
import pytest

from optimization import OptimizationConfig, OptimizerFactory
from optimization.bridges import bridges, files
from optimization.bridges.keras import OPTIMIZERS
from optimization.configs.errors import ConfigError
from tests.bridges import common
from tests.bridges.common import convert, kinds, notes

keras = pytest.importorskip("keras")
schedules = keras.optimizers.schedules

SCHEDULES = {
    "exponential": (schedules.ExponentialDecay(0.1, 30, 0.5, staircase=True), 30),
    "stepwise": (schedules.PiecewiseConstantDecay([30, 60], [0.1, 0.01, 0.001]), 30),
    "polynomial": (schedules.PolynomialDecay(0.1, 80, 0.01, power=2.0), 80),
    "inverse_time": (schedules.InverseTimeDecay(0.1, 30, 0.5), 30),
    "cosine": (schedules.CosineDecay(0.1, 80, alpha=0.1), 80),
    "warmed": (schedules.CosineDecay(0.01, 80, warmup_target=0.1, warmup_steps=10), 10),
    "restarts": (schedules.CosineDecayRestarts(0.1, 30, t_mul=1.0, m_mul=0.5, alpha=0.01), 30),
}


def serialized(optimizer):
    return json.dumps(keras.optimizers.serialize(optimizer), indent=1)


@pytest.mark.parametrize("name", SCHEDULES)
def test_the_curve_is_that_of_keras_schedule(name, tmp_path):
    schedule, boundary = SCHEDULES[name]
    draft = convert(tmp_path, "keras", serialized(keras.optimizers.SGD(schedule)), ending="json")
    steps = common.around(boundary, end=90)
    theirs = [float(schedule(step)) for step in steps]
    np.testing.assert_allclose(common.curve(draft, steps), theirs, rtol=1e-5, atol=1e-8)
    assert kinds(draft) == []


CLASSES = {
    "Adam": {"amsgrad": True, "global_clipnorm": 1.0},
    "AdamW": {"weight_decay": 0.05, "clipnorm": 0.5},
    "SGD": {"momentum": 0.9, "nesterov": True, "clipvalue": 0.2},
    "RMSprop": {"momentum": 0.5, "centered": True},
    "Adagrad": {"weight_decay": 0.01},
    "Adadelta": {"rho": 0.9},
    "Adamax": {},
    "Nadam": {},
    "Ftrl": {"l1_regularization_strength": 0.01},
    "Lion": {"weight_decay": 0.1},
    "Lamb": {},
    "Adafactor": {"beta_2_decay": -0.7},
}


def model_weights(optimizer, weights, gradients):
    variables = [
        keras.Variable(v.astype("float32"), name=n.replace(".", "_")) for n, v in weights.items()
    ]
    optimizer.build(variables)
    for step in gradients:
        grads = [keras.ops.convert_to_tensor(g.astype("float32")) for g in step.values()]
        optimizer.apply(grads, variables)
    return [keras.ops.convert_to_numpy(v) for v in variables]


@pytest.mark.parametrize("name", CLASSES)
def test_twenty_updates_are_those_of_keras_class(name, tmp_path):
    theirs = getattr(keras.optimizers, name)(0.01, **CLASSES[name])
    draft = convert(tmp_path, "keras", serialized(theirs), ending="json")
    factory = OptimizerFactory(OptimizationConfig(draft.values))
    ours = factory.build_optimizer(factory.build_learning_rate())
    weights, gradients = common.problem()
    expected = model_weights(theirs, weights, gradients)
    for one, other in zip(model_weights(ours, weights, gradients), expected, strict=True):
        np.testing.assert_allclose(one, other, rtol=2e-5, atol=2e-6)
    assert kinds(draft) == []


def test_rates_are_as_they_were_written(tmp_path):
    draft = convert(tmp_path, "keras", serialized(keras.optimizers.Adam(3e-4)), ending="json")
    assert draft.values["learning_rate"]["constant"]["learning_rate"] == 3e-4


def test_a_saved_model_is_read_without_keras(tmp_path):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    optimizer = keras.optimizers.AdamW(0.01, weight_decay=0.1, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, loss="mse")
    path = str(tmp_path / "model.keras")
    model.save(path)
    draft = bridges.convert("keras", files.read(path), path)
    section = common.config_of(draft).optimizer.adamw
    assert (section.weight_decay_rate, section.use_ema, section.ema_momentum) == (0.1, True, 0.9)
    assert section.gradient_clip_norm == 0.0
    assert kinds(draft) == []
    assert notes(draft) == ["optimizer.config.weight_decay"]
    assert "loss" in draft.no_matter["compile"]


def test_a_scaled_loss_and_classes_of_ones_own_are_listed(tmp_path):
    scaled = keras.optimizers.LossScaleOptimizer(keras.optimizers.Adam(0.01))
    draft = convert(tmp_path, "keras", serialized(scaled), ending="json")
    assert draft.values["optimizer"]["type"] == "adam"
    assert kinds(draft) == ["config.initial_scale", "config.dynamic_growth_steps"]
    text = serialized(keras.optimizers.Adam(0.01)).replace('"Adam"', '"Adan"')
    draft = convert(tmp_path, "keras", text, ending="json")
    assert kinds(draft) == ["class_name"]
    assert "optimizer" not in draft.values


def test_every_class_of_keras_is_known():
    known = {
        name
        for name, value in vars(keras.optimizers).items()
        if isinstance(value, type) and issubclass(value, keras.optimizers.Optimizer)
    }
    wrappers = {"Optimizer", "LossScaleOptimizer", "MultiOptimizer"}
    assert known - wrappers <= set(OPTIMIZERS)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "is no model that Keras 3 has saved"),
        ("{}", "saved without `compile`"),
        ('{"compile_config": {"optimizer": {}, "optimizer": {}}}', "duplicate key 'optimizer'"),
        ("{", "its config.json is not JSON"),
    ],
)
def test_wrong_files_are_told(content, message, tmp_path):
    path = tmp_path / "model.keras"
    if content is None:
        path.write_text("x")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("config.json", content)
    with pytest.raises(ConfigError, match=message):
        files.read(str(path))
