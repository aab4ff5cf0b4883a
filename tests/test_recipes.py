"""The recipes that once took code of their own, against references written in NumPy.

Each takes some updates with what the factory builds from the file in `configs/optimization`, on a
few small variables with the paths of such a model. The references compute in float64, from the
papers and from what Model Garden's classes did.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from optimization import OptimizationConfig, OptimizerFactory, load_optimization_config
from tests.golden_cases import make_variables

ROOT = Path(__file__).parent.parent
TENSORFLOW = keras.backend.backend() == "tensorflow"
STEPS = 12


def recipe(name: str) -> OptimizationConfig:
    config = load_optimization_config(ROOT / "configs" / "optimization" / f"{name}.yaml")
    # The average takes no part in the updates, and one of all weights needs a model.
    return config.replace(ema=None)


def problem(shapes: dict[str, tuple], scale: float) -> tuple[dict, list[dict]]:
    """Returns initial values, and the gradients of each step."""
    random = np.random.default_rng(11)

    def draw(scale: float) -> dict[str, np.ndarray]:
        return {p: (random.normal(size=s) * scale).astype("float32") for p, s in shapes.items()}

    # Some gradients are longer than the clips, some shorter.
    return draw(scale), [draw(0.01 if step % 4 == 3 else 0.5) for step in range(STEPS)]


def build(config: OptimizationConfig) -> keras.optimizers.Optimizer:
    factory = OptimizerFactory(config)
    return factory.build_optimizer(factory.build_learning_rate())


def trained(
    optimizer: keras.optimizers.Optimizer, initial: dict, gradients: list[dict], start: int = 0
) -> dict[str, np.ndarray]:
    """Returns the weights after all steps; the first one is the update number `start`."""
    variables = make_variables(initial)
    optimizer.build(variables)
    optimizer.iterations.assign(start)
    for gradient in gradients:
        grads = [keras.ops.convert_to_tensor(gradient[v.path]) for v in variables]
        optimizer.apply(grads, variables)
    assert int(optimizer.iterations) == start + len(gradients)
    return {v.path: keras.ops.convert_to_numpy(v) for v in variables}


Update = Callable[[str, np.ndarray, np.ndarray, int, dict[str, Any]], np.ndarray]


def reference(
    update: Update, initial: dict, gradients: list[dict], start: int = 0, clip: float = np.inf
) -> dict[str, np.ndarray]:
    """Runs `update(path, w, g, s, slots)` for s = start, start + 1, ...; returns the weights."""
    weights = {path: value.astype("float64") for path, value in initial.items()}
    slots = {path: {} for path in initial}
    for step, gradient in enumerate(gradients, start=start):
        grads = {path: value.astype("float64") for path, value in gradient.items()}
        norm = np.sqrt(sum(np.sum(g**2) for g in grads.values()))
        factor = min(1.0, clip / norm)
        for path, weight in weights.items():
            weights[path] = update(path, weight, factor * grads[path], step, slots[path])
    return weights


def adam(
    weight: np.ndarray,
    gradient: np.ndarray,
    step: int,
    slots: dict[str, Any],
    rate: float,
    epsilon: float,
    decay: float = 0.0,
) -> np.ndarray:
    """Adam with decoupled decay, as BERT has it: epsilon is added to the root as it is."""
    m = slots["m"] = 0.9 * slots.get("m", 0.0) + 0.1 * gradient
    v = slots["v"] = 0.999 * slots.get("v", 0.0) + 0.001 * gradient**2
    alpha = rate * np.sqrt(1 - 0.999 ** (step + 1)) / (1 - 0.9 ** (step + 1))
    return weight - rate * decay * weight - alpha * m / (np.sqrt(v) + epsilon)


def error(actual: dict, expected: dict, initial: dict) -> float:
    """Returns the largest difference, in units of what float32 explains; at most 1 is right.

    Of what a variable moved that is 5e-5: in Adam's first step, 1 - 0.999 and its root in float32
    are off by 3e-5. And half a unit in the last place of the weight for each rounded update.
    """
    errors = []
    for path, weight in expected.items():
        moved = np.abs(weight - initial[path]).max()
        allowed = 5e-5 * moved + STEPS * 2.0**-24 * np.abs(weight).max()
        errors.append(np.abs(actual[path] - weight).max() / allowed)
    return max(errors)


def check(actual: dict, initial: dict, expected: Callable[..., dict], **wrong: Any) -> None:
    """Compares with `expected()`; each of `wrong`, an argument of it, must make a difference."""
    assert error(actual, expected(), initial) <= 1
    for name, value in wrong.items():
        # Well above 1: what the recipe asks for is no rounding error.
        assert error(actual, expected(**{name: value}), initial) > 5, name


# DETR: the learning rate is multiplied by 0.1 where "detr" is not in the path.

DETR_SHAPES = {
    "resnet/conv1/kernel": (3, 3, 2, 4),
    "resnet/conv1/bias": (4,),
    "detr/transformer/dense/kernel": (4, 5),
    "detr/transformer/dense/bias": (5,),
    "detr/class_embed/kernel": (5, 3),
}


def detr(
    problem: tuple,
    start: int,
    scale: float,
    multiplier: float = 0.1,
    decay: float = 1e-4,
    clip: float = 0.1,
    drop: int = 739_600,
) -> dict[str, np.ndarray]:
    def update(path, weight, gradient, step, slots):
        rate = scale * (1e-4 if step <= drop else 1e-5)
        rate *= 1.0 if "detr" in path else multiplier
        return adam(weight, gradient, step, slots, rate, epsilon=1e-8, decay=decay)

    return reference(update, *problem, start, clip)


@pytest.mark.parametrize("start", [0, 739_595])
def test_detr(start):
    config = recipe("detr_coco")
    # Large weights and rates, so that what decay does is more than rounding.
    problem_ = problem(DETR_SHAPES, scale=10.0)
    config.lr_scaling = {"base_batch_size": 64, "global_batch_size": 64_000}
    actual = trained(build(config), *problem_, start)
    wrong = {"multiplier": 1.0, "decay": 0.0, "clip": np.inf}
    if start:
        wrong["drop"] = 739_599
    check(actual, problem_[0], lambda **kw: detr(problem_, start, 1000.0, **kw), **wrong)


def test_detr_as_it_is():
    problem_ = problem(DETR_SHAPES, scale=0.01)
    optimizer = build(recipe("detr_coco"))
    actual = trained(optimizer, *problem_)
    check(actual, problem_[0], lambda **kw: detr(problem_, 0, 1.0, **kw), multiplier=1.0)
    rates = {name: float(rate) for name, rate in optimizer.learning_rates().items()}
    assert rates == pytest.approx({"default": 1e-4, "backbone": 1e-5}, rel=1e-6)


# YOLO: kernels decay; the rate of biases comes from 0.1; momentum grows; Nesterov.

YOLO_SHAPES = {
    "backbone/conv/kernel": (3, 3, 2, 4),
    "backbone/batch_normalization/gamma": (4,),
    "backbone/batch_normalization/beta": (4,),
    "head/kernel": (1, 1, 4, 6),
    "head/bias": (6,),
}
YOLO_WARMUP, YOLO_TOTAL = 5547, 554_700


def yolo(
    problem: tuple,
    start: int,
    decay: float = 5e-4,
    decayed: tuple[str, ...] = ("kernel",),
    bias_start: float = 0.1,
    other_start: float = 0.0,
    momentum_start: float = 0.8,
    nesterov: bool = True,
) -> dict[str, np.ndarray]:
    def rate_of(path: str, step: int) -> float:
        def line(step: int) -> float:
            return 0.01 + (1e-4 - 0.01) * step / YOLO_TOTAL

        if step >= YOLO_WARMUP:
            return line(step)
        first = bias_start if path.endswith(("bias", "beta")) else other_start
        return np.interp(step, [0, YOLO_WARMUP], [first, line(YOLO_WARMUP)])

    def update(path, weight, gradient, step, slots):
        momentum = np.interp(step, [0, YOLO_WARMUP], [momentum_start, 0.937])
        if path.endswith(decayed):
            gradient = gradient + decay * weight
        buffer = slots["buffer"] = momentum * slots.get("buffer", 0.0) + gradient
        step_by = gradient + momentum * buffer if nesterov else buffer
        return weight - rate_of(path, step) * step_by

    return reference(update, *problem, start)


@pytest.mark.parametrize("spelling", ["warmup of sgd_torch", "schedule"])
@pytest.mark.parametrize("start", [0, 2000, YOLO_WARMUP - 6, YOLO_TOTAL - 6])
def test_yolo(start, spelling):
    config = recipe("yolo_coco")
    if spelling == "schedule":
        config.optimizer.sgd_torch.override({"momentum_start": 0.0, "warmup_steps": 0})
        linear = {
            "initial_learning_rate": 0.8,
            "end_learning_rate": 0.937,
            "decay_steps": YOLO_WARMUP,
        }
        config.schedules = {"momentum": {"type": "linear", "linear": linear}}
    problem_ = problem(YOLO_SHAPES, scale=5.0)
    actual = trained(build(config), *problem_, start)
    wrong = {"nesterov": False}
    if 2000 <= start <= YOLO_WARMUP:
        wrong["decay"] = 0.0
        wrong["decayed"] = ("kernel", "bias", "beta", "gamma")
    if start in (0, 2000):
        wrong.update(bias_start=0.0, other_start=0.1, momentum_start=0.937)
    check(actual, problem_[0], lambda **kw: yolo(problem_, start, **kw), **wrong)


def test_yolo_has_three_groups():
    optimizer = build(recipe("yolo_coco"))
    optimizer.build(make_variables(problem(YOLO_SHAPES, 1.0)[0]))
    groups = {row.path: (row.group, row.decayed) for row in optimizer.group_table()}
    assert groups == {
        "backbone/conv/kernel": ("default", True),
        "backbone/batch_normalization/gamma": ("others", False),
        "backbone/batch_normalization/beta": ("biases", False),
        "head/kernel": ("default", True),
        "head/bias": ("biases", False),
    }


# Ranking: an optimizer for the tables, Adam for the rest, one clip over both.

RANKING_SHAPES = {
    "ranking/table_0/embeddings": (6, 4),
    "ranking/table_1/embeddings": (3, 4),
    "ranking/bottom/dense/kernel": (5, 4),
    "ranking/bottom/dense/bias": (4,),
    "ranking/top/dense/kernel": (4, 1),
}


def ranking(
    problem: tuple,
    start: int,
    kind: str,
    clip: float = 1.0,
    table_clip: float = np.inf,
    dense_rate: float = 0.001,
) -> dict[str, np.ndarray]:
    def sgd_rate(step: int) -> float:
        left = np.clip((100_000 - step) / 30_000, 0.0, 1.0)
        return 10.0 * step / 8000 if step < 8000 else 0.01 + 9.99 * left**2

    def update(path, weight, gradient, step, slots):
        if not path.endswith("embeddings"):
            return adam(weight, gradient, step, slots, dense_rate, epsilon=1e-7)
        gradient = gradient * min(1.0, table_clip / np.linalg.norm(gradient))
        if kind == "sgd":
            return weight - sgd_rate(step) * gradient
        total = slots["sum"] = slots.get("sum", 0.0) + gradient**2
        return weight - 0.005 * gradient / np.sqrt(total + 1e-8)

    return reference(update, *problem, start, clip)


RANKING_FILES = {"adagrad": "recommendation_ranking", "sgd": "recommendation_ranking_sgd"}


@pytest.mark.parametrize("start", [0, 7994, 69_994, 99_994])
@pytest.mark.parametrize("kind", RANKING_FILES)
def test_ranking(kind, start):
    problem_ = problem(RANKING_SHAPES, scale=0.1)
    actual = trained(build(recipe(RANKING_FILES[kind])), *problem_, start)
    wrong = {"clip": np.inf, "table_clip": 0.3, "dense_rate": 0.01}
    check(actual, problem_[0], lambda **kw: ranking(problem_, start, kind, **kw), **wrong)


@pytest.mark.skipif(not TENSORFLOW, reason="only TensorFlow has sparse gradients")
@pytest.mark.parametrize("kind", RANKING_FILES)
def test_ranking_with_rows_that_repeat(kind):
    import tensorflow as tf

    initial, gradients = problem(RANKING_SHAPES, scale=0.1)
    random = np.random.default_rng(3)
    optimizer, variables, dense = build(recipe(RANKING_FILES[kind])), make_variables(initial), []
    optimizer.build(variables)
    optimizer.iterations.assign(8000)
    table = "ranking/table_0/embeddings"
    for gradient in gradients:
        rows = random.integers(0, 4, size=5)  # rows 4 and 5 never
        values = random.normal(size=(5, 4)).astype("float32")
        whole = np.zeros((6, 4), "float32")
        np.add.at(whole, rows, values)
        dense.append({**gradient, table: whole})
        slices = tf.IndexedSlices(values, rows, (6, 4))
        optimizer.apply([slices if v.path == table else gradient[v.path] for v in variables])
    actual = {v.path: v.numpy() for v in variables}
    check(actual, initial, lambda **kw: ranking((initial, dense), 8000, kind, **kw), clip=np.inf)
    np.testing.assert_array_equal(actual[table][4:], initial[table][4:])


# Vision transformers: layer decay as in timm.

TIMM = json.loads((ROOT / "tests" / "golden" / "timm_layer_decay.json").read_text())
TIMM_NAMES = {
    "cls_token": "class_token",
    "pos_embed": "position_embedding",
    "patch_embed.proj": "patch_embedding",
    "blocks.": "encoder/layer_",
    "norm.": "encoder/norm.",
}


def keras_path(name: str) -> str:
    """Returns the path that a parameter of timm's model would have in a Keras model."""
    for start, ours in TIMM_NAMES.items():
        if name.startswith(start):
            name = ours + name.removeprefix(start)
            break
    *layers, last = name.replace(".", "/").split("/")
    if layers:
        norm = layers[-1].startswith("norm")
        last = {"weight": "gamma" if norm else "kernel", "bias": "beta" if norm else "bias"}[last]
    return "/".join(["vit", *layers, last])


