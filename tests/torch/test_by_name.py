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

from optimization.torch import LAMB, AdamW, load_by_name  # isort: skip
from optimization.torch.by_name import bare_names  # isort: skip

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


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.encoder = torch.nn.Linear(3, 3)
        self.head = torch.nn.Linear(3, 1)

    def forward(self, x):
        return self.head(self.encoder(x))


class Holder(torch.nn.Module):
    """A model that calls a part of its own `module`, as wrappers do."""

    def __init__(self):
        super().__init__()
        self.module = Net()


NAMES = [name for name, _ in Net().named_parameters()]


def groups_of(config, model):
    optimizer = OptimizerFactory(config).build_optimizer(model)
    return {group["group_name"]: group for group in optimizer.param_groups}


def compiled(model):
    return torch.compile(model, backend="eager")


def in_part():
    model = Net()
    model.encoder = torch.nn.DataParallel(compiled(model.encoder))
    return model


WRAPPED = {
    "compiled": lambda: compiled(Net()),
    "wrapped": lambda: torch.nn.DataParallel(Net()),
    "both": lambda: compiled(torch.nn.DataParallel(Net())),
    "averaged": lambda: torch.optim.swa_utils.AveragedModel(compiled(Net())),
    "in part": in_part,
}


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["_orig_mod.a.weight", "_orig_mod.b"], ["a.weight", "b"]),
        (["module.a.weight", "module.b"], ["a.weight", "b"]),
        (["module._orig_mod.module.a", "module._orig_mod.module.b"], ["a", "b"]),
        (["a._fsdp_wrapped_module._checkpoint_wrapped_module.b"], ["a.b"]),
        (["module.a", "b"], ["module.a", "b"]),  # a part of the model that is called so
        (["a.module.b"], ["a.module.b"]),
        (["module"], ["module"]),
        (["_orig_mod.a", "a"], ["_orig_mod.a", "a"]),  # two parameters remain two
        ([], []),
    ],
)
def test_names_alone(names, expected):
    assert bare_names(names) == expected


@pytest.mark.parametrize("kind", WRAPPED)
def test_rules_and_tables_do_not_see_wrappers(kind):
    config = config_of("lamb", weight_decay_rate=0.1, exclude_from_weight_decay=["^head.bias$"])
    config.override({"param_groups": [{"match": "^encoder.weight$", "name": "first"}]})
    model = WRAPPED[kind]()
    groups = groups_of(config, model)
    assert sorted(n for group in groups.values() for n in group["param_names"]) == sorted(NAMES)
    assert groups["first"]["param_names"] == ["encoder.weight"]
    [plain] = [group for name, group in groups.items() if "no_adaptation" in name]
    assert plain["param_names"] == ["head.bias"]
    assert groups["first"]["params"][0] is of(model, "encoder.weight")


def of(model, bare):
    names = [name for name, _ in model.named_parameters()]
    return list(model.parameters())[bare_names(names, model).index(bare)]


def test_a_module_of_the_models_own_stays():
    names = [
        name
        for group in groups_of(config_of("sgd"), Holder()).values()
        for name in group["param_names"]
    ]
    assert names == [f"module.{name}" for name in NAMES]
    config = config_of("sgd")
    config.override({"param_groups": [{"layer_type": "Linear", "name": "linear"}]})
    assert len(groups_of(config, compiled(Net()))["linear"]["params"]) == 4


def trained(model, optimizer):
    for name in NAMES:  # by a number of its own for each
        parameter = of(model, name)
        parameter.grad = torch.full_like(parameter, len(name))
    optimizer.step()
    return optimizer.state_dict()


@pytest.mark.parametrize("kind", WRAPPED)
@pytest.mark.parametrize("saved_wrapped", [True, False])
def test_state_is_loaded_with_wrappers_and_without(kind, saved_wrapped):
    factory = OptimizerFactory(config_of("lion"))
    there, here = (WRAPPED[kind](), Net()) if saved_wrapped else (Net(), WRAPPED[kind]())
    saved = trained(there, factory.build_optimizer(there))
    loaded = factory.build_optimizer(here)
    loaded.load_state_dict(saved)
    assert loaded.state_dict()["state"].keys() == saved["state"].keys()
    for name in NAMES:
        first = saved["state"][saved["param_groups"][0]["param_names"].index(name)]
        again = loaded.state[of(here, name)]
        torch.testing.assert_close(again["exp_avg"], first["exp_avg"], rtol=0, atol=0)


def test_state_of_a_class_used_by_itself():
    there, here = compiled(Net()), Net()
    saved = trained(there, LAMB(there.named_parameters()))
    assert saved["param_groups"][0]["param_names"] == [f"_orig_mod.{name}" for name in NAMES]
    loaded = LAMB(reversed(list(here.named_parameters())))
    loaded.load_state_dict(saved)
    assert loaded.param_groups[0]["param_names"] == NAMES[::-1]  # its own
    for index, parameter in enumerate(here.parameters()):
        expected = saved["state"][index]["exp_avg"]
        torch.testing.assert_close(loaded.state[parameter]["exp_avg"], expected, rtol=0, atol=0)
