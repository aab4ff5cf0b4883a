import keras
import numpy as np
import pytest
import tensorflow as tf

from optimization.training import CheckpointError, TrainingError, run_experiment
from optimization.training.exporting import write_model
from tests.training.tiny import FEATURES, quiet, tiny, trainer

pytestmark = pytest.mark.slow
AVERAGE = "trainer.optimizer_config.ema.average_decay=0.9"
BEST = "trainer.best_checkpoint_export_subdir=best,trainer.best_checkpoint_eval_metric=loss"
INPUTS = np.random.RandomState(3).randn(5, FEATURES).astype("float32")


def predictions(directory):
    """Returns what both exported models predict."""
    loaded = keras.models.load_model(directory / "export/model.keras")
    served = tf.saved_model.load(str(directory / "export/saved_model"))
    return loaded.predict(INPUTS, verbose=0), np.asarray(served.serve(INPUTS))


def export(directory, *overrides, **kwargs):
    return run_experiment(tiny(*overrides), "export", directory, console=quiet(), **kwargs)


@pytest.mark.parametrize("average", [(), (AVERAGE,)])
def test_the_exported_model_predicts_as_the_latest_checkpoint(tmp_path, average):
    trained = trainer(tmp_path, "task.hidden=4", *average)
    trained.train()
    plain = trained.model(INPUTS, training=False).numpy()
    with trained.evaluation_weights(alone=False):
        expected = trained.model(INPUTS, training=False).numpy()
    assert np.allclose(plain, expected) != bool(average)
    export(tmp_path, "task.hidden=4", *average)
    for found in predictions(tmp_path):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_best_weights_are_exported_as_they_are(tmp_path):
    # The highest loss is that of the first evaluation.
    overrides = (AVERAGE, BEST, "trainer.validation_interval=3")
    first = trainer(tmp_path / "first", *overrides, "trainer.train_steps=3")
    first.train()
    with first.evaluation_weights(alone=False):
        expected = first.model(INPUTS, training=False).numpy()
    trainer(tmp_path / "run", *overrides).train(evaluate=True)
    export(tmp_path / "run", *overrides, checkpoint="best")
    for found in predictions(tmp_path / "run"):
        np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_nothing_to_export_is_told(tmp_path):
    with pytest.raises(CheckpointError, match="there is no checkpoint in .* to export"):
        export(tmp_path)


def test_a_model_that_has_no_graph_is_saved_for_keras_alone(tmp_path):
    @keras.saving.register_keras_serializable("tests")
    class OfNumPy(keras.Model):
        def call(self, inputs):
            return float(np.asarray(inputs).sum()) * inputs

    model = OfNumPy()
    model(INPUTS)
    written = write_model(model, str(tmp_path))
    assert written["saved_model"].startswith("none: ")
    assert [path.name for path in tmp_path.iterdir()] == ["model.keras"]


def test_a_place_that_cannot_be_written_to_is_told(tmp_path):
    (tmp_path / "file").write_text("")
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(TrainingError, match="file/x' cannot be written to"):
        write_model(model, str(tmp_path / "file/x"))
