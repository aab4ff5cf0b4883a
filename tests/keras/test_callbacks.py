"""What other callbacks find, and save, with `EvaluateAverages` beside them."""

import keras
import numpy as np
import pytest

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


def ordered(first, *callbacks):
    return [EvaluateAverages(), *callbacks] if first else [*callbacks, EvaluateAverages()]


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
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


@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("kind", KINDS)
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
