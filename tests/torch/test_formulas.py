"""The optimizers of the package against float64 transcriptions, and against torch's own classes."""

import pytest

from tests.torch import references
from tests.torch.common import largest_difference, parameters, problem, torch, train

import optimization.torch as ours  # isort: skip

LR = references.LR
CORRECTED = {"epsilon_placement": "corrected"}
FORMULAS = [
    (ours.SGD, {"momentum": 0.9}, references.sgd(0.9)),
    (ours.SGD, {"momentum": 0.9, "classic_momentum": False}, references.sgd(0.9)),
    (
        ours.SGD,
        {"momentum": 0.9, "nesterov": True, "weight_decay": 0.1},
        references.sgd(0.9, True, 0.1),
    ),
    (
        ours.SGD,
        {"momentum": 0.9, "weight_decay": 0.1, "decoupled_weight_decay": False},
        references.sgd(0.9, False, 0.1, decoupled=False),
    ),
    *(
        (
            ours.AdamW,
            {"weight_decay": 0.1, "weight_decay_order": order, "amsgrad": amsgrad, "eps": 1e-3},
            references.adamw(0.1, order, amsgrad),
        )
        for order in ("before", "after")
        for amsgrad in (False, True)
    ),
    (ours.AdamW, {"eps": 1e-3, **CORRECTED}, references.adamw(placement="corrected")),
    (ours.AdamW, {"eps": 1e-3, "correct_bias": False}, references.adamw(correct=False)),
    *(
        (
            ours.RMSprop,
            {
                "alpha": 0.9,
                "eps": 1e-3,
                "momentum": momentum,
                "centered": centered,
                "epsilon_in_sqrt": in_sqrt,
                "classic_momentum": in_sqrt or not momentum,
            },
            references.rmsprop(momentum, centered, in_sqrt),
        )
        for momentum in (0.0, 0.8)
        for centered in (False, True)
        for in_sqrt in (False, True)
    ),
    *(
        (
            ours.Adagrad,
            {"eps": 1e-3, "initial_accumulator_value": 0.1, "epsilon_in_sqrt": in_sqrt},
            references.adagrad(in_sqrt),
        )
        for in_sqrt in (False, True)
    ),
    (ours.Adadelta, {"rho": 0.9, "eps": 1e-3, "weight_decay": 0.1}, references.adadelta(0.1)),
    (ours.Ftrl, {}, references.ftrl()),
    (
        ours.Ftrl,
        {"l1": 0.1, "l2": 0.2, "l2_shrinkage": 0.3, "beta": 0.4, "lr_power": -0.7},
        references.ftrl(0.1, 0.2, 0.3, 0.4, -0.7),
    ),
    (ours.Adamax, {"eps": 1e-3}, references.adamax()),
    (ours.Adamax, {"eps": 1e-3, "epsilon_in_norm": True}, references.adamax(True)),
    (ours.Lion, {"weight_decay": 0.1}, references.lion(0.1)),
    (ours.LAMB, {"eps": 1e-3, "weight_decay": 0.1}, references.lamb(0.1)),
    (ours.LAMB, {"eps": 1e-3, "adapt": False}, references.lamb(adapt=False)),
    *(
        (
            ours.LARS,
            {
                "momentum": 0.8,
                "trust_coefficient": 0.5,
                "weight_decay": 0.1,
                "nesterov": nesterov,
                "classic_momentum": classic,
            },
            references.lars(0.1, nesterov, classic),
        )
        for nesterov in (False, True)
        for classic in (False, True)
    ),
    *(
        (
            ours.Muon,
            {"weight_decay": 0.1, "adam_weight_decay": 0.1, "adam_eps": 1e-3, "nesterov": nesterov},
            references.muon(nesterov),
        )
        for nesterov in (False, True)
    ),
]


def trained(cls, arguments, initial, gradients):
    params = parameters(initial)
    return train(cls(params.values(), lr=LR, **arguments), params, gradients)


@pytest.mark.parametrize(("cls", "arguments", "reference"), FORMULAS)
def test_the_update_is_the_formula(cls, arguments, reference):
    initial, gradients = problem()
    expected = references.weights_of(reference, initial, gradients)
    # Float64 on both sides; Muon's iteration magnifies rounding.
    tolerance = 1e-9 if cls is ours.Muon else 1e-12
    assert largest_difference(trained(cls, arguments, initial, gradients), expected) < tolerance


TORCHS = [
    ("AdamW", {"weight_decay": 0.1}, {**CORRECTED}),
    ("AdamW", {"amsgrad": True, "weight_decay": 0.1}, {**CORRECTED}),
    ("SGD", {"momentum": 0.9, "nesterov": True}, {"classic_momentum": False}),
    ("SGD", {"weight_decay": 0.1}, {"decoupled_weight_decay": False}),
    (
        "RMSprop",
        {"momentum": 0.9, "centered": True},
        {"epsilon_in_sqrt": False, "classic_momentum": False},
    ),
    ("Adagrad", {"initial_accumulator_value": 0.1}, {"epsilon_in_sqrt": False}),
    ("Adadelta", {"rho": 0.8, "eps": 1e-5}, {}),
    ("Adamax", {}, {"epsilon_in_norm": True}),
    ("Adafactor", {}, {"variant": "torch"}),
    ("Adafactor", {"weight_decay": 0.1}, {"variant": "torch", "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "arguments", "form"), TORCHS, ids=str)
def test_in_torchs_form_the_update_is_torchs(name, arguments, form):
    initial, gradients = problem()
    expected = trained(getattr(torch.optim, name), arguments, initial, gradients)
    found = trained(getattr(ours, name), {**arguments, **form}, initial, gradients)
    # The same computations in float64, in another order.
    assert largest_difference(found, expected) < 1e-12


@pytest.mark.parametrize(
    ("theirs", "form"),
    [
        ({"relative_step": True, "lr": None}, {}),
        ({"relative_step": True, "lr": None, "warmup_init": True}, {"warmup_init": True}),
        ({"relative_step": False, "lr": LR}, {"step_size": "absolute"}),
        (
            {"relative_step": False, "lr": LR, "scale_parameter": False, "beta1": 0.9},
            {"step_size": "absolute", "multiply_by_parameter_scale": False, "beta1": 0.9},
        ),
        (
            {"relative_step": False, "lr": LR, "weight_decay": 0.1},
            {"step_size": "absolute", "weight_decay": 0.1},
        ),
    ],
    ids=str,
)
def test_adafactor_is_that_of_transformers(theirs, form):
    peer = pytest.importorskip("transformers.optimization", reason="the peer")
    initial, gradients = problem()
    params = parameters(initial)
    expected = train(peer.Adafactor(params.values(), **theirs), params, gradients)
    params = parameters(initial)
    mine = ours.Adafactor(params.values(), lr=theirs["lr"], variant="hf", **form)
    # Transformers computes in float32, whatever the weights are.
    assert largest_difference(train(mine, params, gradients), expected) < 2e-6
