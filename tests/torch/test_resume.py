"""Saved state of an optimizer that the factory built, loaded into another."""

import copy
import pickle
import warnings

import numpy as np
import pytest

from optimization import ConfigWarning, OptimizationConfig
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
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

from optimization.torch.recipes import is_native  # isort: skip

TYPES = list(filter(is_native, OPTIMIZERS_CLS))
COSINE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.01, "decay_steps": 20}}
# Sections with which a type keeps all the state that it may keep.
SECTIONS = {
    "sgd": {"momentum": 0.9},
    "rmsprop": {"momentum": 0.9, "centered": True},
    "adam": {"amsgrad": True},
    "adafactor": {"beta1": 0.9, "min_dim_size_to_factor": 3},
}
INITIAL, GRADIENTS = problem(steps=8)


def config_for(kind, scale=1.0, **section):
    rate = copy.deepcopy(COSINE)
    rate["cosine"]["initial_learning_rate"] *= scale
    rate = 0.01 * scale if kind.startswith("schedule_free") else rate
    return config_of(kind, rate, **{**SECTIONS.get(kind, {}), **section})


def built(config, weights=INITIAL, order=None):
    """Returns a factory, its optimizer, and the parameters."""
    params = parameters(weights)
    factory = OptimizerFactory(config)
    pairs = [(name, params[name]) for name in order or params]
    return factory, factory.build_optimizer(pairs), params


def halfway(config):
    """Returns the weights after half of the training, the states, and the weights at the end."""
    factory, optimizer, params = built(config)
    scheduler = factory.build_scheduler(optimizer)
    weights = train(optimizer, params, GRADIENTS[:4], scheduler)
    states = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
    return weights, *states, train(optimizer, params, GRADIENTS[4:], scheduler)


def resumed(config, weights, state, scheduler_state, order):
    """Returns what goes on from saved states, when things are done in an order."""
    factory, optimizer, params = built(config, weights)
    scheduler = None
    for action in order.split():
        if action == "scheduler":
            scheduler = factory.build_scheduler(optimizer)
        elif action == "load_o":
            optimizer.load_state_dict(copy.deepcopy(state))
        else:
            scheduler.load_state_dict(scheduler_state)
    return optimizer, scheduler, params


