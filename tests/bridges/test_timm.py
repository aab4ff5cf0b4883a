"""From timm: by its own schedulers and optimizers, where it is installed, and by their figures."""

import importlib
import importlib.util
import pathlib
import sys
import types

import numpy as np
import pytest

from optimization import OptimizationConfig
from optimization.bridges import timm, timm_export
from optimization.bridges.draft import Source
from optimization.bridges.timm_rates import rate_function
from optimization.configs import yaml_file
from optimization.configs.errors import ConfigError
from tests.bridges import common
from tests.bridges.common import assert_same, convert, kinds, notes

EPOCHS, STEPS = 12, 5
RESNET = """\
model: resnet50
data_dir: /data
batch_size: 256
opt: sgd
opt_eps: null
opt_betas: null
momentum: 0.9
weight_decay: 2.0e-05
lr: 0.5
sched: cosine
sched_on_updates: false
epochs: 12
warmup_epochs: 3
warmup_lr: 0.001
min_lr: 0.01
cooldown_epochs: 0
decay_rate: 0.1
smoothing: 0.1
amp: true
seed: 42
"""
VIT = """\
model: vit_base_patch16_224
opt: adamw
opt_betas: [0.9, 0.95]
weight_decay: 0.05
clip_grad: 1.0
clip_mode: norm
lr_base: 0.001
lr_base_size: 512
sched: cosine
sched_on_updates: true
epochs: 12
warmup_epochs: 2
warmup_prefix: true
warmup_lr: 0.0
layer_decay: 0.75
model_ema: true
model_ema_decay: 0.9998
"""
SCHEDULES = {
    "cosine": "sched: cosine",
    "prefix": "sched: cosine\nwarmup_prefix: true\ncooldown_epochs: 1",
    "cycles": "sched: cosine\nepochs: 4\nlr_cycle_limit: 3\nlr_cycle_decay: 0.5",
    "growing": "sched: cosine\nepochs: 4\nlr_cycle_limit: 2\nlr_cycle_mul: 2.0\nmin_lr: 0.0",
    "k_decay": "sched: cosine\nlr_k_decay: 1.5",
    "step": "sched: step\ndecay_epochs: 5",
    "multistep": "sched: multistep\ndecay_milestones: [5, 9]",
    "poly": "sched: poly\ndecay_rate: 2.0",
    "tanh": "sched: tanh",
    "constant": "sched: constant",
}


def source_of(name):
    """Returns the text of a schedule over the ResNet's arguments."""
    values = yaml_file.read(RESNET)[0]
    return yaml_file.dump({**values, **yaml_file.read(SCHEDULES[name])[0]})


@pytest.fixture
def theirs(monkeypatch):
    """Returns timm's `scheduler` and `optim`, imported without its models, which need more."""
    spec = importlib.util.find_spec("timm")
    if spec is None:
        pytest.skip("timm is not installed")
    pytest.importorskip("torch")
    stub = types.ModuleType("timm")
    stub.__path__ = [str(pathlib.Path(spec.origin).parent)]
    models = types.ModuleType("timm.models")
    models.group_parameters = None  # what layer decay alone takes
    for name in [name for name in sys.modules if name.partition(".")[0] == "timm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "timm", stub)
    monkeypatch.setitem(sys.modules, "timm.models", models)
    before = set(sys.modules)
    yield importlib.import_module("timm.scheduler"), importlib.import_module("timm.optim")
    for name in set(sys.modules) - before:
        if name.startswith("timm."):
            del sys.modules[name]


def their_curve(scheduler, text, steps):
    """Returns the rate at each update, as the train script steps timm's scheduler."""
    import torch

    values = {**timm.DEFAULTS, **yaml_file.read(text)[0]}
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=values["lr"])
    arguments = types.SimpleNamespace(**values)
    made, epochs = scheduler.create_scheduler_v2(
        optimizer, **scheduler.scheduler_kwargs(arguments), updates_per_epoch=STEPS
    )
    rates = []
    for epoch in range(epochs):
        made.step(epoch)
        for update in range(STEPS):
            made.step_update(epoch * STEPS + update)
            rates.append(optimizer.param_groups[0]["lr"])
    return np.array(rates[: steps or None]), epochs


