"""The variants of Muon beside the optimizers that they name, in float64."""

import pytest

from optimization.rules.muon import VARIANTS, MuonConfig
from optimization.rules.newton_schulz import COEFFICIENTS
from tests.torch.common import OptimizationConfig, OptimizerFactory, config_of, torch

from optimization.torch import Muon  # isort: skip

SHAPES = [(6, 4), (4, 7), (5, 5)]
KERNEL = (4, 3, 2, 2)
RATE, STEPS = 0.02, 6


def trained(make, shapes):
    """Returns the parameters after steps with large gradients, beside which no epsilon counts."""
    random = torch.Generator().manual_seed(3)
    draw = {"generator": random, "dtype": torch.float64}
    params = [torch.nn.Parameter(torch.randn(shape, **draw)) for shape in shapes]
    optimizer = make(params)
    for _ in range(STEPS):
        for parameter in params:
            parameter.grad = 1e3 * torch.randn(parameter.shape, **draw)
        optimizer.step()
    return torch.cat([parameter.detach().flatten() for parameter in params])


def ours(**fields):
    arguments = Muon.arguments_of(MuonConfig(fields))
    return lambda params: Muon(params, lr=RATE, flatten=True, **arguments)


def in_float64(monkeypatch, function):
    """Has a function of a peer compute in float64, and not in bfloat16."""
    exact = [torch.float64 if x is torch.bfloat16 else x for x in function.__defaults__]
    monkeypatch.setattr(function, "__defaults__", tuple(exact))


def assert_same(fields, theirs, shapes):
    found, expected = trained(ours(**fields), shapes), trained(theirs, shapes)
    # Ours adds an epsilon that is the least norm there.
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


MATCHED = {"scale": "spectral", "rms_rate": 0.2}


@pytest.mark.parametrize(
    ("fields", "arguments"),
    [
        ({}, {}),
        (MATCHED, {"adjust_lr_fn": "match_rms_adamw"}),
        ({"nesterov": False, "ns_steps": 3, "muon_a": 3.0}, None),
    ],
)
def test_torch(fields, arguments, monkeypatch):
    if arguments is None:
        arguments = {"nesterov": False, "ns_steps": 3, "ns_coefficients": (3.0, -4.775, 2.0315)}
    peer = getattr(torch.optim, "Muon", None) or pytest.skip("this torch has no Muon")
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    assert_same(
        {"variant": "torch", **fields}, lambda params: peer(params, lr=RATE, **arguments), SHAPES
    )


@pytest.mark.parametrize("arguments", [{}, {"adjust_lr_fn": "match_rms_adamw", "nesterov": False}])
def test_torchs_own_bfloat16(arguments):
    peer = getattr(torch.optim, "Muon", None) or pytest.skip("this torch has no Muon")
    fields = MATCHED if "adjust_lr_fn" in arguments else {}
    fields = {"variant": "torch", "nesterov": arguments.get("nesterov", True), **fields}
    own = Muon.arguments_of(MuonConfig({**fields, "ns_dtype": "bfloat16"}))
    found = []
    for make in (Muon, peer):
        random = torch.Generator().manual_seed(5)
        params = [torch.randn(s, generator=random) for s in [(64, 96), (100, 40), (32, 128)]]
        optimizer = make(params, lr=RATE, **(own if make is Muon else arguments))
        moved = []
        for _ in range(20):
            before = [parameter.clone() for parameter in params]
            for parameter in params:
                parameter.grad = torch.randn(parameter.shape, generator=random)
            optimizer.step()
            moved += [a - b for a, b in zip(params, before, strict=True)]
        found.append((moved, [optimizer.state[p]["momentum_buffer"] for p in params]))
    (ours, kept), (theirs, their_kept) = found
    assert all(map(torch.equal, kept, their_kept))
    for step, expected in zip(ours, theirs, strict=True):
        # One rounding of the norm, which torch sums in another order, is 1/256 of all.
        torch.testing.assert_close(step, expected, rtol=0, atol=0.02 * float(expected.abs().max()))


PAIRS = {
    "usual": ({}, {}),
    "polar_express": (
        {"nesterov": True, "coefficients": COEFFICIENTS["polar_express"], "safety_factor": 1.01},
        {
            "nesterov": True,
            "ns_coefficients": [*COEFFICIENTS["polar_express"]],
            "safety_factor": 1.01,
        },
    ),
    "more iterations": ({"ns_steps": 7}, {"ns_steps": 7}),
    "original": (
        {"coefficients": "simple", "scale": "shape", "rms_rate": 1.0},
        {"ns_coefficients": "original", "adjust_lr_fn": "original"},
    ),
    "unit_rms": ({"scale": "unit_rms", "rms_rate": 1.0}, {"adjust_lr_fn": "rms_to_rms"}),
    "adamuon": (
        {"second_moment": "full", "update_norm": "orthogonal", "weight_decay": 0.1},
        {"algo": "adamuon", "weight_decay": 0.1},
    ),
}


