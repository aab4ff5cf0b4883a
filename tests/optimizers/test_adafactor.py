import importlib.util

import numpy as np
import pytest

from optimization.configs.optimizers.adafactor_variants import axes_to_factor
from optimization.optimizers import Adafactor
from tests.golden_cases import make_variables
from tests.optimizers.common import (
    TableSchedule,
    final_weights,
    problem,
    reference_weights,
    relative_error,
)

RATES = [0.02 * (1 + step % 5) for step in range(25)]
TENSORS = {
    "one/bias": (9,),
    "two/kernel": (8, 6),
    "three/kernel": (4, 9, 5),
    "four/kernel": (3, 2, 7, 6),
    "narrow/kernel": (9, 2),
    "square/kernel": (6, 6),
}
SETTINGS = {
    "default": {},
    "absolute": {"multiply_by_parameter_scale": False},
    "momentum": {"beta1": 0.8},
    "unclipped": {"clipping_threshold": None, "decay_rate": 0.6},
    "whole": {"factored": False},
    "decay": {"weight_decay": 0.01, "beta1": 0.5, "clipping_threshold": 0.5},
    "epsilons": {"epsilon1": 1e-3, "epsilon2": 0.5},
}


def reference(
    factored=True,
    multiply_by_parameter_scale=True,
    beta1=None,
    decay_rate=0.8,
    step_offset=0,
    clipping_threshold=1.0,
    min_dim_size_to_factor=128,
    epsilon1=1e-30,
    epsilon2=1e-3,
    weight_decay=None,
    decays=lambda path: True,
):
    def second_moment(g, b, slots):
        squared = g**2 + epsilon1
        small, large = np.argsort(g.shape)[-2:] if g.ndim > 1 else (None, None)
        if not factored or g.ndim < 2 or g.shape[small] < min_dim_size_to_factor:
            slots["v"] = b * slots.get("v", 0) + (1 - b) * squared
            return slots["v"]
        # Kept with the averaged axis in place, so that the product broadcasts.
        rows = slots["r"] = b * slots.get("r", 0) + (1 - b) * squared.mean(large, keepdims=True)
        columns = slots["c"] = b * slots.get("c", 0) + (1 - b) * squared.mean(small, keepdims=True)
        return rows * columns / rows.mean(small, keepdims=True)

    def rms(x):
        return np.sqrt((x**2).mean())

    def update(path, w, g, t, slots):
        b = 1 - max(t - step_offset, 1) ** -decay_rate
        u = g / np.sqrt(second_moment(g, b, slots))
        if clipping_threshold is not None:
            u = u / max(1, rms(u) / clipping_threshold)
        u = RATES[t - 1] * u * (max(rms(w), epsilon2) if multiply_by_parameter_scale else 1)
        if beta1 is not None:
            u = slots["m"] = beta1 * slots.get("m", 0) + (1 - beta1) * u
        k = weight_decay if weight_decay and decays(path) else 0
        return (1 - k) * w - u

    return update


def ours(initial, gradients, **settings):
    return final_weights(Adafactor(TableSchedule(RATES), **settings), initial, gradients)


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_equals_the_formula(settings):
    settings = {"min_dim_size_to_factor": 4, **settings}
    initial, gradients = problem(TENSORS)
    expected = reference_weights(reference(**settings), initial, gradients)
    # 25 float32 steps; the powers and roots of the second moment round at about 1e-7 each.
    assert relative_error(ours(initial, gradients, **settings), expected) < 2e-6


def test_offset_holds_the_first_decay_until_it_is_passed():
    settings = {"min_dim_size_to_factor": 4, "step_offset": 10}
    initial, gradients = problem(TENSORS)
    expected = reference_weights(reference(**settings), initial, gradients)
    assert relative_error(ours(initial, gradients, **settings), expected) < 2e-6


def test_fine_tuning_from_the_offset_decays_as_from_the_start():
    initial, gradients = problem(TENSORS)
    expected = final_weights(Adafactor(0.1, min_dim_size_to_factor=4), initial, gradients)
    later = Adafactor(0.1, min_dim_size_to_factor=4, step_offset=1000)
    later.iterations.assign(1000)
    assert relative_error(final_weights(later, initial, gradients), expected) == 0


@pytest.mark.parametrize("patterns", ["kernel", ["two", "kernel"]])
def test_included_patterns_alone_decay(patterns):
    settings = {"min_dim_size_to_factor": 4, "weight_decay": 0.05}
    initial, gradients = problem(TENSORS)
    update = reference(**settings, decays=lambda path: "kernel" in path)
    expected = reference_weights(update, initial, gradients)
    actual = ours(initial, gradients, **settings, include_in_weight_decay=patterns)
    assert relative_error(actual, expected) < 2e-6


@pytest.mark.skipif(importlib.util.find_spec("optax") is None, reason="optax is not installed")
@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS)
def test_equals_optax(settings):
    import jax
    import optax

    names = {
        "beta1": "momentum",
        "epsilon1": "eps",
        "weight_decay": "weight_decay_rate",
    }
    if "epsilon2" in settings:
        pytest.skip("optax has no argument for the floor of the parameter scale")
    theirs = optax.adafactor(
        learning_rate=lambda step: jax.numpy.asarray(RATES)[step],
        min_dim_size_to_factor=4,
        **{names.get(key, key): value for key, value in settings.items()},
    )
    initial, gradients = problem(TENSORS)
    params = {path: jax.numpy.asarray(value) for path, value in initial.items()}
    state = theirs.init(params)
    for gradient in gradients:
        grads = {path: jax.numpy.asarray(value) for path, value in gradient.items()}
        updates, state = theirs.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    expected = {path: np.asarray(value) for path, value in params.items()}
    actual = ours(initial, gradients, min_dim_size_to_factor=4, **settings)
    # Two float32 computations of the same formula, 25 steps.
    assert relative_error(actual, expected) < 2e-6


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        ((200,), None),
        ((128, 300), (1, 0)),
        ((300, 128), (0, 1)),
        ((127, 300), None),
        ((3, 3, 128, 256), (3, 2)),
        ((2, 512, 8, 128), (1, 3)),
        ((128, 128), (1, 0)),
    ],
)
def test_the_two_largest_axes_are_factored(shape, axes):
    assert axes_to_factor(shape, "two_largest", 128) == axes


def test_memory_is_sublinear_where_factored():
    shapes = {"large/kernel": (300, 200), "conv/kernel": (3, 130, 140), "small/bias": (7,)}
    variables = make_variables({path: np.zeros(s, "float32") for path, s in shapes.items()})
    optimizer = Adafactor()
    optimizer.build(variables)
    sizes = sorted(int(np.prod(v.shape)) for v in optimizer.variables)
    # Iterations and learning rate; the bias; rows and columns of each kernel.
    assert sizes == sorted([1, 1, 7, 300, 200, 3 * 130, 3 * 140])


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"beta1": 1.0}, "beta1"),
        ({"decay_rate": 0.0}, "decay_rate"),
        ({"clipping_threshold": 0.0}, "clipping_threshold"),
        ({"include_in_weight_decay": "("}, r"include_in_weight_decay\[0\]"),
    ],
)
def test_wrong_arguments(arguments, named):
    with pytest.raises(ValueError, match=f"^{named}: "):
        Adafactor(**arguments)


def test_config_round_trip():
    optimizer = Adafactor(
        0.1, False, False, 0.9, 0.7, 3, None, 16, 1e-20, 1e-2, 0.01, "kernel", name="mine"
    )
    config = optimizer.get_config()
    assert config["weight_decay"] == 0.01
    assert Adafactor.from_config(config).get_config() == config