def vit_config(case: dict[str, float]) -> OptimizationConfig:
    config = recipe("vit_finetuning_layer_decay")
    config.layer_decay.override(case)
    return config


@pytest.mark.parametrize("case", [0, 1])
def test_vit_multipliers_and_decay_are_timms(case):
    optimizer = build(vit_config(TIMM["cases"][case]))
    shapes = {keras_path(row[0]): (2,) * row[1] for row in TIMM["parameters"]}
    optimizer.build(make_variables(problem(shapes, 1.0)[0]))
    actual = {row.path: (row.multiplier, row.decayed) for row in optimizer.group_table()}
    expected = {keras_path(row[0]): (row[3 + case], row[2]) for row in TIMM["parameters"]}
    assert len(expected) == len(TIMM["parameters"])
    assert {path: decays for path, (_, decays) in actual.items()} == {
        path: decays for path, (_, decays) in expected.items()
    }
    multipliers = {path: multiplier for path, (multiplier, _) in actual.items()}
    # Both are float64 powers; the order of multiplication may round otherwise.
    assert multipliers == pytest.approx({p: m for p, (m, _) in expected.items()}, rel=1e-12)


def test_the_file_has_the_rate_of_timms_default():
    config = recipe("vit_finetuning_layer_decay")
    assert vit_config(TIMM["cases"][0]) == config


