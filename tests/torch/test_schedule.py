import pickle

import numpy as np
import pytest

from optimization import OptimizationConfig
from optimization import OptimizerFactory as KerasFactory
from tests.torch.common import (
    OptimizerFactory,
    config_of,
    largest_difference,
    parameters,
    problem,
    torch,
    train,
    weights_of,
)

COSINE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 20}}
STEPS = 25


def config_with(**sections):
    return OptimizationConfig(
        {
            "optimizer": {"type": "adamw", "adamw": {"weight_decay_rate": 0.1}},
            "learning_rate": COSINE,
            "warmup": {"type": "linear", "linear": {"warmup_steps": 5}},
            **sections,
        }
    )


def built(config, **kwargs):
    params = parameters(problem()[0])
    factory = OptimizerFactory(config, **kwargs)
    optimizer = factory.build_optimizer(params.items())
    return optimizer, factory.build_scheduler(optimizer), params


def rates_over(optimizer, scheduler, steps=STEPS):
    """Returns the rates of all groups that hold in each step."""
    rates = []
    for _ in range(steps):
        rates.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        scheduler.step()
    return np.array(rates)


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"warmup": {"type": None}},
        {"warmup": {"type": "polynomial", "polynomial": {"warmup_steps": 7, "power": 2.0}}},
        {"lr_scaling": {"rule": "sqrt", "global_batch_size": 1024}},
        {
            "warmup": {
                "type": "linear",
                "linear": {"warmup_steps": 7, "warmup_learning_rate": 1e-3},
            },
            "lr_scaling": {"global_batch_size": 1024, "scales": ["peak"]},
        },
        {"optimizer": {"type": "sgd", "sgd": {"decay": 0.1}}},
        {
            "optimizer": {"type": "adafactor", "adafactor": {"variant": "hf"}},
            "learning_rate": {},
            "warmup": {},
        },
    ],
    ids=str,
)
def test_each_step_has_the_rate_of_the_curve(sections):
    config = config_with(**sections)
    optimizer, scheduler, _ = built(config)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    expected = KerasFactory(config).learning_rate_curve(range(STEPS))
    # The same formulas in float64.
    np.testing.assert_allclose(rates_over(optimizer, scheduler)[:, 0], expected, rtol=1e-14)


def test_before_a_scheduler_is_built_the_rate_is_that_of_step_0():
    config = config_with(warmup={"type": "linear", "linear": {
        "warmup_steps": 5, "warmup_learning_rate": 0.01}})  # fmt: skip
    factory = OptimizerFactory(config)
    optimizer = factory.build_optimizer(parameters(problem()[0]).items())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_groups_have_rates_of_their_own():
    half = {"match": "bias", "learning_rate_multiplier": 0.5}
    constant = {"type": "constant", "constant": {"learning_rate": 0.3}}
    own = {"match": "norm", "learning_rate": constant, "learning_rate_multiplier": 2.0}
    warm = {
        "ndim": [0],
        "learning_rate": constant,
        "warmup": {"type": "linear", "linear": {"warmup_steps": 3}},
    }
    config = config_with(param_groups=[half, own, warm])
    optimizer, scheduler, _ = built(config)
    names = [group["group_name"] for group in optimizer.param_groups]
    assert names == ["default", "bias", "norm", "ndim 0"]
    rates = rates_over(optimizer, scheduler)
    curve = KerasFactory(config).learning_rate_curve(range(STEPS))
    np.testing.assert_allclose(rates[:, 0], curve, rtol=1e-14)
    np.testing.assert_allclose(rates[:, 1], curve / 2, rtol=1e-14)
    np.testing.assert_allclose(rates[:, 2], 0.6, rtol=1e-14)
    np.testing.assert_allclose(rates[:5, 3], [0, 0.1, 0.2, 0.3, 0.3], rtol=1e-14)


def linear(start, end, steps=10):
    section = {"initial_learning_rate": start, "end_learning_rate": end, "decay_steps": steps}
    return {"type": "polynomial", "polynomial": {**section, "power": 1.0}}


