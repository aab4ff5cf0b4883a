import dataclasses
import subprocess
import sys

import numpy as np
import pytest

from optimization import (
    OPTIMIZERS_CLS,
    BaseOptimizerConfig,
    ConfigError,
    ConfigWarning,
    OptimizationConfig,
)
from tests.torch.common import (
    OptimizerFactory,
    config_of,
    factory_weights,
    largest_difference,
    parameters,
    problem,
    torch,
)

import optimization.torch as ours  # isort: skip

CORRECTED = {"epsilon_placement": "corrected"}
# What rules do not say themselves: `tests/torch/test_contracts.py` has the others.
TORCHS = [
    ("adafactor", {"variant": "torch"}, ours.Adafactor),
    ("adafactor_keras", {}, ours.Adafactor),
]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.embedding = torch.nn.Embedding(5, 4)
        self.layers = torch.nn.ModuleList(
            torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)) for _ in range(2)
        )
        self.head = torch.nn.Linear(4, 2)

    def forward(self, x):
        x = self.embedding(x)
        for layer in self.layers:
            x = x + layer(x)
        return self.head(x)


@pytest.mark.parametrize(("kind", "section", "cls"), TORCHS, ids=str)
def test_torchs_own_class_is_used_where_torch_has_the_algorithm(kind, section, cls):
    optimizer = OptimizerFactory(config_of(kind, **section)).build_optimizer(Net())
    assert isinstance(optimizer, torch.optim.Optimizer)
    assert isinstance(optimizer, cls)
    assert type(optimizer).__name__ == cls.__name__


def groups_of(config, model=None):
    optimizer = OptimizerFactory(config).build_optimizer(model or Net())
    return {group["group_name"]: group for group in optimizer.param_groups}


def test_groups_by_name_type_and_dimensions():
    config = config_of("adamw", weight_decay_rate=0.1)
    config.override(
        {
            "param_groups": [
                {"match": r"^head\.", "learning_rate_multiplier": 10.0},
                {"layer_type": "LayerNorm", "weight_decay": 0.0, "name": "norms"},
                {"ndim": [1], "learning_rate_multiplier": 0.5},
            ]
        }
    )
    groups = groups_of(config)
    assert {name: group["param_names"] for name, group in groups.items()} == {
        "default": ["embedding.weight", "layers.0.0.weight", "layers.1.0.weight"],
        "ndim 1": ["layers.0.0.bias", "layers.1.0.bias"],
        "norms/weight_decay=0.0": [
            f"layers.{i}.1.{name}" for i in range(2) for name in ("weight", "bias")
        ],
        r"^head\.": ["head.weight", "head.bias"],
    }
    assert [group["lr"] for group in groups.values()] == pytest.approx([0.01, 0.005, 0.01, 0.1])
    assert [group["weight_decay"] for group in groups.values()] == [0.1, 0.1, 0.0, 0.1]


def test_frozen_parameters_are_left_out():
    config = config_of("sgd")
    config.override({"param_groups": [{"match": "embedding", "freeze": True}]})
    model = Net()
    model.head.bias.requires_grad_(False)
    names = groups_of(config, model)["default"]["param_names"]
    assert {"embedding.weight", "head.bias"} & set(names) == set()
    assert len(names) == 9
    assert model.embedding.weight.requires_grad
    config.override({"param_groups": [{"match": ".", "freeze": True}]})
    with pytest.raises(ValueError, match="nothing to train"):
        groups_of(config)


def test_layer_decay():
    config = config_of("sgd", learning_rate=1.0)
    config.override({"layer_decay": {"rate": 0.5, "depth": r"layers\.(\d+)\."}})
    groups = groups_of(config)
    rates = {name: group["lr"] for name, group in groups.items()}
    assert rates == {
        "default/layer_0": 0.125,
        "default/layer_1": 0.25,
        "default/layer_2": 0.5,
        "default": 1.0,
    }
    assert groups["default"]["param_names"] == ["head.weight", "head.bias"]