@pytest.mark.parametrize("name", SCHEDULES)
def test_an_exact_curve_is_timms_at_every_update(name, theirs, tmp_path):
    text = source_of(name)
    rates, epochs = their_curve(theirs[0], text, None)
    draft = convert(tmp_path, "timm", text, exact=True)
    ours = common.curve(draft, range(len(rates)), train_steps=len(rates), steps_per_epoch=STEPS)
    np.testing.assert_allclose(ours, rates, rtol=1e-12, atol=1e-15)
    assert kinds(draft) == []
    assert (
        rate_function(Source(yaml_file.read(text)[0], defaults=timm.DEFAULTS), 0.5).epochs == epochs
    )


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("on_updates", [False, True])
def test_the_nearest_type_is_as_near_as_the_finding_says(name, on_updates, theirs, tmp_path):
    text = source_of(name)
    if on_updates:
        text = text.replace("sched_on_updates: false", "sched_on_updates: true")
    draft = convert(tmp_path, "timm", text)
    if "learning_rate" not in draft.values:
        assert on_updates
        assert name in ("tanh", "k_decay", "cycles")
        assert kinds(draft) == ["sched"]
        return
    rates, _ = their_curve(theirs[0], text, None)
    ours = common.curve(draft, range(len(rates)), train_steps=len(rates), steps_per_epoch=STEPS)
    off = np.abs(ours - rates).max() / rates.max()
    told = [f for f in draft.findings if f.path == "sched"]
    assert on_updates or not told
    if not told:
        assert off < 1e-9
        return
    late, _, early = told[0].why.partition("at most ")[2].partition(", and ")
    said = [float(part.partition(" %")[0]) / 100 for part in (late, early) if part]
    assert off <= max(said) * 1.06  # two digits are told


def test_formulas_are_those_of_the_figures():
    """The rates of timm 1.0.31's schedulers at some epochs: see their names."""
    for name, (times, figures) in FIGURES.items():
        text = yaml_file.read(source_of(name))[0]
        rate = rate_function(Source(text, defaults=timm.DEFAULTS), 0.5).rate
        assert [rate(t) for t in times] == pytest.approx(figures, rel=1e-9), name


FIGURES = {
    "cosine": (
        [0, 2, 3, 4, 5, 8, 11],
        [0.001, 0.333666666667, 0.428241161391, 0.3775, 0.31841066605, 0.1325, 0.0183481725592],
    ),
    "prefix": (
        [0, 2, 3, 4, 5, 8, 11],
        [0.001, 0.333666666667, 0.5, 0.491651827441, 0.467176223927, 0.31841066605, 0.1325],
    ),
    "cycles": (
        [0, 2, 3, 4, 5, 8, 11],
        [0.001, 0.333666666667, 0.0817588386093, 0.25, 0.214852813742, 0.125, 0.0268413600818],
    ),
    "growing": (
        [0, 2, 3, 4, 5, 8, 11],
        [0.001, 0.333666666667, 0.0732233047034, 0.25, 0.240484941564, 0.125, 0.00951505843609],
    ),
    "k_decay": (
        [0, 2, 3, 4, 5, 8, 11],
        [
            0.001,
            0.333666666667,
            0.481350485465,
            0.456568765994,
            0.417622613677,
            0.220989018618,
            0.0278792651022,
        ],
    ),
    "step": ([0, 2, 3, 4, 5, 8, 11], [0.001, 0.333666666667, 0.5, 0.5, 0.05, 0.05, 0.005]),
    "multistep": ([0, 2, 3, 4, 5, 8, 11], [0.001, 0.333666666667, 0.5, 0.05, 0.05, 0.005, 0.005]),
    "poly": (
        [0, 2, 3, 4, 5, 8, 11],
        [
            0.001,
            0.333666666667,
            0.285625,
            0.227777777778,
            0.176736111111,
            0.0644444444444,
            0.0134027777778,
        ],
    ),
    "tanh": (
        [0, 2, 3, 4, 5, 8, 11],
        [
            0.001,
            0.333626357772,
            0.499939536658,
            0.499680046985,
            0.498310748862,
            0.333770620695,
            0.01634732649,
        ],
    ),
    "constant": ([0, 2, 3, 4, 5, 8, 11], [0.001, 0.333666666667, 0.5, 0.5, 0.5, 0.5, 0.5]),
}


