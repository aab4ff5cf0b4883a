import pytest

from tests.lint.linting import SGD, codes, experiment, told

CONSTANT = "learning_rate: {type: constant, constant: {learning_rate: 0.1}}"


def warmup(steps, train_steps=1000, kind="linear"):
    section = f"{SGD}\n{CONSTANT}\nwarmup: {{type: {kind}, {kind}: {{warmup_steps: {steps}}}}}"
    return experiment(train_steps, section)


@pytest.mark.parametrize("steps", [0, 100, 250, "40%"])
def test_a_warmup_of_a_quarter_is_fine(tmp_path, steps):
    assert codes(tmp_path, warmup(steps)) == []


@pytest.mark.parametrize("steps", [251, 999])
def test_a_warmup_over_a_quarter(tmp_path, steps):
    ((line, path, message),) = told(tmp_path, warmup(steps), "warmup-over-quarter")
    assert (line, path) == (7, "trainer.optimizer_config.warmup.linear.warmup_steps")
    assert message == f"is {steps}, {steps / 10:.0f}% of `train_steps` 1000"


def test_a_warmup_as_long_as_the_training_is_told_once(tmp_path):
    assert codes(tmp_path, warmup(1000)) == ["warmup-too-long"]


def test_the_warmup_of_a_schedule_free_optimizer(tmp_path):
    free = "optimizer: {{type: schedule_free_sgd, schedule_free_sgd: {{warmup_steps: {}}}}}\n"
    text = free + CONSTANT.replace("{", "{{").replace("}", "}}")
    assert codes(tmp_path, experiment(1000, text.format(250))) == []
    assert codes(tmp_path, experiment(1000, text.format(251))) == ["warmup-over-quarter"]


def test_without_a_length_there_is_no_quarter(tmp_path):
    text = f"{SGD}\n{CONSTANT}\nwarmup: {{type: linear, linear: {{warmup_steps: 10000}}}}\n"
    assert codes(tmp_path, text) == []


INTERVALS = ["validation_interval", "checkpoint_interval", "summary_interval", "steps_per_loop"]


@pytest.mark.parametrize("name", INTERVALS)
def test_an_interval_beyond_the_end(tmp_path, name):
    section = f"{SGD}\n{CONSTANT}"
    assert codes(tmp_path, experiment(100, section, f"{name}: 100")) == []
    text = experiment(100, section, f"{name}: 101")
    ((line, path, _),) = told(tmp_path, text, "interval-beyond-end")
    assert (line, path) == (3, f"trainer.{name}")


def test_an_interval_that_is_not_written_may_be_longer(tmp_path):
    assert codes(tmp_path, experiment(100, f"{SGD}\n{CONSTANT}")) == []


@pytest.mark.parametrize(
    ("start", "found"), [(0, []), (999, []), ("99%", []), (1000, [8]), (2000, [8])]
)
def test_an_average_that_starts_after_the_end(tmp_path, start, found):
    text = experiment(1000, f"{SGD}\n{CONSTANT}\nema:\n  start_step: {start}")
    assert [line for line, _, _ in told(tmp_path, text, "average-after-end")] == found
