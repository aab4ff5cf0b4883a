"""RMSprop, Adagrad, Adamax and Nadam in the forms in which Keras and PyTorch differ."""

import keras
import numpy as np
import pytest

from optimization import ConfigError, OptimizationConfig, OptimizerFactory
from optimization.optimizers import Adagrad, Adamax, Nadam, RMSprop
from tests.keras.common import (
    STEPS,
    TableSchedule,
    final_weights,
    problem,
    relative_error,
)

RATES = [0.01 * (1 + step % 5) for step in range(STEPS)]
# Large, so that its place shows.
EPSILON = 1e-2


@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (RMSprop, {"momentum": 0.8, "centered": True}),
        (Adagrad, {}),
        (Adamax, {}),
        (Nadam, {}),
    ],
)
def test_the_default_is_the_optimizer_of_keras(cls, arguments):
    initial, gradients = problem()
    arguments = {"weight_decay": 0.1, "epsilon": EPSILON, **arguments}
    theirs = getattr(keras.optimizers, cls.__name__)(TableSchedule(RATES), **arguments)
    expected = final_weights(theirs, initial, gradients)
    actual = final_weights(cls(TableSchedule(RATES), **arguments), initial, gradients)
    # The same float32 operations in another order; bias corrections are rounded at
    # 1e-7 / (1 - beta_2), in each of the two.
    assert relative_error(actual, expected) < 5e-6


@pytest.mark.parametrize(
    ("cls", "ours", "name", "theirs"),
    [
        (
            RMSprop,
            {
                **switches,
                "epsilon_in_sqrt": False,
                "classic_momentum": not switches["momentum"],  # or it is refused
            },
            "RMSprop",
            {**switches, "alpha": 0.9},
        )
        for switches in (
            {"momentum": 0.8, "centered": False},
            {"momentum": 0.8, "centered": True},
            {"momentum": 0.0, "centered": True},
        )
    ]
    + [
        (
            Adagrad,
            {"epsilon_in_sqrt": False, "initial_accumulator_value": value},
            "Adagrad",
            {"initial_accumulator_value": value},
        )
        for value in (0.0, 0.1)
    ]
    + [
        (Adamax, {"epsilon_in_norm": True}, "Adamax", {}),
        (
            Nadam,
            {"weight_decay": 0.1, "momentum_decay": 0.004},
            "NAdam",
            {"weight_decay": 0.1, "decoupled_weight_decay": True},
        ),
    ],
)
def test_the_other_form_is_that_of_torch(cls, ours, name, theirs):
    torch = pytest.importorskip("torch", reason="PyTorch is installed for some of the tests only")
    initial, gradients = problem()
    weights = {path: torch.nn.Parameter(torch.tensor(value)) for path, value in initial.items()}
    optimizer = getattr(torch.optim, name)(weights.values(), lr=0.01, eps=EPSILON, **theirs)
    for gradient, rate in zip(gradients, RATES, strict=True):
        optimizer.param_groups[0]["lr"] = rate
        for path, weight in weights.items():
            weight.grad = torch.tensor(gradient[path])
        optimizer.step()
    expected = {path: weight.detach().numpy() for path, weight in weights.items()}
    ours = cls(TableSchedule(RATES), epsilon=EPSILON, **ours)
    # Both are float32; PyTorch computes the bias corrections in float64.
    assert relative_error(final_weights(ours, initial, gradients), expected) < 3e-6


def test_a_negative_spread_by_rounding_is_none():
    # The same gradient for long: v - a^2 is 0 but for rounding, below it for some of these.
    gradient = np.linspace(0.1, 3.0, 200).astype("float32")
    steps = [{"w": gradient}] * 400
    optimizer = RMSprop(0.01, centered=True, epsilon_in_sqrt=False, epsilon=1e-3)
    weights = final_weights(optimizer, {"w": np.zeros_like(gradient)}, steps)
    assert np.isfinite(weights["w"]).all()


@pytest.mark.parametrize(
    ("name", "switches"),
    [
        ("rmsprop", {"epsilon_in_sqrt": False, "classic_momentum": False, "momentum": 0.9}),
        ("adagrad", {"epsilon_in_sqrt": False}),
        ("adamax", {"epsilon_in_norm": True}),
        ("nadam", {"momentum_decay": 0.004}),
    ],
)
def test_a_config_selects_the_form(name, switches):
    optimizer = OptimizerFactory(
        OptimizationConfig(
            {
                "optimizer": {"type": name, name: switches},
                "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
            }
        )
    ).build_optimizer(0.1)
    for field, value in switches.items():
        assert getattr(optimizer.optimizer, field) == value


def test_a_form_of_momentum_needs_one():
    with pytest.raises(ConfigError, match="optimizer.rmsprop.classic_momentum: .*momentum"):
        OptimizerFactory(
            OptimizationConfig(
                {
                    "optimizer": {"type": "rmsprop", "rmsprop": {"classic_momentum": False}},
                    "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
                }
            )
        )
