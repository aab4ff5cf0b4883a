"""From Lightning: schedules and optimizers of torch, stepped as Lightning steps them."""

import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from tests.bridges import common
from tests.bridges.common import assert_same, convert, kinds, notes

torch = pytest.importorskip("torch")

EPOCHS, STEPS = 12, 5
FILE = """\
seed_everything: 42
trainer:
  max_epochs: {epochs}
  accelerator: auto
  gradient_clip_val: {clip}
model:
  class_path: my.Module
optimizer:
  class_path: torch.optim.{optimizer}
  init_args: {arguments}
lr_scheduler:
  class_path: torch.optim.lr_scheduler.{scheduler}
  init_args: {settings}
"""
SCHEDULERS = {
    "StepLR": ("{step_size: 4, gamma: 0.5}", True),
    "MultiStepLR": ("{milestones: [3, 7], gamma: 0.1}", True),
    "ExponentialLR": ("{gamma: 0.9}", True),
    "ConstantLR": ("{factor: 0.25, total_iters: 3}", True),
    "LinearLR": ("{start_factor: 0.1, total_iters: 4}", True),
    "PolynomialLR": ("{total_iters: 10, power: 2.0}", False),
    "CosineAnnealingLR": ("{T_max: 12, eta_min: 0.01}", False),
    "CosineAnnealingWarmRestarts": ("{T_0: 4, T_mult: 2, eta_min: 0.001}", False),
}


def text(
    scheduler="StepLR", settings="{step_size: 4}", optimizer="SGD", arguments="{lr: 0.1}", clip=0.0
):
    return FILE.format(
        epochs=EPOCHS,
        clip=clip,
        optimizer=optimizer,
        arguments=arguments,
        scheduler=scheduler,
        settings=settings,
    )


def their_curve(scheduler, settings, epochs=EPOCHS):
    """Returns the rate at each update, of a scheduler that is stepped once an epoch."""
    from optimization.configs import yaml_file

    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    optimizer.step()
    made = getattr(torch.optim.lr_scheduler, scheduler)(optimizer, **yaml_file.read(settings)[0])
    rates = []
    for _ in range(epochs):
        rates += [made.get_last_lr()[0]] * STEPS
        made.step()
    return rates


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("exact", [True, False])
def test_the_curve_is_torchs_stepped_once_an_epoch(scheduler, exact, tmp_path):
    settings, is_staircase = SCHEDULERS[scheduler]
    draft = convert(tmp_path, "lightning", text(scheduler, settings), exact)
    steps = range(EPOCHS * STEPS)
    ours = common.curve(draft, steps, train_steps=EPOCHS * STEPS, steps_per_epoch=STEPS)
    theirs = np.array(their_curve(scheduler, settings))
    # A formula is exact where PyTorch multiplies from epoch to epoch.
    is_table = exact or is_staircase or draft.values["learning_rate"]["type"] == "stepwise"
    near = {"rtol": 1e-12, "atol": 1e-15} if is_table else {"rtol": 1e-7, "atol": 1e-9}
    np.testing.assert_allclose(ours, theirs, **near)
    assert kinds(draft) == []


def test_over_many_epochs_the_type_is_kept(tmp_path):
    source = text("CosineAnnealingLR", "{T_max: 100}").replace("max_epochs: 12", "max_epochs: 100")
    rate = convert(tmp_path, "lightning", source).values["learning_rate"]["cosine"]
    assert (rate["decay_steps"], rate["per"]) == ("100 epochs", "epoch")


def test_a_cosine_that_goes_up_again_is_one_here_too(tmp_path):
    settings = "{T_max: 50}"
    source = text("CosineAnnealingLR", settings).replace("max_epochs: 12", "max_epochs: 80")
    draft = convert(tmp_path, "lightning", source)
    assert draft.values["learning_rate"]["type"] == "hf_cosine_with_min_lr"
    ours = common.curve(draft, range(0, 400, STEPS), train_steps=400, steps_per_epoch=STEPS)
    theirs = their_curve("CosineAnnealingLR", settings, 80)[::STEPS]
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-12)


OPTIMIZERS = {
    "AdamW": "{lr: 0.01, weight_decay: 0.1, betas: [0.8, 0.99], amsgrad: true}",
    "Adam": "{lr: 0.01, eps: 1e-6, weight_decay: 0.1}",
    "SGD": "{lr: 0.01, momentum: 0.9, nesterov: true, weight_decay: 0.01}",
    "RMSprop": "{lr: 0.01, momentum: 0.9, centered: true, weight_decay: 0.1}",
    "Adagrad": "{lr: 0.01, initial_accumulator_value: 0.1, weight_decay: 0.1}",
    "Adadelta": "{lr: 1.0, rho: 0.8}",
    "Adamax": "{lr: 0.01, weight_decay: 0.1}",
    "NAdam": "{lr: 0.01, momentum_decay: 0.01, weight_decay: 0.1}",
    "RAdam": "{lr: 0.01, weight_decay: 0.1}",
    "Adafactor": "{lr: 0.01, weight_decay: 0.1, d: 1.1}",
}


