"""From axolotl: its schedules in float64, as in 0.10, src/axolotl/utils/schedulers.py."""

import math

import numpy as np
import pytest

from tests.bridges import common
from tests.bridges.common import assert_same, convert, kinds, notes

QLORA = """\
base_model: org/base-8b
load_in_4bit: true
adapter: qlora
lora_r: 32
datasets:
  - path: org/instructions
    type: alpaca
sequence_len: 2048
micro_batch_size: 2
gradient_accumulation_steps: 4
max_steps: 200
optimizer: adamw_torch
lr_scheduler: cosine
learning_rate: 2e-4
warmup_ratio: 0.057
weight_decay: 0.01
bf16: auto
"""
LEAST = QLORA.replace("lr_scheduler: cosine", "lr_scheduler: cosine\ncosine_min_lr_ratio: 0.1")
LEVEL = LEAST.replace("learning_rate", "cosine_constant_lr_ratio: 0.8\nlearning_rate")
SQUARED = QLORA.replace("learning_rate", "lr_quadratic_warmup: true\nlearning_rate")


def rate(step, total, warmup, low=0.0, end=None, power=1):
    """`_get_cosine_schedule_with_..._lr_lambda` of axolotl, all three."""
    if step < warmup:
        return (step / max(1, warmup)) ** power
    if end is not None:
        step, total = min(step, end), end
    progress = (step - warmup) / max(1, total - warmup)
    return (1 - low) * 0.5 * (1 + math.cos(math.pi * progress)) + low


@pytest.mark.parametrize(
    ("text", "options", "beyond"),
    [
        (QLORA, {}, True),
        (LEAST, {"low": 0.1}, True),
        (LEVEL, {"low": 0.1, "end": 160}, True),
        (SQUARED, {"power": 2}, False),
    ],
)
def test_the_curve_is_axolotls(text, options, beyond, tmp_path):
    draft = convert(tmp_path, "axolotl", text)
    warmup = int(0.057 * 200)  # 11, which transformers would make 12
    steps = common.around(warmup, 160, end=200, beyond=beyond)
    theirs = [2e-4 * rate(step, 200, warmup, **options) for step in steps]
    ours = common.curve(draft, steps)
    if "power" in options:  # at step 0 it is the rate of step 1, as the finding says
        assert ours[0] == theirs[1]
        assert kinds(draft) == ["lr_quadratic_warmup"]
        ours[0] = theirs[0]
    else:
        assert kinds(draft) == []
    np.testing.assert_allclose(ours, theirs, rtol=1e-6, atol=1e-13)


def test_twenty_updates_are_those_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    draft = convert(tmp_path, "axolotl", QLORA.replace("max_steps: 200", "max_steps: 25"))
    assert draft.values["optimizer"]["adamw"]["gradient_accumulation_steps"] == 4
    weights, gradients = common.problem()
    params = common.named_parameters(weights)
    spared = [p for n, p in params.items() if "bias" in n or "norm" in n]
    rest = [p for n, p in params.items() if not ("bias" in n or "norm" in n)]
    groups = [{"params": rest, "weight_decay": 0.01}, {"params": spared, "weight_decay": 0.0}]
    warmup = 2  # int(0.057 * 25) is 1, of which axolotl makes 2
    rates = [2e-4 * rate(step, 25, warmup) for step in range(20)]
    theirs = common.train(
        torch.optim.AdamW(groups, lr=2e-4),
        params,
        gradients,
        rates,
        lambda p: torch.nn.utils.clip_grad_norm_(p, 1.0),
    )
    assert_same(common.our_weights(draft, weights, gradients), theirs, 1e-6)


def test_a_share_of_an_unknown_length_is_told(tmp_path):
    text = QLORA.replace("max_steps: 200", "num_epochs: 2")
    draft = convert(tmp_path, "axolotl", text)
    assert kinds(draft) == ["warmup_ratio"]
    own = draft.values["learning_rate"]["hf_cosine"]
    assert (own["num_warmup_steps"], own["num_training_steps"]) == ("5.7%", "2 epochs")
    draft = convert(tmp_path, "axolotl", text.replace("warmup_ratio: 0.057\n", ""))
    assert kinds(draft) == ["warmup_steps"]
    assert draft.values["learning_rate"]["hf_cosine"]["num_warmup_steps"] == "3%"


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        (("lr_scheduler: cosine", "lr_scheduler: rex"), ["lr_scheduler"]),
        (("optimizer: adamw_torch", "optimizer: came_pytorch"), ["optimizer"]),
        (
            ("learning_rate", "lr_groups: [{name: a, modules: [b], lr: 1.0}]\nlearning_rate"),
            ["lr_groups"],
        ),
        (("weight_decay", "weigth_decay"), ["weigth_decay"]),
    ],
)
def test_what_cannot_be_carried_over_is_listed(change, listed, tmp_path):
    draft = convert(tmp_path, "axolotl", QLORA.replace(*change))
    assert set(listed) <= set(kinds(draft))


def test_accumulation_is_a_note(tmp_path):
    assert notes(convert(tmp_path, "axolotl", QLORA)) == ["gradient_accumulation_steps"]


def test_its_own_optimizers_are_those_of_a_type_or_listed(tmp_path):
    def converted(name):
        return convert(tmp_path, "axolotl", QLORA.replace("adamw_torch", name))

    draft = converted("adopt_adamw")
    section = common.config_of(draft).optimizer.get()
    assert draft.values["optimizer"]["type"] == "adopt"
    assert (section.clip_exponent, section.decoupled_weight_decay) == (0.25, True)
    assert converted("optimi_adamw").values["optimizer"]["type"] == "adamw"
    assert "optimizer" in kinds(converted("ao_adamw_fp8"))  # its state has 8 bits
    for name in ("muon", "dion", "came_pytorch"):
        draft = converted(name)
        assert "optimizer" in kinds(draft)
        assert "optimizer" not in draft.values
