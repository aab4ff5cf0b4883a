"""What other callbacks find, and save, with `EvaluateAverages` beside them."""

import keras
import numpy as np
import pytest

from optimization import LearningRateLogger, OptimizationConfig, OptimizerFactory
from optimization.optimizers import EvaluateAverages, PipelineOptimizer, ScheduleFreeSGD
from tests.keras.common import UNCOMPILED, data

pytestmark = pytest.mark.slow

KINDS = {
    "ema": ("float32", lambda: PipelineOptimizer(keras.optimizers.SGD(0.05), ema={})),
    "low precision": ("bfloat16", lambda: PipelineOptimizer(keras.optimizers.SGD(0.05), ema={})),
    "use_ema": (
        "float32",
        lambda: PipelineOptimizer(keras.optimizers.SGD(0.05), ema={"overwrite_at_end": True}),
    ),
    "schedule-free": ("float32", lambda: PipelineOptimizer(ScheduleFreeSGD(0.05))),
}


def model(kind):
    dtype, optimizer = KINDS[kind]
    keras.utils.set_random_seed(0)
    one = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1, dtype=dtype)])
    one.compile(optimizer(), loss="mse", **UNCOMPILED)
    return one


def fit(one, epochs, callbacks, **kwargs):
    x, y = data()
    arguments = {"batch_size": 16, "shuffle": False, "verbose": 0, "validation_data": (x, y)}
    return one.fit(x, y, epochs=epochs, callbacks=callbacks, **{**arguments, **kwargs})


def score(one):
    x, y = data()
    return one.evaluate(x, y, batch_size=16, verbose=0)


def state(one):
    return [variable.numpy() for variable in [*one.weights, *one.optimizer.variables]]


def assert_same_state(one, other):
    for actual, expected in zip(state(one), state(other), strict=True):
        np.testing.assert_array_equal(actual, expected)


by_turns = pytest.mark.parametrize(
    ("kind", "first"), [(kind, number % 2 == 0) for number, kind in enumerate(KINDS)]
)


def ordered(first, *callbacks):
    return [EvaluateAverages(), *callbacks] if first else [*callbacks, EvaluateAverages()]


@by_turns
def test_what_was_scored_is_saved_and_restored(tmp_path, kind, first):
    scored = []
    saved, weights = tmp_path / "best.keras", tmp_path / "best.weights.h5"
    best = {"monitor": "val_loss", "save_best_only": True}
    one = model(kind)
    callbacks = ordered(
        first,
        keras.callbacks.ModelCheckpoint(saved, **best),
        keras.callbacks.ModelCheckpoint(weights, save_weights_only=True, **best),
        keras.callbacks.LambdaCallback(on_epoch_end=lambda *_: scored.append(score(one))),
        keras.callbacks.EarlyStopping(patience=9, restore_best_weights=True),
    )
    history = fit(one, 4, callbacks)
    assert scored == history.history["val_loss"]
    expected = min(scored)
    assert score(one) == expected
    assert score(keras.models.load_model(saved)) == expected
    again = model(kind)
    again.load_weights(weights)
    assert score(again) == expected


@by_turns
def test_training_is_not_disturbed(tmp_path, kind, first):
    """And goes on exactly from what was saved after a validation."""
    whole, plain, resumed = model(kind), model(kind), model(kind)
    fit(whole, 4, ordered(first))
    fit(plain, 4, None, validation_data=None)
    assert_same_state(whole, plain)
    backup = {"backup_dir": str(tmp_path / "backup"), "delete_checkpoint": False}
    saving = keras.callbacks.ModelCheckpoint(tmp_path / "model.keras")
    stopped = model(kind)
    fit(stopped, 2, ordered(first, saving, keras.callbacks.BackupAndRestore(**backup)))
    fit(resumed, 4, ordered(first, keras.callbacks.BackupAndRestore(**backup)))
    assert_same_state(resumed, whole)
    loaded = keras.models.load_model(tmp_path / "model.keras")
    fit(loaded, 2, ordered(first))
    assert_same_state(loaded, whole)


class Look(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_end(self, batch, logs=None):
        self.found.append(self.model.optimizer.is_swapped())

    def on_epoch_end(self, epoch, logs=None):
        self.found.append(self.model.optimizer.is_swapped())


def test_within_an_epoch_and_without_validation_callbacks_find_what_trains():
    one, look = model("ema"), Look()
    fit(one, 2, ordered(True, look), validation_freq=2)
    assert look.found == [False] * 9 + [True]
    assert not one.optimizer.is_swapped()


def test_an_evaluation_by_itself_gives_the_weights_back():
    one = model("ema")
    callback = EvaluateAverages()
    fit(one, 1, [callback])
    before = state(one)
    x, y = data()
    averaged = one.evaluate(x, y, batch_size=16, verbose=0, callbacks=[callback])
    for actual, expected in zip(state(one), before, strict=True):
        np.testing.assert_array_equal(actual, expected)
    with one.optimizer.averaged():
        assert score(one) == averaged
    assert score(one) != averaged


SCHEDULED = OptimizationConfig(
    {
        "optimizer": {"type": "adamw", "adamw": {"weight_decay_rate": 0.1}},
        "learning_rate": {
            "type": "polynomial",
            "polynomial": {
                "initial_learning_rate": 1.0,
                "decay_steps": 8,
                "end_learning_rate": 0.0,
            },
        },
        "param_groups": [{"match": "bias", "name": "biases", "learning_rate_multiplier": 0.5}],
        "schedules": {
            "weight_decay": {
                "type": "polynomial",
                "polynomial": {
                    "initial_learning_rate": 0.1,
                    "decay_steps": 10,
                    "end_learning_rate": 0.0,
                },
            }
        },
    }
)


class Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.rates = []

    def on_train_batch_end(self, batch, logs=None):
        self.rates.append((logs or {}).get("learning_rate"))


@pytest.mark.parametrize("per_batch", [False, True])
def test_the_rates_are_in_the_logs(per_batch):
    one = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    factory = OptimizerFactory(SCHEDULED)
    optimizer = factory.build_optimizer(factory.build_learning_rate(), model=one)
    one.compile(optimizer, loss="mse", **UNCOMPILED)
    seen = Seen()
    x, y = np.ones((8, 4), "float32"), np.ones((8, 1), "float32")
    logger = LearningRateLogger(per_batch=per_batch)
    history = one.fit(x, y, batch_size=4, epochs=2, verbose=0, callbacks=[logger, seen]).history
    # After 2 and 4 updates, of rates that fall to 0 in 8, or 10.
    np.testing.assert_allclose(history["learning_rate"], [0.75, 0.5], rtol=1e-6)
    np.testing.assert_allclose(history["learning_rate/default"], [0.75, 0.5], rtol=1e-6)
    np.testing.assert_allclose(history["learning_rate/biases"], [0.375, 0.25], rtol=1e-6)
    np.testing.assert_allclose(history["weight_decay_rate"], [0.08, 0.06], rtol=1e-6)
    if per_batch:
        np.testing.assert_allclose(seen.rates, [0.875, 0.75, 0.625, 0.5], rtol=1e-6)
    else:
        assert seen.rates == [None] * 4


def test_the_rate_of_an_optimizer_of_keras_is_logged_too():
    one = keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])
    one.compile(keras.optimizers.SGD(0.25), loss="mse", **UNCOMPILED)
    x, y = data()
    history = one.fit(x, y, verbose=0, callbacks=[LearningRateLogger()]).history
    assert history["learning_rate"] == [0.25]
