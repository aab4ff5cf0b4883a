import pytest
import tensorflow as tf

from optimization.training.summaries import SummaryWriter
from tests.training.tiny import read_summaries


def test_scalars_are_written_through(tmp_path):
    writer = SummaryWriter(str(tmp_path))
    writer.write({"loss": 0.5, "nested/name": 2.0}, 3)
    writer.write({"loss": 0.25}, 7)
    assert read_summaries(tmp_path) == {"loss": {3: 0.5, 7: 0.25}, "nested/name": {3: 2.0}}


def test_tensorboard_reads_them(tmp_path):
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    writer = SummaryWriter(str(tmp_path))
    writer.write({"loss": 0.5}, 3)
    events = loader.EventAccumulator(str(tmp_path)).Reload()
    assert [
        (event.step, float(tf.make_ndarray(event.tensor_proto))) for event in events.Tensors("loss")
    ] == [(3, 0.5)]


def test_not_writable_no_file_and_nothing_written_makes_none(tmp_path):
    SummaryWriter(str(tmp_path), writable=False).write({"loss": 1.0}, 1)
    SummaryWriter(str(tmp_path / "unused"))
    assert list(tmp_path.iterdir()) == []