UPDATES = {
    "sgd": {"weight_decay": 0.01},
    "momentum": {"weight_decay": 0.01},
    "adamw": {"weight_decay": 0.05, "opt_eps": 1e-6, "clip_grad": 1.0},
    "adam": {"weight_decay": 0.05},
    "nadam": {"weight_decay": 0.05, "opt_betas": [0.9, 0.99]},
    "nadamw": {"weight_decay": 0.05},
    "radam": {"weight_decay": 0.05},
    "radamw": {"weight_decay": 0.05},
    "adopt": {"weight_decay": 0.05, "opt_betas": [0.9, 0.999]},
    "adoptw": {"weight_decay": 0.05},
    "adamax": {"weight_decay": 0.05},
    "rmsprop": {"weight_decay": 0.05},
    "adadelta": {"weight_decay": 0.05},
    "adagrad": {"weight_decay": 0.05},
    "lion": {"weight_decay": 0.1},
    "lamb": {"weight_decay": 0.02},
    "cadamw": {"weight_decay": 0.05},
    "clion": {"weight_decay": 0.1},
    "clamb": {"weight_decay": 0.02},
    "adamc": {"weight_decay": 0.05},
    "cnadamc": {"weight_decay": 0.05},
    "adafactor": {"weight_decay": 0.01},
    "cadafactor": {"weight_decay": 0.01},
    "adamwlegacy": {"weight_decay": 0.05},
    "nadamlegacy": {"weight_decay": 0.05, "opt_kwargs": {"schedule_decay": 0.01}},
    "radamlegacy": {"weight_decay": 0.05},
    "lionc": {"weight_decay": 0.1},
    "adoptw with caution": {"weight_decay": 0.05, "opt_kwargs": {"caution": True}},
    "mars": {"weight_decay": 0.05},
    "mars of vectors": {"weight_decay": 0.05, "opt_kwargs": {"optimize_1d": True, "gamma": 0.1}},
    "mars without decay": {"opt_kwargs": {"betas_1d": [0.8, 0.9], "lr_1d_factor": 0.5}},
    "mars of lion": {"weight_decay": 0.05, "opt_kwargs": {"mars_type": "lion"}},
    "cmars": {"weight_decay": 0.05, "opt_betas": [0.95, 0.99]},
    "muon": {"weight_decay": 0.05},
    "nmuon": {"weight_decay": 0.05, "opt_betas": [0.8, 0.9], "clip_grad": 1.0},
    "adamuon": {"weight_decay": 0.05},
    "nadamuon": {"weight_decay": 0.05, "momentum": 0.95},
    "muon as Jordan's": {
        "opt_kwargs": {
            **{"ns_coefficients": "original", "adjust_lr_fn": "original", "ns_steps": 4},
            **{"fallback_lr_scale": 0.1, "fallback_list": ["head*", "*attn.weight"]},
        }
    },
    "muon by polar_express": {
        "opt_kwargs": {"ns_coefficients": "polar_express", "adjust_lr_fn": "rms_to_rms"}
    },
    "muon by polar_express_safer": {
        "opt_kwargs": {"ns_coefficients": "polar_express_safer", "adjust_lr_fn": None}
    },
    "muon by numbers": {
        "opt_kwargs": {"ns_coefficients": [3.0, -4.775, 2.0], "adamw_lr": 0.001, "eps": 1e-6}
    },
    "sgdw": {"weight_decay": 0.05, "sched": "constant"},
    "csgdw": {"weight_decay": 0.05, "sched": "constant"},
    "sgdc": {"weight_decay": 0.05, "sched": "constant"},
    "csgdc": {"weight_decay": 0.05, "sched": "constant"},
    "lars": {"opt_kwargs": {"always_adapt": True}, "weight_decay": 0.0, "sched": "constant"},
    "nlars": {"opt_kwargs": {"always_adapt": True}, "weight_decay": 0.0, "sched": "constant"},
}
"""The optimizer, which is the first word, and what of it is another than timm's default."""
LARGER = {
    "stem.conv.weight": (8, 3, 2, 2),
    "blocks.0.attn.weight": (8, 6),
    "blocks.0.attn.bias": (8,),
    "blocks.0.norm.weight": (8,),
    "blocks.1.mlp.weight": (6, 8),
    "head.weight": (5, 6),
    "head.bias": (5,),
}