@pytest.mark.parametrize("name", PAIRS)
def test_timm(name, monkeypatch):
    fields, arguments = PAIRS[name]
    peer = pytest.importorskip("timm.optim.muon", reason="the peer")
    in_float64(monkeypatch, peer.zeropower_via_newtonschulz)

    def make(params):
        return peer.Muon([{"params": params, "use_muon": True}], lr=RATE, **arguments)

    assert_same({"variant": "timm", **fields}, make, [*SHAPES, KERNEL])


@pytest.mark.parametrize(
    ("name", "fields", "arguments"),
    [
        ("NorMuon", {"variant": "normuon"}, {}),
        (
            "NorMuon",
            {"variant": "normuon", "update_norm": "orthogonal", **MATCHED},
            {"update_scale": "match_rms"},
        ),
        (
            "AdaMuon",
            {"variant": "adamuon", "of_signs": False, "weight_decay": 0.0, "epsilon": 1e-10},
            {"betas": (0.95, 0.95)},
        ),
        ("Muon", {"variant": "jordan"}, {}),
    ],
)
def test_pytorch_optimizer(name, fields, arguments, monkeypatch):
    peer = getattr(pytest.importorskip("pytorch_optimizer", reason="the peer"), name)
    matrix = pytest.importorskip("pytorch_optimizer.optimizer.utils.matrix")
    in_float64(monkeypatch, matrix.zero_power_via_newton_schulz_5)

    def make(params):
        group = {"params": params, "lr": RATE, "use_muon": True}
        return peer([group], **{"weight_decay": 0.0, **arguments})

    assert_same(fields, make, [*SHAPES, KERNEL])


def test_fused_matrices_are_orthogonalized_each_by_itself():
    kernel = torch.nn.Parameter(torch.zeros(6, 4, dtype=torch.float64))
    alone = [torch.nn.Parameter(torch.zeros(2, 4, dtype=torch.float64)) for _ in range(3)]
    arguments = Muon.arguments_of(MuonConfig(variant="jordan"))
    fused = Muon([{"params": [kernel], "parts": 3}], lr=RATE, **arguments)
    each = Muon(alone, lr=RATE, **arguments)
    for step in range(3):
        kernel.grad = torch.randn(
            6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(step)
        )
        for parameter, gradient in zip(alone, kernel.grad.chunk(3), strict=True):
            parameter.grad = gradient.clone()
        fused.step()
        each.step()
    torch.testing.assert_close(kernel.detach(), torch.cat(alone).detach(), rtol=1e-12, atol=1e-12)


def test_groups_have_their_parts():
    model = torch.nn.Sequential()
    for name, layer in (("qkv", (4, 12)), ("out", (12, 4)), ("head", (4, 2))):
        model.add_module(name, torch.nn.Linear(*layer))
    factory = OptimizerFactory(config_of("muon", split={"qkv": 3}, include_layers=["head"]))
    optimizer = factory.build_optimizer(model)
    found = {
        name: (group["use_muon"], group["parts"])
        for group in optimizer.param_groups
        for name in group["param_names"]
    }
    assert found["qkv.weight"] == (True, 3)
    assert found["qkv.bias"] == (False, 1)
    assert found["out.weight"] == found["head.weight"] == (True, 1)
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    with pytest.raises(
        ValueError, match=r"makes 5 matrices of one size of 'qkv.weight'.*\(12, 4\)"
    ):
        OptimizerFactory(config_of("muon", split={"qkv": 5})).build_optimizer(model)
    with pytest.raises(ValueError, match="split.*'qvk'"):
        OptimizerFactory(config_of("muon", split={"qvk": 3})).build_optimizer(model)


@pytest.mark.parametrize("parts", [0, 5, 1.5])
def test_parts_are_checked(parts):
    kernel = torch.nn.Parameter(torch.zeros(6, 4))
    kernel.grad = torch.ones_like(kernel)
    with pytest.raises(ValueError, match="Argument `parts` must"):
        Muon([{"params": [kernel], "parts": parts}], lr=RATE).step()


@pytest.mark.parametrize("variant", VARIANTS)
def test_every_variant_trains_a_model(variant):
    model = torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 3))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    optimizer = OptimizerFactory(config_of("muon", variant=variant)).build_optimizer(model)
    model(torch.ones(2, 4)).square().sum().backward()
    optimizer.step()
    state = optimizer.state[model[0].weight]
    kept = {"row": {"second_momentum_buffer": (6,)}, "full": {"exp_avg_sq": (6, 4)}}
    own = kept.get(VARIANTS[variant]["second_moment"], {})
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    assert shapes == {"step": (), "momentum_buffer": (6, 4), **own}
    assert all((a != b).any() for a, b in zip(before, model.parameters(), strict=True))


