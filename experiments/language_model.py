"""A small causal transformer that learns the English of Python's own documentation.

The text is the help topics that come with CPython (`pydoc_data.topics`), some 460,000 characters.
Every eighth topic is held out. The model predicts each character from those before it; its loss is
to be compared with the entropy of the held-out characters taken one by one (`unigram_entropy`, in
the same unit), which is what a model that knows only their frequencies would reach.
"""

import dataclasses
import functools
import math
import typing
from collections.abc import Iterator, Sequence

from optimization import DataConfig, ExperimentConfig, TaskConfig, TrainerConfig
from optimization.configs.types import PositiveInt, Share
from optimization.training import (
    Task,
    TrainingError,
    array_batches,
    register_experiment,
    register_task,
)

if typing.TYPE_CHECKING:
    import numpy as np

HELD_OUT_EVERY = 8
UNKNOWN = 0


@dataclasses.dataclass
class LanguageModelConfig(TaskConfig):
    """The language model and its text.

    Attributes:
        sequence_length: Characters that the model sees at once.
        stride: Characters from the start of one training sequence to the start of the next.
        width: Size of the vector at each position; a multiple of `heads`.
        layers: Transformer blocks.
        heads: Attention heads of a block.
        context: Characters mixed by the convolution over the embeddings.
        dropout_rate: Of the output of each attention and each MLP, in training.
    """

    sequence_length: PositiveInt = 128
    stride: PositiveInt = 64
    width: PositiveInt = 128
    layers: PositiveInt = 2
    heads: PositiveInt = 4
    context: PositiveInt = 4
    dropout_rate: Share = 0.05

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields a width that the heads cannot share."""
        if self.width % self.heads:
            yield "width", f"must be a multiple of `heads`, got {self.width} and {self.heads}"


class Text(typing.NamedTuple):
    """The two parts of the text; no paragraph is in both, and none is there twice."""

    training: str
    held_out: str


@functools.cache
def read_text() -> Text:
    """Returns the help topics of this Python, split by topic.

    Topics quote each other; a paragraph that is in a held-out topic is left out of the others.
    """
    from pydoc_data.topics import topics

    names = sorted(topics)
    held_out = _paragraphs(topics, names[::HELD_OUT_EVERY])
    others = [name for index, name in enumerate(names) if index % HELD_OUT_EVERY]
    training = [part for part in _paragraphs(topics, others) if part not in held_out]
    return Text("\n\n".join(training), "\n\n".join(held_out))


def _paragraphs(topics: dict[str, str], names: Sequence[str]) -> dict[str, None]:
    # Empty lines divide paragraphs; where there are two of them, one would be left at an end.
    parts = (part.strip("\n") for name in names for part in topics[name].split("\n\n"))
    return dict.fromkeys(part for part in parts if part)


@functools.cache
def vocabulary() -> "np.ndarray":
    """Returns the code points of the training text, increasing; the id of one is its place + 1."""
    import numpy as np

    return np.unique(_code_points(read_text().training))


def _code_points(text: str) -> "np.ndarray":
    import numpy as np

    return np.frombuffer(text.encode("utf-32-le"), dtype="<u4")


def encode(text: str) -> "np.ndarray":
    """Returns the ids of the characters of `text`; `UNKNOWN` where the vocabulary has none."""
    import numpy as np

    known, points = vocabulary(), _code_points(text)
    places = np.minimum(np.searchsorted(known, points), len(known) - 1)
    return np.where(known[places] == points, places + 1, UNKNOWN).astype(np.int32)


def sequences(text: str, length: int, stride: int) -> tuple["np.ndarray", "np.ndarray"]:
    """Cuts `text` into sequences of ids.

    Returns:
        The sequences, [n, length], and what is to be predicted at each position of them: the same
        one character on. What is left at the end is dropped.

    Raises:
        TrainingError: If the text is too short for one sequence.
    """
    import numpy as np

    ids = encode(text)
    if len(ids) <= length:
        raise TrainingError(
            f"`sequence_length` must be < {len(ids)}, the length of the text, got {length}"
        )
    windows = np.lib.stride_tricks.sliding_window_view(ids, length + 1)[::stride]
    return windows[:, :-1].copy(), windows[:, 1:].copy()


def unigram_entropy(ids: "np.ndarray") -> float:
    """Returns the entropy of the frequencies of `ids`, in nats for each."""
    import numpy as np

    _, counts = np.unique(ids, return_counts=True)
    frequencies = counts / counts.sum()
    return float(-(frequencies * np.log(frequencies)).sum())


@register_task(LanguageModelConfig)
class LanguageModelTask(Task):
    """Next-character prediction on the help topics."""

    def build_model(self):
        """Returns a pre-norm transformer from ids, [n, sequence_length], to logits."""
        import keras

        config, size = self.config, len(vocabulary()) + 1
        tokens = keras.Input((config.sequence_length,), dtype="int32", name="tokens")
        x = keras.layers.Embedding(size, config.width, name="token_embedding")(tokens)
        positions = keras.ops.cumsum(keras.ops.ones_like(tokens), axis=1) - 1
        x += keras.layers.Embedding(
            config.sequence_length, config.width, name="position_embedding"
        )(positions)
        x += self._context(x)
        for index in range(config.layers):
            x = self._block(x, f"block_{index}")
        x = keras.layers.LayerNormalization(name="layer_norm")(x)
        logits = keras.layers.Dense(size, dtype="float32", name="logits")(x)
        return keras.Model(tokens, logits, name="language_model")

    def _context(self, x):
        """Mixes each position with the few before it, a causal convolution.

        Attention alone takes far longer to find out that the last few characters matter most.
        """
        from keras import layers

        # Not `Conv1D`: on the empty batch that a replica may get at the end of an evaluation,
        # TensorFlow's has an output of the wrong length.
        shifted = [x]
        for steps in range(1, self.config.context):
            x_before = layers.ZeroPadding1D((steps, 0), name=f"pad_{steps}")(x)
            shifted.append(layers.Cropping1D((0, steps), name=f"crop_{steps}")(x_before))
        if len(shifted) > 1:
            x = layers.Concatenate(name="neighbors")(shifted)
        return layers.Dense(self.config.width, name="context")(x)

    def _block(self, x, name):
        import keras

        config, layers = self.config, keras.layers
        y = layers.LayerNormalization(name=f"{name}_attention_layer_norm")(x)
        y = layers.MultiHeadAttention(
            config.heads, config.width // config.heads, name=f"{name}_attention"
        )(y, y, use_causal_mask=True)
        x += layers.Dropout(config.dropout_rate, name=f"{name}_attention_dropout")(y)
        y = layers.LayerNormalization(name=f"{name}_mlp_layer_norm")(x)
        y = layers.Dense(4 * config.width, activation="gelu", name=f"{name}_mlp_up")(y)
        y = layers.Dense(config.width, name=f"{name}_mlp_down")(y)
        return x + layers.Dropout(config.dropout_rate, name=f"{name}_mlp_dropout")(y)

    def build_inputs(self, params, input_context=None):
        """Returns batches of sequences: of the training text, or else of the held-out text."""
        return array_batches(self._sequences(params.is_training), params, input_context)

    def _sequences(self, is_training):
        length = self.config.sequence_length
        if is_training:
            return sequences(read_text().training, length, self.config.stride)
        return sequences(read_text().held_out, length, length)

    def build_losses(self, labels, model_outputs, aux_losses=None):
        """Returns the mean cross-entropy, in nats for each character."""
        import keras

        losses = keras.losses.sparse_categorical_crossentropy(
            labels, model_outputs, from_logits=True
        )
        return sum(aux_losses or (), keras.ops.mean(losses))

    def build_metrics(self, training):
        """Returns accuracy and bits for each character."""
        import keras

        return [
            keras.metrics.SparseCategoricalAccuracy(name="accuracy"),
            keras.metrics.MeanMetricWrapper(_bits, name="bits_per_character"),
        ]

    def validation_step(self, inputs, model, metrics):
        """Reports also what the frequencies of the held-out characters alone would give."""
        logs = super().validation_step(inputs, model, metrics)
        return {**logs, "unigram_entropy": unigram_entropy(self._sequences(False)[1])}


def _bits(labels, logits):
    import keras

    losses = keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)
    return losses / math.log(2.0)


@register_experiment("language_model")
def language_model() -> ExperimentConfig:
    """AdamW, polynomial warmup and decay: 1.4 nats a character in about a minute."""
    return ExperimentConfig(
        task=LanguageModelConfig(
            train_data=DataConfig(
                global_batch_size=32, is_training=True, shuffle=True, drop_remainder=True
            ),
            validation_data=DataConfig(global_batch_size=64),
        ),
        trainer=TrainerConfig(
            train_steps=500,
            steps_per_loop=50,
            summary_interval=25,
            validation_interval=250,
            checkpoint_interval=250,
            optimizer_config={
                "optimizer": {
                    "type": "adamw",
                    "adamw": {
                        "beta_2": 0.98,
                        "weight_decay_rate": 0.1,
                        "exclude_from_weight_decay": ["layer_norm", "bias"],
                    },
                },
                "learning_rate": {
                    "type": "polynomial",
                    "polynomial": {
                        "initial_learning_rate": 0.004,
                        "decay_steps": 500,
                        "end_learning_rate": 0.0,
                    },
                },
                "warmup": {"type": "polynomial", "polynomial": {"warmup_steps": 50}},
            },
        ),
    )
