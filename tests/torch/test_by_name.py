import copy

import pytest

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

from optimization.torch import AdamW, load_by_name  # isort: skip

GROUPS = {"weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias", "norm"]}


def built(initial, order=None, **section):
    params = parameters(initial)
    names = order or list(params)
    config = config_of("adamw", epsilon_placement="corrected", **{**GROUPS, **section})
    named = [(name, params[name]) for name in names]
    return OptimizerFactory(config).build_optimizer(named), params


def test_torchs_own_classes_load_by_name_too():
    initial, gradients = problem(steps=6)
    whole, params = built(initial)
    assert isinstance(whole, torch.optim.AdamW)
    train(whole, params, gradients)
    first, params_first = built(initial)
    weights = train(first, params_first, gradients[:3])
    # The group that does not decay comes first here.
    second, params_second = built(weights, sorted(weights, key=lambda name: "bias" not in name))
    names = [group["group_name"] for group in second.param_groups]
    assert names == [group["group_name"] for group in first.param_groups][::-1]
    second.load_state_dict(first.state_dict())
    train(second, params_second, gradients[3:])
    # Norms of clips are summed in another order.
    assert largest_difference(weights_of(params_second), weights_of(params)) < 1e-12


def alone(initial, order=None, merged=False):
    """Returns an AdamW that no factory built, in two groups, or one of what both have."""
    params = parameters(initial)
    groups = {}
    for name in order or list(params):
        decays = not ("bias" in name or "norm" in name)
        groups.setdefault(decays or merged, []).append((name, params[name]))
    groups = [
        {"params": pairs, "weight_decay": 0.1 * decays, "group_name": str(decays)}
        for decays, pairs in groups.items()
    ]
    return AdamW(groups), params


def test_hyperparameters_of_a_class_by_itself_come_with_their_group_as_in_torch():
    initial, _ = problem()
    first, _ = alone(initial)
    for group in first.param_groups:
        group["lr"] = 1.0 + group["weight_decay"]
    second, _ = alone(initial, list(reversed(initial)))
    second.load_state_dict(first.state_dict())
    assert {g["group_name"]: g["lr"] for g in second.param_groups} == {"True": 1.1, "False": 1.0}


def test_without_names_the_position_counts_as_in_torch():
    initial, gradients = problem(steps=3)
    params = parameters(initial)
    optimizer = torch.optim.SGD(params.values(), lr=0.1, momentum=0.9)
    optimizer.register_load_state_dict_pre_hook(load_by_name)
    train(optimizer, params, gradients)
    state = optimizer.state_dict()
    assert load_by_name(optimizer, state) is None
    state["param_groups"][0]["param_names"] = list(reversed(params))
    assert load_by_name(optimizer, state) is None


def test_the_same_order_is_left_to_torch():
    optimizer, _ = alone(problem()[0])
    assert load_by_name(optimizer, optimizer.state_dict()) is None


@pytest.mark.parametrize("made", [built, alone])
def test_other_names_are_an_error(made):
    initial, _ = problem()
    first, _ = made(initial)
    renamed = {name.replace("scale", "gain"): value for name, value in initial.items()}
    second, _ = made(renamed)
    with pytest.raises(ValueError, match=r"Missing: \['gain'\]. Left over: \['scale'\]"):
        second.load_state_dict(first.state_dict())


def test_groups_of_a_class_by_itself_cannot_be_merged():
    initial, _ = problem()
    first, _ = alone(initial)
    second, _ = alone(initial, merged=True)
    with pytest.raises(ValueError, match="are one group here, and were saved from 2 groups"):
        second.load_state_dict(first.state_dict())


def test_state_of_torchs_class_goes_on_with_the_settings_of_groups():
    initial, gradients = problem(steps=6)
    params = parameters(initial)
    plain = torch.optim.AdamW(params.values(), lr=0.03, weight_decay=0.1)
    weights = train(plain, params, gradients[:3])
    state = copy.deepcopy(plain.state_dict())
    for saved in state["state"].values():
        saved["step"] = int(saved["step"])  # as in old versions of torch
    other = parameters(weights)
    ours = AdamW(other.items(), weight_decay=0.5, epsilon_placement="corrected")
    ours.param_groups[0]["group_name"] = "mine"
    ours.load_state_dict(state)
    group = ours.param_groups[0]
    assert (group["lr"], group["weight_decay"], group["epsilon_placement"]) == (
        0.03,
        0.1,
        "corrected",
    )
    assert group["group_name"] == "mine"
    assert group["param_names"] == list(other)
    train(plain, params, gradients[3:])
    train(ours, other, gradients[3:])
    # Two orders of the same float64 operations.
    assert largest_difference(weights_of(other), weights_of(params)) < 1e-12
