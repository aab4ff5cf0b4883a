"""Kernels of torch, compiled loops, parts of lists, and lists are the same formula."""

import numpy as np
import pytest

from tests.rules import contracts
from tests.torch.common import (
    config_of,
    largest_difference,
    parameters,
    problem,
    set_gradients,
    torch,
    train,
    weights_of,
)
from tests.torch.test_base import every, made

from optimization.torch import LAMB, Adafactor, Adam, AdamW, Lion, OptimizerFactory  # isort: skip
from optimization.torch import loops, parts, updates  # isort: skip

# Each way rounds in an order of its own: some last places in each of the steps.
TOLERANCES = {torch.float32: 1e-6, torch.float64: 1e-13}
needs_numba = pytest.mark.skipif(not loops.has_numba(), reason="Numba is an extra")
both_types = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


@pytest.fixture(autouse=True)
def kernels_for_small_tensors(monkeypatch):
    monkeypatch.setattr(loops, "_LEAST", 0)


def by_lists(monkeypatch, in_parts_of=2**62):
    monkeypatch.setattr(updates, "_by_kernel", lambda *arguments: False)
    monkeypatch.setattr(updates, "_IN_CACHE", in_parts_of)


def outcome(optimizer, params):
    """Returns what is kept under each name, of all parameters, and the weights."""
    found = {"weight": [*weights_of(params).values()]}
    for parameter in params.values():
        for key, value in optimizer.state[parameter].items():
            found.setdefault(key, []).append(value.detach().numpy().copy())
    return {key: np.concatenate([x.ravel() for x in own]) for key, own in found.items()}


def trained(case, dtype, **options):
    initial, gradients = problem(steps=5)
    params = parameters(initial, dtype)
    del gradients[1]["scale"]  # which is one update behind
    optimizer = made(case, params, **options)
    train(optimizer, params, gradients)
    return outcome(optimizer, params)


def assert_same(actual, expected, dtype):
    for name, right in expected.items():
        allowed = TOLERANCES[dtype] * np.abs(right).max()
        np.testing.assert_allclose(actual[name], right, rtol=0, atol=allowed, err_msg=name)


@both_types
@every(contracts.few)
def test_kernels_are_the_formula(case, dtype, monkeypatch):
    actual = trained(case, dtype)
    by_lists(monkeypatch)
    assert_same(actual, trained(case, dtype), dtype)


@both_types
@every(contracts.few)
def test_parts_are_the_whole(case, dtype, monkeypatch):
    by_lists(monkeypatch, in_parts_of=16)
    actual = trained(case, dtype)
    by_lists(monkeypatch)
    assert_same(actual, trained(case, dtype), dtype)


ADAMS = {
    "uncorrected": {},
    "corrected": {"epsilon_placement": "corrected"},
    "without correction": {"correct_bias": False},
    "amsgrad": {"amsgrad": True, "weight_decay": 0.1},
    "decay after": {"weight_decay": 0.1, "weight_decay_order": "after"},
}


@both_types
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("arguments", ADAMS.values(), ids=ADAMS)
def test_every_form_of_adam(arguments, maximize, dtype, monkeypatch):
    case = (AdamW, {"eps": 1e-3, **arguments})
    actual = trained(case, dtype, maximize=maximize)
    by_lists(monkeypatch)
    assert_same(actual, trained(case, dtype, maximize=maximize), dtype)


def test_all_forms_but_one_are_torchs_kernel(monkeypatch):
    monkeypatch.setattr(loops, "has_numba", lambda: False)
    monkeypatch.setattr(updates, "_by_lists", lambda *arguments, **options: called.append(1))
    for name, arguments in ADAMS.items():
        called = []
        initial, gradients = problem(steps=1)
        params = parameters(initial)
        train(AdamW(params.values(), **arguments), params, gradients)
        assert bool(called) == (name == "decay after"), name


