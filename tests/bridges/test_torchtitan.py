"""From torchtitan: its schedule, in float64, and what it builds of torch."""

import math

import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from tests.bridges import common
from tests.bridges.common import assert_same, convert, kinds, notes

LLAMA = """\
# A job of a small model.
[job]
dump_folder = "./outputs"

[model]
name = "llama3"
flavor = "8B"

[optimizer]
name = "AdamW"
lr = 3e-4
eps = 1e-8

[lr_scheduler]
warmup_steps = 20  # of 200

[training]
local_batch_size = 1
seq_len = 8192
max_norm = 1.0
steps = 200
dataset = "c4"

[parallelism]
tensor_parallel_degree = 1
"""
STABLE = LLAMA.replace(
    "warmup_steps = 20",
    'warmup_steps = 20\ndecay_ratio = 0.25\ndecay_type = "sqrt"\nmin_lr_factor = 0.1',
)
COSINE = LLAMA.replace(
    "warmup_steps = 20", 'warmup_steps = 0\ndecay_type = "cosine"\nmin_lr_factor = 0.05'
)
SHORT = LLAMA.replace("warmup_steps = 20", "warmup_steps = 1")


def transcribed(steps, total, warmup, ratio, kind, low):
    """Torchtitan's `linear_warmup_stable_decay`, v0.2.0, components/lr_scheduler.py."""
    decay = total - warmup
    if ratio is not None:
        decay = min(round(total * ratio), total - warmup)
    stable = total + 1 - warmup - decay
    rates = []
    for step in steps:
        if step < warmup:
            rates.append((step + 1) / warmup)
        elif step < warmup + stable:
            rates.append(1.0)
        else:
            done = (step + 1 - warmup - stable) / decay
            left = {"linear": 1 - done, "sqrt": 1 - math.sqrt(done)}.get(kind)
            left = 0.5 * (1 + math.cos(math.pi * done)) if left is None else left
            rates.append(low + (1 - low) * left)
    return rates


@pytest.mark.parametrize(
    ("text", "arguments"),
    [
        (LLAMA, (20, None, "linear", 0.0)),
        (STABLE, (20, 0.25, "sqrt", 0.1)),
        (COSINE, (0, None, "cosine", 0.05)),
        (SHORT, (1, None, "linear", 0.0)),
    ],
)
def test_the_curve_is_torchtitans_at_every_update(text, arguments, tmp_path):
    draft = convert(tmp_path, "torchtitan", text, ending="toml")
    steps = range(200)  # torchtitan itself has no rate beyond the end
    ours = common.curve(draft, steps)
    theirs = 3e-4 * np.array(transcribed(steps, 200, *arguments))
    np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-18)
    assert common.curve(draft, [200, 600]).tolist() == pytest.approx([3e-4 * arguments[-1]] * 2)
    assert kinds(draft) == []


def test_the_warmup_of_older_versions_is_theirs(tmp_path):
    text = LLAMA.replace("warmup_steps = 20", "warmup_steps = 20\nlr_min = 0.1")
    draft = convert(tmp_path, "torchtitan", text, ending="toml")
    theirs = 3e-4 * np.arange(1, 22) / 21
    np.testing.assert_allclose(common.curve(draft, range(21)), theirs, rtol=1e-9)


def test_twenty_updates_are_those_of_torch(tmp_path):
    torch = pytest.importorskip("torch")
    text = LLAMA.replace("steps = 200", "steps = 22").replace("warmup_steps = 20", "warmup_steps=5")
    draft = convert(tmp_path, "torchtitan", text, ending="toml")
    weights, gradients = common.problem()
    params = common.named_parameters(weights)
    optimizer = torch.optim.AdamW(
        params.values(), lr=3e-4, betas=(0.9, 0.95), eps=1e-8, weight_decay=0.1
    )
    rates = 3e-4 * np.array(transcribed(range(20), 22, 5, None, "linear", 0.0))
    theirs = common.train(
        optimizer, params, gradients, rates, lambda p: torch.nn.utils.clip_grad_norm_(p, 1.0)
    )
    assert_same(common.our_weights(draft, weights, gradients), theirs, 1e-6)


def test_what_cannot_be_carried_over_is_listed_with_its_line(tmp_path):
    text = LLAMA.replace('"AdamW"', '"Adam"').replace("seq_len", "sequence_len")
    text = text.replace("warmup_steps = 20", "lr_min = 0.1").replace("eps = 1e-8", "ep = 1e-8")
    draft = convert(tmp_path, "torchtitan", text, ending="toml")
    found = {finding.path: finding.origin.line for finding in draft.findings}
    assert draft.values["optimizer"]["adam"]["decoupled_weight_decay"] is False
    assert found == {
        "optimizer.ep": 12,
        "lr_scheduler.lr_min": 15,
        "training.sequence_len": 19,
    }


def test_muon_is_listed(tmp_path):
    draft = convert(tmp_path, "torchtitan", LLAMA.replace('"AdamW"', '"Muon"'), ending="toml")
    assert kinds(draft)[0] == "optimizer.name"
    assert "optimizer" not in draft.values


def test_an_optimizer_in_the_backward_pass_clips_nothing(tmp_path):
    text = LLAMA.replace("eps = 1e-8", "early_step_in_backward = true")
    draft = convert(tmp_path, "torchtitan", text, ending="toml")
    assert draft.values["optimizer"]["adamw"]["gradient_clip_norm"] == 0.0
    assert notes(draft) == ["optimizer.early_step_in_backward"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[optimizer\n", "source.toml:1: not TOML"),
        ("[training]\nsteps = 1\nsteps = 2\n", r"source.toml:3: not TOML"),
        (LLAMA.replace("= 20 ", "= 2.5"), "lr_scheduler.warmup_steps: expected a whole number"),
        (STABLE.replace('"sqrt"', '"root"'), "decay_type: expected one of linear, cosine, sqrt"),
    ],
)
def test_wrong_files_are_told(text, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        convert(tmp_path, "torchtitan", text, ending="toml")