VIT_SHAPES = {
    "vit/class_token": (1, 1, 4),
    "vit/position_embedding": (1, 3, 4),
    "vit/patch_embedding/kernel": (2, 2, 3, 4),
    "vit/encoder/layer_0/mlp/kernel": (4, 5),
    "vit/encoder/layer_1/mlp/kernel": (5, 4),
    "vit/encoder/layer_1/mlp/bias": (4,),
    "vit/encoder/norm/gamma": (4,),
    "vit/encoder/norm/beta": (4,),
    "vit/head/kernel": (4, 3),
}
VIT_MULTIPLIERS = dict(zip(VIT_SHAPES, [0.75**3] * 3 + [0.75**2] + [0.75] * 4 + [1.0], strict=True))


def vit(
    problem: tuple,
    start: int,
    decay: float = 0.05,
    decayed: str = "kernel",
    multipliers: dict[str, float] = VIT_MULTIPLIERS,
) -> dict[str, np.ndarray]:
    def update(path, weight, gradient, step, slots):
        # 1e-3 for each 256 of 1,024 examples, to 1e-6.
        done = np.clip((step - 6255) / 56_295, 0.0, 1.0)
        rate = 1e-6 + (4e-3 - 1e-6) * (1 + np.cos(np.pi * done)) / 2
        rate *= multipliers[path] * min(1.0, step / 6255)
        here = decay if path.endswith(decayed) else 0.0
        return adam(weight, gradient, step, slots, rate, epsilon=1e-8, decay=here)

    return reference(update, *problem, start)


@pytest.mark.parametrize("start", [3000, 6249, 40_000])
def test_vit(start):
    problem_ = problem(VIT_SHAPES, scale=1.0)
    actual = trained(build(recipe("vit_finetuning_layer_decay")), *problem_, start)
    ones = dict.fromkeys(VIT_SHAPES, 1.0)
    wrong = {"decay": 0.0, "decayed": "", "multipliers": ones}
    check(actual, problem_[0], lambda **kw: vit(problem_, start, **kw), **wrong)


# All of them

RECIPES = {
    "detr_coco": DETR_SHAPES,
    "yolo_coco": YOLO_SHAPES,
    "recommendation_ranking": RANKING_SHAPES,
    "recommendation_ranking_sgd": RANKING_SHAPES,
    "vit_finetuning_layer_decay": VIT_SHAPES,
}


@pytest.mark.parametrize("name", RECIPES)
def test_nothing_is_lost_on_saving(name):
    problem_ = problem(RECIPES[name], scale=0.1)
    optimizer = build(recipe(name))
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    expected = trained(optimizer, *problem_, start=5000)
    actual = trained(again, *problem_, start=5000)
    for path, weight in expected.items():
        np.testing.assert_array_equal(actual[path], weight, err_msg=path)
