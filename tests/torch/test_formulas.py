"""The optimizers of the package in torch's form against torch's own classes."""

import pytest

from tests.torch.common import largest_difference, parameters, problem, torch, train

import optimization.torch as ours  # isort: skip

LR = 0.02
CORRECTED = {"epsilon_placement": "corrected"}


def trained(cls, arguments, initial, gradients):
    params = parameters(initial)
    return train(cls(params.values(), lr=LR, **arguments), params, gradients)


COUPLED = {"decoupled_weight_decay": False}
TORCHS = [
    ("Adam", {"weight_decay": 0.1}, {**CORRECTED, **COUPLED}),
    ("Adam", {"weight_decay": 0.1, "amsgrad": True}, {**CORRECTED, **COUPLED}),
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
    (
        "RMSprop",
        {"momentum": 0.9, "weight_decay": 0.1},
        {"epsilon_in_sqrt": False, "classic_momentum": False, **COUPLED},
    ),
    ("Adagrad", {"weight_decay": 0.1}, {"epsilon_in_sqrt": False, **COUPLED}),
    ("Adadelta", {"weight_decay": 0.1}, COUPLED),
    ("Adamax", {"weight_decay": 0.1}, {"epsilon_in_norm": True, **COUPLED}),
    ("NAdam", {"weight_decay": 0.1}, COUPLED),
    ("RAdam", {"weight_decay": 0.1}, COUPLED),
    ("RAdam", {"weight_decay": 0.1, "decoupled_weight_decay": True}, {}),
    ("Adafactor", {}, {"variant": "torch"}),
    ("Adafactor", {"weight_decay": 0.1}, {"variant": "torch", "weight_decay": 0.1}),
]


@pytest.mark.parametrize(("name", "arguments", "form"), TORCHS, ids=str)
def test_in_torchs_form_the_update_is_torchs(name, arguments, form):
    initial, gradients = problem()
    expected = trained(getattr(torch.optim, name), arguments, initial, gradients)
    own = getattr(ours, "Nadam" if name == "NAdam" else name)
    found = trained(own, {**arguments, **form}, initial, gradients)
    # The same computations in float64, in another order; NAdam's product of momenta is float32.
    assert largest_difference(found, expected) < (1e-9 if name == "NAdam" else 1e-12)


OTHERS = {
    "StableAdamW": ({}, {"kahan_sum": False}),
    "AdEMAMix": (
        {"alpha_warmup": 10, "beta_3_warmup": 10},
        {"t_alpha_beta3": 10, "weight_decouple": True},
    ),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_torch_has_not_is_that_of_pytorch_optimizer(name):
    peer = pytest.importorskip("pytorch_optimizer", reason="the peer")
    initial, gradients = problem(steps=12)
    own, more = OTHERS[name]
    theirs = {"weight_decay": 0.1, "foreach": False, **more}
    expected = trained(getattr(peer, name), theirs, initial, gradients)
    found = trained(getattr(ours, name), {"weight_decay": 0.1, **own}, initial, gradients)
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
