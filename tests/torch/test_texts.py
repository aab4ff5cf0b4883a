import copy
import pickle
import re
import warnings

import pytest

torch = pytest.importorskip("torch")

import optimization.torch  # noqa: E402
from optimization import OPTIMIZERS_CLS, ConfigWarning, OptimizationConfig  # noqa: E402
from optimization.torch import OptimizerFactory  # noqa: E402
from optimization.torch.recipes import is_native  # noqa: E402


def config_of(type_, rate):
    return OptimizationConfig(
        optimizer={"type": type_},
        learning_rate=rate,
        param_groups=[{"match": "bias", "learning_rate_multiplier": 2.0, "name": "biases"}],
    )


@pytest.mark.parametrize("type_", list(filter(is_native, OPTIMIZERS_CLS)))
def test_groups_print_by_name_with_the_highest_rate(type_):
    # Rises from 0.1 to 0.5.
    warmed = {"initial_learning_rate": 0.5, "num_warmup_steps": 4, "num_training_steps": 10}
    warmed |= {"min_lr": 0.0, "warmup_lr_rate": 0.2}
    kind = "hf_cosine_warmup_with_min_lr"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)  # of schedule-free ones
        factory = OptimizerFactory(config_of(type_, {"type": kind, kind: warmed}))
    optimizer = factory.build_optimizer(torch.nn.Linear(3, 2))
    scheduler = factory.build_scheduler(optimizer)
    head, *lines = repr(optimizer).splitlines()
    assert head.startswith(f"{type(optimizer).__name__}(")
    assert any(line.startswith("  default") and "0.1 now, up to 0.5" in line for line in lines)
    assert any(line.startswith("  biases") and "0.2 now, up to 1" in line for line in lines)
    for twin in (copy.deepcopy(optimizer), pickle.loads(pickle.dumps(optimizer))):
        assert repr(twin) == repr(optimizer)
    for printed in (factory, scheduler):
        assert len(repr(printed)) <= 300
        assert " at 0x" not in repr(printed) + repr(optimizer)
    assert "last_epoch=0" in repr(scheduler)


def test_classes_by_themselves():
    model = torch.nn.Linear(3, 2)
    groups = [
        {"params": [model.weight], "lr": torch.tensor(0.5), "weight_decay": 0.25},
        {"params": [model.bias]},
    ]
    optimizer = optimization.torch.Lion(groups, lr=0.125, betas=(0.5, 0.75))
    assert repr(optimizer).splitlines() == [
        "Lion(betas=(0.5, 0.75))",
        "  group 0:  1 parameter,  6 numbers,  lr 0.5    weight_decay=0.25",
        "  group 1:  1 parameter,  2 numbers,  lr 0.125",
    ]
    scheduler = optimization.torch.GreedyLR(optimizer, patience=3)
    assert repr(scheduler) == "GreedyLR(last_lr=[0.5, 0.125], patience=3, last_epoch=0)"


def test_a_constant_and_a_followed_rate_have_no_highest():
    model = torch.nn.Linear(3, 2)
    constant = config_of("sgd", {"type": "constant"})
    assert " up to " not in repr(OptimizerFactory(constant).build_optimizer(model))
    for kind in ("hf_greedy", "hf_reduce_lr_on_plateau"):
        rate = {"type": kind, kind: {"initial_learning_rate": 0.5, "patience": 3}}
        factory = OptimizerFactory(config_of("sgd", rate))
        optimizer = factory.build_optimizer(model)
        assert " up to " not in repr(optimizer)
        text = repr(factory.build_scheduler(optimizer))
        assert re.fullmatch(r"\w+\(last_lr=\[0.5, 1.0\], .*patience=3.*\)", text)
