import pytest
import tensorflow as tf

from optimization.training import Trainer
from optimization.training.summaries import SummaryWriter
from tests.training.tiny import read_summaries, tiny, trainer


def events(directory):
    """Returns the steps and names in the event files of a directory, sorted."""
    return sorted(
        (event.step, value.tag)
        for path in directory.glob("events.*")
        for record in tf.data.TFRecordDataset(str(path))
        for event in [tf.compat.v1.Event.FromString(record.numpy())]
        for value in event.summary.value
    )


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
    writer = SummaryWriter(str(tmp_path), writable=False)
    writer.start(0)
    writer.write({"loss": 1.0}, 1)
    SummaryWriter(str(tmp_path / "unused")).start(5)
    assert list(tmp_path.iterdir()) == []


def test_what_a_dead_process_wrote_of_later_steps_is_removed(tmp_path):
    """From each file, of which a copy that another process has not finished is removed too."""
    for steps in [(0, 2), (4, 6), (6, 8)]:
        dead = SummaryWriter(str(tmp_path))
        for step in steps:
            dead.write({"loss": float(step)}, step)
    (tmp_path / "unfinished.tmp").write_bytes(b"half")
    writer = SummaryWriter(str(tmp_path))
    writer.start(5)
    assert read_summaries(tmp_path) == {"loss": {0: 0.0, 2: 2.0, 4: 4.0}}
    assert not (tmp_path / "unfinished.tmp").exists()
    writer.write({"loss": 60.0}, 6)
    assert read_summaries(tmp_path)["loss"] == {0: 0.0, 2: 2.0, 4: 4.0, 6: 60.0}
    assert len(events(tmp_path)) == 4


def test_a_file_of_which_nothing_goes_stays_as_it_is(tmp_path):
    SummaryWriter(str(tmp_path)).write({"loss": 1.0}, 1)
    (file,) = tmp_path.iterdir()
    other = tmp_path / "notes.txt"
    other.write_text("mine")
    before = file.stat()
    SummaryWriter(str(tmp_path)).start(2)
    assert file.stat() == before
    assert other.read_text() == "mine"


@pytest.mark.parametrize("cut", [1, 5, 20, -5])
def test_a_record_that_is_torn_off_is_removed(tmp_path, cut):
    """From its last byte to its first ones."""
    writer = SummaryWriter(str(tmp_path))
    writer.write({"loss": 1.0}, 1)
    (file,) = tmp_path.iterdir()
    size = file.stat().st_size
    writer.write({"loss": 2.0}, 2)
    file.write_bytes(file.read_bytes()[: size - cut if cut < 0 else -cut])
    SummaryWriter(str(tmp_path)).start(9)
    assert read_summaries(tmp_path) == {"loss": {1: 1.0}}


@pytest.mark.parametrize("damage", [b"", b"\xff" * 8, b"\xff" * 40, b"\0" * 40])
def test_a_damaged_file_keeps_what_can_be_read(tmp_path, damage):
    dead = SummaryWriter(str(tmp_path))
    dead.write({"loss": 1.0}, 1)
    (file,) = tmp_path.iterdir()
    head = file.read_bytes()
    dead.write({"loss": 2.0}, 2)
    file.write_bytes(head + damage)
    writer = SummaryWriter(str(tmp_path))
    writer.start(2)
    writer.write({"loss": 3.0}, 2)
    names = sorted(tmp_path.glob("events.*"))
    assert len(names) == 2
    records = iter(tf.data.TFRecordDataset(str(file)))
    next(records)
    kept = tf.compat.v1.Event.FromString(next(records).numpy())
    assert (kept.step, kept.summary.value[0].tag) == (1, "loss")


def test_what_others_write_there_of_other_kinds_stays(tmp_path):
    """A picture of a step that comes again is one of them; a graph has no step."""
    with tf.io.TFRecordWriter(str(tmp_path / "events.out.tfevents.1.mine")) as file:
        for event in (
            tf.compat.v1.Event(file_version="brain.Event:2"),
            tf.compat.v1.Event(graph_def=b"graph"),
            tf.compat.v1.Event(step=3, log_message={"message": "mine"}),
        ):
            file.write(event.SerializeToString())
    before = (tmp_path / "events.out.tfevents.1.mine").read_bytes()
    SummaryWriter(str(tmp_path)).start(0)
    assert (tmp_path / "events.out.tfevents.1.mine").read_bytes() == before


def test_a_step_that_is_there_is_written_in_its_place(tmp_path):
    """By the same writer, by one of another process, and where both go on."""
    first, second = (SummaryWriter(str(tmp_path)) for _ in range(2))
    first.write({"loss": 1.0, "gone": 1.0}, 5)
    second.write({"loss": 2.0}, 5)
    first.write({"loss": 3.0}, 10)
    second.write({"loss": 4.0}, 15)
    second.write({"loss": 5.0}, 10)
    first.write({"loss": 6.0}, 20)
    assert read_summaries(tmp_path) == {"loss": {5: 2.0, 10: 5.0, 15: 4.0, 20: 6.0}}
    assert len(events(tmp_path)) == 4


CLIPPED = "trainer.optimizer_config.optimizer.sgd.global_clipnorm=0.5"
RUNS = {
    "a plain one": ["task.hidden=4,task.dropout=0.2"],
    "all that is shown": [
        CLIPPED,
        "trainer.norm_summaries=layers",
        "trainer.optimizer_config.ema={average_decay: 0.9}",
        "trainer.optimizer_config.optimizer.sgd.on_nonfinite=skip",
    ],
    "accumulation and a loss scale": [
        "runtime.mixed_precision_dtype=float16",
        "trainer.optimizer_config.optimizer.sgd.gradient_accumulation_steps=2",
    ],
    "one that stops early": [
        "trainer.early_stopping={metric: mae, mode: min, patience: 2, min_delta: 9}"
    ],
}


@pytest.mark.parametrize(
    "name",
    [name if "plain" in name else pytest.param(name, marks=pytest.mark.slow) for name in RUNS],
)
def test_a_run_that_died_has_the_summaries_of_one_that_did_not(tmp_path, name):
    """It dies before its first checkpoint, and between checkpoint and summary."""
    overrides = (
        "trainer.summary_interval=5,trainer.checkpoint_interval=4,trainer.validation_interval=3",
        *RUNS[name],
    )
    trainer(tmp_path / "whole", *overrides).train(evaluate=True)
    for step in (3, 10):
        dying = trainer(tmp_path / "died", *overrides)

        def run_loop(*arguments, dying=dying, step=step):
            if dying.step >= step:
                raise KeyboardInterrupt
            return Trainer._run_loop(dying, *arguments)

        dying._run_loop = run_loop
        try:
            dying.train(evaluate=True)
        except KeyboardInterrupt:
            assert dying.step < tiny().trainer.train_steps
    trainer(tmp_path / "died", *overrides).train(evaluate=True)
    for folder in ("train", "validation"):
        whole, died = (tmp_path / run / folder for run in ("whole", "died"))
        assert len(events(died)) == len(set(events(died)))
        expected, found = (read_summaries(directory) for directory in (whole, died))
        for summaries in (expected, found):
            summaries.pop("steps_per_second", None)
        assert found == expected


def test_a_checkpoint_that_is_evaluated_again_is_there_once(tmp_path):
    trainer(tmp_path).train(evaluate=True)
    before = events(tmp_path / "validation")
    again = trainer(tmp_path)
    again.evaluate_checkpoint()
    again.evaluate_checkpoint()
    again.train(evaluate=True)  # which has nothing left to do
    assert events(tmp_path / "validation") == before
