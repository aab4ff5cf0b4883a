"""Kernels of torch, compiled loops, parts of lists, and lists are the same formula."""

import gc
import itertools
import math
import sys

import numpy as np
import pytest

from optimization import OPTIMIZERS_CLS
from optimization.rules.rule import Rule
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
import optimization.torch as native  # isort: skip
from optimization.torch import loops, masters, parts, rule_optimizer, updates  # isort: skip

# Each way rounds in an order of its own: some last places in each of the steps.
TOLERANCES = {torch.float32: 1e-6, torch.float64: 1e-13}
needs_numba = pytest.mark.skipif(not loops.has_numba(), reason="Numba is an extra")
both_types = pytest.mark.parametrize("dtype", TOLERANCES, ids=str)


@pytest.fixture(autouse=True)
def kernels_for_small_tensors(monkeypatch):
    monkeypatch.setattr(loops, "_LEAST", 0)


def by_lists(monkeypatch, in_parts_of=2**62):
    monkeypatch.setattr(updates, "_by_kernel", lambda *arguments: False)
    for name in ("_IN_CACHE", "_BUNCH"):
        monkeypatch.setattr(updates, name, in_parts_of)


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
        # Prodigy's, of differences of weights, in which their rounding is larger.
        allowed *= 4 if name == "numerator" else 1
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
    "coupled": {"weight_decay": 0.1, "decoupled_weight_decay": False},
    "decay after": {"weight_decay": 0.1, "weight_decay_order": "after"},
    "nesterov": {"nesterov": True},
}


@both_types
@pytest.mark.parametrize("maximize", [False, True])
@pytest.mark.parametrize("arguments", ADAMS.values(), ids=ADAMS)
def test_every_form_of_adam(arguments, maximize, dtype, monkeypatch):
    case = (AdamW, {"eps": 1e-3, **arguments})
    actual = trained(case, dtype, maximize=maximize)
    by_lists(monkeypatch)
    assert_same(actual, trained(case, dtype, maximize=maximize), dtype)


def test_most_forms_are_torchs_kernel(monkeypatch):
    monkeypatch.setattr(loops, "has_numba", lambda: False)
    monkeypatch.setattr(updates, "_by_lists", lambda *arguments, **options: called.append(1))
    for name, arguments in ADAMS.items():
        called = []
        initial, gradients = problem(steps=1)
        params = parameters(initial)
        train(AdamW(params.values(), **arguments), params, gradients)
        assert bool(called) == (name in ("decay after", "nesterov")), name


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


def test_a_clip_goes_into_the_step_and_is_forgotten_after_it(monkeypatch):
    divisors = []
    update, made_ready = rule_optimizer.update, masters.made_ready

    def updated(rule, batch, h, xp):
        divisors.append(batch.divisor)
        update(rule, batch, h, xp)

    def ready(optimizer, divisor):
        divisors.append(divisor)
        return made_ready(optimizer, divisor)

    monkeypatch.setattr(rule_optimizer, "update", updated)
    monkeypatch.setattr(masters, "made_ready", ready)
    for kind in ("adam", "sgd"):
        divisors.clear()
        _, model, optimizer, gradients = built(kind, CLIPPED[kind], torch.float32)
        step_with(model, optimizer, gradients[0])
        assert optimizer.gradient_divisor is None
        assert getattr(optimizer, "grad_scale", None) is None
        step_with(model, optimizer, {name: 1e-6 * x for name, x in gradients[0].items()})
        assert divisors[0] > 1
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


def scaled_steps(optimizer, loss_of, infinite=1, steps=3, after=lambda: None):
    """Takes steps with the scaler of mixed precision, one of them with an infinite gradient."""
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for number in range(steps):
        optimizer.zero_grad()
        scaler.scale(loss_of() * (float("inf") if number == infinite else 1.0)).backward()
        scaler.step(optimizer)
        scaler.update()
        after()


@pytest.mark.parametrize("in_step", [True, False])
@pytest.mark.parametrize("placement", ["corrected", "uncorrected"])
def test_an_average_leaves_out_what_a_scaler_leaves_out(placement, in_step):
    section = {"epsilon_placement": placement, "gradient_clip_norm": 0.0}
    factory, model, optimizer, _ = built("adamw", section, torch.float32, average=True)
    average = factory.build_ema(model, optimizer, in_step=in_step)

    def after():
        if not in_step:
            average.update_parameters(model)

    scaled_steps(optimizer, lambda: sum(p.sum() for p in model.parameters()), 0, after=after)
    assert int(average.n_averaged) == 3