def test_lamb_and_lars_exclude_from_both():
    for kind in ("lamb", "lars"):
        section = {"weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias"]}
        groups = groups_of(config_of(kind, **section))
        plain = groups["default/no_adaptation/weight_decay=0.0"]
        assert all("bias" in name for name in plain["param_names"])
        assert not any("bias" in name for name in groups["default"]["param_names"])
        section["exclude_from_layer_adaptation"] = []
        groups = groups_of(config_of(kind, **section))
        assert set(groups) == {"default", "default/weight_decay=0.0"}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        (
            {"param_groups": [{"match": "nowhere"}]},
            "'nowhere'.* matches no .*nearest",
        ),
        ({"param_groups": [{"layer_type": "Dense"}]}, "layer types: Embedding, LayerNorm, Linear"),
        ({"layer_decay": {"rate": 0.5}}, "layer_decay matches no"),
    ],
)
def test_rules_that_match_nothing_are_errors(sections, message):
    config = config_of("sgd")
    config.override(sections)
    with pytest.raises(ValueError, match=message):
        groups_of(config)


def test_patterns_that_match_nothing_are_errors():
    config = config_of("lamb", exclude_from_weight_decay=["bais"])
    message = r"exclude_from_weight_decay.*'bais' \(nearest: 'layers.0.0.bias'"
    with pytest.raises(ValueError, match=message):
        groups_of(config)


def test_lists_for_other_names_warn_and_act():
    patterns = ["LayerNorm", r"\.1\.\w+:0$", "bias:0"]
    config = config_of("adamw", weight_decay_rate=0.1, exclude_from_weight_decay=patterns)
    with pytest.warns(ConfigWarning, match=r"^exclude_from_weight_decay: .*'LayerNorm' \(nearest"):
        groups = groups_of(config)
    plain = groups["default/weight_decay=0.0"]["param_names"]
    norms = ["layers.0.1.weight", "layers.1.1.weight"]
    assert plain == [n for n in dict(Net().named_parameters()) if "bias" in n or n in norms]


@pytest.mark.parametrize(
    ("kind", "section"),
    [("sgd_torch", {"weight_keys": ["kernel"]}), ("muon", {"exclude_layers": ["haed"]})],
)
def test_every_list_must_match(kind, section):
    with pytest.raises(ValueError, match=next(iter(section))):
        groups_of(config_of(kind, **section))


def test_layer_types_need_the_model():
    config = config_of("sgd")
    config.override({"param_groups": [{"layer_type": "LayerNorm", "freeze": True}]})
    with pytest.raises(ValueError, match="give the model itself"):
        OptimizerFactory(config).build_optimizer(Net().named_parameters())


def test_a_type_without_a_native_implementation_names_those_with_one(monkeypatch):
    monkeypatch.setattr(OPTIMIZERS_CLS, "_entries", dict(OPTIMIZERS_CLS._entries))
    OPTIMIZERS_CLS.register("of_keras", "nowhere:SignSGD")(OfKerasConfig)
    message = r"optimizer.type: `of_keras` has no native PyTorch .*; these have: ada.*, sgd_torch, "
    with pytest.raises(ConfigError, match=message):
        OptimizerFactory(config_of("of_keras"))
    config = config_of("sgd")
    config.override({"param_groups": [{"match": "bias", "optimizer": {"type": "of_keras"}}]})
    with pytest.raises(
        ConfigError, match=r"param_groups\[0\].optimizer.type: `of_keras` has no na"
    ):
        OptimizerFactory(config)


@dataclasses.dataclass
class OfKerasConfig(BaseOptimizerConfig):
    scale: float = 1.0


@dataclasses.dataclass
class SignSGDConfig(BaseOptimizerConfig):
    scale: float = 1.0


def sign_sgd(section):
    return ours.Recipe(ours.Lion, {"betas": (0.5, section.scale / 10)})


