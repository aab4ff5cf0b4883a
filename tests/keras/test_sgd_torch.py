import importlib.util

import keras
import numpy as np
import pytest

from optimization.keras.rule_part import RulePart
from optimization.optimizers import SGDTorch
from tests.keras.common import (
    STEPS,
    TableSchedule,
    final_weights,
    problem,
    relative_error,
)
from tests.references import weights_of

RATES = [0.01 * (1 + step % 5) for step in range(STEPS)]


def group(path):
    if "kernel" in path:
        return "weight"
    return "bias" if "bias" in path or "beta" in path else "other"


def reference(momentum=0.9, start=0.0, warmup=0, nesterov=False, decay=0.0, bias=None, other=None):
    def update(path, w, g, t, slots):
        mu = start + (momentum - start) * min((t - 1) / warmup, 1) if warmup else momentum
        lr = {"weight": RATES[t - 1], "bias": bias, "other": other}[group(path)]
        lr = RATES[t - 1] if lr is None else lr
        if group(path) == "weight":
            g = g + decay * w
        buffer = slots["buffer"] = mu * slots.get("buffer", 0) + g
        return w - lr * (g + mu * buffer if nesterov else buffer)

    return update


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"momentum": 0.0},
        {"momentum": 0.8, "nesterov": True, "decay": 0.05},
        {"start": 0.5, "warmup": 10, "nesterov": True},
        {"decay": 0.1, "bias": 0.1, "other": 0.001},
    ],
    ids=["default", "plain", "nesterov and decay", "warmup", "groups"],
)
def test_equals_the_formula(settings):
    names = {
        "start": "momentum_start",
        "warmup": "warmup_steps",
        "decay": "weight_decay",
        "bias": "bias_learning_rate",
        "other": "other_learning_rate",
    }
    optimizer = SGDTorch(
        TableSchedule(RATES), **{names.get(key, key): value for key, value in settings.items()}
    )
    initial, gradients = problem()
    expected = weights_of(reference(**settings), initial, gradients)
    # 10 float32 steps, each rounded once or twice at 6e-8.
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < 2e-6


@pytest.mark.parametrize("nesterov", [False, True])
@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
def test_equals_pytorch(nesterov):
    import torch

    initial, gradients = problem()
    weights = {p: torch.nn.Parameter(torch.tensor(value)) for p, value in initial.items()}
    theirs = torch.optim.SGD(
        [
            {"params": [p for n, p in weights.items() if "kernel" in n], "weight_decay": 0.05},
            {"params": [p for n, p in weights.items() if "kernel" not in n]},
        ],
        lr=0.02,
        momentum=0.9,
        nesterov=nesterov,
    )
    for gradient in gradients:
        for path, parameter in weights.items():
            parameter.grad = torch.tensor(gradient[path])
        theirs.step()
    ours = final_weights(SGDTorch(0.02, nesterov=nesterov, weight_decay=0.05), initial, gradients)
    expected = {path: parameter.detach().numpy() for path, parameter in weights.items()}
    # Two float32 computations of the same formula, 10 steps.
    assert relative_error(ours, expected) < 2e-6


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("a/kernel", None),
        ("a/weights_bias/x", None),
        ("a/bias", "bias"),
        ("a/beta", "bias"),
        ("a/gamma", "other"),
    ],
)
def test_weights_are_searched_first(path, expected):
    assert SGDTorch().rule.settings(path, ()).get("kind") == expected


@pytest.mark.parametrize(
    ("step", "expected"), [(0, 0.5), (5, 0.65), (9, 0.77), (10, 0.8), (11, 0.8), (100, 0.8)]
)
def test_momentum_warmup_at_its_boundaries(step, expected):
    optimizer = SGDTorch(momentum=0.8, momentum_start=0.5, warmup_steps=10)
    optimizer.iterations.assign(step)
    # One float32 rounding.
    momentum = RulePart(optimizer).counted(0.1, {})["along"]["momentum"]
    assert float(momentum) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ({"momentum": 1.1}, "momentum"),
        ({"momentum_start": -0.1}, "momentum_start"),
        ({"warmup_steps": -1}, "warmup_steps"),
        ({"momentum": 0.0, "nesterov": True}, "nesterov"),
        ({"weight_keys": ["("]}, "weight_keys"),
    ],
)
def test_wrong_arguments(arguments, named):
    with pytest.raises(ValueError, match=rf"^{named}(\[0\])?: "):
        SGDTorch(**arguments)


def test_config_round_trip_with_schedules():
    optimizer = SGDTorch(
        0.1,
        weight_decay=0.05,
        bias_keys=None,
        bias_learning_rate=TableSchedule([0.1, 0.2]),
        other_learning_rate=0.3,
    )
    again = SGDTorch.from_config(optimizer.get_config())
    assert again.get_config() == optimizer.get_config()
    np.testing.assert_allclose(again.bias_learning_rate(1), 0.2, rtol=1e-6)
    assert keras.saving.serialize_keras_object(again) == keras.saving.serialize_keras_object(
        optimizer
    )
