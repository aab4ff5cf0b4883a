import pytest
import tensorflow as tf

from optimization.training.summaries import SummaryWriter
from tests.training.tiny import read_summaries


def test_scalars_are_written_through(tmp_path):
    writer = SummaryWriter(str(tmp_path))
    writer.write({"loss": 0.5, "nested/name": 2.0}, 3)
    writer.write({"loss": 0.25}, 7)
    # Before it is closed.
    assert read_summaries(tmp_path) == {"loss": {3: 0.5, 7: 0.25}, "nested/name": {3: 2.0}}
    writer.close()


def test_tensorboard_reads_them(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = SummaryWriter(str(tmp_path))
    writer.write({"loss": 0.5}, 3)
    writer.close()
    events = loader.EventAccumulator(str(tmp_path)).Reload()
    assert [
        (event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors("loss")
    ] == [(3, 0.5)]


def test_no_directory_no_file_and_nothing_written_makes_none(tmp_path):
    silent = SummaryWriter(None)
    silent.write({"loss": 1.0}, 1)
    silent.close()
    SummaryWriter(str(tmp_path / "unused")).close()
    assert list(tmp_path.iterdir()) == []