@pytest.mark.parametrize("case", UPDATES)
def test_twenty_updates_are_those_of_timms_optimizer(case, theirs, tmp_path, monkeypatch):
    import torch

    opt = case.split()[0]
    values = {"opt": opt, "lr": 0.01, "sched": "step", "decay_epochs": 2, "warmup_epochs": 0}
    values |= {"weight_decay": 0.0, **UPDATES[case]}
    draft = convert(tmp_path, "timm", yaml_file.dump({**values, "epochs": 6}))
    weights, gradients = common.problem(shapes=LARGER)
    arguments = types.SimpleNamespace(**{**timm.DEFAULTS, **values})
    kwargs = theirs[1].optimizer_kwargs(arguments) | values.get("opt_kwargs", {})
    decay = kwargs.pop("weight_decay")
    params = common.named_parameters(weights)
    model = nested(params)
    exact = importlib.import_module("timm.optim.muon").zeropower_via_newtonschulz
    monkeypatch.setattr(exact, "__defaults__", (1e-7, 1.0, torch.float64, False))  # not bfloat16
    optimizer = theirs[1].create_optimizer_v2(model, weight_decay=decay, **kwargs)
    falls = values["sched"] == "step"
    rates = [0.01 * 0.1 ** (step // 10) if falls else 0.01 for step in range(20)]

    def clip(parameters):
        if "clip_grad" in values:
            torch.nn.utils.clip_grad_norm_(parameters, values["clip_grad"])

    expected = common.train(optimizer, params, gradients, rates, clip)
    ours = common.our_weights(draft, weights, gradients, train_steps=30, steps_per_epoch=STEPS)
    assert_same(ours, expected, 3e-6)
    assert kinds(draft) == ([] if falls else ["opt"])


def nested(params):
    """Returns a model whose parameters have these names."""
    import torch

    model = torch.nn.Module()
    for name, parameter in params.items():
        *parts, own = name.split(".")
        place = model
        for part in parts:
            if not hasattr(place, part):
                place.add_module(part, torch.nn.Module())
            place = getattr(place, part)
        place.register_parameter(own, parameter)
    return model


def test_a_type_that_changes_once_an_epoch_says_it_all(tmp_path):
    draft = convert(tmp_path, "timm", RESNET.replace("epochs: 12", "epochs: 300"))
    config = common.config_of(draft)
    rate, warmup = config.learning_rate, config.warmup.linear
    assert (rate.type, rate.cosine.decay_steps) == ("cosine", "300 epochs")
    assert (rate.cosine.per, warmup.per, warmup.leads_to) == ("1 epoch", "1 epoch", "peak")
    assert kinds(draft) == []
    exact = convert(tmp_path, "timm", RESNET.replace("epochs: 12", "epochs: 300"), exact=True)
    assert len(exact.values["learning_rate"]["stepwise"]["values"]) == 300
    assert kinds(exact) == []


def test_a_vit_with_all_that_belongs_to_it(tmp_path):
    draft = convert(tmp_path, "timm", VIT)
    config = common.config_of(draft)
    assert config.layer_decay.rate == 0.75
    assert config.ema.average_decay == 0.9998
    assert (config.ema.dynamic_decay, config.ema.start_step) == (False, 2)
    # timm: `sqrt` for names with "ada" in them, of which adamw is one.
    assert config.lr_scaling.rule == "sqrt"
    assert config.lr_scaling.base_batch_size == 512
    assert config.param_groups[0].ndim == (0, 1)
    assert config.optimizer.adamw.gradient_clip_norm == 1.0
    assert kinds(draft) == []
    assert notes(draft) == ["weight_decay", "lr_base", "layer_decay"]
    known = VIT + "world_size: 8\nbatch_size: 64\n"
    draft = convert(tmp_path, "timm", known)
    rate = draft.values["learning_rate"]["cosine"]["initial_learning_rate"]
    assert rate == pytest.approx(0.001)  # 8 * 64 / 512


_EPS = ("scale_eps", "beta")


@pytest.mark.parametrize(
    ("change", "listed"),
    [
        ("opt: adan", ["opt", "momentum", "weight_decay"]),
        ("opt: lambw", ["opt", "momentum", "weight_decay"]),
        ("opt: nlars", ["opt"]),
        ("opt: bnbadamw8bit", ["opt"]),
        ("opt: bnblion", ["weight_decay"]),
        ("opt: bnbademamix", []),
        ("opt: bnbsgd", []),
        ("opt: muon\nopt_kwargs: {conv_mode: batched}", ["opt_kwargs.conv_mode"]),
        ("opt: adamuon\nopt_kwargs: {adjust_lr_fn: rms_to_rms}", ["opt_kwargs.adjust_lr_fn"]),
        ("opt: muon\nopt_kwargs: {scale_eps: true, beta: 1}", [f"opt_kwargs.{_}" for _ in _EPS]),
        ("opt: lookahead_adamw", ["opt"]),
        ("opt: rmsproptf", ["opt"]),
        ("lr_noise: [0.4, 0.9]", ["lr_noise"]),
        ("clip_grad: 0.1\nclip_mode: agc", ["clip_mode"]),
        ("sched: plateau", ["warmup_epochs"]),
        ("wieght_decay: 0.1", ["wieght_decay"]),
        ("layer_decay: 0.7\nlayer_decay_no_opt_scale: 0.1", ["layer_decay_no_opt_scale"]),
    ],
)
def test_what_cannot_be_carried_over_is_listed(change, listed, tmp_path):
    values = {**yaml_file.read(RESNET)[0], "sched": "constant", "warmup_epochs": 0}
    values |= yaml_file.read(change)[0]
    if "plateau" in change:
        values["warmup_epochs"] = 5
    draft = convert(tmp_path, "timm", yaml_file.dump(values))
    assert kinds(draft) == listed
    if "plateau" in change:
        rate = common.config_of(draft).learning_rate.hf_reduce_lr_on_plateau
        assert (rate.mode, rate.metric, rate.patience) == ("max", "top1", 10)


def test_a_decay_that_warms_up_is_there_and_goes_back(tmp_path):
    draft = convert(tmp_path, "timm", VIT + "model_ema_warmup: true\n")
    config = common.config_of(draft)
    assert (config.ema.dynamic_decay, config.ema.start_step) == ("power", 1)
    assert kinds(draft) == []
    values, findings = timm_export.export(config)
    assert values["model_ema_warmup"] is True
    assert not [finding for finding in findings if finding.path.startswith("ema")]
    config.ema.gamma = 2.0
    values, findings = timm_export.export(config)
    assert "model_ema_warmup" not in values
    assert "ema.dynamic_decay" in [finding.path for finding in findings]


def test_lookahead_is_a_modifier(tmp_path):
    draft = convert(tmp_path, "timm", VIT.replace("opt: adamw", "opt: lookahead_adamw"))
    section = common.config_of(draft).optimizer.get()
    assert (section.lookahead, section.lookahead_steps, section.lookahead_share) == (True, 6, 0.5)


SAME_NAME = """
    cadamw adamc cadamc cnadamw clion clionc clamb cadopt cadoptw adoptc csgdw sgdc csgdc sgdw mars
    cmars muon nmuon adamuon nadamuon lookahead_cadamw lookahead_lion
"""


def test_optimizers_with_modifiers_and_muon_there_and_back(tmp_path):
    for name in SAME_NAME.split():
        text = VIT.replace("opt: adamw", f"opt: {name}") + "momentum: 0.8\nworld_size: 1\n"
        if "mars" in name:
            text += "opt_kwargs: {optimize_1d: true, gamma: 0.05}\n"
        if "muon" in name:
            text += (
                "opt_kwargs: {fallback_lr_scale: 0.1, ns_steps: 6, ns_coefficients: [[3, -4, 2]]}"
            )
        draft = convert(tmp_path, "timm", text)
        config = common.config_of(draft)
        values, findings = timm_export.export(config)
        assert values["opt"] == name
        wanted = {"weight_decay": 0.05}
        if "sgd" in name or "muon" in name:
            wanted["momentum"] = 0.8
        if "sgd" not in name:
            wanted["opt_betas"] = [0.9, 0.95]
        assert {key: values[key] for key in wanted} == wanted, name
        lost = {finding.path for finding in findings if finding.kind in ("lost", "differs")}
        where = f"optimizer.{config.optimizer.type}"
        known = {"sgd": {f"{where}.momentum"}, "lookahead": {f"{where}.lookahead"}}
        known["lamb"] = {f"{where}.exclude_from_layer_adaptation"}
        assert lost == next((known[key] for key in known if key in name), set()), name
        kwargs = yaml_file.read(text)[0].get("opt_kwargs", {})
        assert {key: values["opt_kwargs"][key] for key in kwargs} == kwargs, name


def test_muon_of_others_is_listed_on_the_way_to_timm():
    muon = {"momentum_kind": "ema", "variant": "timm", "rms_rate": 0.3, "exclude_layers": ["wte"]}
    config = {"optimizer": {"type": "muon", "muon": muon}, "learning_rate": {"type": "constant"}}
    config["learning_rate"]["constant"] = {"learning_rate": 0.1}
    values, findings = timm_export.export(OptimizationConfig(config))
    assert (values["opt"], values["opt_kwargs"]["adjust_lr_fn"]) == ("muon", "match_rms_adamw")
    told = [finding.path.removeprefix("optimizer.muon.") for finding in findings]
    assert told == ["rms_rate", "include_layers", "exclude_layers"]
    section = {**muon, "weight_decay": 0.1, "scale": "shape", "rms_rate": 1.0}
    section |= {"second_moment": "full", "update_norm": "orthogonal", "include_layers": ["."]}
    config["optimizer"]["muon"] = {**section, "adam_weight_decay": 0.1, "exclude_layers": None}
    values, findings = timm_export.export(OptimizationConfig(config))
    assert values["opt"] == "adamuon"
    assert [finding.path for finding in findings] == [
        "optimizer.muon.scale",
        "optimizer.muon.weight_decay",
    ]
    config["optimizer"]["muon"] = {"variant": "moonlight"}
    values, findings = timm_export.export(OptimizationConfig(config))
    assert "opt" not in values
    assert [finding.path for finding in findings] == ["optimizer.muon.momentum_kind"]


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ("{ns_coefficients: cubic}", "expected one of quintic, original, polar_express"),
        ("{ns_coefficients: [1, 2, .nan]}", "or three numbers, or lists of three, got"),
        ("{adjust_lr_fn: spectral}", "adjust_lr_fn: expected one of match_rms_adamw, original"),
        ("{fallback_list: 3}", "fallback_list: expected a list of names, got 3"),
        ("{algo: normuon}", "algo: expected muon or adamuon, got 'normuon'"),
        ("{ns_steps: 0}", "ns_steps: expected a whole number > 0"),
    ],
)
def test_wrong_arguments_of_muon_are_told(kwargs, message, tmp_path):
    with pytest.raises(ConfigError, match=message):
        convert(tmp_path, "timm", f"opt: muon\nsched: constant\nopt_kwargs: {kwargs}\n")