def quiet_load(optimizer, state):
    """Loads a state; returns what was warned about."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        optimizer.load_state_dict(copy.deepcopy(state))
    assert all(issubclass(w.category, ConfigWarning) for w in caught)
    assert len(caught) <= 1
    return str(caught[0].message) if caught else ""


@pytest.mark.parametrize("kind", TYPES)
@pytest.mark.parametrize(
    "order",
    [
        "scheduler load_o load_s",
        "scheduler load_s load_o",
        "scheduler load_o",
        "load_o scheduler",
        "load_o scheduler load_s",
    ],
)
def test_each_type_goes_on_in_whatever_order_things_are_built_and_loaded(kind, order):
    config = config_for(kind)
    weights, state, scheduler_state, expected = halfway(config)
    optimizer, scheduler, params = resumed(config, weights, state, scheduler_state, order)
    assert scheduler.last_epoch == 4
    assert scheduler.get_last_lr() == [group["lr"] for group in optimizer.param_groups]
    train(optimizer, params, GRADIENTS[4:], scheduler)
    assert largest_difference(weights_of(params), expected) == 0


@pytest.mark.parametrize("kind", TYPES)
def test_the_rate_of_the_config_holds(kind):
    weights, state, _, _ = halfway(config_for(kind))
    factory, optimizer, _ = built(config_for(kind, scale=2.0), weights)
    message = quiet_load(optimizer, state)
    assert message.startswith("optimizer: the loaded state differs")
    rates = [factory._rate(None)(4)] * len(optimizer.param_groups)
    assert [group["lr"] for group in optimizer.param_groups] == rates
    saved = state["param_groups"][0]["lr"]
    assert f"\n  lr: {saved} -> {rates[0]} (" in message
    assert factory.build_scheduler(optimizer).get_last_lr() == rates


@pytest.mark.parametrize("kind", TYPES)
def test_another_type_is_an_error(kind):
    _, optimizer, params = built(config_for(kind))
    train(optimizer, params, GRADIENTS[:1])
    before = copy.deepcopy(optimizer.state_dict())
    names = {name.removesuffix("_experimental") for name in TYPES}
    for other in names - {kind.removesuffix("_experimental")}:
        _, optimizer, params = built(config_for(other))
        with pytest.raises(ValueError, match=rf"saved from `{kind}`, and this is `{other}`"):
            optimizer.load_state_dict(before)
        assert not optimizer.state


@pytest.mark.parametrize("kind", ["adam", "lion", "sgd_torch", "rmsprop", "adamax", "lamb"])
def test_another_type_is_found_out_without_its_name_too(kind):
    """State that was saved before types were recorded, or by a class of torch."""
    _, optimizer, params = built(config_for(kind))
    train(optimizer, params, GRADIENTS[:1])
    state = copy.deepcopy(optimizer.state_dict())
    for group in state["param_groups"]:
        del group["optimizer_type"]
    for other in ("adam", "lion", "lamb", "lars", "sgd", "rmsprop", "adamax", "muon", "adagrad"):
        _, optimizer, _ = built(config_for(other))
        if other == kind:
            message = quiet_load(optimizer, state)
            assert f"does not say of which type it is, and was taken for `{kind}`" in message
        else:
            with pytest.raises(ValueError, match="loaded state"):
                optimizer.load_state_dict(state)


def test_hyperparameters_of_the_config_hold_and_one_warning_lists_them():
    section = {"exclude_from_weight_decay": ["bias"], "epsilon_placement": "corrected"}
    weights, state, _, _ = halfway(config_for("adamw", weight_decay_rate=0.1, **section))
    new = config_for("adamw", weight_decay_rate=0.2, beta_1=0.8, **section)
    _, optimizer, _ = built(new, weights)
    message = quiet_load(optimizer, state)
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.2, 0.0]
    assert message.splitlines()[1:] == [
        "  betas: (0.9, 0.999) -> (0.8, 0.999) (default, default/weight_decay=0.0)",
        "  weight_decay: 0.1 -> 0.2 (default)",
    ]


def test_how_a_step_is_taken_is_no_hyperparameter():
    config = config_for("adamw", epsilon_placement="corrected")
    factory, optimizer, params = built(config)
    train(optimizer, params, GRADIENTS[:1], factory.build_scheduler(optimizer))
    other = factory.build_optimizer(parameters(INITIAL).items(), foreach=False, capturable=False)
    assert quiet_load(other, optimizer.state_dict()) == ""
    assert other.param_groups[0]["foreach"] is False


def test_an_excluded_bias_that_now_decays_goes_on_and_decays():
    section = {"weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias"]}
    weights, state, _, _ = halfway(config_for("adamw", **section))
    _, optimizer, params = built(config_for("adamw", weight_decay_rate=0.1), weights)
    message = quiet_load(optimizer, state)
    assert "weight_decay: 0.0 -> 0.1 (layer_0.dense.bias)" in message
    (group,) = optimizer.param_groups
    assert group["weight_decay"] == 0.1
    assert len(optimizer.state) == len(params)


def grouped(rules, **sections):
    return OptimizationConfig(
        {
            "optimizer": {"type": "adamw", "adamw": {"weight_decay_rate": 0.01}},
            "learning_rate": COSINE,
            "warmup": {"type": "linear", "linear": {"warmup_steps": 3}},
            "param_groups": rules,
            **sections,
        }
    )


HEAD = {"match": "^layer_1", "name": "head", "learning_rate_multiplier": 3.0}


@pytest.mark.parametrize(("saved", "here"), [([HEAD], []), ([], [HEAD])])
def test_other_groups_are_an_error_that_says_which(saved, here):
    weights, state, _, _ = halfway(grouped(saved))
    _, optimizer, _ = built(grouped(here), weights)
    with pytest.raises(ValueError, match="other parameter groups") as error:
        optimizer.load_state_dict(state)
    assert "`head` (layer_1.norm.weight)" in str(error.value)


@pytest.mark.parametrize("removed", ["scale", "layer_1.norm.weight"])
def test_parameters_that_are_new_or_gone_are_named(removed):
    fewer = {name: value for name, value in INITIAL.items() if name != removed}
    config = config_for("lion")
    for one, other, word in [(fewer, INITIAL, "Missing"), (INITIAL, fewer, "Left over")]:
        _, optimizer, _ = built(config, one)
        _, loading, _ = built(config, other)
        with pytest.raises(ValueError, match=rf"{word}: \['{removed}'\]"):
            loading.load_state_dict(optimizer.state_dict())


def test_groups_in_another_order_and_by_other_names_are_the_same():
    rate = {"type": "constant", "constant": {"learning_rate": 0.5}}
    rules = [HEAD, {"match": "scale", "learning_rate": rate}]
    sections = {
        "schedules": {"weight_decay": COSINE, "beta_1": COSINE},
        "layer_decay": {"rate": 0.5, "depth": r"layer_(\d+)\."},
    }
    config = grouped(rules, **sections)
    weights, state, _, expected = halfway(config)
    config = grouped([rules[1], {**HEAD, "name": "last"}], **sections)
    order = [list(INITIAL)[i] for i in (0, 3, 2, 1, 4, 5)]  # of layers, layer decay makes groups
    _, optimizer, params = built(config, weights, order)
    assert quiet_load(optimizer, state) == ""
    scheduler = OptimizerFactory(config).build_scheduler(optimizer)
    train(optimizer, params, GRADIENTS[4:], scheduler)
    assert largest_difference(weights_of(params), expected) < 1e-12  # sums in another order


def test_a_parameter_that_another_rule_updates_is_an_error():
    weights, state, _, _ = halfway(config_for("muon"))
    _, optimizer, _ = built(config_for("muon", exclude_layers=["dense"]), weights)
    with pytest.raises(
        ValueError, match=r"`layer_0.dense.weight` was saved with `momentum_buffer`"
    ):
        optimizer.load_state_dict(state)


def test_a_shape_that_is_another_is_an_error():
    _, state, _, _ = halfway(config_for("adamw"))
    other = {**INITIAL, "layer_0.dense.bias": np.zeros(9)}
    _, optimizer, _ = built(config_for("adamw"), other)
    with pytest.raises(ValueError, match=r"`layer_0.dense.bias` .* \(5,\), and here is \(9,\)"):
        optimizer.load_state_dict(state)


@pytest.mark.parametrize(
    ("kind", "before", "after", "line"),
    [
        ("adam", {}, {"amsgrad": True}, "`max_exp_avg_sq` starts anew"),
        ("rmsprop", {"momentum": 0.9}, {"momentum": 0.0}, "`momentum_buffer` is left out"),
        ("sgd_torch", {"momentum": 0.9}, {"momentum": 0.0}, "`momentum_buffer` is left out"),
    ],
)
def test_state_that_a_new_setting_needs_or_does_not_starts_anew(kind, before, after, line):
    plain = {"amsgrad": False} if kind == "adam" else {}
    weights, state, _, _ = halfway(config_for(kind, **{**plain, **before}))
    _, optimizer, params = built(config_for(kind, **after), weights)
    assert line in quiet_load(optimizer, state)
    train(optimizer, params, GRADIENTS[4:])


def test_momentum_that_means_something_else_is_an_error():
    weights, state, _, _ = halfway(config_for("rmsprop", classic_momentum=True))
    _, optimizer, _ = built(config_for("rmsprop", classic_momentum=False), weights)
    with pytest.raises(ValueError, match="`momentum_buffer`: it was saved with classic_momentum"):
        optimizer.load_state_dict(state)


def test_schedule_free_goes_on_from_what_is_evaluated():
    config = config_for("schedule_free_adamw")
    _, optimizer, params = built(config)
    train(optimizer, params, GRADIENTS[:4])
    optimizer.eval()
    weights, state = weights_of(params), copy.deepcopy(optimizer.state_dict())
    optimizer.train()
    expected = train(optimizer, params, GRADIENTS[4:])
    _, other, params = built(config, weights)
    assert quiet_load(other, state) == ""
    with pytest.raises(RuntimeError, match=r"call `train\(\)` first"):
        train(other, params, GRADIENTS[4:5])
    other.train()
    assert largest_difference(train(other, params, GRADIENTS[4:]), expected) < 1e-12


def test_a_scheduler_of_another_keeps_the_rate_that_it_has_set():
    config = config_of("adamw", 0.01)
    _, optimizer, params = built(config)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.5)
    train(optimizer, params, GRADIENTS[:3], scheduler)
    _, other, _ = built(config)
    assert quiet_load(other, optimizer.state_dict()) == ""
    assert other.param_groups[0]["lr"] == optimizer.param_groups[0]["lr"] == 0.01 / 8


@pytest.mark.parametrize("state", [{}, {"optimizer": {}}, {"last_epoch": 3, "state": {}}])
def test_what_is_no_state_of_an_optimizer_is_an_error(state):
    _, optimizer, _ = built(config_for("adamw"))
    with pytest.raises(ValueError, match="not that of an optimizer: it has no .*`param_groups`"):
        optimizer.load_state_dict(state)


def test_a_group_that_was_added_goes_on():
    def with_a_group(match="bias"):
        rules = [{"match": match, "name": "one", "weight_decay": 0.0}]
        optimizer = built(grouped(rules))[1]
        added = torch.nn.Parameter(torch.ones(2))
        optimizer.add_param_group({"params": [("added", added)], "weight_decay": 0.5})
        added.grad = torch.ones(2)
        optimizer.step()
        return optimizer

    state = with_a_group().state_dict()
    state["param_groups"][-1]["weight_decay"] = 0.25
    other = with_a_group()
    assert "weight_decay: 0.25 -> 0.5 (group 2)" in quiet_load(other, state)
    assert other.param_groups[-1]["weight_decay"] == 0.5
    with pytest.raises(ValueError, match="saved with other parameter groups"):
        with_a_group("norm").load_state_dict(state)


def test_copies_go_on_too():
    config = config_for("lamb")
    factory, optimizer, params = built(config)
    scheduler = factory.build_scheduler(optimizer)
    train(optimizer, params, GRADIENTS[:3], scheduler)
    restored = pickle.loads(pickle.dumps(optimizer))
    assert restored.steps_done() == 3
    assert factory.build_scheduler(restored).last_epoch == 3
    follower = copy.deepcopy(factory.build_scheduler(built(config)[1]))
    follower.optimizer.load_state_dict(optimizer.state_dict())
    assert follower.last_epoch == 3
    assert quiet_load(built(config)[1], restored.state_dict()) == ""


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("kind", ["adamw", "sgd", "schedule_free_adamw", "muon"])
def test_distributed_checkpoints_work(kind, flat):
    dcp = pytest.importorskip("torch.distributed.checkpoint.state_dict")
    options = dcp.StateDictOptions(flatten_optimizer_state_dict=flat)

    def built():
        torch.manual_seed(0)
        model = torch.nn.Sequential(torch.nn.Linear(4, 3), torch.nn.Linear(3, 2))
        section = {"exclude_from_weight_decay": ["bias"]} if kind == "adamw" else {}
        config = config_for(kind, **section)
        factory = OptimizerFactory(config)
        optimizer = factory.build_optimizer(model)
        return model, optimizer, factory.build_scheduler(optimizer)

    def trained(model, optimizer, scheduler, steps):
        for step in steps:
            optimizer.zero_grad()
            model(torch.full((2, 4), 1.0 + step)).square().sum().backward()
            optimizer.step()
            scheduler.step()
        return [p.detach().clone() for p in model.parameters()]

    model, optimizer, scheduler = built()
    trained(model, optimizer, scheduler, range(3))
    state = copy.deepcopy(dcp.get_optimizer_state_dict(model, optimizer, options=options))
    weights, counts = copy.deepcopy(model.state_dict()), scheduler.state_dict()
    expected = trained(model, optimizer, scheduler, range(3, 5))

    model, optimizer, scheduler = built()
    model.load_state_dict(weights)
    with warnings.catch_warnings():
        if flat:  # torch leaves out the count of steps then; the scheduler knows it
            warnings.filterwarnings("ignore", "optimizer: the loaded state differs", ConfigWarning)
        dcp.set_optimizer_state_dict(model, optimizer, state, options=options)
    scheduler.load_state_dict(counts)
    for one, other in zip(trained(model, optimizer, scheduler, range(3, 5)), expected, strict=True):
        assert torch.equal(one, other)
