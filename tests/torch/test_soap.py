"""SOAP beside its peer, and what it keeps."""

import math

import pytest

from tests.torch.common import parameters, torch

from optimization.torch import SOAP  # isort: skip
from optimization.torch.functions import FUNCTIONS  # isort: skip
from optimization.torch.lists import Tensors  # isort: skip

# Whose first statistics have eigenvectors of their own; elsewhere any would do.
SHAPES = {"square": (5, 5), "kernel": (3, 2, 4, 5), "bias": (5,)}
FORMS = [
    {},
    {"precondition_frequency": 1},
    {"shampoo_beta": 0.9, "precondition_frequency": 3},
    {"correct_bias": False},
    {"max_precondition_dim": 4},
]


def trained(make, steps=25):
    generator = torch.Generator().manual_seed(3)

    def random(shape):
        return torch.randn(shape, generator=generator, dtype=torch.float64)

    params = parameters({name: 0.3 * random(shape).numpy() for name, shape in SHAPES.items()})
    optimizer = make(list(params.values()))
    for _ in range(steps):
        for p in params.values():
            p.grad = 0.5 * random(p.shape)
        optimizer.step()
    return optimizer, params


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_it_is_pytorch_optimizers(form):
    peer = pytest.importorskip("pytorch_optimizer")
    options = {"lr": 0.01, "weight_decay": 0.1, **form}
    _, ours = trained(lambda params: SOAP(params, **options))
    _, theirs = trained(lambda params: peer.SOAP(params, **options))
    for name, found in ours.items():
        # Its QR is in float32, whatever the parameters are.
        torch.testing.assert_close(found, theirs[name], rtol=0, atol=1e-6)


@pytest.mark.parametrize("kl", [False, True])
def test_bases_are_orthogonal_and_diagonalize_the_statistics(kl):
    optimizer, params = trained(lambda params: SOAP(params, kl=kl, precondition_frequency=1), 60)
    for p in params.values():
        state = optimizer.state[p]
        assert ("basis_0" in state) == (p.dim() > 1)
        for axis in range(p.dim() if p.dim() > 1 else 0):
            q, s = state[f"basis_{axis}"], state[f"statistic_{axis}"]
            torch.testing.assert_close(q.T @ q, torch.eye(len(q), dtype=q.dtype))
            turned = q.T @ s @ q
            off = turned - turned.diag().diag()
            # They follow a statistic that moves.
            assert off.norm() < 0.5 * s.norm()


def test_rounding_makes_short_steps():
    """A gradient of rank 1 has one direction; in float32 the others hold what rounding leaves."""
    weight = torch.nn.Parameter(torch.ones(6, 8))
    optimizer = SOAP([weight], lr=1e-3, weight_decay=0.0)
    for _ in range(50):
        weight.grad = torch.ones_like(weight)
        optimizer.step()
    moved = 1 - weight.detach()
    # As long as others they would be a multiple of the mean, with weights that grow.
    assert float(moved.std()) < 0.3 * float(moved.mean())
    assert float(moved.min()) > 0
    # One entry of Adam's step, turned back.
    assert float(moved.mean()) == pytest.approx(49 * 1e-3 / math.sqrt(48), rel=0.02)


def test_a_step_without_a_refresh_decomposes_nothing(monkeypatch):
    calls = []
    for name in ("qr", "eigh"):
        plain = getattr(torch.linalg, name)
        monkeypatch.setattr(
            torch.linalg, name, lambda x, n=name, f=plain: (calls.append(n), f(x))[1]
        )
    weight = torch.nn.Parameter(torch.eye(3))
    optimizer = SOAP([weight], precondition_frequency=4)
    found = []
    for _ in range(10):
        weight.grad = torch.randn(3, 3)
        optimizer.step()
        found.append({*calls})
        calls.clear()
    assert found == [{"eigh"}, *[set()] * 3, {"qr"}, *[set()] * 3, {"qr"}, set()]


def test_kernels_are_merged_along_their_inputs():
    weight = torch.nn.Parameter(torch.zeros(5, 4, 3, 2))
    optimizer = SOAP([weight], merge_dims=True, max_precondition_dim=6)
    weight.grad = torch.ones_like(weight)
    optimizer.step()
    sizes = {k: len(v) for k, v in optimizer.state[weight].items() if k.startswith("basis")}
    assert sizes == {"basis_0": 5, "basis_1": 4, "basis_2": 6}


@pytest.mark.parametrize("adapter", ["native", "keras"])
def test_eigenvectors_that_are_nan_in_float32_are_those_of_float64(adapter, monkeypatch):
    # As MKL's are of some statistics of embeddings, most of whose rows are 0.
    eigh = torch.linalg.eigh
    asked = []

    def nan_in_float32(x):
        asked.append(x.dtype)
        values, vectors = eigh(x)
        return (values, vectors * math.nan) if x.dtype == torch.float32 else (values, vectors)

    rows = torch.randn((6, 3), generator=torch.Generator().manual_seed(0))
    x = rows @ rows.T
    monkeypatch.setattr(torch.linalg, "eigh", nan_in_float32)
    if adapter == "native":
        values, vectors = (y.tensors()[0] for y in FUNCTIONS.eigh(Tensors([x])))
    else:
        keras = pytest.importorskip("keras")
        if keras.backend.backend() != "torch":
            pytest.skip("PyTorch computes what Keras does where it is the backend")
        from optimization.keras.rule_part import FUNCTIONS as OF_KERAS

        values, vectors = OF_KERAS.eigh(x)
    assert asked == [torch.float32, torch.float64]
    assert {values.dtype, vectors.dtype} == {torch.float32}
    torch.testing.assert_close(vectors @ vectors.T, torch.eye(6), atol=1e-6, rtol=0)
    torch.testing.assert_close(vectors * values @ vectors.T, x, atol=1e-5, rtol=0)
