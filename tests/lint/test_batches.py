import pytest

from optimization import ExperimentConfig
from tests.lint.linting import codes, told

RATE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}}
SGD = {"type": "sgd", "sgd": {"momentum": 0.9}}


def experiment(**section):
    optimizer_config = {"optimizer": SGD, "learning_rate": RATE, **section}
    return ExperimentConfig(
        task={
            "train_data": {"global_batch_size": 256},
            "validation_data": {"global_batch_size": 8},
        },
        trainer={"train_steps": 1000, "optimizer_config": optimizer_config},
    )


BATCH = "task: {train_data: {global_batch_size: 1024}}\n"
SECTION = "trainer: {{optimizer_config: {{{}}}}}\n"
NEW_RATE = SECTION.format("learning_rate: {cosine: {initial_learning_rate: 0.4}}")
CASES = {
    "the batch alone": (BATCH, ["batch-without-rate"]),
    "the batch and the rate": (BATCH + NEW_RATE, []),
    "the rate alone": (NEW_RATE, []),
    "the same batch": (BATCH.replace("1024", "256"), []),
    "scaling": (BATCH + SECTION.format("lr_scaling: {base_batch_size: 256}"), []),
    "the batch and the warmup": (
        BATCH + SECTION.format("warmup: {type: linear, linear: {warmup_steps: 100}}"),
        [],  # from which the rate comes to another height, by a little
    ),
    "accumulation": (
        SECTION.format("optimizer: {sgd: {gradient_accumulation_steps: 4}}"),
        ["batch-without-rate"],
    ),
    "accumulation that grows": (
        SECTION.format("accumulation: {micro_batches: [1, 4], boundaries: [100]}"),
        ["batch-without-rate"],
    ),
    "accumulation for the batch": (
        "task: {train_data: {global_batch_size: 64}}\n"
        + SECTION.format("optimizer: {sgd: {gradient_accumulation_steps: 4}}"),
        [],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_batch_is_changed_without_the_rate(tmp_path, case):
    text, found = CASES[case]
    assert codes(tmp_path, text, base=experiment()) == found


def test_the_message_has_the_line_and_the_factor(tmp_path):
    found = told(tmp_path, "# one\n" + BATCH, "batch-without-rate", base=experiment())
    message = "makes the batch of an update 4 times as large, 1,024 after 256, and the highest "
    assert found == [(2, "task.train_data.global_batch_size", message + "learning rate stays 0.1")]


def test_a_scaling_for_a_batch_that_is_written_does_not_follow(tmp_path):
    base = experiment(lr_scaling={"base_batch_size": 256, "global_batch_size": 256})
    assert codes(tmp_path, BATCH, base=base) == ["batch-without-rate"]


def test_without_an_experiment_nothing_is_known_of_batches(tmp_path):
    whole = BATCH + SECTION.format(f"optimizer: {SGD}, learning_rate: {RATE}")
    assert codes(tmp_path, whole.replace("'", "")) == []
