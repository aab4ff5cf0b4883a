import copy

import pytest

from optimization import ConfigError
from optimization.rules.adafactor import VARIANTS
from tests.torch.common import OptimizerFactory, config_of, parameters, problem, torch, train

from optimization.torch import Adafactor  # isort: skip


def test_memory_is_rows_and_columns_alone():
    parameter = torch.nn.Parameter(torch.ones(3, 40, 50))
    optimizer = Adafactor([parameter], lr=0.1, min_dim_size_to_factor=40)
    parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    sizes = {name: tuple(value.shape) for name, value in optimizer.state[parameter].items()}
    assert sizes == {"step": (), "exp_avg_sq_row": (3, 40), "exp_avg_sq_col": (3, 50)}


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains(variant):
    relative = VARIANTS[variant]["step_size"] == "relative"
    initial, gradients = problem(steps=2)
    params = parameters(initial)
    optimizer = Adafactor(params.values(), lr=None if relative else 0.1, variant=variant)
    after = train(optimizer, params, gradients)
    assert all((after[name] != initial[name]).any() for name in initial)
    switches = {key: optimizer.param_groups[0][key] for key in ("step_size", "beta1", "step_count")}
    assert switches == {key: VARIANTS[variant][key] for key in switches}


@pytest.mark.parametrize(("step_count", "count"), [("global", 3), ("per_parameter", 2)])
def test_what_steps_count(step_count, count):
    initial, gradients = problem(steps=3)
    params = parameters(initial)
    optimizer = Adafactor(params.values(), lr=0.1, step_count=step_count)
    del gradients[1]["scale"]
    train(optimizer, params, gradients)
    assert optimizer.state[params["scale"]]["step"].item() == count
    # One that comes late.
    params = parameters(initial)
    optimizer = Adafactor(params.values(), lr=0.1, step_count=step_count)
    del gradients[0]["scale"]
    train(optimizer, params, gradients)
    assert optimizer.state[params["scale"]]["step"].item() == count - (step_count != "global")


def test_relative_rates_are_multiplied_for_a_group_and_seen():
    config = config_of("adafactor", {}, variant="hf", multiply_by_parameter_scale=False)
    config.override({"param_groups": [{"match": "bias", "learning_rate_multiplier": 0.0}]})
    factory = OptimizerFactory(config)
    initial, gradients = problem(steps=2)
    params = parameters(initial)
    optimizer = factory.build_optimizer(params.items())
    scheduler = factory.build_scheduler(optimizer)
    after = train(optimizer, params, gradients, scheduler)
    assert (after["layer_0.dense.bias"] == initial["layer_0.dense.bias"]).all()
    assert (after["scale"] != initial["scale"]).all()
    assert scheduler.get_last_lr() == pytest.approx([0.01, 0.0])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"lr": None}, "must be None with"),
        ({"lr": 0.1, "variant": "hf"}, "must be None with"),
        ({"lr": 0.1, "clip_threshold": 1.0}, "unknown key; did you mean 'clipping_threshold'"),
        ({"lr": 0.1, "epsilon1": None}, "needs `epsilon1_mode: clamp`"),
        ({"lr": 0.1, "variant": "bert"}, "variant"),
        ({"lr": 0.1, "include_in_weight_decay": "x", "weight_decay": 0.1}, "names are for configs"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adafactor([torch.nn.Parameter(torch.zeros(2))], **arguments)


def test_wrong_switches_are_config_errors():
    with pytest.raises(ConfigError):
        Adafactor([torch.nn.Parameter(torch.zeros(2))], lr=0.1, beta1=2.0)


@pytest.mark.parametrize("variant", ["hf", "keras", "timm"])
def test_effective_learning_rates_are_those_of_the_next_update(variant):
    switches = {} if variant == "timm" else {"weight_decay": 0.1, "clipping_threshold": None}
    optimizer = Adafactor(
        [("w", weight := torch.nn.Parameter(torch.full((3, 4), 2.0)))],
        lr=None if VARIANTS[variant]["step_size"] == "relative" else 0.02,
        variant=variant,
        **switches,
    )
    for step in range(3):
        # The parameter scale, and what is not decayed of it before it is taken.
        (alpha,) = optimizer.effective_learning_rates().values()
        before = weight.detach().clone()
        weight.grad = torch.full_like(weight, 1.0 + step)
        optimizer.step()
        state = optimizer.state[weight]  # all components are the same
        squares = state.get("exp_avg_sq_row", state.get("exp_avg_sq"))
        update = (1.0 + step) / squares.flatten()[0].sqrt().item()
        threshold = optimizer.param_groups[0]["clipping_threshold"]
        update /= max(1.0, update / threshold) if threshold else 1.0
        kinds = {"plain": 1.0, "learning_rate": 0.02, "step_size": alpha}
        decay = switches.get("weight_decay", 0.0)
        decay *= kinds[optimizer.param_groups[0]["weight_decay_kind"]]
        expected = (1 - decay) * before - alpha * update
        torch.testing.assert_close(weight.detach(), expected, rtol=1e-6, atol=0)  # float32


def test_effective_learning_rates_have_numbers_without_names():
    weights = [torch.nn.Parameter(torch.full((2,), value)) for value in (0.0, 3.0)]
    optimizer = Adafactor([{"params": [w]} for w in weights], lr=0.1)
    # The least scale, epsilon2, and the root mean square.
    assert optimizer.effective_learning_rates() == pytest.approx({"0": 1e-4, "1": 0.3})


def test_loading_forgets_the_count_of_the_training_before():
    # As in a step that torch compiles, which counts by parameters alone.
    params = [torch.nn.Parameter(torch.ones(6, 4)), torch.nn.Parameter(torch.ones(4))]
    optimizer = Adafactor(params, variant="paper")
    saved = copy.deepcopy(optimizer.state_dict())
    for _ in range(3):
        params[0].grad = torch.ones(6, 4)
        optimizer.step()
    optimizer.load_state_dict(saved)
    assert optimizer._latest == 0