@pytest.mark.parametrize("kind", ["sgd_torch", "adamw"])
def test_a_scaler_leaves_out_the_first_step(kind):
    found = []
    for fused in (None, False):
        parameter = torch.nn.Parameter(torch.ones(4096))
        section = {"momentum": 0.9} if kind == "sgd_torch" else {"epsilon_placement": "corrected"}
        factory = OptimizerFactory(config_of(kind, learning_rate=0.1, **section))
        optimizer = factory.build_optimizer([("w", parameter)], fused=fused)
        junk = [torch.full((4096,), 1e6) for _ in range(50)]
        del junk
        scaled_steps(optimizer, parameter.sum, infinite=0)
        found.append(parameter.detach())
    torch.testing.assert_close(*found)


def test_a_scaler_and_sparse_gradients():
    model = torch.nn.Embedding(10, 4, sparse=True)
    before = model.weight.detach().clone()
    optimizer = OptimizerFactory(config_of("sgd_torch")).build_optimizer(model)
    scaled_steps(optimizer, lambda: model(torch.tensor([1])).sum(), infinite=None)
    assert (model.weight != before).any(dim=1).nonzero().tolist() == [[1]]


def test_groups_that_are_added_later_are_fused_where_that_is_exact():
    factory = OptimizerFactory(config_of("adamw", epsilon_placement="corrected"))
    base = torch.ones(1000, 2)
    column, imaginary = torch.nn.Parameter(base[:, 0]), torch.nn.Parameter(torch.ones(2) * 1j)
    optimizer = factory.build_optimizer([("w", torch.nn.Parameter(torch.ones(3)))])
    optimizer.add_param_group({"params": [("column", column)]})
    optimizer.add_param_group({"params": [("imaginary", imaginary)]})
    optimizer.add_param_group({"params": [("dense", torch.nn.Parameter(torch.ones(3)))]})
    assert [group["fused"] for group in optimizer.param_groups] == [True, False, False, True]
    column.grad, imaginary.grad = torch.ones(1000), torch.ones(2) * 1j
    optimizer.step()
    assert (base[:, 1] == 1).all()
    assert (base[:, 0] != 1).all()


def test_a_matrix_is_laid_out_anew():
    found = []
    for is_turned in (False, True):
        torch.manual_seed(0)
        parameter = torch.nn.Parameter(torch.randn(4, 6))
        factory = OptimizerFactory(config_of("adamw", epsilon_placement="corrected"))
        optimizer = factory.build_optimizer([("w", parameter)])
        for step in range(5):
            if is_turned and step == 2:
                parameter.data = parameter.data.t().contiguous().t()
            if is_turned and step == 4:
                parameter.data = parameter.data.contiguous()
            parameter.grad = torch.randn(4, 6)
            optimizer.step()
        found.append(parameter.detach())
    torch.testing.assert_close(*found)


def test_a_late_first_gradient_beside_another_algorithm():
    first, late, head, other = (torch.nn.Parameter(torch.ones(3)) for _ in range(4))
    config = config_of("sgd_torch", momentum=0.9)
    config.override({"param_groups": [{"match": "head", "optimizer": {"type": "lion"}}]})
    named = [("first", first), ("late", late), ("head.0", head), ("head.1", other)]
    optimizer = OptimizerFactory(config).build_optimizer(named)
    for parameter in (first, head, other):
        parameter.grad = torch.ones(3)
    optimizer.step()
    late.grad = torch.ones(3)
    optimizer.step()
    torch.testing.assert_close(late.detach(), torch.full((3,), 0.99))


def test_hooks_after_a_clip_see_what_is_clipped():
    parameter = torch.nn.Parameter(torch.zeros(4))
    config = config_of("sgd", learning_rate=1.0, global_clipnorm=1.0)
    optimizer = OptimizerFactory(config).build_optimizer([("w", parameter)])

    def to_signs(*_):
        parameter.grad = parameter.grad.sign()

    optimizer.register_step_pre_hook(to_signs)
    parameter.grad = torch.full((4,), 500.0)
    optimizer.step()
    assert parameter.tolist() == [-1.0] * 4


