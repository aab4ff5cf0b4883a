"""Groups with an algorithm of their own, in one optimizer."""

import copy
import io
import pickle

import numpy as np
import pytest

from optimization import ConfigError, ConfigWarning
from tests.torch.common import (
    OptimizerFactory,
    compiling,
    config_of,
    parameters,
    problem,
    set_gradients,
    torch,
    train,
    weights_of,
)

import optimization.torch as ours  # isort: skip

CONSTANT = {"type": "constant", "constant": {"learning_rate": 0.05}}
RATE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.05, "decay_steps": 8}}
CORRECTED = {"epsilon_placement": "corrected"}
HEAD = "dense"
PAIRS = [
    ("sgd_torch", {"momentum": 0.9}, "adam", {**CORRECTED, "weight_decay": 0.1}),
    ("adam", CORRECTED, "lion", {"weight_decay": 0.1}),
    ("adagrad", {"epsilon_in_sqrt": False}, "sgd", {"momentum": 0.9}),
    ("lamb", {"weight_decay_rate": 0.1}, "adafactor", {"variant": "hf"}),
    ("adafactor", {"variant": "timm", "min_dim_size_to_factor": 1}, "adafactor", {}),
    ("muon", {}, "nadam", {}),
    ("adam", {}, "schedule_free_sgd", {}),
]


def rate_of(kind, section, rate=RATE):
    """Returns a learning rate for a type; none where it has its own."""
    if section.get("variant") in ("hf", "timm"):
        return {}
    return CONSTANT if kind.startswith("schedule_free") else rate


def mixed(kind, section, own, own_section, rate=RATE, match=HEAD, **rest):
    """Returns a config in which `HEAD` has an optimizer of its own."""
    config = config_of(kind, rate_of(kind, section, rate), **section)
    group = {"match": match, "name": "head", "optimizer": {"type": own, own: own_section}}
    if rate_of(own, own_section) and rate is RATE:
        group["learning_rate"] = rate_of(own, own_section)
    config.override({"param_groups": [group], **rest})
    return config


def built(config, params, steps=8, **options):
    factory = OptimizerFactory(config, train_steps=steps)
    optimizer = factory.build_optimizer(params.items(), **options)
    return optimizer, factory.build_scheduler(optimizer)


def is_same(one, other):
    return all(np.array_equal(one[name], other[name]) for name in other)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize(("kind", "section", "own", "own_section"), PAIRS, ids=str)
def test_each_group_is_updated_as_by_an_optimizer_alone(kind, section, own, own_section, dtype):
    initial, gradients = problem(steps=8)
    params = parameters(initial, dtype)
    optimizer, scheduler = built(mixed(kind, section, own, own_section), params)
    found = train(optimizer, params, gradients, scheduler)
    for each, is_own in (((kind, section), False), ((own, own_section), True)):
        names = [name for name in initial if (HEAD in name) == is_own]
        part = parameters({name: initial[name] for name in names}, dtype)
        own_gradients = [{name: step[name] for name in names} for step in gradients]
        expected = train(
            *_swapped(
                built(config_of(each[0], rate_of(*each), **each[1]), part), part, own_gradients
            )
        )
        assert is_same(found, expected)
    masters = ["master" in optimizer.state[p] for p in params.values()]
    assert all(masters) if dtype is torch.bfloat16 else not any(masters)


def _swapped(pair, params, gradients):
    return pair[0], params, gradients, pair[1]


