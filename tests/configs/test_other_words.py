"""Keys as other libraries call them, or where they do not stand: what is told."""

import pytest

from optimization.configs.errors import ConfigError
from optimization.configs.optimization_config import OptimizationConfig
from optimization.configs.other_words import our_word


def told(**values):
    with pytest.raises(ConfigError) as error:
        OptimizationConfig(values)
    return {problem.path: problem.message for problem in error.value.problems}


def branch(**values):
    (name,) = values
    return {"type": name, name: values[name]}


@pytest.mark.parametrize(
    ("section", "kind", "theirs", "ours"),
    [
        ("learning_rate", "cosine", "lr", "'initial_learning_rate'"),
        ("learning_rate", "cosine", "learning_rate", "'initial_learning_rate'"),
        ("learning_rate", "cosine", "max_lr", "'initial_learning_rate'"),
        ("learning_rate", "cosine", "eta_min", "'min_learning_rate'"),
        ("learning_rate", "cosine", "T_max", "'decay_steps'"),
        ("learning_rate", "polynomial", "min_lr", "'end_learning_rate'"),
        ("learning_rate", "constant", "lr", "'learning_rate'"),
        ("learning_rate", "exponential", "gamma", "'decay_rate'"),
        ("learning_rate", "stepwise", "milestones", "'boundaries'"),
        ("learning_rate", "hf_cosine", "total_steps", "'num_training_steps'"),
        ("warmup", "linear", "warmup_lr", "'warmup_learning_rate'"),
        ("warmup", "linear", "steps", "'warmup_steps'"),
        ("optimizer", "adamw", "betas", "'beta_1' and 'beta_2'"),
        ("optimizer", "adamw", "eps", "'epsilon'"),
        ("optimizer", "adamw", "wd", "'weight_decay_rate'"),
        ("optimizer", "sgd", "max_grad_norm", "'global_clipnorm'"),
    ],
)
def test_a_word_of_another_library_names_ours(section, kind, theirs, ours):
    messages = told(**{section: branch(**{kind: {theirs: 1}})})
    assert messages[f"{section}.{kind}.{theirs}"] == f"unknown key; did you mean {ours}?"


@pytest.mark.parametrize("name", ["lr", "learning_rate"])
def test_the_rate_of_an_optimizer_stands_in_its_own_section(name):
    message = told(optimizer=branch(adamw={name: 0.1}))[f"optimizer.adamw.{name}"]
    assert message == "unknown key; the rate is written in the `learning_rate` section"


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("optimizer_config", "write it under `trainer`, or what it holds without it"),
        (
            "train_steps",
            "write it under `trainer`, and the other keys under `trainer.optimizer_config`",
        ),
        ("weight_decay", "write it as `optimizer: {TYPE: {weight_decay: ...}}`"),
        ("decay_steps", "write it as `learning_rate: {TYPE: {decay_steps: ...}}`"),
        ("warmup_steps", "write it as `warmup: {TYPE: {warmup_steps: ...}}`"),
        ("lr", "did you mean 'learning_rate'?"),
        ("warmpu", "did you mean 'warmup'?"),
    ],
)
def test_a_key_at_the_top_is_told_its_place(name, message):
    assert told(**{name: {}})[name] == f"unknown key; {message}"


def test_what_is_no_text_has_no_word():
    assert our_word(3, ["learning_rate"]) == ""
