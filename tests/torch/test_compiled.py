"""Optimizers whose steps are compiled, once for all rates."""

import copy
import functools

import pytest

from tests.torch.common import (
    compiling,
    config_of,
    largest_difference,
    parameters,
    problem,
    torch,
    train,
)

from optimization.torch import OptimizerFactory  # isort: skip

COSINE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 8}}
SECTIONS = {
    "adamw": {"weight_decay_rate": 0.1, "gradient_clip_norm": 0.5},
    "adam": {"epsilon_placement": "corrected", "global_clipnorm": 0.5},  # torch's own class
    "lamb": {"weight_decay_rate": 0.1},
    "lion": {},
    "sgd": {"momentum": 0.9},
}


@pytest.fixture(autouse=True)
def without_inductor(monkeypatch):
    # Which would need a C++ compiler on the machine that tests.
    torch._dynamo.reset()
    eager = functools.partial(torch.compile, backend="aot_eager")
    monkeypatch.setattr(torch, "compile", lambda f, mode=None: eager(f))


@compiling
@pytest.mark.parametrize("kind", SECTIONS)
def test_a_compiled_optimizer_follows_its_schedule_and_is_compiled_once(kind):
    found = []
    for compile in (True, False):
        initial, gradients = problem(steps=8)
        params = parameters(initial, torch.float32)
        factory = OptimizerFactory(config_of(kind, COSINE, **SECTIONS[kind]))
        optimizer = factory.build_optimizer(params.items(), compile=compile)
        scheduler = factory.build_scheduler(optimizer)
        train(optimizer, params, gradients[:3], scheduler)  # the first step makes the state
        with torch.compiler.set_stance("fail_on_recompile"):
            found.append(train(optimizer, params, gradients[3:], scheduler))
        assert scheduler.get_last_lr() == pytest.approx([0.0], abs=1e-9)
    # Rates, and 1 - beta^t, are in float32 where they are compiled.
    assert largest_difference(*found) < 1e-5


@compiling
def test_a_copy_is_not_compiled():
    initial, gradients = problem(steps=1)
    params = parameters(initial, torch.float32)
    optimizer = OptimizerFactory(config_of("lion")).build_optimizer(params.items(), compile=True)
    assert "step" in vars(optimizer)
    assert "step" not in vars(copy.deepcopy(optimizer))
    train(optimizer, params, gradients)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (config_of("schedule_free_sgd"), "schedule_free_sgd counts in groups"),
        (config_of("soap"), "soap does other things in some steps"),
        (config_of("sgd_torch", warmup_steps=3), "`momentum` follows a schedule"),
    ],
)
def test_what_is_not_compiled_is_said(config, words):
    parameter = torch.nn.Parameter(torch.ones(2))
    with pytest.raises(ValueError, match=f"Argument `compile`: {words}"):
        OptimizerFactory(config).build_optimizer([("w", parameter)], compile=True)


def test_a_version_that_cannot_is_said(monkeypatch):
    monkeypatch.setattr("optimization.torch.compiled.COMPILES", False)
    weights = [("w", torch.nn.Parameter(torch.ones(2)))]
    with pytest.raises(ValueError, match="`compile`: the steps of lion take PyTorch 2.8 or later"):
        OptimizerFactory(config_of("lion")).build_optimizer(weights, compile=True)
    own = config_of("adam", epsilon_placement="corrected")  # torch's own class
    OptimizerFactory(own).build_optimizer(weights, compile=True)
