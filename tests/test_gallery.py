"""Every YAML file under configs/: loads strictly, builds, trains, has the rate that was published.

The figures in `PUBLISHED` are worked out from the publications that the files' headers name, not
read from the files.
"""

import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from keras import Input, KerasTensor, Layer, Model, layers, ops, random, utils

from optimization import OptimizationConfig, OptimizerFactory, load_optimization_config
from optimization.configs import yaml_file
from optimization.configs.optimization_config import optimization_section

ROOT = Path(__file__).parent.parent
SECTIONS = sorted((ROOT / "configs" / "optimization").glob("*.yaml"))
EXPERIMENTS = sorted((ROOT / "configs" / "experiments").glob("*.yaml"))
FILES = [*SECTIONS, *EXPERIMENTS]

IMAGENET = 1_281_167  # training images


class Published(NamedTuple):
    """The largest learning rate, the step at which it is reached, and the rate at the last step."""

    peak: float
    peak_step: int
    last_step: int
    last: float


PUBLISHED = {
    "bert_finetuning": Published(2e-5, 3681, 392_702 * 3 // 32 + 1, 0.0),
    "bert_pretraining": Published(1e-4, 10_000, 1_000_000, 0.0),
    "bert_pretraining_lamb": Published(5 / 10**3, 15_625 // 5, 15_625, 0.0),
    "convnext_imagenet": Published(4e-3, 20 * 312, 300 * 312, 0.0),
    "ddpm_cifar10": Published(2e-4, 5000, 800_000, 2e-4),
    "detr_coco": Published(1e-4, 0, 500 * 1849, 1e-5),
    "dinov2_vitl16": Published(4e-3 * 2**0.5, 10 * 1250 - 1, 100 * 1250, 1e-6),
    "efficientnet_imagenet": Published(
        0.016 * 4096 / 256, 5 * 312, 350 * 312, 0.256 * 0.97 ** int(345 / 2.4)
    ),
    "electra_small_pretraining": Published(5e-4, 10_000, 1_000_000, 0.0),
    "gpt2_small": Published(6e-4, 2000, 600_000, 6e-5),
    "gpt3_small": Published(6e-4, 375 * 2, 260_000 * 2, 6e-5),
    "lion_vit_imagenet": Published(1e-4, 10_000, 300 * 312, 0.0),
    "llama2_7b": Published(3e-4, 2000, 2_000_000 // 4, 3e-5),
    "llama3_8b_torchtitan": Published(3e-4, 199, 1000, 0.0),
    "mobilenet_v2_imagenet": Published(0.045, 0, 100 * (IMAGENET // 96), 0.045 * 0.98**100),
    "mobilenet_v3_imagenet": Published(0.1, 0, 300 * 312, 0.1 * 0.99**100),
    # Tokens over the batch, and the 100 steps before the cooldown.
    "muon_kimi_k2": Published(2e-4, 500, round(15.96e12 / (16_384 * 4096)), 7e-6),
    "muon_moonlight": Published(
        4.2e-4, 2000, round(200e9 / (2048 * 8192) + 5.5e12 / (4096 * 8192)) + 101, 0.0
    ),
    "olmo2_7b": Published(3e-4, 1999, 928_646 + 11_931, 0.0),
    # PyTorch's one cycle: N steps are counted from 0 to N - 1, the peak is step N / 2 - 1.
    "one_cycle_cifar10": Published(3.0, 4999, 9999, 0.1),
    "recommendation_adagrad": Published(0.005, 0, 4_195_197_692 // 65_536, 0.005),
    "recommendation_ftrl": Published(0.1, 0, 40 * 814, 0.1),
    # Of the dense layers; tests/test_recipes.py has the rates of other groups.
    "recommendation_ranking": Published(0.001, 0, 2 * (4_195_197_692 // 16_384), 0.001),
    "recommendation_ranking_sgd": Published(0.001, 0, 2 * (4_195_197_692 // 16_384), 0.001),
    "resnet50_imagenet": Published(0.1 * 8192 / 256, 5 * 156, 90 * 156, 3.2e-3),
    "resnet50_lars_large_batch": Published(31.2, 25 * IMAGENET // 32_768, 2983, 1e-4),
    "resnet_rs_imagenet": Published(0.1 * 4096 / 256, 5 * 312, 350 * 312, 0.0),
    "retinanet_coco": Published(0.01, 1000, 90_000, 1e-4),
    "roberta_pretraining": Published(6e-4, 24_000, 500_000, 0.0),
    # The step before the fourth restart.
    "sgdr_cifar10": Published(0.05, 0, 390 * (10 + 20 + 40 + 80) - 1, 0.0),
    "simclr_pretraining": Published(0.3 * 4096 / 256, 10 * 312, 100 * 312, 0.0),
    # The decay of 522,000 steps starts a step late.
    "smollm3_3b": Published(2e-4, 2000, 4_720_001, 0.0),
    "swin_imagenet": Published(1e-3, 20 * 1252 - 1, 300 * 1252, 1e-5),
    "t5_finetuning": Published(0.001, 0, 2**18, 0.001),
    "t5_pretraining": Published(0.01, 0, 2**19, 2**-9.5),
    # The cosine has counted 5 epochs when it takes over.
    "timm_defaults": Published(
        0.1 * 1024 / 256 * (1 + np.cos(np.pi * 5 / 300)) / 2, 5 * 1251, 300 * 1251, 0.0
    ),
    "transformer_wmt14": Published((512 * 4000) ** -0.5, 4000, 100_000, (512 * 100_000) ** -0.5),
    "vit_finetuning": Published(0.03, 500, 20_000, 0.0),
    "vit_finetuning_layer_decay": Published(1e-3 * 1024 / 256, 5 * 1251, 50 * 1251, 1e-6),
    "vit_imagenet": Published(5e-4 * 1024 / 512, 5 * 1251, 300 * 1251, 1e-5),
    # The decay has begun when the warmup of 3 epochs ends.
    "yolo_coco": Published(0.01 * (1 - 0.99 * 3 / 300), 3 * 1849, 300 * 1849, 0.01 * 0.01),
}


def by_name(path: Path) -> str:
    return path.stem


def test_every_section_is_compared_with_its_publication():
    assert sorted(PUBLISHED) == [path.stem for path in SECTIONS]


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_loads_without_doubts(path):
    # A ConfigWarning is an error in the whole test suite, see pyproject.toml.
    config = load_optimization_config(path)
    assert config.validate() == []


@pytest.mark.parametrize("path", SECTIONS, ids=by_name)
def test_header_says_what_it_is(path):
    lines = path.read_text().splitlines()
    header = [line for line in lines if line.startswith("#")]
    assert header == lines[: len(header)]
    assert 2 <= len(header) <= 5
    keys = [line.rstrip(":") for line in lines if line and line[0] not in "# -"]
    assert set(keys) <= set(OptimizationConfig.field_names())


@pytest.mark.parametrize("path", EXPERIMENTS, ids=by_name)
def test_experiment_file_is_complete_on_its_own(path):
    section, _ = optimization_section(yaml_file.read_file(path)[0])
    for name in ("optimizer", "learning_rate", "warmup"):
        assert list(section[name]) == ["type", section[name]["type"]]


@pytest.mark.parametrize("path", SECTIONS, ids=by_name)
def test_learning_rate_is_the_published_one(path):
    expected = PUBLISHED[path.stem]
    factory = OptimizerFactory(load_optimization_config(path))
    near = np.arange(max(expected.peak_step - 2, 0), expected.peak_step + 3)
    steps = np.concatenate([near, np.linspace(0, expected.last_step, 10_001).astype(int)])
    rates = factory.learning_rate_curve(steps)
    at_peak, at_end = factory.learning_rate_curve([expected.peak_step, expected.last_step])
    # 1e-6: one rate is a root, written with six digits; 1e-9 of the peak for rates that end at 0
    # (the last step of a cosine cycle is not quite 0).
    assert at_peak == pytest.approx(expected.peak, rel=1e-6)
    assert rates.max() == pytest.approx(expected.peak, rel=1e-6)
    assert rates.min() >= 0
    assert at_end == pytest.approx(expected.last, rel=1e-6, abs=1e-8 * expected.peak)


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_keras_follows_the_curve(path):
    factory = OptimizerFactory(load_optimization_config(path))
    last = PUBLISHED[path.stem].last_step if path in SECTIONS else 1000
    # Also long after the end: a run that goes on must not fail there.
    steps = np.unique([*np.linspace(0, last, 40).astype(int), 1, 2, 10 * last])
    curve = factory.learning_rate_curve(steps)
    assert np.isfinite(curve).all()
    lr = factory.build_learning_rate()
    rates = [lr if isinstance(lr, float) else float(lr(int(step))) for step in steps]
    # A float32 has 6e-8, its power of 143 (EfficientNet) 1e-5; a decay loses digits where it nears
    # 0, hence the part of the peak.
    np.testing.assert_allclose(rates, curve, rtol=1e-5, atol=1e-6 * curve.max())


def test_curves_need_no_framework():
    program = """
import sys
from optimization import OptimizerFactory, load_optimization_config
for path in sys.argv[1:]:
    OptimizerFactory(load_optimization_config(path)).learning_rate_curve([0, 1, 100, 10**7])
print([name for name in ("tensorflow", "keras", "torch", "jax") if name in sys.modules])
"""
    result = subprocess.run(
        [sys.executable, "-c", program, *map(str, FILES)],
        capture_output=True,
        text=True,
        check=True,
        cwd=ROOT,
    )
    assert result.stdout.strip() == "[]"


class AddToken(Layer):
    """Puts one learned vector before a sequence."""

    def build(self, input_shape: tuple) -> None:
        self.token = self.add_weight(name="class_token", shape=(1, 1, input_shape[-1]))

    def call(self, x: KerasTensor) -> KerasTensor:
        token = ops.broadcast_to(self.token, (ops.shape(x)[0], 1, x.shape[-1]))
        return ops.concatenate([token, x], axis=1)


class Encoder(Layer):
    """A block with a number, and a norm after it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.block = layers.Dense(8, name="layer_0")
        self.norm = layers.LayerNormalization(name="norm")

    def build(self, input_shape: tuple) -> None:
        self.block.build(input_shape)
        self.norm.build(input_shape)

    def call(self, x: KerasTensor) -> KerasTensor:
        return self.norm(self.block(x))


def small_model() -> Model:
    """A model with the kinds of variables, and the names, that the files are for."""
    image = Input((4, 4, 3), name="image")
    x = layers.Conv2D(8, 3, name="patch_embed")(image)
    x = layers.BatchNormalization(name="batch_normalization")(x)
    x = layers.Reshape((4, 8), name="patches")(x)
    x = AddToken(name="token")(x)
    tokens = Input((5,), dtype="int32", name="tokens")
    x += layers.Embedding(7, 8, name="token_embedding")(tokens)
    x += layers.Embedding(5, 8, name="position_embedding")(tokens)
    x += layers.MultiHeadAttention(2, 4, name="attention")(x, x)
    x = layers.LayerNormalization(name="attention_layer_norm")(x)
    x = layers.RMSNormalization(name="rms_normalization")(x)
    x = Encoder(name="encoder")(x)
    x = layers.Dense(8, name="mlp")(x)
    x = layers.Dense(8, name="last_layer")(x)
    return Model([image, tokens], layers.Dense(3, name="head")(x[:, 0]))


@pytest.mark.parametrize("path", FILES, ids=by_name)
def test_builds_and_updates_a_model(path):
    utils.set_random_seed(0)
    config = load_optimization_config(path)
    factory = OptimizerFactory(config)
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    model = small_model()
    if config.ema is not None:
        optimizer.shadow_copy(model)
    variables = model.trainable_variables
    before = [variable.numpy() for variable in variables]
    for _ in range(2):  # a warmup may start from a rate of 0
        optimizer.apply([random.normal(variable.shape) for variable in variables], variables)
    assert int(optimizer.iterations) == 2
    moved = 0
    for variable, old in zip(variables, before, strict=True):
        new = variable.numpy()
        assert np.isfinite(new).all(), variable.path
        moved += not np.array_equal(new, old)
    # The smallest rates move a value only where it is near 0: biases and offsets always are.
    assert moved >= 3
    if config.ema is not None:
        check_average(optimizer, model, config.ema.trainable_weights_only)


def check_average(optimizer, model, trainable_weights_only):
    """The average follows the weights that it should, and gives them back."""
    weights = [weight.numpy() for weight in model.weights]
    with optimizer.averaged():
        averages = [weight.numpy() for weight in model.weights]
    for weight, value, average in zip(model.weights, weights, averages, strict=True):
        assert np.array_equal(weight.numpy(), value), weight.path
        assert np.isfinite(average).all(), weight.path
    differ = sum(not np.array_equal(a, w) for a, w in zip(averages, weights, strict=True))
    assert differ >= 3
    paths = optimizer.variables_by_path()
    averaged_statistics = any("moving_mean" in path for path in paths)
    assert averaged_statistics != trainable_weights_only