@pytest.mark.parametrize("step", [1, 2, 1000, 10**6])
def test_epsilon_beside_the_uncorrected_root_at_any_count(step):
    """The formula in float64, beside the kernel, whose epsilon is divided by the correction."""
    parameter = torch.nn.Parameter(torch.tensor([1.0, -2.0], dtype=torch.float64))
    gradient = torch.tensor([1e-3, 0.5], dtype=torch.float64)
    optimizer = Adam([parameter], lr=0.1, eps=1e-2)
    parameter.grad = gradient.clone()
    optimizer.step()
    m, v = 0.1 * gradient, 0.001 * gradient**2
    optimizer.state[parameter]["step"].fill_(step - 1.0)
    before = parameter.detach().clone()
    optimizer.step()
    m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
    rate = 0.1 * np.sqrt(1 - 0.999**step) / (1 - 0.9**step)
    expected = before - rate * m / (v.sqrt() + 1e-2)
    torch.testing.assert_close(parameter.detach(), expected, rtol=1e-12, atol=0)


CLIPPED = {
    "adam": {"global_clipnorm": 0.1},
    "adamw": {"gradient_clip_norm": 0.1, "weight_decay_rate": 0.1},
    "sgd": {"global_clipnorm": 0.1},  # torch's own class
    "lion": {"global_clipnorm": 0.1},
    "lamb": {"global_clipnorm": 0.1},
}


def built(kind, section, dtype, average=False):
    initial, gradients = problem(steps=6)
    model = torch.nn.Module()
    for name, parameter in parameters(initial, dtype).items():
        model.register_parameter(name.replace(".", "_"), parameter)
    config = config_of(kind, **section)
    if average:
        config.override({"ema": {"average_decay": 0.9, "dynamic_decay": True, "start_step": 2}})
    factory = OptimizerFactory(config)
    return factory, model, factory.build_optimizer(model), [*gradients]


def step_with(model, optimizer, gradients):
    own = {name: gradients[name] for name in gradients}
    params = dict(zip(own, model.parameters(), strict=True))
    set_gradients(params, own)
    optimizer.step()


@both_types
@pytest.mark.parametrize("kind", CLIPPED)
def test_a_step_that_divides_is_a_clip_before_it(kind, dtype):
    _, model, optimizer, gradients = built(kind, CLIPPED[kind], dtype)
    bound = CLIPPED[kind].get("global_clipnorm", 0.1)
    plain = {"adamw": {"gradient_clip_norm": 0.0, "weight_decay_rate": 0.1}}.get(kind, {})
    rest = {k: v for k, v in CLIPPED[kind].items() if "clip" not in k}
    _, other, unclipped, _ = built(kind, {**rest, **plain}, dtype)
    for grads in gradients:
        step_with(model, optimizer, grads)
        params = dict(zip(grads, other.parameters(), strict=True))
        set_gradients(params, grads)
        norm = torch.sqrt(sum(p.grad.double().pow(2).sum() for p in other.parameters()))
        for p in other.parameters():
            p.grad.copy_(p.grad.double() * min(1.0, bound / norm))
        unclipped.step()
    for actual, expected in zip(model.parameters(), other.parameters(), strict=True):
        tolerance = {torch.float32: 2e-6, torch.float64: 1e-12}[dtype]
        torch.testing.assert_close(actual, expected, rtol=tolerance, atol=tolerance)


def test_a_clip_goes_into_the_step_and_is_forgotten_after_it():
    for kind in ("adam", "sgd"):
        _, model, optimizer, gradients = built(kind, CLIPPED[kind], torch.float32)
        divisors = []
        seen = divisors.append
        optimizer.register_step_pre_hook(lambda o, *_, seen=seen: seen(o.gradient_divisor))
        step_with(model, optimizer, gradients[0])
        assert divisors[0] > 1
        assert optimizer.gradient_divisor is None
        assert getattr(optimizer, "grad_scale", None) is None
        small = {name: 1e-6 * value for name, value in gradients[0].items()}
        step_with(model, optimizer, small)
        assert divisors[1] == 1


@pytest.mark.parametrize("kind", ["adam", "sgd"])
def test_a_norm_that_is_not_finite_makes_all_weights_nan(kind):
    _, model, optimizer, gradients = built(kind, CLIPPED[kind], torch.float32)
    gradients[0]["scale"] = np.array(np.inf)
    step_with(model, optimizer, gradients[0])
    assert all(parameter.isnan().all() for parameter in model.parameters())