def test_a_list_without_numbers_is_told(tmp_path):
    with pytest.raises(ConfigError, match="opt_betas: expected a list of numbers, got none"):
        convert(tmp_path, "timm", "opt: adafactor\nsched: constant\nopt_betas: []\n")


def test_there_and_back(tmp_path):
    text = VIT + "world_size: 8\nbatch_size: 64\n"
    values, findings = timm_export.export(common.config_of(convert(tmp_path, "timm", text)))
    assert [f.path for f in findings if f.kind != "note"] == []
    wanted = yaml_file.read(text)[0]
    for name in (
        "opt",
        "opt_betas",
        "weight_decay",
        "clip_grad",
        "sched",
        "epochs",
        "warmup_epochs",
        "warmup_prefix",
        "layer_decay",
        "model_ema_decay",
    ):
        assert values[name] == wanted[name], name
    assert values["lr"] == pytest.approx(0.001)


def test_what_timm_cannot_say_is_listed():
    config = common.OptimizationConfig(
        {
            "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9, "clipnorm": 1.0, "decay": 0.1}},
            "learning_rate": {
                "type": "cosine",
                "cosine": {"initial_learning_rate": 0.1, "decay_steps": 90},
            },
            "warmup": {"type": "cosine", "cosine": {"warmup_steps": "2 epochs"}},
        }
    )
    _, findings = timm_export.export(config)
    assert {finding.path for finding in findings} == {
        "optimizer.sgd.momentum",
        "optimizer.sgd.clipnorm",
        "optimizer.sgd.decay",
        "learning_rate.cosine.decay_steps",
        "warmup.type",
    }