def test_one_average_moves_in_the_step():
    factory, model, optimizer, gradients = built("adam", {}, torch.float32, average=True)
    average = factory.build_ema(model, optimizer, in_step=True)
    with pytest.raises(ValueError, match="moves another average already"):
        factory.build_ema(model, optimizer, in_step=True)
    del average
    gc.collect()
    average = factory.build_ema(model, optimizer, in_step=True)
    for grads in gradients[:3]:
        step_with(model, optimizer, grads)
    assert int(average.n_averaged) == 4


def test_before_its_start_an_average_is_the_weights():
    factory, model, optimizer, gradients = built("lamb", {}, torch.float32, average=True)
    average = factory.build_ema(model, optimizer, in_step=True)
    step_with(model, optimizer, gradients[0])
    for mean, weight in zip(average.parameters(), model.parameters(), strict=True):
        assert torch.equal(mean, weight)


def test_an_average_of_rounded_weights():
    found = []
    for in_step in (True, False):
        initial, gradients = problem(steps=3)
        model = torch.nn.Module()
        for name, parameter in parameters(initial, torch.bfloat16).items():
            model.register_parameter(name.replace(".", "_"), parameter)
        config = config_of("lion", learning_rate=1e-3)
        config.override({"ema": {"average_decay": 0.9}})
        factory = OptimizerFactory(config)
        optimizer = factory.build_optimizer(model, master_weights=False)
        average = factory.build_ema(model, optimizer, in_step=in_step)
        for grads in gradients:
            step_with(model, optimizer, grads)
            if not in_step:
                average.update_parameters(model)
        found.append([*average.state_dict().values()])
    for actual, expected in zip(*found, strict=True):
        torch.testing.assert_close(actual, expected)


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
@pytest.mark.parametrize(
    ("variant", "momentum"),
    [
        ("paper", None),
        ("hf", 0.9),
        ("torch", None),
        ("keras", None),
        ("optax", 0.9),
        ("t5x", None),
        ("big_vision", 0.9),
    ],
)
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


OF_LOOPS = (
    "Adadelta",
    "Adagrad",
    "Adamax",
    "Ftrl",
    "LAMB",
    "LARS",
    "Lion",
    "Nadam",
    "Prodigy",
    "RMSprop",
    "SGD",
)


@needs_numba
@pytest.mark.parametrize("name", OF_LOOPS)
def test_what_loops_can_do_they_do(name, monkeypatch):
    monkeypatch.setattr(updates, "_by_lists", lambda *arguments: pytest.fail("by lists"))
    initial, gradients = problem(steps=2)
    params = parameters(initial)
    train(getattr(native, name)(params.values()), params, gradients)


def with_rule(formula, fields=(), slots=()):
    """Returns a factory of a rule with a formula, of one number for each field."""
    name = f"rule_{next(COUNT)}"
    own = {"__annotations__": {"name": "str | None", **dict.fromkeys(dict(fields), "float")}}
    members = {"class_name": name.title().replace("_", ""), "elementwise": True, "name": name}
    made = type(name, (Rule,), {**own, **members, **dict(fields), "slots": slots, "step": formula})
    OPTIMIZERS_CLS.register(name)(made)
    return OptimizerFactory(config_of(name, learning_rate=1.0))


COUNT = itertools.count()
FORMULAS = {
    "equal": lambda self, g, w, s, h, xp: xp.where(g == 0, 1.0, g),
    "unequal": lambda self, g, w, s, h, xp: xp.where(g != 0, g, 1.0),
    "a mask and a number": lambda self, g, w, s, h, xp: xp.where((g > 0) & (h.t > 1), g, 0.5),
    "a mask and a truth": lambda self, g, w, s, h, xp: xp.where((g > 0) & True, g, 0.5),
    "infinite": lambda self, g, w, s, h, xp: xp.minimum(g, math.inf),
    "a count": lambda self, g, w, s, h, xp: g if h.t == 1 else 2 * g,
    "factor": lambda self, g, w, s, h, xp: h.factor * g,
    "share": lambda self, g, w, s, h, xp: h.share * g,
    "size": lambda self, g, w, s, h, xp: h.size * g,
    "a choice": lambda self, g, w, s, h, xp: {0.25: g, 1.0: 2 * g}[h.factor],
    "a difference of sums": lambda self, g, w, s, h, xp: g + 0 * xp.norm(w) + (((w + g) - w) - g),
}


