"""Modifiers in PyTorch: what computes faster has them in it, or is not taken."""

import functools

import pytest

from tests.torch.common import OptimizerFactory, config_of, torch
from tests.torch.test_flat import built, flattened

from optimization.torch import loops, updates  # isort: skip

SHAPES = ((150, 130), (300,), (7, 3))
KERNELS = ((4, 3), (5,), (4, 2, 3, 3))


def trained(kind, steps=3, dtype=torch.float32, foreach=None, **fields):
    """Returns weights after some updates; they are large enough for loops."""
    random = torch.Generator().manual_seed(0)
    named = {
        f"{i}.weight": torch.nn.Parameter(torch.randn(shape, generator=random).to(dtype) * 0.3)
        for i, shape in enumerate(SHAPES)
    }
    config = config_of(kind, **fields)
    optimizer = OptimizerFactory(config).build_optimizer(named.items(), foreach=foreach)
    for _ in range(steps):
        for p in named.values():
            p.grad = torch.randn(p.shape, generator=random).to(dtype)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in named.values()])


MODIFIED = [
    ("adamw", {"cautious": True, "max_update_rms": 0.2, "weight_decay_rate": 0.1}),
    ("lamb", {"cautious": True, "weight_decay_rate": 0.1}),
    ("lion", {"cautious": True, "mars": True, "mars_gamma": 0.5}),
    ("prodigy", {"cautious": True, "weight_decay": 0.1}),
    ("lion", {"lookahead": True, "lookahead_steps": 2, "weight_decay": 0.1}),
    ("adafactor", {"mars": True, "mars_beta": 0.9, "min_dim_size_to_factor": 2}),
    ("adafactor", {"cautious": True, "min_dim_size_to_factor": 2, "beta1": 0.9}),
]


@pytest.mark.skipif(not loops.has_numba(), reason="needs Numba")
@pytest.mark.parametrize(("kind", "fields"), MODIFIED)
def test_loops_compute_what_lists_do(kind, fields, monkeypatch):
    taken, update = [], loops.update
    monkeypatch.setattr(loops, "update", lambda *args: taken.append(update(*args)) or taken[-1])
    fast = trained(kind, **fields)
    assert any(taken)
    monkeypatch.setattr(loops, "update", lambda *args: False)
    # Sums of float32 in another order.
    torch.testing.assert_close(fast, trained(kind, **fields), rtol=1e-5, atol=1e-6)


def test_torchs_kernel_is_left_out(monkeypatch):
    """It knows no modifiers; a group may have them where others have none."""
    kernels = []
    fused = torch._fused_adamw_
    monkeypatch.setattr(torch, "_fused_adamw_", lambda *a, **k: kernels.append(1) or fused(*a, **k))
    monkeypatch.setattr(loops, "update", lambda *args: False)
    plain = trained("adamw")
    assert kernels
    kernels.clear()
    cautious = trained("adamw", cautious=True)
    assert not kernels
    assert not torch.equal(plain, cautious)


@pytest.mark.parametrize(
    "fields", [{"cautious": True}, {"max_update_rms": 0.1}, {"centralize_gradients": True}]
)
def test_flat_weights_are_refused(fields):
    (name,) = fields
    with pytest.raises(ValueError, match=f"`{name}` needs whole weights.*or leave it out"):
        flattened(built("adamw", **fields)[0]).step()


def test_steps_in_parts_of_a_cache_are_left_out(monkeypatch):
    """Whose sums would be those of parts."""
    monkeypatch.setattr(loops, "update", lambda *args: False)
    monkeypatch.setattr(updates, "_IN_CACHE", 2**10)
    whole = trained("lion", dtype=torch.float64, cautious=True, foreach=False)
    assert torch.equal(trained("lion", dtype=torch.float64, cautious=True), whole)


PEERS = {
    "AdamW": ({"weight_decay": 0.1, "epsilon_placement": "corrected"}, {"weight_decay": 0.1}),
    "Lion": ({"weight_decay": 0.1}, {"weight_decay": 0.1}),
    "LAMB": (
        {"weight_decay": 0.1},
        {"weight_decay": 0.1, "max_grad_norm": None, "always_adapt": True},
    ),
    "SGDTorch": ({"momentum": 0.9, "nesterov": True}, {"momentum": 0.9, "nesterov": True}),
    "ADOPT": ({}, {"clip_exp": 0.25}),
}
_THEIRS = {"LAMB": "Lamb", "SGDTorch": "SGDW", "ADOPT": "Adopt"}


