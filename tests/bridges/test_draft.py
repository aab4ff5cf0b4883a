"""Sources are read strictly: a value that a library refuses is told, with its place."""

import pytest

from optimization.bridges import bridges, files
from optimization.bridges.draft import DIFFERS, LOST, Draft, Finding, Source
from optimization.bridges.writing import written
from optimization.configs import yaml_file
from optimization.configs.errors import ConfigError
from tests.bridges.common import convert, kinds
from tests.bridges.test_timm import RESNET

TEXTS = {
    "hf": "learning_rate: 1e-3\nadam_beta1: 0.9\nmax_steps: 10\nwarmup_steps: 2\n",
    "timm": RESNET,
    "garden": "optimizer: {type: sgd}\nlearning_rate: {type: constant}\n",
    "keras": "{class_name: SGD, config: {learning_rate: 0.1}}\n",
    "lightning": (
        "trainer: {max_epochs: 5}\n"
        "optimizer: {class_path: torch.optim.SGD, init_args: {lr: 0.1}}\n"
        "lr_scheduler: {class_path: torch.optim.lr_scheduler.MultiStepLR, "
        "init_args: {milestones: [3]}}\n"
    ),
    "axolotl": (
        "base_model: x\nmicro_batch_size: 1\noptimizer: sgd\nlr_scheduler: cosine\n"
        "learning_rate: 0.1\n"
    ),
}


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("hf", ("1e-3", "[1]"), r"source.yaml:1: learning_rate: expected a number, got \[1\]"),
        ("hf", ("10", "1e300"), r"source.yaml:3: max_steps: expected a number, got 1e\+300"),
        ("timm", ("epochs: 12", "epochs: -1"), "epochs: expected 1 to 10,000 epochs"),
        ("timm", ("opt_betas: null", "opt: adamw\nopt_betas: 0.9"), "duplicate key 'opt'"),
        ("garden", ("sgd", "[sgd]"), "source.yaml:1: optimizer.type: expected a name"),
        ("keras", ("0.1", "fast"), "config.learning_rate: expected a number, got 'fast'"),
        ("lightning", ("[3]", "3"), "init_args.milestones: expected a list of numbers, got 3"),
        (
            "timm",
            ("epochs: 12", "epochs: 12\nlr_cycle_mul: 2\nlr_cycle_limit: 1000000"),
            "lr_cycle_limit: 1,000,000 cycles, each longer, have no end",
        ),
        ("timm", ("epochs: 12", "epochs: 12\nlr_cycle_mul: 0"), "lr_cycle_mul: must be > 0, got 0"),
        (
            "timm",
            ("cooldown_epochs: 0", "lr_cycle_mul: 0.1\ncooldown_epochs: 9"),
            "lr_cycle_mul: all cycles are over before epoch",
        ),
        ("lightning", ("{max_epochs: 5}", "[5]"), "source.yaml:1: trainer: expected a mapping"),
        ("axolotl", ("sgd", "3"), "source.yaml:3: optimizer: expected a name, got 3"),
    ],
)
def test_a_wrong_value_is_told_with_its_place(name, change, message, tmp_path):
    path = tmp_path / "source.yaml"
    path.write_text(TEXTS[name].replace(*change, 1))
    with pytest.raises(ConfigError, match=message):
        bridges.convert(name, files.read(str(path)), str(path))


@pytest.mark.parametrize(
    "change", ["sched: cosine\nlr_k_decay: -1", "sched: step\ndecay_rate: 1e300"]
)
def test_numbers_with_which_nothing_can_be_computed(change):
    text = f"opt: sgd\nlr: 0.1\nepochs: 10\nwarmup_epochs: 0\n{change}\n"
    with pytest.raises(ConfigError, match=r"source.yaml: its schedule can't be computed|decay"):
        bridges.convert("timm", yaml_file.read(text)[0], "source.yaml")


def test_a_table_has_an_end():
    text = RESNET.replace("cosine", "tanh").replace("cooldown_epochs: 0", "cooldown_epochs: 10000")
    with pytest.raises(ConfigError, match=r"sched: is a table of 10,012 epochs.*; it can have 2,0"):
        bridges.convert("timm", yaml_file.read(text)[0], "source.yaml")


@pytest.mark.parametrize("name", TEXTS)
def test_each_library_is_told_from_the_others(name, tmp_path):
    path = tmp_path / "source.yaml"
    path.write_text(TEXTS[name])
    assert bridges.guess(files.read(str(path)), str(path)) == name


def test_keys_are_carried_over_no_matter_or_unknown():
    source = Source({"a": 1, "b": 2, "sed": 3, "other": 4, "nothing": None, "rate": 0.1})
    draft = Draft()
    draft.put("x.y", source.number("a"))
    draft.sort_out(source, {"letters": "b c", "numbers": "seed"}, ["a", "rate"])
    assert draft.values == {"x": {"y": 1}}
    assert draft.comments == {"x.y": "a"}
    assert draft.no_matter == {"letters": ["b"], "null": ["nothing"]}
    assert [(f.kind, f.path, f.why) for f in draft.findings] == [
        ("unknown", "sed", "did you mean 'seed'?"),
        ("unknown", "other", ""),
        ("lost", "rate", "what it belongs to is not carried over either"),
    ]
    assert draft.incomplete