SCALED = "opt: sgd\nsched: {}\nlr_base: 0.1\nepochs: 9\nmin_lr: 0.01\nwarmup_epochs: {}\n"


def test_lowest_rates_are_not_in_proportion_to_the_batch(tmp_path):
    draft = convert(tmp_path, "timm", SCALED.format("cosine", 0))
    scaling = {"base_batch_size": 256, "rule": "linear", "scales": ["peak"]}
    assert draft.values["lr_scaling"] == scaling
    assert draft.values["learning_rate"]["cosine"]["min_learning_rate"] == 0.01
    assert kinds(draft) == []
    # What follows a metric is scaled as a whole.
    draft = convert(tmp_path, "timm", SCALED.format("plateau", 0))
    assert "scales" not in draft.values["lr_scaling"]
    assert [f.path for f in draft.findings if f.kind == "differs"] == ["warmup_lr", "min_lr"]


@pytest.mark.parametrize("scales", [["peak"], ["peak", "floor"]])
def test_an_export_tells_what_is_in_proportion_to_the_batch(scales):
    config = OptimizationConfig(
        optimizer={"type": "sgd"},
        learning_rate={
            "type": "cosine",
            "cosine": {
                "initial_learning_rate": 0.1,
                "min_learning_rate": 0.01,
                "decay_steps": "9 epochs",
            },
        },
        lr_scaling={"base_batch_size": 256, "scales": scales},
    )
    values, findings = timm_export.export(config)
    assert (values["lr_base"], values["min_lr"]) == (0.1, 0.01)
    told = [finding.value for finding in findings if finding.path == "lr_scaling.scales"]
    assert told == (["floor"] if "floor" in scales else [])


