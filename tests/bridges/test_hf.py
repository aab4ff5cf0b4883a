"""From transformers: its own schedulers' curves, updates by the optimizers that Trainer builds."""

import json
import math

import numpy as np
import pytest

from optimization.bridges import hf, hf_export
from optimization.configs import yaml_file
from optimization.configs.errors import ConfigError
from tests.bridges import common
from tests.bridges.common import assert_same, convert, kinds, notes

transformers = pytest.importorskip("transformers")
torch = pytest.importorskip("torch")

from transformers.trainer_optimizer import OptimizerContext, _OPTIMIZER_HANDLERS  # noqa: E402, I001
from transformers.training_args import OptimizerNames, TrainingArguments  # noqa: E402

SFT = """\
# Supervised fine-tuning of a chat model.
model_name_or_path: org/base-7b
dataset_name: org/chats
bf16: true
learning_rate: 2.0e-05
lr_scheduler_type: cosine_with_min_lr
lr_scheduler_kwargs: {min_lr_rate: 0.1}
max_steps: 400
warmup_ratio: 0.033
weight_decay: 0.1
max_grad_norm: 0.3
adam_beta2: 0.95
gradient_accumulation_steps: 4
per_device_train_batch_size: 8
logging_steps: 5
"""
GLUE = """\
model_name_or_path: org/encoder
task_name: mrpc
do_train: true
learning_rate: 3e-5
num_train_epochs: 3
per_device_train_batch_size: 32
warmup_steps: 50
weight_decay: 0.01
"""


def arguments(draft_text, tmp_path):
    """Returns transformers' own object of a source's text."""
    values, _ = yaml_file.read(draft_text)
    known = TrainingArguments.__dataclass_fields__
    values = {k: v for k, v in values.items() if k in known or k == "warmup_ratio"}
    ratio = values.pop("warmup_ratio", None)
    if ratio is not None:
        values["warmup_steps"] = ratio  # its name in 5.x
    values.pop("bf16", None)
    return TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **values)


def their_curve(args, total, steps):
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=args.learning_rate)
    scheduler = transformers.get_scheduler(
        args.lr_scheduler_type,
        optimizer,
        num_warmup_steps=args.get_warmup_steps(total),
        num_training_steps=total,
        scheduler_specific_kwargs=args.lr_scheduler_kwargs,
    )
    base = scheduler.base_lrs[0]
    return [base * scheduler.lr_lambdas[0](step) for step in steps]


def their_weights(args, weights, gradients, total):
    """Returns the weights after updates by what Trainer builds of arguments."""
    params = common.named_parameters(weights)
    spared = [n for n in params if "bias" in n or "norm" in n]
    rest = [n for n in params if n not in spared]
    context = OptimizerContext(
        args=args,
        model=None,
        optimizer_kwargs={"lr": args.learning_rate},
        adam_kwargs={"betas": (args.adam_beta1, args.adam_beta2), "eps": args.adam_epsilon},
        optim_args=dict(s.split("=") for s in (args.optim_args or "").split(",") if s),
    )
    cls, kwargs = _OPTIMIZER_HANDLERS[args.optim](context)
    kwargs.pop("fused", None)  # another order of the same sums
    groups = [
        {"params": [params[n] for n in rest], "weight_decay": args.weight_decay},
        {"params": [params[n] for n in spared], "weight_decay": 0.0},
    ]
    rates = their_curve(args, total, range(len(gradients)))

    def clip(values):
        if args.max_grad_norm:
            torch.nn.utils.clip_grad_norm_(list(values), args.max_grad_norm)

    return common.train(cls(groups, **kwargs), params, gradients, rates, clip)


@pytest.mark.parametrize("text", [SFT, SFT.replace("max_steps: 400", "num_train_epochs: 2.5")])
def test_the_curve_is_that_of_get_scheduler(text, tmp_path):
    draft = convert(tmp_path, "hf", text)
    total = 400 if "max_steps" in text else math.ceil(2.5 * 97)
    args = arguments(text, tmp_path)
    warmup = math.ceil(total * 0.033)
    steps = common.around(warmup, end=total)
    ours = common.curve(draft, steps, train_steps=total, steps_per_epoch=97)
    np.testing.assert_allclose(ours, their_curve(args, total, steps), rtol=1e-12, atol=1e-20)


