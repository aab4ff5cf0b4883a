"""Recipes of released models: the rate of each, beside the formula of the code that trained it.

The formulas are worked out from papers and repositories, in float64 and step by step, as these
count; they share nothing with this package. `RECIPES` has, for each file, the formula, the steps
at which it bends, and the length of the training.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from optimization import (
    OptimizationConfig,
    OptimizerFactory,
    load_optimization_config,
    schedules,
)
from optimization.configs.rate_curve import curve_by
from optimization.group_rows import group_rows
from optimization.schedules.averages import AverageDecay
from optimization.schedules.scalars import SCALARS

DIRECTORY = Path(__file__).parent.parent / "configs" / "optimization"


def line(first: float, last: float, part: float) -> float:
    return first + (last - first) * part


def half_cosine(first: float, last: float, part: float) -> float:
    return last + (first - last) * (1 + math.cos(math.pi * part)) / 2


def moonlight(step: int) -> float:
    if step < 2000:
        return 4.2e-4 * step / 2000
    small, large = 2048 * 8192, 4096 * 8192
    end = round(200e9 / small) + round((5.2e12 - 200e9) / large)
    if step < end:
        return half_cosine(4.2e-4, 4.2e-5, (step - 2000) / (end - 2000))
    if step < end + 100:
        return line(4.2e-5, 1e-4, (step - end) / 100)
    return line(1e-4, 0.0, min(1.0, (step - end - 100) / round(500e9 / large)))


def kimi_k2(step: int) -> float:
    batch = 16_384 * 4096
    stable, decay, annealing = (round(tokens / batch) for tokens in (10e12, 5.5e12, 460e9))
    if step < 500:
        return 2e-4 * step / 500
    if step < stable:
        return 2e-4
    if step < stable + decay:
        return half_cosine(2e-4, 2e-5, (step - stable) / decay)
    return line(2e-5, 7e-6, min(1.0, (step - stable - decay) / annealing))


def olmo2(step: int) -> float:
    """Its loop counts the step, or its tokens, before it asks for the rate."""
    if step < 928_646:
        tokens, warmup = (step + 1) * 1024 * 4096, 8_388_608_000
        if tokens < warmup:
            return 3e-4 * tokens / warmup
        return half_cosine(3e-4, 0.1 * 3e-4, (tokens - warmup) / (5e12 - warmup))
    length = math.ceil(50e9 / (1024 * 4096))
    done = min(step + 1 - 928_646, length)
    return 0.000061499 - 0.000061499 * (done / length)


def smollm3(step: int) -> float:
    """Of nanotron, whose first update has the rate of step 0."""
    if step <= 2000:
        return 0.0002 * step / 2000
    start, length = 4_198_001, 522_000
    if step < start:
        return 0.0002
    return max(0.0, 0.0002 * (length - (step - start)) / length)


def torchtitan(step: int) -> float:
    steps, warmup = 1000, 200
    decay = steps - warmup
    stable = steps + 1 - warmup - decay
    if step < warmup:
        return 3e-4 * (step + 1) / warmup
    if step < warmup + stable:
        return 3e-4
    return 3e-4 * max(0.0, 1 - (step + 1 - (warmup + stable)) / decay)


def nanogpt(step: int) -> float:
    if step < 2000:
        return 6e-4 * (step + 1) / 2001
    if step > 600_000:
        return 6e-5
    return half_cosine(6e-4, 6e-5, (step - 2000) / (600_000 - 2000))


@cache
def mmengine_swin() -> list[float]:
    """Returns the rate of each update, by the recursions of mmengine's two schedulers."""
    epoch, warmup, epochs = 1252, 20, 300
    rate, rates, updates = 1e-3 * 1e-3, [], warmup * epoch - 1
    for update in range(warmup * epoch):
        if update:
            rate *= 1 + (1 - 1e-3) / (updates * 1e-3 + (update - 1) * (1 - 1e-3))
        rates.append(rate)
    length, low = epochs - warmup, 1e-5
    for done in range(length + 1):
        if done:
            now, before = (1 + math.cos(math.pi * n / length) for n in (done, done - 1))
            rate = now / before * (rate - low) + low
        rates += [rate] * epoch
    return rates


def swin(step: int) -> float:
    rates = mmengine_swin()
    return rates[min(step, len(rates) - 1)]


def timm(step: int) -> float:
    """Once an epoch; the cosine doesn't know of the warmup."""
    epoch, peak = step // 1251, 0.1 * 1024 / 256
    if epoch < 5:
        return 1e-5 + epoch * (peak - 1e-5) / 5
    return half_cosine(peak, 0.0, epoch / 300) if epoch < 300 else 0.0


EPOCH = 1250  # of DINOv2