def test_parts_are_of_torchs_classes_where_torch_has_the_algorithm():
    params = parameters(problem()[0])
    optimizer, _ = built(mixed(*PAIRS[0]), params)
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(optimizer.parts["default"], torch.optim.SGD)
    assert isinstance(optimizer.parts["head"], torch.optim.AdamW)
    assert [g["optimizer_type"] for g in optimizer.param_groups] == ["sgd_torch", "adam"]
    assert str(optimizer).startswith("MixedOptimizer(default=SGD(momentum=0.9, fused=True), head")


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda pair: pickle.loads(pickle.dumps(pair))],
    ids=["deepcopy", "pickle"],
)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_copy_goes_on_alike(pair, copied):
    initial, gradients = problem(steps=8)
    params = parameters(initial)
    kind, section, *own = pair
    clip = {} if kind == "adafactor" else {"global_clipnorm": 0.5}  # which clips by itself
    optimizer, _ = built(mixed(kind, {**section, **clip}, *own), params)
    train(optimizer, params, gradients[:4])
    twin, twin_params = copied((optimizer, params))
    expected = train(optimizer, params, gradients[4:])
    assert is_same(train(twin, twin_params, gradients[4:]), expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("pair", PAIRS, ids=str)
def test_a_saved_state_goes_on_by_name(pair, dtype):
    initial, gradients = problem(steps=8)
    params = parameters(initial, dtype)
    optimizer, scheduler = built(mixed(*pair), params)
    train(optimizer, params, gradients[:4], scheduler)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    now = {name: p.detach().clone() for name, p in reversed(params.items())}
    again = {name: torch.nn.Parameter(value) for name, value in now.items()}
    resumed, resumed_scheduler = built(mixed(*pair), again)  # in another order
    resumed.load_state_dict(torch.load(file))
    for name, parameter in params.items():
        for key, value in optimizer.state[parameter].items():
            loaded = resumed.state[again[name]][key]
            assert (loaded.dtype, loaded.tolist()) == (value.dtype, value.tolist())
    expected = train(optimizer, params, gradients[4:], scheduler)
    assert is_same(train(resumed, again, gradients[4:], resumed_scheduler), expected)


def test_a_state_without_names_goes_by_position():
    initial, gradients = problem(steps=4)
    params = parameters(initial)
    optimizer, _ = built(mixed(*PAIRS[1]), params)
    train(optimizer, params, gradients)
    state = optimizer.state_dict()
    for group in state["param_groups"]:
        del group["param_names"]
    resumed, _ = built(mixed(*PAIRS[1]), parameters(weights_of(params)))
    resumed.load_state_dict(state)
    assert len(resumed.state) == len(params)


def test_the_state_of_other_algorithms_is_refused():
    initial, gradients = problem(steps=1)
    params = parameters(initial)
    optimizer, _ = built(mixed("adam", {}, "lion", {}), params)
    train(optimizer, params, gradients)
    other, _ = built(mixed("adam", {}, "sgd", {}), parameters(initial))
    with pytest.raises(ValueError, match="saved from `adam, lion`, and this is `adam, sgd`"):
        other.load_state_dict(optimizer.state_dict())
    other, _ = built(mixed("lion", {}, "adam", {}), parameters(initial))
    with pytest.raises(ValueError, match=r"for `\w.*` is that of .* from `adam`, .* is `lion`"):
        other.load_state_dict(optimizer.state_dict())
    other, _ = built(mixed("adam", {}, "lion", {"weight_decay": 0.5}), parameters(initial))
    with pytest.warns(ConfigWarning, match=r"weight_decay: 0.0 -> 0.5 \(head\)"):
        other.load_state_dict(optimizer.state_dict())


def test_schedules_of_hyperparameters_go_to_the_rules_that_have_them():
    line = {"initial_learning_rate": 0.5, "end_learning_rate": 0.9, "decay_steps": 8}
    schedules = {"momentum": {"type": "linear", "linear": line}}
    for own_momentum, follows in ((0.9, True), (0.0, False)):
        pair = ("sgd", {"momentum": 0.9}, "rmsprop", {"momentum": own_momentum})
        optimizer, scheduler = built(mixed(*pair, schedules=schedules), parameters(problem()[0]))
        optimizer.step()
        scheduler.step()
        values = [group["momentum"] for group in optimizer.param_groups]
        assert values == pytest.approx([0.55, 0.55 if follows else 0.0])


def test_schedule_free_groups_are_evaluated():
    initial, gradients = problem(steps=3)
    params = parameters(initial)
    optimizer, _ = built(mixed("sgd", {}, "schedule_free_sgd", {}), params)
    trained = train(optimizer, params, gradients)
    optimizer.eval()
    evaluated = weights_of(params)
    assert {n for n in trained if not np.array_equal(trained[n], evaluated[n])} == {
        name for name in initial if HEAD in name
    }
    with pytest.raises(RuntimeError, match="train"):
        optimizer.step()
    assert is_same(weights_of(params), evaluated)  # no part has taken the step
    optimizer.train()
    found = weights_of(params)
    assert all(np.allclose(found[name], trained[name], rtol=1e-12) for name in found)


def test_a_closure_is_called_once():
    initial, _ = problem()
    params = parameters(initial)
    optimizer, _ = built(mixed(*PAIRS[1]), params)
    losses = []

    def closure():
        optimizer.zero_grad()
        loss = sum(parameter.square().sum() for parameter in params.values())
        loss.backward()
        losses.append(loss)
        return loss

    assert optimizer.step(closure) is losses[0]
    assert len(losses) == 1


def test_a_group_that_is_added_says_its_algorithm():
    optimizer, scheduler = built(mixed("adam", {}, "lion", {}), parameters(problem()[0]))
    new = [torch.nn.Parameter(torch.ones(3)) for _ in range(4)]
    optimizer.add_param_group({"params": [("plain", new[0])]})
    optimizer.add_param_group({"params": [("lion", new[1])], "optimizer_type": "lion"})
    optimizer.add_param_group({"params": [("head", new[2])], "rule": "head", "lr": 0.5})
    for kind, message in (("sgd", r"adam \(default\), lion \(head\)"), ("lion", "betas|beta_1")):
        group = {"params": [("other", new[3])], "optimizer_type": kind, "betas": (0.9, 7.0)}
        with pytest.raises(ValueError, match=message):
            optimizer.add_param_group(group)
    for parameter in new:
        parameter.grad = torch.ones(3)
    optimizer.step()
    scheduler.step()
    assert [set(optimizer.state[p]) - {"step"} for p in new] == [
        {"exp_avg", "exp_avg_sq"},
        {"exp_avg"},
        {"exp_avg"},
        set(),
    ]
    assert len(optimizer.param_groups) == 5


def test_a_default_that_has_no_parameter_left_has_no_part():
    config = mixed("adam", {}, "lion", {}, match=".")
    optimizer, _ = built(config, parameters(problem()[0]))
    assert list(optimizer.parts) == ["head"]
    optimizer.add_param_group({"params": [("new", torch.nn.Parameter(torch.ones(2)))]})
    assert isinstance(optimizer.parts["default"], ours.Adam)


def test_clips_are_of_all_groups_together_and_averages_of_all_weights():
    initial, gradients = problem(steps=1)
    params = parameters(initial)
    pair = ("sgd", {"global_clipnorm": 0.1}, "sgd", {"momentum": 0.9})
    optimizer, _ = built(mixed(*pair, rate=1.0), params)
    found = train(optimizer, params, gradients)
    moved = sum(np.square(found[name] - initial[name]).sum() for name in initial)
    assert moved == pytest.approx(0.01)
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2))
    model.bfloat16()
    factory = OptimizerFactory(mixed(*pair, match="1", ema={"start_step": 9}))
    optimizer = factory.build_optimizer(model)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    average = factory.build_ema(model, optimizer)
    optimizer.step()
    average.update_parameters(model)
    for name, parameter in model.named_parameters():
        master = optimizer.state[parameter]["master"]
        assert torch.equal(average.state_dict()[f"module.{name}"], master)


