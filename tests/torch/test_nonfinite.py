"""Gradients that are large, tiny, infinite or NaN, and late steps, with PyTorch."""

import math

import numpy as np
import pytest

from optimization import OptimizationConfig
from tests import nonfinite_cases as cases
from tests.torch.common import OptimizerFactory, torch

# Of these a fused kernel of torch's takes the step: its second moment becomes infinite.
KERNEL = ("adam", "adamw", "adam_experimental", "adamw_experimental")


class Training:
    """A training of `cases.SHAPES`."""

    def __init__(self, kind, **fields):
        config = OptimizationConfig(cases.config_of(kind, **fields))
        self.params = {
            f"{name}.weight": torch.nn.Parameter(torch.tensor(x))
            for name, x in cases.arrays(1).items()
        }
        self.optimizer = OptimizerFactory(config).build_optimizer(self.params.items())

    def step(self, grads):
        for p, gradient in zip(self.params.values(), grads.values(), strict=True):
            p.grad = torch.tensor(gradient)
        self.optimizer.step()
        return self.params[f"{cases.WATCHED}.weight"].detach().numpy().copy()


def watched(kind, size):
    """Returns what `cases.check` asks for."""
    training = Training(kind)
    found = [training.step(grads) for grads in cases.gradients(size)]
    states = [training.optimizer.state[p] for p in training.params.values()]
    tensors = {f"{k} {i}": x for i, state in enumerate(states) for k, x in state.items()}
    return found, {name: x.numpy() for name, x in tensors.items() if torch.is_tensor(x)}


@pytest.mark.parametrize("kind", cases.KINDS)
def test_the_outcome_of_each_size(kind):
    cases.check(kind, lambda size: watched(kind, size), keeps_infinite=kind in KERNEL)


@pytest.mark.parametrize("fields", [{}, {"epsilon_placement": "corrected"}])
@pytest.mark.parametrize("size", [1e30, 1e38])
def test_fused_kernels_leave_a_weight_where_its_second_moment_is_infinite(fields, size):
    """In torch's own class, and in ours."""
    training = Training("adam", **fields)
    found = [training.step(grads) for grads in cases.gradients(size)]
    np.testing.assert_array_equal(found[-1], found[cases.BEFORE - 1])
    others = training.params["head.weight"].detach().numpy()
    assert (others != cases.arrays(1)["head"]).all()


@pytest.mark.parametrize("fields", [{}, {"epsilon_placement": "corrected"}])
@pytest.mark.parametrize("kind", ["adam", "adafactor", "muon", "sgd"])
def test_raise_names_what_the_rule_cannot_hold(kind, fields):
    """In our classes, and in torch's own."""
    if fields and kind != "adam":
        return
    for size in (1e15, 1e38, math.inf, math.nan):
        training = Training(kind, on_nonfinite="raise", **fields)
        *before, large = cases.gradients(size)[: cases.BEFORE + 1]
        for grads in before:
            training.step(grads)
        held = training.params[f"{cases.WATCHED}.weight"].detach().clone()
        if size == 1e15 or (size == 1e38 and not cases.is_limited(kind)):
            training.step(large)
            continue
        with pytest.raises(FloatingPointError, match=f"infinite or NaN: {cases.WATCHED}.weight$"):
            training.step(large)
        assert torch.equal(training.params[f"{cases.WATCHED}.weight"], held)


def test_the_error_says_which_gradients_are_too_large():
    training = Training("adam", on_nonfinite="raise")
    with pytest.raises(FloatingPointError, match=r"A gradient above 9.2e\+18 counts as infinite"):
        training.step(cases.gradients(1e38)[cases.BEFORE])


@pytest.mark.parametrize(
    "clip", [{"global_clipnorm": 1.0}, {"clipnorm": 1.0}, {"adaptive_clip_factor": 0.1}]
)
def test_what_is_clipped_can_be_held(clip):
    large, small = (Training("adam", on_nonfinite="raise", **clip) for _ in range(2))
    for a, b in zip(cases.gradients(1e30), cases.gradients(1e4), strict=True):
        np.testing.assert_allclose(large.step(a), small.step(b), rtol=1e-5, atol=1e-6)


def test_a_bound_of_a_clip_may_be_too_large():
    training = Training("adam", on_nonfinite="raise", clipvalue=1e30)
    with pytest.raises(FloatingPointError):
        training.step(cases.gradients(1e30)[cases.BEFORE])


@pytest.mark.parametrize("kind", cases.KINDS)
@pytest.mark.parametrize("start", [10**9, 2**53])
def test_late_steps(kind, start):
    """A float64 counts up to 2**53, and stays there."""
    training = Training(kind)
    training.step(cases.arrays(99))
    for state in training.optimizer.state.values():
        if "step" in state:
            state["step"].fill_(start)
    for group in training.optimizer.param_groups:
        if "k" in group:
            group["k"] = start
    found = [training.step(cases.arrays(100 + step)) for step in range(3)]
    assert np.isfinite(found[-1]).all()
    if (kind, start) != ("adafactor_keras", 2**53):  # whose rate is 1 / sqrt(t) at most
        assert (found[-1] != found[-2]).any()


def test_an_empty_batch_has_gradients_of_0():
    """Its loss is NaN."""
    empty, zero = (Training("adam", on_nonfinite="raise") for _ in range(2))
    loss = (torch.zeros(0, 16) @ empty.params["middle.weight"]).square().mean()
    loss.backward()
    empty.optimizer.step()
    expected = zero.step({name: np.zeros_like(x) for name, x in cases.arrays(1).items()})
    assert math.isnan(loss.item())
    np.testing.assert_array_equal(empty.params["middle.weight"].detach().numpy(), expected)