def test_hyperparameters_follow_their_schedules():
    config = config_with(
        optimizer={"type": "adamw", "adamw": {
            "weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias"]}},
        schedules={"weight_decay": linear(0.1, 0.2), "beta_1": linear(0.9, 0.8)},
        param_groups=[{"match": "norm", "weight_decay": 0.3}],
    )  # fmt: skip
    optimizer, scheduler, _ = built(config)
    seen = []
    for _ in range(6):
        seen.append([(g["weight_decay"], g["betas"][0]) for g in optimizer.param_groups])
        assert all(group["betas"][1] == 0.999 for group in optimizer.param_groups)
        optimizer.step()
        scheduler.step()
    decays, momenta = np.moveaxis(np.array(seen), -1, 0)
    np.testing.assert_allclose(decays[:, 0], 0.1 + 0.01 * np.arange(6), rtol=1e-12)
    # An excluded parameter and a group that replaces the decay keep theirs.
    np.testing.assert_array_equal(decays[:, 1:], [[0.0, 0.3]] * 6)
    np.testing.assert_allclose(momenta, (0.9 - 0.01 * np.arange(6))[:, None] + np.zeros(3))


@pytest.mark.parametrize(
    ("kind", "section", "name", "key"),
    [
        ("rmsprop", {}, "rho", "alpha"),
        ("rmsprop", {"epsilon_in_sqrt": False}, "rho", "alpha"),
        ("lars", {}, "eeta", "trust_coefficient"),
        ("sgd_torch", {}, "momentum", "momentum"),
        ("adadelta", {}, "epsilon", "eps"),
        ("adafactor", {}, "decay_rate", "decay_rate"),
        ("lamb", {"weight_decay_rate": 0.1}, "weight_decay", "weight_decay"),
    ],
)
def test_hyperparameters_are_found_by_torchs_names(kind, section, name, key):
    config = config_of(kind, **section)
    config.override({"schedules": {name: linear(0.5, 0.25)}})
    optimizer, scheduler, _ = built(config)
    values = []
    for _ in range(3):
        values.append(optimizer.param_groups[0][key])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(values, [0.5, 0.475, 0.45])


def test_a_decay_that_a_schedule_starts_from_0_grows_where_it_acts_and_resumes():
    config = config_with(
        optimizer={"type": "adamw", "adamw": {
            "weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias"]}},
        schedules={"weight_decay": linear(0.0, 0.2)},
    )  # fmt: skip
    optimizer, scheduler, _ = built(config)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.0, 0.0]
    resumed, goes_on, _ = built(config)
    resumed.load_state_dict(optimizer.state_dict())
    goes_on.load_state_dict(scheduler.state_dict())
    for taken, follower in ((optimizer, scheduler), (resumed, goes_on)):
        for _ in range(3):
            taken.step()
            follower.step()
        assert [group["weight_decay"] for group in taken.param_groups] == [pytest.approx(0.06), 0.0]


def test_a_schedule_that_torchs_class_can_not_follow_takes_the_own_class():
    config = config_of("sgd_torch")
    assert isinstance(built(config)[0], torch.optim.SGD)
    config.override({"schedules": {"momentum": linear(0.5, 0.25)}})
    optimizer, _, _ = built(config)
    assert not isinstance(optimizer, torch.optim.SGD)
    assert optimizer.param_groups[0]["momentum"] == 0.5


def test_a_hyperparameter_that_the_class_does_not_have_is_an_error():
    config = config_with(schedules={"beta_1": linear(0.9, 0.8)})
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(2))], lr=0.1)
    with pytest.raises(ValueError, match=r"schedules\.beta_1.*no such hyperparameter"):
        OptimizerFactory(config).build_scheduler(optimizer)


def test_the_momentum_of_sgd_torch_warms_up_from_0():
    config = config_of("sgd_torch", warmup_steps=4, momentum=0.8)
    optimizer, scheduler, _ = built(config)
    momenta = []
    for _ in range(6):
        momenta.append(optimizer.param_groups[0]["momentum"])
        optimizer.step()
        scheduler.step()
    np.testing.assert_allclose(momenta, [0, 0.2, 0.4, 0.6, 0.8, 0.8])


