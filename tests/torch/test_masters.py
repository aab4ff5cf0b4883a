import copy
import pickle

import pytest

from optimization import OPTIMIZERS_CLS
from tests.torch.common import OptimizerFactory, compiling, config_of, torch

from optimization.torch import AdamW, Recipe  # isort: skip
from optimization.torch.recipes import is_native  # isort: skip

RATE, STEPS = 1e-4, 200
NATIVE = list(filter(is_native, OPTIMIZERS_CLS))
# Their first steps are not about the rate long, or scaled by something else.
SLOW = {"adadelta": 1000.0, "adagrad": 10.0, "lars": 100.0, "muon": 20.0, "radam": 5.0, "soap": 4.0}
PLAIN = {
    "muon": {"adam_weight_decay": 0.0, "weight_decay": 0.0},
    "ftrl": {},
    "prodigy": {"d0": 1.0},  # its steps are of that size
}
LOW = [torch.bfloat16, torch.float16]


def built(kind="adamw", dtype=torch.bfloat16, rate=RATE, section=None, **options):
    """Returns weights of 1, of `dtype` and of float32, and what trains both."""
    torch.manual_seed(0)
    low = torch.nn.Parameter(torch.ones(3, 4, dtype=dtype))
    full = torch.nn.Parameter(torch.ones(3, 4))
    config = config_of(kind, rate, **(PLAIN.get(kind, {}) if section is None else section))
    named = [("low.weight", low), ("full.weight", full)]
    return low, full, OptimizerFactory(config).build_optimizer(named, **options)


def train(low, full, optimizer, steps=STEPS):
    for _ in range(steps):
        low.grad, full.grad = torch.ones_like(low), torch.ones_like(full)
        optimizer.step()


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("kind", NATIVE)
def test_small_steps_add_up(kind, dtype):
    low, full, optimizer = built(kind, dtype, RATE * SLOW.get(kind, 1.0))
    train(low, full, optimizer)
    state = optimizer.state[low]
    # The copy does what a float32 weight does, and the weight is the copy, rounded.
    torch.testing.assert_close(state["master"], full.detach(), rtol=0, atol=1e-6)
    assert torch.equal(low, state["master"].to(dtype))
    assert float(full.detach().max()) < 0.9902
    # The count, and what is a number made of it, may be finer.
    slots = [value for value in state.values() if value.shape == low.shape]
    assert {value.dtype for value in slots} == {torch.float32}
    assert "master" not in optimizer.state[full]


@pytest.mark.parametrize("kind", ["sgd", "sgd_torch", "lion", "adamw"])
def test_without_copies_small_steps_are_lost(kind):
    low, full, optimizer = built(kind, master_weights=False)
    train(low, full, optimizer)
    assert torch.equal(low, torch.ones_like(low))
    assert "master" not in optimizer.state[low]
    again = copy.deepcopy(optimizer)
    assert again.master_weights is False
    if kind == "sgd_torch":  # torch's own behaviour
        assert optimizer.state[low]["momentum_buffer"].dtype == torch.bfloat16


@pytest.mark.parametrize("kind", ["sgd_torch", "nadam", "lion", "adafactor"])
def test_a_weight_that_is_assigned_to_starts_anew(kind):
    low, full, optimizer = built(kind)
    train(low, full, optimizer, 30)
    before = optimizer.state[low]["master"].clone()
    with torch.no_grad():
        low[0] = 3.0
    low.grad = torch.zeros_like(low)
    if kind != "sgd_torch":
        optimizer.param_groups[0]["lr"] = 0.0
    else:
        optimizer.state[low]["momentum_buffer"].zero_()
    optimizer.step()
    master = optimizer.state[low]["master"]
    assert torch.equal(master[0], torch.full((4,), 3.0))
    assert torch.equal(master[1:], before[1:])


def resumed(optimizer, low, kind, **options):
    other, full, again = built(kind, low.dtype, **options)
    with torch.no_grad():
        other.copy_(low)
    again.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    return other, full, again


@pytest.mark.parametrize("dtype", LOW, ids=str)
@pytest.mark.parametrize("kind", NATIVE)
def test_state_is_kept_bit_for_bit(kind, dtype):
    low, full, optimizer = built(kind, dtype)
    train(low, full, optimizer, 7)
    other, other_full, again = resumed(optimizer, low, kind)
    with torch.no_grad():
        other_full.copy_(full)
    for name, value in optimizer.state[low].items():
        assert torch.equal(again.state[other][name], value), name
        assert again.state[other][name].dtype == value.dtype
    train(low, full, optimizer, 3)
    train(other, other_full, again, 3)
    assert torch.equal(other, low)
    assert torch.equal(again.state[other]["master"], optimizer.state[low]["master"])
    copied = pickle.loads(pickle.dumps(optimizer))
    masters = [s["master"] for s in copied.state.values() if "master" in s]
    assert torch.equal(masters[0], optimizer.state[low]["master"])