SCHEDULES = {
    "linear": {},
    "cosine": {"num_cycles": 1.5},
    "cosine_with_restarts": {"num_cycles": 3},
    "polynomial": {"power": 2.0, "lr_end": 1e-6},
    "constant_with_warmup": {},
    "constant": {},
    "inverse_sqrt": {"timescale": 40},
    "cosine_with_min_lr": {"min_lr": 1e-5},
    "cosine_warmup_with_min_lr": {"min_lr_rate": 0.1, "warmup_lr_rate": 0.2},
    "warmup_stable_decay": {"num_decay_steps": 30, "min_lr_ratio": 0.1, "decay_type": "linear"},
}


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule_with_its_keywords(name, tmp_path):
    values = {"learning_rate": 1e-3, "lr_scheduler_type": name, "max_steps": 100}
    values |= {"lr_scheduler_kwargs": SCHEDULES[name], "warmup_steps": 10, "adam_beta1": 0.8}
    draft = convert(tmp_path, "hf", json.dumps(values), ending="json")
    args = arguments(json.dumps(values), tmp_path)
    steps = common.around(10, 70, end=100, beyond=name != "polynomial")
    if name == "constant":
        assert notes(draft) == ["warmup_steps"]
        assert common.curve(draft, steps, train_steps=100).tolist() == [1e-3] * len(steps)
        return
    ours = common.curve(draft, steps, train_steps=100)
    np.testing.assert_allclose(ours, their_curve(args, 100, steps), rtol=1e-12, atol=1e-20)
    assert kinds(draft) == []


UPDATES = {
    "adamw_torch": {"weight_decay": 0.1, "adam_beta2": 0.95},
    "adamw_torch_fused": {"weight_decay": 0.0, "adam_epsilon": 1e-6},
    "sgd": {"weight_decay": 0.01, "optim_args": "momentum=0.9,nesterov=true"},
    "adagrad": {"optim_args": "eps=1e-6"},
    "rmsprop": {"optim_args": "momentum=0.5,alpha=0.95,centered=true"},
    "adafactor": {"weight_decay": 0.02},
}


@pytest.mark.parametrize("optim", UPDATES)
def test_twenty_updates_are_those_of_what_trainer_builds(optim, tmp_path):
    values = {"learning_rate": 0.01, "optim": optim, "max_steps": 25, "warmup_steps": 4}
    text = json.dumps({**values, "max_grad_norm": 1.0, **UPDATES[optim]})
    draft = convert(tmp_path, "hf", text, ending="json")
    weights, gradients = common.problem()
    theirs = their_weights(arguments(text, tmp_path), weights, gradients, 25)
    # torch adds 1e-6 to the norm that it clips by.
    ours = common.our_weights(draft, weights, gradients, train_steps=25)
    assert_same(ours, theirs, 2e-6)
    assert kinds(draft) == []


def test_ademamix_has_its_warmups(tmp_path):
    """bitsandbytes, whose class Trainer takes, is not installed with the tests."""
    args = "beta3=0.999,alpha=8,t_alpha=100,t_beta3=200"
    values = {"optim": "ademamix", "optim_args": args, "adam_beta2": 0.98, "weight_decay": 0.1}
    draft = convert(tmp_path, "hf", json.dumps({**values, "max_steps": 300}), ending="json")
    assert kinds(draft) == []
    section = common.OptimizationConfig(draft.values).optimizer.get()
    assert (section.beta_1, section.beta_2, section.beta_3) == (0.9, 0.98, 0.999)
    assert (section.alpha, section.alpha_warmup, section.beta_3_warmup) == (8.0, 100, 200)
    assert (section.weight_decay, section.epsilon) == (0.1, 1e-8)
    assert [section.decays(name) for name in ("dense.weight", "dense.bias")] == [True, False]


def test_stable_adamw_keeps_its_numbers(tmp_path):
    """torch-optimi, whose class Trainer takes, is not installed with the tests."""
    values = {"optim": "stable_adamw", "adam_beta2": 0.99, "weight_decay": 0.1, "max_steps": 300}
    draft = convert(tmp_path, "hf", json.dumps({**values, "optim_args": "max_lr=0.1"}))
    assert kinds(draft) == ["optim_args.max_lr"]
    section = common.OptimizationConfig(draft.values).optimizer.get()
    assert (section.beta_2, section.epsilon, section.weight_decay) == (0.99, 1e-8, 0.1)
    assert not section.decays("dense.bias")


def test_every_name_of_transformers_is_known():
    names = {name.value for name in OptimizerNames}
    assert names <= set(hf.OPTIMIZERS) | set(hf.UNAVAILABLE)
    assert not set(hf.OPTIMIZERS) & set(hf.UNAVAILABLE)


