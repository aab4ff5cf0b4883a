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
    reference_weights,
    relative_error,
)

RATES = [0.01 * (1 + step % 5) for step in range(STEPS)]
# Large, so that its place shows.
EPSILON = 1e-2


def rmsprop(momentum, centered, epsilon_in_sqrt, classic_momentum):
    def update(path, w, g, t, slots):
        lr = RATES[t - 1]
        v = slots["v"] = 0.9 * slots.get("v", 0) + 0.1 * g**2
        a = slots["a"] = 0.9 * slots.get("a", 0) + 0.1 * g
        spread = v - a**2 if centered else v
        root = np.sqrt(spread + EPSILON) if epsilon_in_sqrt else np.sqrt(spread) + EPSILON
        if classic_momentum:
            m = slots["m"] = momentum * slots.get("m", 0) + lr * g / root
            return w - m
        m = slots["m"] = momentum * slots.get("m", 0) + g / root
        return w - lr * m

    return update


def adagrad(epsilon_in_sqrt):
    def update(path, w, g, t, slots):
        s = slots["s"] = slots.get("s", 0.1) + g**2
        root = np.sqrt(s + EPSILON) if epsilon_in_sqrt else np.sqrt(s) + EPSILON
        return w - RATES[t - 1] * g / root

    return update


def adamax(epsilon_in_norm):
    def update(path, w, g, t, slots):
        m = slots["m"] = 0.9 * slots.get("m", 0) + 0.1 * g
        lr = RATES[t - 1] / (1 - 0.9**t)
        if epsilon_in_norm:
            u = slots["u"] = np.maximum(0.999 * slots.get("u", 0), np.abs(g) + EPSILON)
            return w - lr * m / u
        u = slots["u"] = np.maximum(0.999 * slots.get("u", 0), np.abs(g))
        return w - lr * m / (u + EPSILON)

    return update


def nadam(momentum_decay):
    def mu(t):
        return 0.9 * (1 - 0.5 * 0.96 ** (t * momentum_decay))

    def update(path, w, g, t, slots):
        m = slots["m"] = 0.9 * slots.get("m", 0) + 0.1 * g
        v = slots["v"] = 0.999 * slots.get("v", 0) + 0.001 * g**2
        product = slots["mu"] = slots.get("mu", 1) * mu(t)
        m_hat = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
        return w - RATES[t - 1] * m_hat / (np.sqrt(v / (1 - 0.999**t)) + EPSILON)

    return update


RMSPROP = [
    {"momentum": m, "centered": c, "epsilon_in_sqrt": e, "classic_momentum": k}
    for m, k in ((0.0, True), (0.8, True), (0.8, False))
    for c in (False, True)
    for e in (True, False)
]
CASES = [
    *((RMSprop, rmsprop, switches) for switches in RMSPROP),
    *((Adagrad, adagrad, {"epsilon_in_sqrt": value}) for value in (True, False)),
    *((Adamax, adamax, {"epsilon_in_norm": value}) for value in (True, False)),
    *((Nadam, nadam, {"momentum_decay": value}) for value in (1.0, 0.004, 0.0)),
]
IDS = [f"{cls.__name__} {' '.join(map(str, switches.values()))}" for cls, _, switches in CASES]


@pytest.mark.parametrize(("cls", "reference", "switches"), CASES, ids=IDS)
def test_each_form_equals_its_formula(cls, reference, switches):
    initial, gradients = problem()
    expected = reference_weights(reference(**switches), initial, gradients)
    optimizer = cls(TableSchedule(RATES), epsilon=EPSILON, **switches)
    # 10 float32 steps; bias corrections are rounded at 1e-7 / (1 - beta_2).
    assert relative_error(final_weights(optimizer, initial, gradients), expected) < 3e-6


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