AVERAGED = ("adam", "adamw", "sgd", "lion", "lamb", "muon", "adafactor")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", AVERAGED)
def test_an_average_in_the_step_is_that_after_it(kind, dtype):
    found = []
    for in_step in (True, False):
        factory, model, optimizer, gradients = built(kind, {}, dtype, average=True)
        average = factory.build_ema(model, optimizer, in_step=in_step)
        for number, grads in enumerate(gradients):
            if number == 3:  # a weight that has no gradient is averaged all the same
                grads = {**grads, "layer_0.dense.bias": None}
            step_with(model, optimizer, grads)
            if not in_step:
                average.update_parameters(model)
        assert int(average.n_averaged) == len(gradients) + 1
        found.append([*average.parameters(), *average.state_dict().values()])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected, rtol=2e-6, atol=1e-6)


def test_an_average_in_the_step_is_of_groups_with_algorithms_of_their_own():
    for in_step in (True, False):
        initial, gradients = problem(steps=3)
        model = torch.nn.Module()
        for name, parameter in parameters(initial).items():
            model.register_parameter(name.replace(".", "_"), parameter)
        config = config_of("adamw", gradient_clip_norm=0.0)
        rule = {"name": "biases", "match": "bias", "optimizer": {"type": "lion"}}
        config.override({"param_groups": [rule], "ema": {"average_decay": 0.9}})
        factory = OptimizerFactory(config)
        optimizer = factory.build_optimizer(model)
        average = factory.build_ema(model, optimizer, in_step=in_step)
        for grads in gradients:
            step_with(model, optimizer, grads)
            if not in_step:
                average.update_parameters(model)
        if in_step:
            found = average
    for actual, expected in zip(found.parameters(), average.parameters(), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


def test_who_moves_an_average_is_said():
    factory, model, optimizer, _ = built("adam", {}, torch.float32, average=True)
    average = factory.build_ema(model, optimizer, in_step=True)
    with pytest.raises(RuntimeError, match="moves this average"):
        average.update_parameters(model)
    with pytest.raises(TypeError, match="`optimizer` is needed with `in_step`"):
        factory.build_ema(model, in_step=True)


LAYOUTS = {"channels last": torch.channels_last, "contiguous": torch.contiguous_format}


@pytest.mark.parametrize("of_gradient", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("of_weight", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("kind", ["adam", "sgd", "sgd_torch", "lion", "lamb"])
def test_gradients_are_laid_out_otherwise_than_their_weights(kind, of_weight, of_gradient):
    torch.manual_seed(0)
    start, gradient = torch.randn(4, 3, 5, 7), torch.randn(4, 3, 5, 7)
    found = []
    for own, of_grad in ((of_weight, of_gradient), (torch.contiguous_format,) * 2):
        parameter = torch.nn.Parameter(start.clone().to(memory_format=own))
        optimizer = OptimizerFactory(config_of(kind)).build_optimizer([("w", parameter)])
        for _ in range(3):
            parameter.grad = gradient.clone().to(memory_format=of_grad)
            given = parameter.grad
            optimizer.step()
            assert parameter.grad is given
        found.append(parameter.detach())
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


def test_a_model_changes_its_layout_and_state_is_loaded_in_another():
    torch.manual_seed(0)
    start, gradient = torch.randn(4, 3, 5, 7), torch.randn(4, 3, 5, 7)
    found = []
    for layout in LAYOUTS.values():
        parameter = torch.nn.Parameter(start.clone())
        factory = OptimizerFactory(config_of("adamw", epsilon_placement="corrected"))
        optimizer = factory.build_optimizer([("w", parameter)])
        for step in range(4):
            if step == 1:
                parameter.data = parameter.data.to(memory_format=layout)
            if step == 2:
                state = optimizer.state_dict()
                for value in state["state"][0].values():
                    if value.dim() == 4:
                        value.data = value.data.contiguous()
                optimizer.load_state_dict(state)
            parameter.grad = gradient.clone()
            optimizer.step()
        found.append(parameter.detach())
    torch.testing.assert_close(*found, rtol=1e-6, atol=1e-6)


def test_torchs_classes_are_fused_where_that_is_exact():
    dense = torch.nn.Parameter(torch.ones(4, 6))
    gaps = torch.nn.Parameter(torch.ones(4, 6)[:, :3])
    half = torch.nn.Parameter(torch.ones(4, dtype=torch.bfloat16))
    factory = OptimizerFactory(config_of("sgd_torch"))
    for parameter, options, fused in (
        (dense, {}, True),
        (dense, {"maximize": True}, True),
        (dense, {"fused": False}, False),
        (dense, {"foreach": True}, None),
        (dense, {"differentiable": True}, None),
        (gaps, {}, None),
        (half, {}, True),  # through its copy
        (half, {"master_weights": False}, None),
    ):
        optimizer = factory.build_optimizer([("w", parameter)], **options)
        assert optimizer.param_groups[0]["fused"] is fused, options


def test_a_parameter_whose_first_gradient_comes_late():
    for kind in ("sgd_torch", "adam"):
        first, late = (torch.nn.Parameter(torch.ones(3)) for _ in range(2))
        optimizer = OptimizerFactory(config_of(kind)).build_optimizer(
            [("first", first), ("late", late)]
        )
        for _ in range(2):
            first.grad = torch.ones(3)
            optimizer.step()
            late.grad = torch.ones(3)
        once = torch.nn.Parameter(torch.ones(3))
        once.grad = torch.ones(3)
        OptimizerFactory(config_of(kind)).build_optimizer([("once", once)]).step()
        torch.testing.assert_close(late, once)


MATRICES = {
    "wide": (6, 70),
    "tall": (70, 6),
    "square": (8, 8),
    "as wide": (6, 70),
    "several": (2, 3, 5, 40),
    "one of several": (1, 9, 4),
    "bias": (40,),
}


@needs_numba
@both_types
@pytest.mark.parametrize("momentum", [None, 0.9])
@pytest.mark.parametrize("variant", ["paper", "hf", "torch", "keras", "optax", "t5x", "big_vision"])
def test_factored_moments_are_loops_over_rows_and_columns(variant, momentum, dtype, monkeypatch):
    monkeypatch.setattr(parts, "_PART", 64)  # several for most of them
    by_loops = []
    original = loops.update

    def update(rule, batch, h):
        done = original(rule, batch, h)
        by_loops.append((h.axes, done))
        return done

    monkeypatch.setattr(loops, "update", update)
    arguments = {"variant": variant, "beta1": momentum, "min_dim_size_to_factor": 2}
    relative = variant in ("paper", "hf")
    found = []
    for _ in range(2):
        initial, gradients = problem(MATRICES, steps=4)
        params = parameters(initial, dtype)
        optimizer = Adafactor(params.values(), None if relative else 0.01, **arguments)
        train(optimizer, params, gradients)
        found.append(outcome(optimizer, params))
        if len(by_loops):
            assert all(done for axes, done in by_loops if axes in (None, (1, 0)))
            assert any(done for axes, done in by_loops if axes in ((1, 0), (0, 1)))
        by_lists(monkeypatch)
    assert_same(*found, dtype)


@needs_numba
def test_loops_tell_autograd_what_they_change():
    parameter = torch.nn.Parameter(torch.ones(3))
    loss = (parameter**2).sum()
    optimizer = Lion([parameter], lr=0.1)
    parameter.grad = torch.ones(3)
    optimizer.step()
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@needs_numba
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_large_tensors_are_updated_by_several_threads(threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    found = []
    for by_loops in (True, False):
        if not by_loops:
            by_lists(monkeypatch)
        torch.manual_seed(0)
        sizes = (3, 2**16, 2**17 + 5, 0, 1, 70_000)
        params = {str(n): torch.nn.Parameter(torch.randn(n)) for n in sizes}
        optimizer = LAMB(params.values(), lr=0.1)
        for _ in range(3):
            for parameter in params.values():
                parameter.grad = torch.randn(parameter.shape)
            optimizer.step()
        found.append(weights_of(params))
    sized = [{name: x for name, x in own.items() if x.size} for own in found]
    assert largest_difference(*sized) < 1e-6