def test_state_is_numbers_and_training_resumes(tmp_path):
    config = config_with(schedules={"beta_1": linear(0.9, 0.8)})
    _, gradients = problem(steps=12)
    optimizer, scheduler, params = built(config)
    expected = train(optimizer, params, gradients, scheduler)
    optimizer, scheduler, params = built(config)
    weights = train(optimizer, params, gradients[:5], scheduler)
    state = {"optimizer": optimizer.state_dict(), "scheduler": scheduler.state_dict()}
    assert set(state["scheduler"]) == {"last_epoch", "_step_count", "base_lrs", "_last_lr"}
    torch.save(state, tmp_path / "state.pt")
    state = torch.load(tmp_path / "state.pt", weights_only=True)

    params = parameters(weights)
    factory = OptimizerFactory(config)
    optimizer = factory.build_optimizer(params.items())
    scheduler = factory.build_scheduler(optimizer)
    optimizer.load_state_dict(state["optimizer"])
    scheduler.load_state_dict(state["scheduler"])
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    train(optimizer, params, gradients[5:], scheduler)
    assert largest_difference(weights_of(params), expected) == 0


def test_last_epoch_resumes_as_in_torch():
    config = config_with()
    optimizer, scheduler, _ = built(config)
    rates = rates_over(optimizer, scheduler)
    state = optimizer.state_dict()
    other = OptimizerFactory(config).build_optimizer(parameters(problem()[0]).items())
    with pytest.raises(KeyError, match="initial_lr"):
        OptimizerFactory(config).build_scheduler(other, last_epoch=6)
    other.load_state_dict(state)
    resumed = OptimizerFactory(config).build_scheduler(other, last_epoch=6)
    # torch means that step 6 was seen: the scheduler goes to 7.
    assert resumed.last_epoch == 7
    np.testing.assert_allclose(rates_over(other, resumed, 5), rates[7:12], rtol=1e-14)


def test_an_optimizer_of_the_users_has_the_rate_of_all():
    config = config_with()
    parameter = torch.nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([parameter], lr=7.0)
    scheduler = OptimizerFactory(config).build_scheduler(optimizer)
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.zeros(3))]})
    curve = KerasFactory(config).learning_rate_curve(range(5))
    parameter.grad = torch.ones(2)
    optimizer.step()
    scheduler.step()
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([curve[1]] * 2)


def test_a_rate_that_is_a_tensor_is_set_in_place():
    config = config_with()
    optimizer, _, _ = built(config)
    rate = torch.tensor(0.5)
    for group in optimizer.param_groups:
        group["lr"] = rate
    scheduler = OptimizerFactory(config).build_scheduler(optimizer)
    optimizer.step()
    scheduler.step()
    curve = KerasFactory(config).learning_rate_curve(range(2))
    assert optimizer.param_groups[0]["lr"] is rate
    assert rate.item() == pytest.approx(curve[1])
    assert pickle.loads(pickle.dumps(scheduler.state_dict()))["_last_lr"] == [rate.item()]


def test_a_part_of_a_state_loads():
    factory = OptimizerFactory(config_of("sgd"))
    optimizer = factory.build_optimizer(torch.nn.Linear(2, 2))
    scheduler = factory.build_scheduler(optimizer)
    before = scheduler.state_dict()
    scheduler.load_state_dict({"last_epoch": 5})
    assert scheduler.state_dict() == {**before, "last_epoch": 5}
    scheduler.load_state_dict({})
    assert scheduler.last_epoch == 5


@pytest.mark.parametrize("b", [2**24 + 1, 33_554_433, 2**31 + 5])
def test_a_boundary_that_float32_does_not_have(b):
    stepwise = {"boundaries": [b], "values": [0.5, 0.25]}
    config = config_with(
        learning_rate={"type": "stepwise", "stepwise": stepwise},
        schedules={"weight_decay": {"type": "stepwise", "stepwise": stepwise}},
    )
    optimizer, scheduler, _ = built(config)
    scheduler.load_state_dict({**scheduler.state_dict(), "last_epoch": b - 2})
    optimizer.step()
    for expected in (0.5, 0.5, 0.25):
        scheduler.step()
        group = optimizer.param_groups[0]
        assert (group["lr"], group["weight_decay"]) == (expected, expected)
