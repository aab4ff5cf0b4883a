"""State in bfloat16: what it is beside float32 state that is rounded by hand."""

import copy

import pytest

from optimization import OPTIMIZERS_CLS, ConfigError, OptimizationConfig
from tests.rules.rounded_by_hand import rounded_by_hand
from tests.torch.common import OptimizerFactory, config_of, torch

from optimization.torch.recipes import is_native  # isort: skip

FIELDS = {
    "adafactor": {"beta1": 0.9},
    "sgd": {"momentum": 0.9},
    "sgd_experimental": {"momentum": 0.9},
    "sgd_torch": {"momentum": 0.9},
    "lars": {"momentum": 0.9},
}
EXACT = {
    "adagrad": "a sum of squares",
    "ftrl": "a sum of squares",
    "schedule_free_sgd": "a sum of steps",
}
SHAPES = {"layer.weight": (6, 5), "layer.bias": (6,), "head.weight": (3, 6)}


def built(kind, state, dtype=torch.float32, **fields):
    random = torch.Generator().manual_seed(4)
    named = [
        (name, torch.nn.Parameter(torch.randn(shape, generator=random).to(dtype)))
        for name, shape in SHAPES.items()
    ]
    section = {**FIELDS.get(kind, {}), **fields, "state": state}
    rate = 0.01
    if OPTIMIZERS_CLS.config_class(kind)(fields).own_learning_rate() is not None:
        rate = {"type": None}
    factory = OptimizerFactory(config_of(kind, rate, **section))
    return named, factory.build_optimizer(named)


def give_gradients(named, step):
    random = torch.Generator().manual_seed(100 + step)
    for _, parameter in named:
        parameter.grad = torch.randn(parameter.shape, generator=random).to(parameter.dtype)


@pytest.mark.parametrize("kind", [*filter(is_native, OPTIMIZERS_CLS)])
def test_state_is_that_of_float32_rounded(kind):
    """Each step is that of an optimizer with the state in float32, of which what moved is rounded.

    That one is of the same class, so that what it computes is the same to the last bit.
    """
    if kind in EXACT:
        with pytest.raises(ConfigError, match=rf"stays in float32 \(.*{EXACT[kind]}"):
            built(kind, {"dtype": "bfloat16"})
        return
    named, optimizer = built(kind, {"dtype": "bfloat16", "seed": 7})
    others, exact = built(kind, {"dtype": "bfloat16", "seed": 7})
    exact.precision = None
    natives = {slot.native: slot.name for slot in optimizer.slots}
    seen = set()
    for step in range(1, 5):
        give_gradients(named, step)
        give_gradients(others, step)
        optimizer.step()
        exact.step()
        for (name, parameter), (_, other) in zip(named, others, strict=True):
            torch.testing.assert_close(parameter, other, rtol=0, atol=0)
            state, wide = optimizer.state[parameter], exact.state[other]
            assert state.keys() == wide.keys()
            for key, value in state.items():
                if value.dtype != torch.bfloat16:
                    torch.testing.assert_close(value, wide[key], rtol=0, atol=0)
                    continue
                seen.add(key)
                expected = rounded_by_hand(wide[key].numpy(), 7, name, natives[key], step)
                assert torch.equal(value.float(), torch.from_numpy(expected))
                wide[key].copy_(value)
    assert seen


@pytest.mark.parametrize("how", ["stochastic", "nearest"])
def test_small_steps_of_weights_without_copies(how):
    """Steps of a hundredth of the distance to the next number add up, or are lost."""
    state = {"weights": how}
    named, optimizer = built("sgd", state, torch.bfloat16, momentum=0.0)
    weight = named[0][1]
    with torch.no_grad():
        weight.fill_(1.0)
    for _ in range(200):
        weight.grad = torch.full_like(weight, 0.005)  # times the rate 0.01
        optimizer.step()
    assert "master" not in optimizer.state[weight]
    moved = 1 - float(weight.detach().float().mean())
    assert moved == 0 if how == "nearest" else abs(moved - 0.01) < 0.0025  # 4 deviations


def test_it_goes_on_from_a_checkpoint():
    state = {"dtype": "bfloat16", "weights": "stochastic"}
    for dtype in (torch.float32, torch.bfloat16):
        named, optimizer = built("adamw", state, dtype)
        others, other = built("adamw", state, dtype)
        for step in range(3):
            give_gradients(named, step)
            optimizer.step()
        saved = copy.deepcopy(optimizer.state_dict())
        with torch.no_grad():
            for (_, a), (_, b) in zip(others, named, strict=True):
                a.copy_(b)
        other.load_state_dict(saved)
        for step in (3, 4):
            for pairs, each in ((named, optimizer), (others, other)):
                give_gradients(pairs, step)
                each.step()
        for (_, a), (_, b) in zip(others, named, strict=True):
            assert torch.equal(a, b)
            assert other.state[a]["exp_avg"].dtype == torch.bfloat16
            assert torch.equal(other.state[a]["exp_avg"], optimizer.state[b]["exp_avg"])


def test_some_slots_and_groups():
    state = {"dtype": "bfloat16", "slots": ["momentum"], "rounding": "nearest"}
    sections = {
        "optimizer": {"type": "adamw", "adamw": {"state": state}},
        "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.01}},
        "param_groups": [{"match": "head", "optimizer": {"type": "lion"}}],
    }
    named, _ = built("adamw", None)
    optimizer = OptimizerFactory(OptimizationConfig(sections)).build_optimizer(named)
    give_gradients(named, 0)
    optimizer.step()
    dtypes = {
        (name, key): value.dtype
        for name, parameter in named
        for key, value in optimizer.state[parameter].items()
    }
    assert dtypes["layer.weight", "exp_avg"] == dtypes["head.weight", "exp_avg"] == torch.bfloat16
    assert dtypes["layer.weight", "exp_avg_sq"] == torch.float32
    copied = copy.deepcopy(optimizer)
    assert copied.precision == optimizer.precision is not None


@pytest.mark.parametrize(
    ("kind", "state", "message"),
    [
        ("adamw", {"dtype": "float16"}, "state.dtype: must be one of 'float32' or"),
        ("adamw", {"rounding": "nearest"}, "state.rounding: needs `dtype: bfloat16`"),
        ("adamw", {"seed": 1}, "state.seed: needs stochastic rounding"),
        (
            "adamw",
            {"dtype": "bfloat16", "slots": ["momentm"]},
            "mean 'momentum'",
        ),
        ("adamw", {"dtype": "bfloat16", "slots": []}, "state.slots: must name a slot"),
        ("adamw", {"dtype": "bfloat16", "slots": ["velocity_hat"]}, "no slot 'velocity_hat'"),
        ("prodigy", {"dtype": "bfloat16", "slots": ["gradient_sum"]}, "it is a sum of gradients"),
        ("sgd", {"dtype": "bfloat16"}, "state.dtype: .*what the optimizer keeps is nothing"),
    ],
)
def test_mistakes(kind, state, message):
    with pytest.raises(ConfigError, match=message):
        OptimizerFactory(config_of(kind, state=state))


def test_what_it_is_not_for():
    named, _ = built("adamw", None)
    factory = OptimizerFactory(config_of("adamw", state={"dtype": "bfloat16"}))
    with pytest.raises(ValueError, match="`compile`: the `state` is rounded"):
        factory.build_optimizer(named, compile=True)