def test_what_can_not_be_is_an_error_with_its_path():
    plateau = {"type": "hf_reduce_lr_on_plateau", "hf_reduce_lr_on_plateau": {}}
    plateau["hf_reduce_lr_on_plateau"] = {"initial_learning_rate": 0.1}
    config = mixed("adam", {}, "sgd_torch", {"warmup_steps": 5}, rate=plateau)
    with pytest.raises(ConfigError, match=r"^learning_rate\.type: follows a metric in PyTorch"):
        OptimizerFactory(config)
    factory = OptimizerFactory(mixed("adam", CORRECTED, "lion", {}))
    with pytest.raises(ValueError, match="`fused`: optimization.torch.Lion does not have it"):
        factory.build_optimizer(parameters(problem()[0]).items(), fused=True)


def test_a_rate_that_follows_a_metric_is_that_of_all_parts():
    plateau = {"type": "hf_reduce_lr_on_plateau"}
    plateau["hf_reduce_lr_on_plateau"] = {"initial_learning_rate": 0.1, "patience": 0}
    params = parameters(problem()[0])
    optimizer, scheduler = built(mixed("adam", {}, "lion", {}, rate=plateau), params)
    for _ in range(2):
        scheduler.step(1.0)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([0.01, 0.01])


def test_the_scaling_by_batch_size_is_of_rates_that_know_batches():
    scaling = {"lr_scaling": {"base_batch_size": 8, "global_batch_size": 16}}
    config = mixed("adam", {}, "adafactor", {"variant": "hf"}, rate=0.5, **scaling)
    optimizer, _ = built(config, parameters(problem()[0]))
    assert [group["lr"] for group in optimizer.param_groups] == [1.0, 0.01]


def test_a_sparse_gradient_is_refused_by_its_part():
    params = parameters(problem()[0])
    optimizer, _ = built(mixed("adam", {}, "lion", {}), params)
    set_gradients(params, {})
    weight = params["layer_0.dense.weight"]
    weight.grad = torch.ones_like(weight).to_sparse()
    with pytest.raises(RuntimeError, match="Lion does not support sparse"):
        optimizer.step()


@compiling
def test_a_compiled_step_is_the_same():
    initial, gradients = problem(steps=2)
    pair = ("lion", {}, "rmsprop", {})  # the part's first group is not the whole's
    params, compiled = parameters(initial), parameters(initial)
    expected = train(built(mixed(*pair), params)[0], params, gradients)
    optimizer, _ = built(mixed(*pair), compiled)
    step = torch.compile(optimizer.step, backend="eager")
    for each in gradients:
        set_gradients(compiled, each)
        step()
    assert is_same(weights_of(compiled), expected)


def test_a_grad_scaler_unscales_for_all_parts():
    initial, gradients = problem(steps=3)
    params, scaled = parameters(initial, torch.float32), parameters(initial, torch.float32)
    expected = train(built(mixed(*PAIRS[1]), params)[0], params, gradients)
    optimizer, _ = built(mixed(*PAIRS[1]), scaled)
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    for each in gradients:
        scaler.scale(torch.zeros(()))
        set_gradients(scaled, {name: 8.0 * value for name, value in each.items()})
        scaler.step(optimizer)
        scaler.update()
    assert is_same(weights_of(scaled), expected)
