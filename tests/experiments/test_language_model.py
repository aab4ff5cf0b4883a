from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from keras import utils

from experiments.language_model import (
    UNKNOWN,
    LanguageModelConfig,
    LanguageModelTask,
    encode,
    read_text,
    sequences,
    unigram_entropy,
    vocabulary,
)
from optimization import ConfigError, read_layers, resolve
from optimization.training import get_experiment, run_experiment

FILE = Path(__file__).parents[2] / "configs" / "experiments" / "language_model.yaml"
SMALL = {"sequence_length": 16, "width": 8, "layers": 2, "heads": 2}


def test_file_is_the_registered_experiment():
    experiment = get_experiment("language_model")
    assert resolve(experiment, *read_layers([FILE])) == experiment


def test_no_paragraph_is_in_both_parts():
    text = read_text()
    training, held_out = text.training.split("\n\n"), text.held_out.split("\n\n")
    assert not set(training) & set(held_out)
    assert len(set(training)) == len(training)
    assert 0.03 < len(text.held_out) / len(text.training) < 0.3
    read_text.cache_clear()
    assert read_text() == text


def test_encode_tells_characters_apart():
    letters = "".join(chr(point) for point in vocabulary())
    assert sorted(set(read_text().training)) == list(letters)
    assert encode(letters).tolist() == list(range(1, len(letters) + 1))
    assert encode("a\u2603\U0001f600a").tolist() == [encode("a")[0], UNKNOWN, UNKNOWN, *encode("a")]


def test_sequences_predict_the_next_character():
    features, labels = sequences("abcdefg", length=3, stride=2)
    assert np.array_equal(features, [encode("abc"), encode("cde")])
    assert np.array_equal(labels, [encode("bcd"), encode("def")])
    with pytest.raises(ValueError, match="`sequence_length` must be < 3"):
        sequences("abc", length=3, stride=1)


def test_unigram_entropy():
    # Rounding of float64.
    assert unigram_entropy(np.array([3, 1, 2, 7])) == pytest.approx(np.log(4), rel=1e-12)
    assert unigram_entropy(np.zeros(5, int)) == 0
    # English text has between 2.7 (letters alone) and 3.5 nats a character.
    assert 2.7 < unigram_entropy(encode(read_text().held_out)) < 3.5


def test_width_must_suit_the_heads():
    with pytest.raises(ConfigError, match="width: must be a multiple of `heads`, got 10 and 4"):
        LanguageModelConfig(width=10, heads=4).validate()


def test_no_character_sees_a_later_one():
    utils.set_random_seed(0)
    model = LanguageModelTask(LanguageModelConfig(**SMALL)).build_model()
    tokens = encode(read_text().held_out[:16])[None]
    changed = tokens.copy()
    changed[0, 9] = tokens[0, 9] % len(vocabulary()) + 1
    before, after = model(tokens)[0].numpy(), model(changed)[0].numpy()
    assert np.array_equal(before[:9], after[:9])
    # The character itself and those after it do see the change, through the attention as well:
    # the convolution alone reaches only `context` characters.
    assert (before[9:] != after[9:]).any(axis=1).all()


def test_empty_batch_has_the_same_shape():
    # Replicas may get one at the end of an evaluation.
    model = LanguageModelTask(LanguageModelConfig(**SMALL)).build_model()
    assert model(np.zeros((0, 16), np.int32)).shape == (0, 16, len(vocabulary()) + 1)


def test_bits_are_nats_over_log_two():
    task = LanguageModelTask(LanguageModelConfig(**SMALL))
    labels, logits = tf.constant([[1, 2, 0]]), tf.random.stateless_normal((1, 3, 5), seed=[0, 0])
    metrics = task.build_metrics(training=False)
    task.process_metrics(metrics, labels, logits)
    bits = {metric.name: float(metric.result()) for metric in metrics}["bits_per_character"]
    # Rounding of float32.
    assert bits == pytest.approx(float(task.build_losses(labels, logits)) / np.log(2), rel=1e-6)


@pytest.mark.slow
def test_learns(tmp_path):
    steps = 100
    config = get_experiment("language_model")
    config.task.override({"sequence_length": 32, "stride": 32, "width": 64, "layers": 1})
    config.trainer.override({"train_steps": steps, "validation_interval": steps})
    config.trainer.optimizer_config.override(
        {
            "learning_rate": {"polynomial": {"decay_steps": steps}},
            "warmup": {"polynomial": {"warmup_steps": 10}},
        }
    )
    results = run_experiment(config, "train_and_eval", tmp_path)
    entropy = results["validation unigram_entropy"]
    # Frequencies alone cannot get below the entropy. Three seeds ended 0.82 to 0.84 below it;
    # 0.5 leaves room for the text of another Python.
    assert results["validation loss"] < entropy - 0.5
    assert results["validation bits_per_character"] == pytest.approx(
        results["validation loss"] / np.log(2), rel=1e-4
    )
    assert results["validation accuracy"] > 0.3