@pytest.mark.parametrize("name", [n.value for n in OptimizerNames])
def test_every_name_gives_a_config_or_says_why_not(name, tmp_path):
    text = json.dumps({"optim": name, "learning_rate": 1e-3, "weight_decay": 0.0, "max_steps": 9})
    draft = convert(tmp_path, "hf", text, ending="json")
    if name in hf.UNAVAILABLE:
        assert "optim" in kinds(draft)
        assert "type" not in draft.values.get("optimizer", {})
    else:
        config = common.OptimizationConfig(draft.values)
        assert config.optimizer.get() is not None


def test_a_whole_dump_has_no_unknown_key(tmp_path):
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none")
    draft = convert(tmp_path, "hf", args.to_json_string(), ending="json")
    assert kinds(draft) == []
    assert draft.values["learning_rate"]["type"] == "hf_linear"
    known = sum(map(len, draft.no_matter.values()))
    assert known > 80


def test_what_does_not_decay_is_what_trainer_spares():
    """By names of real models: what get_decay_parameter_names returns."""
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForMaskedLM,
        AutoModelForSeq2SeqLM,
        BertConfig,
        GPT2Config,
        LlamaConfig,
        T5Config,
        Trainer,
    )

    small = {"hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "vocab_size": 11}
    models = [
        AutoModelForMaskedLM.from_config(BertConfig(**small, intermediate_size=8)),
        AutoModelForCausalLM.from_config(GPT2Config(n_embd=8, n_layer=1, n_head=2, vocab_size=11)),
        AutoModelForCausalLM.from_config(LlamaConfig(**small, intermediate_size=8)),
        AutoModelForSeq2SeqLM.from_config(
            T5Config(d_model=8, d_kv=4, d_ff=8, num_layers=1, num_heads=2, vocab_size=11)
        ),
    ]
    draft = hf.Draft()
    hf.put_the_optimizer(draft, hf.Source({"weight_decay": 0.1}, defaults=hf.DEFAULTS), {})
    section = common.OptimizationConfig(draft.values).optimizer.get()
    for model in models:
        names = [name for name, _ in model.named_parameters()]
        theirs = set(Trainer.get_decay_parameter_names(None, model))
        assert {n for n in names if section.decays(n)} == theirs & set(names)
    assert not section.decays("model/encoder/layer_norm/gamma")
    assert not section.decays("model/dense/bias")
    assert section.decays("model/dense/kernel")


def test_messages_name_file_line_and_path(tmp_path):
    text = GLUE.replace("weight_decay", "weight_decy").replace("warmup_steps: 50", "optim: lomo")
    draft = convert(tmp_path, "hf", text)
    shown = [str(finding).removeprefix(str(tmp_path)) for finding in draft.findings]
    assert shown == [
        "/source.yaml:7: optim: 'lomo' is not carried over: it updates inside of the "
        "backward pass. Do by hand: choose an `optimizer.type` (`optfactory list optimizers`)",
        "/source.yaml:8: weight_decy: unknown key; did you mean 'weight_decay'?",
    ]
    with pytest.raises(ConfigError, match=r"source.yaml:4: learning_rate: expected a number"):
        convert(tmp_path, "hf", GLUE.replace("3e-5", "fast"))


def test_what_belongs_to_an_unknown_schedule_is_listed_with_it(tmp_path):
    draft = convert(tmp_path, "hf", "lr_scheduler_type: cosin\nlearning_rate: 1e-4\nmax_steps: 9\n")
    assert [(finding.kind, finding.path) for finding in draft.findings] == [
        ("lost", "lr_scheduler_type"),
        ("lost", "learning_rate"),
        ("lost", "max_steps"),
    ]


def test_enumerations_and_text_are_read_as_their_values(tmp_path):
    text = "lr_scheduler_type: SchedulerType.COSINE\noptim: OptimizerNames.ADAMW_TORCH\n"
    draft = convert(tmp_path, "hf", text + "learning_rate: '1e-4'\n")
    assert draft.values["learning_rate"]["type"] == "hf_cosine"
    assert draft.values["learning_rate"]["hf_cosine"]["initial_learning_rate"] == 1e-4


def test_there_and_back(tmp_path):
    draft = convert(tmp_path, "hf", SFT)
    values, findings = hf_export.export(common.config_of(draft))
    assert [f for f in findings if f.kind != "note"] == []
    args = TrainingArguments(output_dir=str(tmp_path), use_cpu=True, report_to="none", **values)
    again = arguments(SFT, tmp_path)
    for name in ("learning_rate", "weight_decay", "adam_beta2", "max_grad_norm", "max_steps"):
        assert getattr(args, name) == getattr(again, name)
    assert args.get_warmup_steps(400) == again.get_warmup_steps(400) == 14
    assert args.gradient_accumulation_steps == 4
    assert args.lr_scheduler_kwargs == again.lr_scheduler_kwargs


def test_ademamix_there_and_back(tmp_path):
    section = {"alpha": 8.0, "alpha_warmup": 100, "beta_3_warmup": "10%", "weight_decay": 0.1}
    config = {"optimizer": {"type": "ademamix", "ademamix": section}}
    rate = {"type": "hf_constant", "hf_constant": {"initial_learning_rate": 0.1}}
    values, findings = hf_export.export(
        common.OptimizationConfig({**config, "learning_rate": rate, "param_groups": []})
    )
    assert values["optim_args"] == "beta3=0.9999,alpha=8.0,t_alpha=100"
    differing = [finding.path.rpartition(".")[2] for finding in findings]
    assert differing == ["beta_3_warmup", "weight_decay"]
    again = convert(tmp_path, "hf", json.dumps(values)).values["optimizer"]["ademamix"]
    assert (again["alpha_warmup"], again["weight_decay"]) == (100, 0.1)


def test_what_training_arguments_cannot_say_is_listed():
    config = common.OptimizationConfig(
        {
            "optimizer": {
                "type": "adamw",
                "adamw": {
                    "weight_decay_rate": 0.1,
                    "clipvalue": 2.0,
                    "max_consecutive_nonfinite": 3,
                    "on_nonfinite": "skip",
                },
            },
            "learning_rate": {
                "type": "cosine",
                "cosine": {"initial_learning_rate": 0.1, "decay_steps": 90},
            },
            "warmup": {"type": "linear", "linear": {"warmup_steps": 10}},
            "ema": {"average_decay": 0.9},
            "accumulation": {"micro_batches": [1, 2], "boundaries": [5]},
        }
    )
    values, findings = hf_export.export(config)
    assert values["max_steps"] == 90
    assert {finding.path for finding in findings} == {
        "optimizer.adamw.clipvalue",
        "optimizer.adamw.on_nonfinite",
        "optimizer.adamw.max_consecutive_nonfinite",
        "optimizer.adamw.epsilon_placement",
        "optimizer.adamw.weight_decay",
        "warmup.linear.mode",
        "ema",
        "accumulation",
    }


@pytest.mark.parametrize(
    ("kind", "schedule", "kwargs"),
    [
        ("cosine", "cosine_with_min_lr", {"min_lr": 0.01}),
        ("linear", "polynomial", {"lr_end": 0.01, "power": 1.0}),
        ("hf_linear", "linear", None),
    ],
)
def test_a_lowest_rate_is_theirs_or_is_listed(kind, schedule, kwargs):
    rate = {"initial_learning_rate": 0.1, "min_learning_rate": 0.01}
    config = common.OptimizationConfig(
        {"optimizer": {"type": "adamw"}, "learning_rate": {"type": kind, kind: rate}}
    )
    values, findings = hf_export.export(config)
    assert values["lr_scheduler_type"] == schedule
    assert values.get("lr_scheduler_kwargs") == kwargs
    lost = {finding.path for finding in findings if finding.kind == "lost"}
    assert (f"learning_rate.{kind}.min_learning_rate" in lost) == (kwargs is None)


def test_a_sequence_is_listed_as_what_they_have_not():
    phases = [{"until": 5, "type": "constant"}, {"type": "constant"}]
    rate = {"type": "sequence", "sequence": {"phases": phases}}
    config = common.OptimizationConfig({"optimizer": {"type": "adamw"}, "learning_rate": rate})
    _, findings = hf_export.export(config)
    assert "learning_rate.type" in {f.path for f in findings if f.kind == "lost"}


@pytest.mark.parametrize(
    ("name", "differing"), [("lion_32bit", ["weight_decay"]), ("lion_8bit", ["optim"])]
)
def test_what_bitsandbytes_does_with_the_decay_of_lion(name, differing, tmp_path):
    source = {"optim": name, "weight_decay": 0.1, "max_steps": 9}
    assert kinds(convert(tmp_path, "hf", json.dumps(source))) == differing
    draft = convert(tmp_path, "hf", json.dumps({**source, "weight_decay": 0.0}))
    assert kinds(draft) == [path for path in differing if path == "optim"]
