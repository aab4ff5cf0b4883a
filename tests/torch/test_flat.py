"""What a wrapper does that puts one row of numbers in the place of weights, as DeepSpeed does."""

import copy
import pathlib

import pytest

from tests.torch.common import OptimizerFactory, config_of, torch

LAYERS = {"a.weight": (3, 2), "a.bias": (3,)}


def built(kind, **fields):
    torch.manual_seed(0)
    params = {name: torch.nn.Parameter(torch.randn(shape)) for name, shape in LAYERS.items()}
    return OptimizerFactory(config_of(kind, **fields)).build_optimizer(params.items()), params


def flattened(optimizer):
    """Has an optimizer update one row of all its numbers, with a gradient of 1."""
    for group in optimizer.param_groups:
        row = torch.nn.Parameter(torch.cat([p.detach().flatten() for p in group["params"]]))
        row.grad = torch.ones_like(row)
        group["params"] = [row]
    return optimizer


@pytest.mark.parametrize("kind", ["lamb", "lars", "adafactor", "adafactor_keras", "muon"])
def test_a_type_that_needs_whole_weights_refuses(kind):
    optimizer = flattened(built(kind)[0])
    before = copy.deepcopy([group["params"] for group in optimizer.param_groups])
    message = rf"rows of numbers that hide their shapes, .* `{kind}` needs whole weights\. .*FSDP2"
    with pytest.raises(ValueError, match=message):
        optimizer.step()
    for group, params in zip(optimizer.param_groups, before, strict=True):
        assert all(torch.equal(*pair) for pair in zip(group["params"], params, strict=True))


@pytest.mark.parametrize(
    ("clip", "instead"),
    [
        ("clipnorm", "leave it out"),
        ("adaptive_clip_factor", "leave it out"),
        ("global_clipnorm", r"`model.clip_grad_norm_\(0.5\)`.* `gradient_clipping: 0.5`"),
    ],
)
def test_a_clip_by_norms_refuses(clip, instead):
    with pytest.raises(ValueError, match=f"`{clip}` needs .*{instead}"):
        flattened(built("sgd", **{clip: 0.5})[0]).step()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [("sgd", {"momentum": 0.9, "clipvalue": 0.25}), ("lion", {}), ("ftrl", {"weight_decay": 0.1})],
)
def test_an_elementwise_type_does_the_same(kind, fields):
    optimizer, params = built(kind, **fields)
    flat = flattened(built(kind, **fields)[0])
    for parameter in params.values():
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    flat.step()
    (group,) = flat.param_groups
    expected = torch.cat([parameter.detach().flatten() for parameter in params.values()])
    torch.testing.assert_close(group["params"][0].detach(), expected, rtol=0, atol=1e-7)


def test_the_page_shows_the_error():
    with pytest.raises(ValueError, match="`lamb` needs") as raised:
        flattened(built("lamb")[0]).step()
    page = pathlib.Path(__file__).parent.parent.parent / "docs" / "distributed_torch.md"
    assert f"ValueError: {raised.value}\n" in page.read_text()


def test_a_copy_refuses_too():
    with pytest.raises(ValueError, match="`lamb` needs whole weights"):
        flattened(copy.deepcopy(built("lamb")[0])).step()


def test_a_gradient_that_is_not_finite_is_told_without_names():
    optimizer = flattened(built("sgd", on_nonfinite="raise")[0])
    optimizer.param_groups[0]["params"][0].grad.fill_(float("inf"))
    with pytest.raises(FloatingPointError, match=r"a parameter of shape \(9,\)"):
        optimizer.step()
