import pytest

from tests.torch.common import OptimizerFactory, config_of, torch

from optimization.torch import LAMB  # isort: skip
from optimization.torch.names import bare_names  # isort: skip


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