@pytest.mark.parametrize("label", FORMULAS)
def test_formulas_of_users(label, monkeypatch):
    fields = {"factor": 0.25, "share": 0.5, "size": 2.0}
    factory = with_rule(FORMULAS[label], fields)
    found = []
    for _ in range(2):
        initial, gradients = problem(steps=3)
        gradients[0]["layer_0.dense.bias"][:2] = 0.0
        params = parameters(initial, torch.float32)
        optimizer = factory.build_optimizer(params.items())
        train(optimizer, params, gradients)
        found.append(outcome(optimizer, params))
        by_lists(monkeypatch)
    assert_same(*found, torch.float32)


@pytest.mark.parametrize("size", [1e-25, 1e25])
def test_norms_hold_all_sizes(size):
    start, gradient = torch.randn(130, 140), torch.randn(130, 140)
    steps = []
    for scale in (1.0, size):
        config = config_of("lars", learning_rate=0.1)
        parameter = torch.nn.Parameter(start.clone())
        optimizer = OptimizerFactory(config).build_optimizer([("kernel", parameter)])
        parameter.grad = gradient * scale
        optimizer.step()
        steps.append(parameter.detach() - start)
    torch.testing.assert_close(*steps, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["adam", "rmsprop", "lamb"])
def test_an_infinite_square_is_no_nan(kind):
    for in_step in (False, True):
        factory, model, optimizer, gradients = built(kind, {}, torch.float32, average=True)
        average = factory.build_ema(model, optimizer, in_step=in_step)
        for number, grads in enumerate(gradients):
            size = 1e20 if number == 1 else 1.0
            step_with(model, optimizer, {name: size * x for name, x in grads.items()})
        assert all(
            weight.isfinite().all() for weight in [*model.parameters(), *average.parameters()]
        )


@needs_numba
def test_norms_are_a_loop_too():
    values = [torch.tensor([3e30, 4e30]), torch.tensor([[3e-30], [-4e-30]]), torch.zeros(2)]
    values += [torch.zeros(0), torch.tensor(-2.0), torch.full((70_000,), 2.0)]
    expected = [5e30, 5e-30, 0.0, 0.0, 2.0, 2 * 70_000**0.5]
    np.testing.assert_allclose(loops.norms(values), expected, rtol=1e-7)
    assert loops.norms([torch.ones(2, dtype=torch.float16)]) is None
    assert loops.norms([torch.ones(4, 6)[:, :3]]) is None


def test_sizes_of_which_some_are_0(monkeypatch):
    shapes = [(200, 200), (3, 200, 200), (0, 200, 200), (0,)]
    for kind in ("adafactor", "lion", "lamb"):
        params = [torch.nn.Parameter(torch.randn(shape)) for shape in shapes]
        named = [(str(index), parameter) for index, parameter in enumerate(params)]
        optimizer = OptimizerFactory(config_of(kind)).build_optimizer(named)
        for parameter in params:
            parameter.grad = torch.randn_like(parameter)
        optimizer.step()
        assert all(parameter.isfinite().all() for parameter in params)


def test_a_numba_that_cannot_be_imported_is_told_and_left_out(monkeypatch, tmp_path):
    package = tmp_path / "numba"
    package.mkdir()
    (package / "__init__.py").write_text("raise ImportError('Numba needs another NumPy')")
    monkeypatch.syspath_prepend(tmp_path)
    for name in [name for name in sys.modules if name.split(".")[0] == "numba"]:
        monkeypatch.delitem(sys.modules, name)
    loops.has_numba.cache_clear()
    try:
        with pytest.warns(UserWarning, match="Numba is left out.*needs another NumPy"):
            assert not loops.has_numba()
    finally:
        loops.has_numba.cache_clear()


@needs_numba
def test_loops_run_where_no_thread_can_start(monkeypatch):
    class Ended:
        def submit(self, *arguments):
            raise RuntimeError("cannot schedule new futures after interpreter shutdown")

    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    monkeypatch.setattr(loops, "_pool", lambda *arguments: Ended())
    found = []
    for _ in range(2):
        torch.manual_seed(0)
        parameter = torch.nn.Parameter(torch.randn(2**17 + 3))
        parameter.grad = torch.randn(parameter.shape)
        Lion([parameter], lr=0.1).step()
        found.append(parameter.detach())
        by_lists(monkeypatch)
    torch.testing.assert_close(*found)


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