@cache
def dinov2_schedule(first: float, last: float, warmup: int) -> np.ndarray:
    """Returns a schedule as its code makes one: as an array of all steps."""
    steps = np.arange(100 * EPOCH - warmup)
    falling = last + 0.5 * (first - last) * (1 + np.cos(np.pi * steps / len(steps)))
    return np.concatenate([np.linspace(0, first, warmup), falling])


def dinov2(step: int) -> float:
    rates = dinov2_schedule(0.004 * math.sqrt(32 * 64 / 1024), 1e-6, 10 * EPOCH)
    return float(rates[step]) if step < len(rates) else 1e-6


def dinov2_last_layer(step: int) -> float:
    return 0.0 if step < EPOCH else dinov2(step)


class Recipe(NamedTuple):
    """What is compared: where the rate bends, the last step, and how exactly."""

    rate: Callable[[int], float]
    bends: tuple[int, ...]
    last: int
    # Both are float64; what is left is the order of operations.
    tolerance: float = 1e-12


RECIPES = {
    "dinov2_vitl16": Recipe(dinov2, (12_499, 12_500, 125_000), 124_999),
    "gpt2_small": Recipe(nanogpt, (2000, 600_000), 600_000),
    "llama3_8b_torchtitan": Recipe(torchtitan, (199, 200, 201, 1000), 999),
    "muon_kimi_k2": Recipe(kimi_k2, (500, 149_012, 230_968, 237_823), 237_822),
    "muon_moonlight": Recipe(moonlight, (2000, 160_933, 161_033, 175_934), 175_933),
    # Its end, 5e12 tokens, is no whole number of steps: a tenth of one in 1,190,093 is left out.
    "olmo2_7b": Recipe(olmo2, (1999, 2000, 928_646, 940_566, 940_567), 940_576, 5e-7),
    "smollm3_3b": Recipe(smollm3, (2000, 4_198_001, 4_720_001), 4_719_999),
    # The rounding of 25,000 products.
    "swin_imagenet": Recipe(
        swin, (25_039, 25_040, 26_292, 27_544, 374_348, 375_600), 375_599, 1e-9
    ),
    "timm_defaults": Recipe(timm, (1251, 2502, 5004, 6255, 7506, 374_049, 375_300), 375_299),
}


def recipe(name: str) -> OptimizationConfig:
    return load_optimization_config(DIRECTORY / f"{name}.yaml")


def curve(name: str, steps: list[int]) -> np.ndarray:
    return OptimizerFactory(recipe(name)).learning_rate_curve(steps)


def check(rates: np.ndarray, published: Recipe, steps: list[int]) -> None:
    expected = np.array([published.rate(step) for step in steps])
    # The last 2**-26 of a cosine counts as 0: a part of the peak.
    atol = 2.0**-26 * expected.max()
    np.testing.assert_allclose(rates, expected, rtol=published.tolerance, atol=atol)


@pytest.mark.parametrize("name", RECIPES)
def test_the_rate_is_the_originals(name):
    published = RECIPES[name]
    near = {bend + by for bend in published.bends for by in (-2, -1, 0, 1, 2)}
    inside = np.linspace(0, published.last, 101).astype(int).tolist()
    steps = sorted(
        {0, 1, 2, *near, *inside, published.last + 1, 2 * published.last, 10 * published.last}
    )
    check(curve(name, steps), published, steps)


@pytest.mark.parametrize("name", RECIPES)
def test_a_step_more_or_less_would_be_seen(name):
    published = RECIPES[name]
    steps = sorted({bend + by for bend in published.bends for by in (-1, 0, 1)})
    steps += np.linspace(0, published.last, 11).astype(int)[1:-1].tolist()
    for by in (-1, 1):
        with pytest.raises(AssertionError, match="Not equal"):
            check(curve(name, [step + by for step in steps]), published, steps)


def test_the_last_layer_of_dinov2_waits_for_an_epoch():
    config = OptimizerFactory(recipe("dinov2_vitl16")).config
    published = Recipe(dinov2_last_layer, (EPOCH, 10 * EPOCH), 100 * EPOCH)
    near = {bend + by for bend in published.bends for by in (-2, -1, 0, 1, 2)}
    steps = sorted({0, 1, 5000, *near, 60_000, 124_999, 125_000, 10**6})
    (group,) = [group for group in config.param_groups if group.match == "last_layer"]
    check(np.array(curve_by(config, group).values(steps)), published, steps)


def test_the_weight_decay_of_dinov2_rises():
    rate = recipe("dinov2_vitl16").schedules["weight_decay"].get()
    steps = [0, 1, 62_499, 62_500, 124_999, 125_000, 10**6]
    wanted = [*dinov2_schedule(0.04, 0.4, 0), *[0.4] * 10]
    expected = [wanted[min(step, 125_000)] for step in steps]
    found = schedules.curve(rate, None, steps)
    np.testing.assert_allclose(found, expected, rtol=1e-7)