@dataclasses.dataclass
class SharpSignSGDConfig(SignSGDConfig):
    sharpness: float = 1.0


def test_a_type_of_ones_own_has_a_recipe(monkeypatch):
    monkeypatch.setattr(OPTIMIZERS_CLS, "_entries", dict(OPTIMIZERS_CLS._entries))
    target = "tests.torch.test_factory:sign_sgd"
    OPTIMIZERS_CLS.register("sign_sgd", "nowhere:SignSGD", torch=target)(SignSGDConfig)
    optimizer = OptimizerFactory(config_of("sign_sgd", scale=3.0)).build_optimizer(Net())
    assert isinstance(optimizer, ours.Lion)
    assert optimizer.param_groups[0]["betas"] == pytest.approx((0.5, 0.3))


@pytest.mark.parametrize(
    ("kind", "section", "instead"),
    [
        ("sgd", {"gradient_accumulation_steps": 4}, "backward"),
        ("sgd", {"on_nonfinite": "skip"}, "GradScaler"),
        ("sgd", {"loss_scale_factor": 8.0}, "GradScaler"),
        ("sgd", {"ema_overwrite_frequency": 3, "use_ema": True}, "copy the average's parameters"),
        ("lion", {"jit_compile": True}, r"build_optimizer\(model, compile=True\)"),
    ],
)
def test_what_the_loop_does_in_pytorch_is_refused_with_what_does_it(kind, section, instead):
    name = next(iter(section))
    with pytest.raises(ConfigError, match=rf"optimizer\.{kind}\.{name}: .*{instead}"):
        OptimizerFactory(config_of(kind, **section))


def test_options_of_torch_reach_the_class():
    factory = OptimizerFactory(config_of("adamw", **CORRECTED))
    group = factory.build_optimizer(Net(), foreach=False, maximize=True).param_groups[0]
    assert (group["foreach"], group["maximize"]) == (False, True)
    assert factory.build_optimizer(Net(), fused=True).param_groups[0]["fused"]
    assert factory.build_optimizer(Net(), differentiable=True).param_groups[0]["differentiable"]
    for option in ("fused", "capturable", "differentiable"):
        with pytest.raises(
            ValueError, match=f"`{option}`: optimization.torch.LAMB does not have it"
        ):
            OptimizerFactory(config_of("lamb")).build_optimizer(Net(), **{option: True})


def test_torchs_own_class_calls_all_hooks():
    optimizer = OptimizerFactory(config_of("adamw", **CORRECTED)).build_optimizer(Net())
    called = []
    for name in (
        "step_pre",
        "step_post",
        "state_dict_pre",
        "state_dict_post",
        "load_state_dict_pre",
        "load_state_dict_post",
    ):
        register = getattr(optimizer, f"register_{name}_hook")
        register(lambda *_, name=name: called.append(name))
    optimizer.step()
    optimizer.load_state_dict(optimizer.state_dict())
    assert len(set(called)) == len(called) == 6


@pytest.mark.parametrize(("kind", "section", "cls"), TORCHS, ids=str)
def test_foreach_and_maximize_of_every_class(kind, section, cls):
    initial, gradients = problem(steps=4)
    config = config_of(kind, **section)
    expected = factory_weights(config, initial, gradients, foreach=False)
    found = factory_weights(config, initial, gradients, foreach=True)
    # Float64 in another order.
    assert largest_difference(found, expected) < 1e-12
    negative = [{name: -g for name, g in grads.items()} for grads in gradients]
    found = factory_weights(config, initial, negative, foreach=False, maximize=True)
    assert largest_difference(found, expected) < 1e-12


def test_other_things_than_named_parameters_are_refused():
    factory = OptimizerFactory(config_of("sgd"))
    with pytest.raises(TypeError, match="named_parameters"):
        factory.build_optimizer(Net().parameters())
    with pytest.raises(TypeError, match="named_parameters.*received: model=None"):
        factory.build_optimizer(None)
    with pytest.raises(ValueError, match="no parameter that requires gradients"):
        factory.build_optimizer(torch.nn.ReLU())