@pytest.mark.parametrize("key", [None, 1, True, 0.5])
def test_a_key_that_is_no_text_is_unknown_and_nobody_means_it(key):
    source = Source({key: 1, "alpha": 2, "alphas": 3})
    draft = Draft()
    draft.sort_out(source, {}, ["rate"])
    assert [(f.kind, f.why) for f in draft.findings] == [("unknown", "")] * 3


def test_a_finding_says_what_to_do():
    question = Finding(LOST, "opt", "adm", "there is none; did you mean 'adam'?", "choose one")
    assert str(question).endswith("there is none; did you mean 'adam'? Do by hand: choose one")
    finding = Finding(DIFFERS, "sched", "cosine", "by 1 %", "nothing")
    assert str(finding) == "sched: 'cosine' differs: by 1 %. Do by hand: nothing"


@pytest.mark.parametrize("value", ["\0", "a\nb", "a\u2028b\x85c", "\ud83d\ude00"[:1]])
def test_a_value_in_a_comment_stays_in_it(value):
    draft = Draft()
    draft.put("learning_rate.type", "constant", f"sched {value}")
    draft.findings.append(Finding(LOST, "optimizer", value, f"there is no {value}"))
    read, problems = yaml_file.read(written(draft, f"from {value}.yaml"))
    assert not problems
    assert read == draft.values


def test_an_empty_mapping_is_written():
    mapping, _ = yaml_file.read("class_name: Adam\nconfig: {learning_rate: 0, beta_1: {}}\n")
    draft = bridges.convert("keras", mapping, "source.yaml")
    assert yaml_file.read(written(draft, "from source.yaml")) == (draft.values, [])


# Of each library that names an optimizer: a file with one that is not there, and what is lost then.
UNKNOWN_OPTIMIZERS = {
    "hf": (
        "optim: adamv\nadam_beta1: 0.8\nmax_grad_norm: 2\nnum_train_epochs: 1\nmax_steps: 10\n",
        ["optim", "adam_beta1", "max_grad_norm"],
    ),
    "timm": (
        "opt: adamv\nmomentum: 0.8\nclip_grad: 1.0\nclip_mode: value\nsched: cosine\nlr: 0.1\n"
        "epochs: 9\nwarmup_epochs: 0\n",
        ["opt", "momentum", "clip_grad", "clip_mode"],
    ),
    "torchtitan": (
        "optimizer: {name: AdamV, lr: 0.1, beta1: 0.8}\ntraining: {steps: 9, max_norm: 1.0}\n"
        "lr_scheduler: {warmup_steps: 2}\n",
        ["optimizer.name", "optimizer.beta1", "training.max_norm"],
    ),
    "lightning": (
        "trainer: {max_epochs: 3, gradient_clip_val: 1.0}\n"
        "optimizer: {class_path: torch.optim.AdamV, init_args: {lr: 0.1, eps: 1.0e-6}}\n",
        ["optimizer.class_path", "optimizer.init_args.eps", "trainer.gradient_clip_val"],
    ),
    "axolotl": (
        "base_model: x\noptimizer: adamv\nadam_beta1: 0.8\nmax_grad_norm: 2\nnum_epochs: 1\n"
        "micro_batch_size: 1\nmax_steps: 10\nlearning_rate: 0.1\nlr_scheduler: cosine\n",
        ["optimizer", "adam_beta1", "max_grad_norm"],
    ),
}


@pytest.mark.parametrize("name", UNKNOWN_OPTIMIZERS)
def test_what_belongs_to_an_unknown_optimizer_is_listed_with_it(name, tmp_path):
    text, lost = UNKNOWN_OPTIMIZERS[name]
    assert kinds(convert(tmp_path, name, text), LOST) == lost


@pytest.mark.parametrize(
    ("name", "text", "path"),
    [
        ("hf", "optim: []\nmax_steps: 10\nnum_train_epochs: 1\n", "optim"),
        ("timm", "opt: []\nsched: cosine\nlr: 0.1\nepochs: 9\n", "opt"),
        ("torchtitan", "optimizer: {name: []}\ntraining: {steps: 9}\n", "optimizer.name"),
        ("lightning", "optimizer: {class_path: []}\n", "optimizer.class_path"),
        ("axolotl", "base_model: x\nmicro_batch_size: 1\noptimizer: []\n", "optimizer"),
    ],
)
def test_a_list_in_the_place_of_a_name_is_told(name, text, path, tmp_path):
    with pytest.raises(ConfigError, match=rf": {path}: expected a name, got"):
        convert(tmp_path, name, text)