def test_what_belongs_to_unknown_types_is_listed_with_them(tmp_path):
    text = RESNET.replace("opt: sgd", "opt: sdg").replace("sched: cosine", "sched: cosin")
    draft = convert(tmp_path, "timm", text + "model_ema: true\n")
    lost = [finding.path for finding in draft.findings if finding.kind == "lost"]
    assert lost == [
        *("opt", "momentum", "weight_decay"),
        *("sched", "lr", "min_lr", "warmup_epochs", "warmup_lr", "epochs"),
    ]
    assert draft.values.keys() == {"ema"}


def test_a_lowest_rate_is_timms_or_is_listed():
    def exported(kind, **fields):
        rate = {"initial_learning_rate": 0.1, "min_learning_rate": 0.01, **fields}
        section = {"type": kind, kind: rate}
        return timm_export.export(
            common.OptimizationConfig({"optimizer": {"type": "sgd"}, "learning_rate": section})
        )

    assert exported("cosine", decay_steps="9 epochs")[0]["min_lr"] == 0.01
    assert exported("linear", decay_steps="9 epochs")[0]["min_lr"] == 0.01
    step = {"decay_steps": "3 epochs", "decay_rate": 0.1, "staircase": True}
    _, findings = exported("exponential", **step)
    lost = {finding.path for finding in findings if finding.kind == "lost"}
    assert "learning_rate.exponential.min_learning_rate" in lost


@pytest.mark.parametrize(
    ("opt", "arguments", "kind", "modifiers"),
    [
        ("cadamw", {}, "adamw", {"cautious"}),
        ("adamc", {}, "adamw", {"corrected_weight_decay"}),
        ("clionc", {}, "lion", {"cautious", "corrected_weight_decay"}),
        ("lamb", {"caution": True}, "lamb", {"cautious"}),
        ("lion", {"caution": False}, "lion", set()),
    ],
)
def test_modifiers_are_carried_over(opt, arguments, kind, modifiers, tmp_path):
    values = {"opt": opt, "opt_kwargs": arguments, "lr": 0.01, "epochs": 2}
    values |= {"sched": "step", "decay_epochs": 2, "warmup_epochs": 0}
    draft = convert(tmp_path, "timm", yaml_file.dump(values))
    section = common.config_of(draft).optimizer
    names = ("cautious", "corrected_weight_decay")
    assert section.type == kind
    assert {name for name in names if getattr(section.get(), name)} == modifiers
    assert kinds(draft) == []


@pytest.mark.parametrize("per", ["epoch", "step"])
def test_an_export_says_whether_the_rate_changes_once_an_epoch(per):
    decay = {"initial_learning_rate": 0.5, "decay_steps": "9 epochs", "per": per}
    config = OptimizationConfig(
        optimizer={"type": "sgd"},
        learning_rate={"type": "cosine", "cosine": decay},
        warmup={
            "type": "linear",
            "linear": {"warmup_steps": "2 epochs", "per": "epoch", "leads_to": "peak"},
        },
    )
    values, findings = timm_export.export(config)
    assert values["sched_on_updates"] is (per == "step")
    assert [f.path for f in findings] == (["warmup.linear.per"] if per == "step" else [])