def test_a_wrong_config_is_refused_as_in_keras():
    config = OptimizationConfig({"optimizer": {"type": "sgd"}})
    with pytest.raises(ConfigError, match="learning_rate.type: a type is required"):
        OptimizerFactory(config)


def test_lengths_come_from_the_training():
    cosine = {"initial_learning_rate": 1.0}
    config = config_of("sgd", {"type": "cosine", "cosine": cosine})
    factory = OptimizerFactory(config, train_steps=4)
    params = parameters(problem()[0])
    optimizer = factory.build_optimizer(params.items())
    scheduler = factory.build_scheduler(optimizer)
    for _ in range(4):
        optimizer.step()
        scheduler.step()
    assert scheduler.get_last_lr() == pytest.approx([0.0], abs=1e-15)


def test_tied_weights_are_one_parameter():
    model = Net()
    model.decoder = torch.nn.Linear(4, 5, bias=False)
    model.decoder.weight = model.embedding.weight
    names = groups_of(config_of("adam"), model)["default"]["param_names"]
    assert "embedding.weight" in names
    assert "decoder.weight" not in names


def test_a_model_learns():
    config = config_of("lamb", learning_rate=0.05, global_clipnorm=1.0)
    model = Net()
    optimizer = OptimizerFactory(config).build_optimizer(model)
    x, y = torch.arange(5), torch.tensor([0, 1, 0, 1, 0])
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        loss = torch.nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]
    assert np.isfinite(losses).all()


def test_neither_keras_nor_tensorflow_is_imported():
    code = """
import sys
from optimization import OptimizationConfig
from optimization.torch import OptimizerFactory
import torch
config = OptimizationConfig({
    "optimizer": {"type": "adamw"},
    "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}},
})
factory = OptimizerFactory(config, train_steps=10)
optimizer = factory.build_optimizer(torch.nn.Linear(2, 2))
factory.build_scheduler(optimizer)
print(sorted({"keras", "tensorflow", "jax"} & set(sys.modules)))
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout == "[]\n", result.stderr


def test_a_schedule_of_what_pytorchs_class_does_not_have_names_its_path(monkeypatch):
    monkeypatch.setattr(OPTIMIZERS_CLS, "_entries", dict(OPTIMIZERS_CLS._entries))
    target = "tests.torch.test_factory:sign_sgd"
    OPTIMIZERS_CLS.register("sign_sgd", "nowhere:SignSGD", torch=target)(SharpSignSGDConfig)
    config = config_of("sign_sgd")
    line = {"initial_learning_rate": 1.0, "end_learning_rate": 0.5, "decay_steps": 9}
    config.override({"schedules": {"sharpness": {"type": "linear", "linear": line}}})
    with pytest.raises(ConfigError, match=r"^schedules\.sharpness: the class .* has no `sharpness"):
        OptimizerFactory(config)


def test_a_loop_accumulates_as_the_factory_says():
    ramp = {"micro_batches": [1, 3], "boundaries": [2]}
    config = config_of("sgd", learning_rate=0.5)
    config.override({"accumulation": ramp})
    factory = OptimizerFactory(config)
    weight = torch.nn.Parameter(torch.zeros(1, dtype=torch.float64))
    optimizer = factory.build_optimizer([("w", weight)])
    targets, expected = iter(range(1, 9)), 0.0
    places = [[1], [2], [3, 4, 5], [6, 7, 8]]
    for step, own in enumerate(places):
        assert factory.first_micro_batch(step) == own[0] - 1
        for _ in range(factory.micro_batches(step)):
            ((weight - next(targets)) ** 2 / factory.micro_batches(step)).sum().backward()
        optimizer.step()
        optimizer.zero_grad()
        expected -= 0.5 * sum(2 * (expected - y) for y in own) / len(own)
        assert weight.item() == pytest.approx(expected, rel=1e-12, abs=1e-12)