CAUTIOUS = ({"cautious": True}, {"caution": True})
CORRECTED = ({"corrected_weight_decay": True}, {"corrected_weight_decay": True})


@pytest.mark.parametrize(
    ("name", "modifiers"),
    [*((name, CAUTIOUS) for name in PEERS), ("AdamW", CORRECTED), ("Lion", CORRECTED)],
)
def test_a_modified_step_is_that_of_timm(name, modifiers):
    peer = pytest.importorskip("timm.optim", reason="the peer")
    import optimization.torch as ours

    theirs = getattr(peer, _THEIRS.get(name, name), None)
    if name == "AdamW":
        theirs = pytest.importorskip("timm.optim.adamw").AdamWLegacy
    own, other = PEERS[name]

    def weights(cls, **arguments):
        random = torch.Generator().manual_seed(0)
        params = [
            torch.nn.Parameter(torch.randn(shape, generator=random, dtype=torch.float64))
            for shape in ((4, 3), (5,))
        ]
        optimizer = cls(params, lr=0.01, **arguments)
        for step in range(20):
            for group in optimizer.param_groups:
                group["lr"] = 0.01 * (1 - step / 20)
            for p in params:
                p.grad = torch.randn(p.shape, generator=random, dtype=torch.float64)
            optimizer.step()
        return torch.cat([p.detach().flatten() for p in params])

    found = weights(getattr(ours, name), **modifiers[0], **own)
    expected = weights(theirs, **modifiers[1], **other)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def stepped(optimizer, params, steps=20):
    """Returns weights after steps of gradients that are the same for each call."""
    random = torch.Generator().manual_seed(1)
    for _ in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=random, dtype=p.dtype)
        optimizer.step()
    return torch.cat([p.detach().flatten() for p in params])


def double(*shapes):
    """Returns parameters in float64."""
    random = torch.Generator().manual_seed(0)
    draw = functools.partial(torch.randn, generator=random, dtype=torch.float64)
    return [torch.nn.Parameter(draw(shape)) for shape in shapes]


def test_centralized_gradients_are_those_of_pytorch_optimizer():
    peer = pytest.importorskip("pytorch_optimizer", reason="the peer")
    from optimization.torch import Lion

    ours, theirs = double(*KERNELS), double(*KERNELS)
    found = stepped(Lion(ours, lr=0.01, centralize_gradients=True), ours)
    expected = stepped(peer.Lion(theirs, lr=0.01, use_gc=True, foreach=False), theirs)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)
    ours = double(*KERNELS)
    assert not torch.equal(stepped(Lion(ours, lr=0.01), ours), found)


_ADAMW = {"betas": (0.9, 0.99), "eps": 1e-8, "epsilon_placement": "corrected"}
MARS = [
    ("AdamW", _ADAMW, "adamw", False),
    ("AdamW", _ADAMW, "adamw", True),
    ("Lion", {"betas": (0.9, 0.9)}, "lion", False),  # theirs is cautious before the sign
]


@pytest.mark.parametrize(("name", "arguments", "mars_type", "cautious"), MARS)
def test_mars_is_timms(name, arguments, mars_type, cautious):
    peer = pytest.importorskip("timm.optim", reason="the peer")
    import optimization.torch as ours

    params = double(*KERNELS)
    more = {"weight_decay": 0.1, "lr": 0.01}
    optimizer = getattr(ours, name)(params, mars=True, cautious=cautious, **arguments, **more)
    found = stepped(optimizer, params)
    params = double(*KERNELS)
    theirs = {"betas": arguments["betas"], "mars_type": mars_type, "optimize_1d": True}
    optimizer = peer.Mars(params, caution=cautious, **theirs, **more)
    torch.testing.assert_close(found, stepped(optimizer, params), rtol=1e-12, atol=0)