@pytest.mark.parametrize("kind", ["nadam", "adamw"])
def test_state_without_copies_loads_and_the_other_way_round(kind):
    low, full, optimizer = built(kind, master_weights=False)
    train(low, full, optimizer, 3)
    other, other_full, again = resumed(optimizer, low, kind)
    assert again.state[other]["exp_avg"].dtype == torch.float32
    train(other, other_full, again, 3)
    assert torch.equal(again.state[other]["master"].bfloat16(), other)
    last, last_full, without = resumed(again, other, kind, master_weights=False)
    assert "master" not in without.state[last]
    train(last, last_full, without, 3)
    full_precision, _, wide = built(kind, torch.float32)
    wide.load_state_dict(copy.deepcopy(again.state_dict()))
    assert "master" not in wide.state[full_precision]


@pytest.mark.parametrize("kind", ["nadam", "adamw"])
def test_closures_and_hooks_see_the_parameters(kind):
    low, full, optimizer = built(kind, rate=0.01, section={"global_clipnorm": 1.0})
    seen = []

    def look(optimizer, *_):
        seen.append(optimizer.param_groups[0]["params"][0])

    optimizer.register_step_pre_hook(look)
    optimizer.register_step_post_hook(look)

    def closure():
        optimizer.zero_grad()
        loss = (1000 * low).square().sum() + full.square().sum()
        loss.backward()
        return loss

    torch.optim.NAdam([torch.nn.Parameter(torch.ones(1))])  # which hooks torch's class
    loss = optimizer.step(closure)
    assert float(loss.detach()) == pytest.approx(12e6 + 12, rel=1e-2)
    assert [each is low for each in seen] == [True, True]
    assert float(low.grad.float().norm()) == pytest.approx(1.0, rel=1e-2)  # clipped once
    assert low.grad.dtype == torch.bfloat16
    assert float(low.detach()[0, 0]) < 1.0


def lbfgs(section):
    return Recipe(torch.optim.LBFGS, {"max_iter": 5, "history_size": 3})


def test_a_class_that_calls_its_closure_often(monkeypatch):
    entry = OPTIMIZERS_CLS.entry("sgd")._replace(torch=f"{__name__}:lbfgs")
    monkeypatch.setitem(OPTIMIZERS_CLS._entries, "sgd", entry)
    low, full, optimizer = built("sgd", rate=0.5)
    values = []

    def closure():
        optimizer.zero_grad()
        values.append(float(low.detach()[0, 0]))
        loss = (low - 0.5).float().square().sum() + full.square().sum()
        loss.backward()
        return loss

    optimizer.step(closure)
    assert len(set(values)) > 2  # each call sees the weights that it is about
    assert abs(float(low.detach()[0, 0]) - 0.5) < 0.1


def test_a_model_that_is_cast_after_its_optimizer_was_built():
    model = torch.nn.Linear(2, 2)
    optimizer = OptimizerFactory(config_of("nadam", RATE)).build_optimizer(model)
    model.bfloat16()
    model.weight.data.fill_(1.0)
    for _ in range(STEPS):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
    assert float(model.weight.detach()[0, 0]) < 0.9902


@compiling
@pytest.mark.parametrize("kind", ["nadam", "adamw"])
def test_compiled_steps(kind):
    found = []
    for compiles in (False, True):
        torch._dynamo.reset()
        low, full, optimizer = built(kind)
        for group in optimizer.param_groups:
            group["lr"] = torch.tensor(RATE)
        step = torch.compile(optimizer.step, backend="eager") if compiles else optimizer.step
        for _ in range(20):
            low.grad, full.grad = torch.ones_like(low), torch.ones_like(full)
            step()
        found.append((low.detach().clone(), optimizer.state[low]["master"]))
    torch.testing.assert_close(found[1][1], found[0][1], rtol=0, atol=1e-6)
    assert torch.equal(found[1][0], found[1][1].bfloat16())


def test_a_class_used_by_itself():
    low = torch.nn.Parameter(torch.ones(3, dtype=torch.bfloat16))
    optimizer = AdamW([low], lr=RATE)
    for _ in range(STEPS):
        low.grad = torch.ones_like(low)
        optimizer.step()
    assert float(low.detach()[0]) < 0.9902


def test_fused_optimizers_and_loss_scales():
    low, full, optimizer = built(
        "adamw", torch.float16, section={"epsilon_placement": "corrected"}, fused=True
    )
    assert isinstance(optimizer, torch.optim.AdamW)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    for _ in range(STEPS):
        optimizer.zero_grad()
        loss = low.float().sum() + full.sum()
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
    torch.testing.assert_close(optimizer.state[low]["master"], full.detach(), rtol=0, atol=1e-6)
    assert float(full.detach()[0, 0]) < 0.9902


@pytest.mark.parametrize("kind", ["schedule_free_sgd", "schedule_free_adamw"])
def test_schedule_free_weights_for_evaluation_lose_nothing(kind):
    low, full, optimizer = built(kind)
    for steps in (5, 5):
        train(low, full, optimizer, steps)
        optimizer.eval()
        torch.testing.assert_close(optimizer.state[low]["master"], full.detach(), atol=1e-6, rtol=0)
        assert torch.equal(low, optimizer.state[low]["master"].bfloat16())
        optimizer.train()
    torch.testing.assert_close(optimizer.state[low]["master"], full.detach(), atol=1e-6, rtol=0)