class Convolved(torch.nn.Module):
    """An embedding, a convolution, a hidden layer, a norm and a head."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(7)
        self.embedding = torch.nn.Embedding(9, 4)
        self.conv = torch.nn.Conv1d(4, 5, 3)
        self.hidden = torch.nn.Linear(5, 6)
        self.norm = torch.nn.LayerNorm(6)
        self.head = torch.nn.Linear(6, 3)
        self.double()

    def forward(self, tokens):
        x = self.conv(self.embedding(tokens).transpose(1, 2)).mean(-1)
        return self.head(self.norm(torch.tanh(self.hidden(x))))

    def step_by(self, *optimizers):
        """Updates by gradients that are large, so that no epsilon counts."""
        self.zero_grad()
        tokens = torch.arange(18).reshape(3, 6) % 9
        (1e6 * self(tokens).square().sum()).backward()
        for optimizer in optimizers:
            optimizer.step()


CONSTANT = {"type": "constant", "constant": {"learning_rate": RATE}}
COSINE = {"type": "cosine", "cosine": {"initial_learning_rate": RATE, "decay_steps": 8}}
ADAMW = {
    "type": "adamw",
    "adamw": {"weight_decay_rate": 0.3, "beta_2": 0.9},
}


def with_auxiliary(auxiliary, **sections):
    muon = {"variant": "torch", "auxiliary": auxiliary}
    optimizer = {"type": "muon", "muon": muon}
    sections = {"optimizer": optimizer, "learning_rate": COSINE, **sections}
    return OptimizerFactory(OptimizationConfig(sections), train_steps=8)


@pytest.mark.parametrize("own", [None, 0.001])
def test_an_auxiliary_optimizer_is_one_made_by_hand(own, monkeypatch):
    """Beside torch's own pair; with no rate of its own it follows a multiple of Muon's."""
    peer = getattr(torch.optim, "Muon", None) or pytest.skip("this torch has no Muon")
    monkeypatch.setattr(torch.Tensor, "bfloat16", torch.Tensor.clone)
    rate = {"learning_rate_multiplier": 0.1}
    if own:
        rate = {"learning_rate": {"type": "constant", "constant": {"learning_rate": own}}}
    ours, theirs = Convolved(), Convolved()
    factory = with_auxiliary({**ADAMW, **rate, "also": [{"ndim": [3]}]})
    optimizer = factory.build_optimizer(ours)
    assert {group["group_name"] for group in optimizer.param_groups} == {
        "default/muon",
        "auxiliary",
    }
    scheduler = factory.build_scheduler(optimizer)
    muon = peer([theirs.hidden.weight], lr=RATE, weight_decay=0.1)
    rest = [p for p in theirs.parameters() if p is not theirs.hidden.weight]
    start = own or RATE * 0.1
    adamw = torch.optim.AdamW(rest, lr=start, betas=(0.9, 0.9), eps=1e-7, weight_decay=0.3)
    shapes = [muon, *([] if own else [adamw])]
    cosines = [torch.optim.lr_scheduler.CosineAnnealingLR(each, 8) for each in shapes]
    for _ in range(6):
        ours.step_by(optimizer)
        theirs.step_by(muon, adamw)
        for each in (scheduler, *cosines):
            each.step()
    for found, expected in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-8)


def test_an_auxiliary_optimizer_goes_on_from_a_checkpoint():
    groups = [{"match": "bias$", "weight_decay": 0.0}, {"layer_type": "LayerNorm", "name": "norms"}]
    factory = with_auxiliary(ADAMW, param_groups=groups, learning_rate=CONSTANT)
    straight, first, second = Convolved(), Convolved(), Convolved()
    optimizer = factory.build_optimizer(straight)
    labels = {n: g["group_name"] for g in optimizer.param_groups for n in g["param_names"]}
    assert labels["hidden.bias"] == "bias$/auxiliary/weight_decay=0.0"
    assert labels["norm.weight"] == "norms/auxiliary"
    for _ in range(4):
        straight.step_by(optimizer)
    optimizer = factory.build_optimizer(first)
    for _ in range(2):
        first.step_by(optimizer)
    second.load_state_dict(first.state_dict())
    other = factory.build_optimizer(second)
    other.load_state_dict(optimizer.state_dict())
    for _ in range(2):
        second.step_by(other)
    for found, expected in zip(second.parameters(), straight.parameters(), strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_an_auxiliary_optimizer_by_layers_needs_the_model():
    factory = with_auxiliary({**ADAMW, "also": [{"layer_type": "Conv1d"}]})
    optimizer = factory.build_optimizer(Convolved())
    labels = {n: g["group_name"] for g in optimizer.param_groups for n in g["param_names"]}
    assert labels["conv.weight"] == "auxiliary"
    assert labels["hidden.weight"] == "default/muon"
    with pytest.raises(ValueError, match="`layer_type` needs the modules"):
        factory.build_optimizer(Convolved().named_parameters())