MUON = [
    "{lr: 0.01}",
    "{lr: 0.01, adjust_lr_fn: match_rms_adamw, nesterov: false, momentum: 0.9, weight_decay: 0}",
    "{lr: 0.01, ns_coefficients: [3.0, -4.775, 2.0315], ns_steps: 3, adjust_lr_fn: original}",
]
CASES = [*OPTIMIZERS.items(), *(("Muon", arguments) for arguments in MUON)]


@pytest.mark.parametrize(("name", "arguments"), CASES)
def test_twenty_updates_are_those_of_torchs_class(name, arguments, tmp_path):
    from optimization.configs import yaml_file

    if not hasattr(torch.optim, name):
        pytest.skip("this torch has no Muon")
    draft = convert(tmp_path, "lightning", text(optimizer=name, arguments=arguments, clip=0.5))
    shapes = common.SHAPES
    if name == "Muon":  # which takes matrices alone
        shapes = {key: (6, 4) if "head" in key else (4, 7) for key in shapes if "weight" in key}
        shapes.pop("norm.weight")
        shapes.pop("blocks.0.norm.weight")
    weights, gradients = common.problem(shapes=shapes)
    values = yaml_file.read(arguments)[0]
    params = common.named_parameters(weights)
    optimizer = getattr(torch.optim, name)(params.values(), **values)
    rates = [values["lr"] * 0.1 ** (step // 20) for step in range(20)]
    theirs = common.train(
        optimizer, params, gradients, rates, lambda p: torch.nn.utils.clip_grad_norm_(p, 0.5)
    )
    ours = common.our_weights(draft, weights, gradients, train_steps=60, steps_per_epoch=STEPS)
    assert_same(ours, theirs, 5e-6)
    assert kinds(draft) == []


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ({"optimizer": "ASGD"}, ["optimizer.class_path", "trainer.gradient_clip_val"]),
        (
            {"scheduler": "OneCycleLR", "settings": "{max_lr: 1.0}"},
            [
                *("lr_scheduler.class_path", "lr_scheduler.init_args.max_lr"),
                "optimizer.init_args.lr",
            ],
        ),
        ({"arguments": "{lr: 0.1, dampening: 0.5}"}, ["optimizer.init_args.dampening"]),
        (
            {"optimizer": "Muon", "arguments": "{lr: 0.1, dampening: 0.5}"},
            ["optimizer.init_args.dampening"],
        ),
        ({"arguments": "{lr: 0.1, maximize: true}"}, ["optimizer.init_args.maximize"]),
        ({"settings": "{step_size: 3, gama: 0.5}"}, ["lr_scheduler.init_args.gama"]),
    ],
)
def test_what_cannot_be_carried_over_is_listed(change, listed, tmp_path):
    assert kinds(convert(tmp_path, "lightning", text(**change))) == listed


def test_a_plateau_follows_what_is_monitored(tmp_path):
    source = text().replace(
        "torch.optim.lr_scheduler.StepLR", "lightning.pytorch.cli.ReduceLROnPlateau"
    )
    source = source.replace("{step_size: 4}", "{monitor: val_loss, factor: 0.5, patience: 3}")
    draft = convert(tmp_path, "lightning", source)
    rate = common.config_of(draft).learning_rate.hf_reduce_lr_on_plateau
    assert (rate.metric, rate.factor, rate.patience) == ("loss", 0.5, 3)


def test_accumulation_value_clips_and_steps(tmp_path):
    source = text(clip=0.5).replace(
        "  accelerator: auto\n",
        "  accumulate_grad_batches: 4\n  gradient_clip_algorithm: value\n  max_steps: 500\n",
    )
    draft = convert(tmp_path, "lightning", source)
    section = draft.values["optimizer"]["sgd_torch"]
    assert (section["clipvalue"], section["gradient_accumulation_steps"]) == (0.5, 4)
    assert notes(draft) == ["trainer.accumulate_grad_batches", "trainer.max_steps"]


@pytest.mark.parametrize(
    ("argument", "expected"),
    [
        ("adjust_lr_fn: spectral", "expected one of original, match_rms_adamw, got 'spectral'"),
        ("ns_coefficients: [3, 4]", "expected three numbers"),
    ],
)
def test_wrong_arguments_of_muon_are_told(argument, expected, tmp_path):
    with pytest.raises(ConfigError, match=expected):
        convert(tmp_path, "lightning", text(optimizer="Muon", arguments=f"{{{argument}}}"))


def test_a_wrong_value_is_told_with_its_line(tmp_path):
    with pytest.raises(ConfigError, match=r"source.yaml:13: lr_scheduler.init_args.step_size"):
        convert(tmp_path, "lightning", text(settings="{step_size: often}"))