def test_mars_is_pytorch_optimizers_after_a_gradient_of_0():
    """Their first gradient is corrected by the one before it, as if that were 0."""
    peer = pytest.importorskip("pytorch_optimizer", reason="the peer")
    from optimization.torch import Lion

    def weights(optimizer, params):
        for p in params:
            p.grad = torch.zeros_like(p)
        optimizer.step()
        return stepped(optimizer, params)

    common = {"lr": 0.01, "weight_decay": 0.0, "betas": (0.9, 0.9)}
    params = double(*KERNELS)
    found = weights(Lion(params, mars=True, **common), params)
    params = double(*KERNELS)
    theirs = peer.MARS(params, mars_type="lion", optimize_1d=True, foreach=False, **common)
    torch.testing.assert_close(found, weights(theirs, params), rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("Lion", {"weight_decay": 0.1}), ("SGD", {"momentum": 0.9}), ("AdamW", {"weight_decay": 0.1})],
)
def test_lookahead_is_pytorch_optimizers(name, arguments):
    peer = pytest.importorskip("pytorch_optimizer", reason="the peer")
    import optimization.torch as ours

    params, k = double(*KERNELS), 3
    more = {"lookahead": True, "lookahead_steps": k, "lookahead_share": 0.7}
    found = stepped(getattr(ours, name)(params, lr=0.01, **arguments, **more), params)
    params = double(*KERNELS)
    fast = getattr(ours, name)(params, lr=0.01, **arguments)
    expected = stepped(peer.Lookahead(fast, k=k, alpha=0.7), params)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_lookahead_is_timms_from_their_first_synchronization_on():
    """There the slow weights are what the weights are then."""
    peer = pytest.importorskip("timm.optim", reason="the peer")
    from optimization.torch import SGD

    k, params = 3, double(*KERNELS)
    first = SGD(params, lr=0.01)
    stepped(first, params, steps=k)
    optimizer = SGD(params, lr=0.01, lookahead=True, lookahead_steps=k, lookahead_share=0.7)
    found = stepped(optimizer, params)
    params = double(*KERNELS)
    theirs = peer.Lookahead(SGD(params, lr=0.01), k=k, alpha=0.7)
    stepped(theirs, params, steps=k)
    torch.testing.assert_close(found, stepped(theirs, params), rtol=1e-12, atol=0)


def test_state_that_was_saved_without_a_modifier_is_made():
    from optimization.torch import Lion

    params = double(*KERNELS)
    optimizer = Lion(params, lr=0.01)
    stepped(optimizer, params, steps=2)
    saved = optimizer.state_dict()
    for group in saved["param_groups"]:
        del group["mars"]
    again = Lion(params, lr=0.01, mars=True)
    again.load_state_dict(saved)
    stepped(again, params, steps=1)
    assert all(torch.equal(again.state[p]["last_grad"], p.grad) for p in params)


def test_a_class_that_is_told_no_peak_takes_the_rate_at_the_start():
    from optimization.torch import Lion

    def weights(**arguments):
        weight = torch.nn.Parameter(torch.ones(2, dtype=torch.float64))
        optimizer = Lion([weight], lr=0.5, weight_decay=0.5, **arguments)
        for group in optimizer.param_groups:
            group["lr"] = 0.25
        weight.grad = torch.ones_like(weight)
        optimizer.step()
        return weight.tolist()

    # 1 - 0.25 * 0.5 * (0.25 / 0.5), less a step of 0.25
    assert weights(corrected_weight_decay=True) == [1 - 0.0625 - 0.25] * 2
    peak = {"peak_learning_rate": 0.25}
    assert weights(corrected_weight_decay=True, **peak) == [1 - 0.125 - 0.25] * 2
    with pytest.raises(ValueError, match="`peak_learning_rate` must be > 0, got 0"):
        Lion([torch.nn.Parameter(torch.ones(2))], lr=0.0, corrected_weight_decay=True)


def test_the_peak_of_a_group_is_before_its_multiplier():
    def decayed(multiplier):
        named = {"weight": torch.nn.Parameter(torch.ones(2, dtype=torch.float64))}
        linear = {"initial_learning_rate": 0.5, "decay_steps": 2}
        config = config_of(
            "sgd",
            {"type": "linear", "linear": linear},
            **{"weight_decay": 0.1, "corrected_weight_decay": True},
        )
        config.param_groups = [{"match": "weight", "learning_rate_multiplier": multiplier}]
        factory = OptimizerFactory(config)
        optimizer = factory.build_optimizer(named.items())
        scheduler, found = factory.build_scheduler(optimizer), []
        for _ in range(2):
            named["weight"].grad = torch.zeros(2, dtype=torch.float64)
            before = named["weight"].detach().clone()
            optimizer.step()
            scheduler.step()
            found.append(float((1 - named["weight"] / before)[0].detach()))
        return found

    assert decayed(0.5) == pytest.approx([0.025, 0.00625])
    assert decayed(1.0) == pytest.approx([0.05, 0.0125])
