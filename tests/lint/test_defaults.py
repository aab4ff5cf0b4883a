from tests.lint.linting import SGD, codes, told

TEXT = """\
trainer:
  train_steps: 1000
  max_to_keep: 5
  optimizer_config:
    optimizer:
      type: adamw
      adamw:
        beta_1: 0.9
        beta_2: 0.98
    learning_rate:
      type: polynomial
      polynomial:
        initial_learning_rate: 0.1
        end_learning_rate: 0.0001
"""


def test_values_that_are_the_default_are_told_where_that_is_asked_for(tmp_path):
    assert told(tmp_path, TEXT, "equals-default") == [
        (3, "trainer.max_to_keep", "5 is the default"),
        (8, "trainer.optimizer_config.optimizer.adamw.beta_1", "0.9 is the default"),
        (
            14,
            "trainer.optimizer_config.learning_rate.polynomial.end_learning_rate",
            "0.0001 is the default",
        ),
    ]
    assert codes(tmp_path, TEXT) == []


def test_the_default_is_that_of_a_variant(tmp_path):
    text = "optimizer:\n  type: adafactor\n  adafactor:\n    variant: hf\n    step_size: relative\n"
    ((line, path, _),) = told(tmp_path, text, "equals-default")
    assert (line, path) == (5, "optimizer.adafactor.step_size")


def test_values_of_other_branches_are_left_alone(tmp_path):
    text = f"{SGD}\nlearning_rate: {{type: constant, constant: {{learning_rate: 1}}}}\n"
    assert told(tmp_path, text, "equals-default") == []