# Which variables decay, and by which optimizer they are updated.

SHAPES = {
    "model/token_embedding/embeddings": (11, 4),
    "model/absolute_pos_embed": (1, 3, 4),
    "model/layer_0/attention_norm/gamma": (4,),
    "model/layer_0/attention/query/kernel": (4, 4),
    "model/layer_0/attention/query/bias": (4,),
    "model/layer_0/attention/relative_position_bias_table": (5, 2),
    "model/layer_0/mlp_layer_norm/beta": (4,),
    "model/head/kernel": (4, 11),
}
EMBEDDINGS = {"model/token_embedding/embeddings"}
POSITIONS = {
    "model/absolute_pos_embed",
    "model/layer_0/attention/relative_position_bias_table",
}
VECTORS = {path for path, shape in SHAPES.items() if len(shape) == 1}


@pytest.mark.parametrize(
    ("name", "others"),
    [
        # By the number of dimensions: what has less than two doesn't.
        ("gpt2_small", VECTORS),
        ("llama3_8b_torchtitan", set()),
        ("muon_kimi_k2", set()),
        ("muon_moonlight", set()),
        # `decay_norm_and_bias: true`, `decay_embeddings: false`
        ("olmo2_7b", EMBEDDINGS),
        ("smollm3_3b", EMBEDDINGS),
        ("swin_imagenet", VECTORS | POSITIONS),
        ("timm_defaults", VECTORS),
    ],
)
def test_what_decays_is_the_originals(name, others):
    rows = group_rows(recipe(name), SHAPES)
    assert {row.path for row in rows if not row.decayed} == others


@pytest.mark.parametrize("name", ["muon_kimi_k2", "muon_moonlight"])
def test_muon_has_the_hidden_matrices(name):
    # What is no vector, embedding or output layer; of those of positions Muon can't know.
    shapes = {path: shape for path, shape in SHAPES.items() if path not in POSITIONS}
    rows = group_rows(recipe(name), shapes)
    by_muon = {row.path for row in rows if row.orthogonalized}
    assert by_muon == {"model/layer_0/attention/query/kernel"}


DINOV2 = {
    "backbone/class_token": (1, 1, 4),
    "backbone/patch_embed/kernel": (2, 2, 3, 4),
    "backbone/patch_embed/bias": (4,),
    "backbone/encoder/layer_0/norm1/gamma": (4,),
    "backbone/encoder/layer_0/attention/kernel": (4, 12),
    "backbone/encoder/layer_1/mlp/kernel": (4, 4),
    "backbone/encoder/layer_1/layer_scale/gamma": (4,),
    "backbone/norm/beta": (4,),
    "dino_head/mlp/kernel": (4, 4),
    "dino_head/last_layer/kernel": (4, 9),
}


def test_the_layers_of_dinov2():
    rows = group_rows(recipe("dinov2_vitl16"), DINOV2)
    # rate ** (blocks + 1 - layer): the norm behind the blocks and the heads are of layer 3.
    first, second, third = 0.9**3, 0.9**2, 0.9
    multipliers = [first, 0.2 * first, 0.2 * first, second, second, third, third, 1.0, 1.0, 1.0]
    assert [row.multiplier for row in rows] == pytest.approx(multipliers, rel=1e-12)
    others = {path for path in DINOV2 if path.endswith(("bias", "beta", "gamma"))}
    assert {row.path for row in rows if not row.decayed} == others
    highest = {row.path: row.highest_rate for row in rows}
    peak = 0.004 * math.sqrt(2)
    assert highest["dino_head/last_layer/kernel"] == pytest.approx(peak, rel=1e-12)
    assert highest["backbone/patch_embed/kernel"] == pytest.approx(0.2 * first * peak, rel=1e-12)


@pytest.mark.parametrize(
    ("name", "decay"),
    [
        ("dinov2_vitl16", lambda n: half_cosine(0.992, 1.0, min(n - 1, 125_000) / 125_000)),
        ("yolo_coco", lambda n: 0.9999 * (1 - math.exp(-n / 2000))),  # its class ModelEMA
    ],
)
def test_averages_are_those_of_the_code(name, decay):
    arguments = recipe(name).average_arguments()
    fields = {field.name for field in dataclasses.fields(AverageDecay)}
    made = AverageDecay(**{n: value for n, value in arguments.items() if n in fields})
    for n in (1, 2, 1000, 62_500, 125_000, 125_001, 200_000):
        assert 1 - made.moved_share(n, n, SCALARS) == pytest.approx(decay(n), rel=1e-14)
