import copy
import pickle

import numpy as np
import pytest

from tests import clip_cases
from tests.torch.common import (
    OptimizerFactory,
    config_of,
    factory_weights,
    largest_difference,
    parameters,
    problem,
    set_gradients,
    torch,
    train,
    weights_of,
)

from optimization.torch.gradients import norms, unitwise_norm  # isort: skip

CLIPS = {
    "global_clipnorm": 2.0,
    "clipnorm": 0.5,
    "clipvalue": 0.3,
    "adaptive_clip_factor": 0.1,
}
every_clip = pytest.mark.parametrize("clip", CLIPS.items(), ids=str)


def clipped(gradients, weights, clip, bound):
    """Returns the clipped gradients, transcribed in NumPy."""

    def scaled(gradient, norm, limit):
        return gradient * np.minimum(1, limit / np.maximum(norm, 1e-300))

    def norm(value):
        return np.sqrt((value**2).sum())

    def unit_norm(value):
        if sum(size > 1 for size in value.shape) <= 1:
            return norm(value)
        return np.sqrt((value**2).sum(axis=tuple(range(1, value.ndim)), keepdims=True))

    if clip == "global_clipnorm":
        whole = np.sqrt(sum(norm(g) ** 2 for g in gradients.values()))
        return {name: scaled(g, whole, bound) for name, g in gradients.items()}
    if clip == "clipnorm":
        return {name: scaled(g, norm(g), bound) for name, g in gradients.items()}
    if clip == "clipvalue":
        return {name: np.clip(g, -bound, bound) for name, g in gradients.items()}
    return {
        name: scaled(g, unit_norm(g), bound * np.maximum(unit_norm(weights[name]), 1e-3))
        for name, g in gradients.items()
    }


def expected_weights(clip, bound, initial, gradients):
    weights = {name: np.array(value) for name, value in initial.items()}
    for grads in gradients:
        for name, gradient in clipped(grads, weights, clip, bound).items():
            weights[name] = weights[name] - 0.01 * gradient
    return weights


@every_clip
def test_a_clip_acts_inside_the_step(clip):
    initial, gradients = problem()
    config = config_of("sgd", **dict([clip]))
    found = factory_weights(config, initial, gradients)
    # Float64 on both sides.
    assert largest_difference(found, expected_weights(*clip, initial, gradients)) < 1e-12


def test_bert_clips_the_global_norm_first():
    initial, gradients = problem()
    sections = [{"gradient_clip_norm": 1.0}, {"gradient_clip_norm": 0, "global_clipnorm": 1.0}]
    found = [factory_weights(config_of("adamw", **s), initial, gradients) for s in sections]
    assert largest_difference(*found) < 1e-12
    plain = factory_weights(config_of("adamw", gradient_clip_norm=0), initial, gradients)
    assert largest_difference(found[0], plain) > 1e-3


@every_clip
def test_the_gradients_of_a_closure_are_clipped(clip):
    initial, gradients = problem(steps=4)
    params = parameters(initial)
    optimizer = OptimizerFactory(config_of("sgd", **dict([clip]))).build_optimizer(params.items())
    for number, grads in enumerate(gradients):

        def closure(grads=grads):
            set_gradients(params, grads)
            return 1.0

        # As an argument by position, and by name.
        loss = optimizer.step(closure) if number % 2 else optimizer.step(closure=closure)
        assert loss == 1.0
    assert largest_difference(weights_of(params), expected_weights(*clip, initial, gradients)) < (
        1e-12
    )


@every_clip
def test_parameters_without_gradients_do_not_count(clip):
    initial, gradients = problem(steps=3)
    missing = "layer_0.conv.weight"
    present = [{k: g for k, g in grads.items() if k != missing} for grads in gradients]
    found = factory_weights(config_of("sgd", **dict([clip])), initial, present)
    expected = expected_weights(*clip, initial, present)
    assert largest_difference(found, expected) < 1e-12
    np.testing.assert_array_equal(found[missing], initial[missing])


@every_clip
@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])
def test_copies_and_pickles_clip_too(clip, copied):
    initial, gradients = problem(steps=4)
    params = parameters(initial)
    config = config_of("sgd_torch", **dict([clip]))
    optimizer = OptimizerFactory(config).build_optimizer(params.items())
    train(optimizer, params, gradients[:2])
    other = copied(optimizer)
    assert isinstance(other, torch.optim.SGD)
    assert type(other).__name__ == "SGD"
    copies = {
        name: parameter
        for group in other.param_groups
        for name, parameter in zip(group["param_names"], group["params"], strict=True)
    }
    for o, p in ((optimizer, params), (other, copies)):
        train(o, p, gradients[2:])
        hooks = [*o._optimizer_step_pre_hooks.values()]
        assert hooks.count(optimizer.gradient_rules) == 1
        assert len({*hooks}) == len(hooks)
    assert largest_difference(weights_of(copies), weights_of(params)) == 0


@every_clip
@pytest.mark.parametrize("fused", [False, True])
def test_under_a_gradient_scaler_the_unscaled_gradients_are_clipped(clip, fused):
    initial, gradients = problem(steps=5)
    config = config_of("adamw", epsilon_placement="corrected", **dict([clip]))
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    params = parameters(initial, torch.float32)
    optimizer = OptimizerFactory(config).build_optimizer(params.items(), fused=fused)
    assert isinstance(optimizer, torch.optim.AdamW)
    for grads in gradients:
        set_gradients(params, grads)
        for parameter in params.values():
            parameter.grad *= 1024.0
        scaler.scale(torch.ones(()))  # without a loss the scaler does not exist yet
        scaler.step(optimizer)
        scaler.update()
    expected = factory_weights(config, initial, gradients, torch.float32)
    # A few roundings of float32; unclipped, or clipped while scaled, differs by far more.
    assert largest_difference(weights_of(params), expected) < 1e-6


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("on_nonfinite", [None, "raise"])
def test_a_gradient_scaler_skips_an_overflow(fused, on_nonfinite):
    initial, gradients = problem(steps=1)
    config = config_of(
        "adamw", epsilon_placement="corrected", global_clipnorm=1.0, on_nonfinite=on_nonfinite
    )
    params = parameters(initial, torch.float32)
    before = weights_of(params)
    optimizer = OptimizerFactory(config).build_optimizer(params.items(), fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    set_gradients(params, gradients[0])
    params["scale"].grad.fill_(float("inf"))
    scaler.scale(torch.ones(()))
    scaler.step(optimizer)
    scaler.update()
    assert scaler.get_scale() == 512.0
    assert largest_difference(weights_of(params), before) == 0


def test_half_precision_does_not_overflow_in_the_norm():
    parameter = torch.nn.Parameter(torch.zeros(4, dtype=torch.float16))
    config = config_of("sgd", learning_rate=1.0, global_clipnorm=1.0)
    optimizer = OptimizerFactory(config).build_optimizer([("w", parameter)])
    parameter.grad = torch.full((4,), 1000.0, dtype=torch.float16)  # its square is infinite
    optimizer.step()
    assert parameter.tolist() == [-0.5] * 4


def test_a_global_norm_that_is_not_finite_makes_everything_nan_as_in_keras():
    initial, gradients = problem(steps=1)
    gradients[0]["scale"] = np.array(np.inf)
    found = factory_weights(config_of("sgd", global_clipnorm=1.0), initial, gradients)
    assert all(np.isnan(value).all() for value in found.values())


CLIPS = {
    "global_clipnorm": {"global_clipnorm": 1.0},
    "gradient_clip_norm": {"gradient_clip_norm": 1.0},
    "clipnorm": {"clipnorm": 1.0},
    "adaptive": {"adaptive_clip_factor": 1.0, "adaptive_clip_epsilon": 1.0},
}


def gradient_after(arguments, gradient):
    parameter = torch.nn.Parameter(torch.zeros_like(gradient))
    name = "adamw" if "gradient_clip_norm" in arguments else "sgd"
    config = config_of(name, **arguments)
    optimizer = OptimizerFactory(config).build_optimizer([("w", parameter)])
    parameter.grad = gradient.clone()
    optimizer.step()
    return parameter.grad.double().numpy()


@pytest.mark.parametrize("size", [1e20, 1e30, 3e38])
@pytest.mark.parametrize("arguments", CLIPS.values(), ids=CLIPS)
def test_large_gradients_are_clipped(arguments, size):
    found = gradient_after(arguments, torch.full((6,), size))
    np.testing.assert_allclose(found, 6**-0.5, rtol=1e-6)


@pytest.mark.parametrize("argument", ["global_clipnorm", "clipnorm"])
@pytest.mark.parametrize(
    ("dtype", "size", "bound"),
    [
        (torch.float32, 1e-30, 1e-33),
        (torch.float64, 1e200, 1.0),
        (torch.bfloat16, 1e30, 1.0),
        # Their factors are 0, or have few digits, as numbers of these dtypes.
        (torch.bfloat16, 3e38, 1e-3),
        (torch.float32, 3e38, 1e-3),
        (torch.float16, 6e4, 1e-3),
    ],
)
def test_no_norm_is_infinite_or_0_in_any_dtype(argument, dtype, size, bound):
    found = gradient_after({argument: bound}, torch.full((4,), size, dtype=dtype))
    np.testing.assert_allclose(found, bound / 2, rtol=torch.finfo(dtype).eps)


def test_norms_as_they_are_taken_where_nothing_waits_for_them(monkeypatch):
    values = [torch.tensor([3e30, 4e30]), torch.tensor([3e-30, -4e-30]), torch.zeros(2)]
    expected = [5e30, 5e-30, 0.0]
    np.testing.assert_allclose(norms(values), expected, rtol=1e-6)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    np.testing.assert_allclose(norms(values), expected, rtol=1e-6)
    rows = torch.stack(values)
    np.testing.assert_allclose(unitwise_norm(rows).flatten(), expected, rtol=1e-6)


@pytest.mark.parametrize("size", [1e-24, 1e24])
def test_the_step_of_lars_does_not_depend_on_the_size_of_gradients(size):
    def step_of(size):
        parameter = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
        config = config_of("lars", momentum=0.0)
        optimizer = OptimizerFactory(config).build_optimizer([("w", parameter)])
        parameter.grad = size * parameter.detach()
        optimizer.step()
        return parameter.tolist()

    np.testing.assert_allclose(step_of(size), step_of(1.0), rtol=1e-6)
    assert step_of(size)[0] < 3.0


def test_raising_names_the_parameters_and_changes_nothing():
    initial, gradients = problem(steps=1)
    params = parameters(initial)
    config = config_of("adam", on_nonfinite="raise")
    optimizer = OptimizerFactory(config).build_optimizer(params.items())
    gradients[0]["scale"] = np.array(np.nan)
    with pytest.raises(FloatingPointError, match="infinite or NaN: scale$"):
        train(optimizer, params, gradients)
    assert largest_difference(weights_of(params), initial) == 0


def test_sparse_gradients_are_clipped_by_none_and_taken_by_torchs_own_sgd():
    parameter = torch.nn.Parameter(torch.zeros(4, 2))
    sparse = torch.sparse_coo_tensor([[1]], torch.ones(1, 2), (4, 2))
    for section, refused in (({}, False), ({"clipnorm": 1.0}, True)):
        optimizer = OptimizerFactory(config_of("sgd", **section)).build_optimizer(
            [("w", parameter)]
        )
        parameter.grad = sparse
        if refused:
            with pytest.raises(RuntimeError, match="need dense gradients"):
                optimizer.step()
        else:
            optimizer.step()
    assert parameter.sum().item() == pytest.approx(-0.02)


def test_a_unit_is_what_makes_one_output():
    assert unitwise_norm(torch.ones(3, 4)).flatten().tolist() == [2.0] * 3
    assert unitwise_norm(torch.ones(3, 2, 2, 1)).flatten().tolist() == [2.0] * 3
    assert unitwise_norm(torch.ones(4)).item() == unitwise_norm(torch.ones(4, 1)).item() == 2.0
    assert unitwise_norm(torch.tensor(-3.0)).item() == 3.0


def test_clips_compile():
    initial, gradients = problem(steps=3)
    torch._dynamo.reset()
    config = config_of("lamb", global_clipnorm=1.0)
    params = parameters(initial, torch.float32)
    optimizer = OptimizerFactory(config).build_optimizer(params.items())
    step = torch.compile(optimizer.step, backend="aot_eager")
    for grads in gradients:
        set_gradients(params, grads)
        step()
    expected = factory_weights(config, initial, gradients, torch.float32)
    # 1 - beta^t is in float32 where it is compiled.
    assert largest_difference(weights_of(params), expected) < 1e-5


@pytest.mark.parametrize("groups", [True, False])
@pytest.mark.parametrize("kind", clip_cases.KINDS)
def test_groups_have_clips_of_their_own_and_a_bound_follows_its_schedule(kind, groups):
    initial, gradients = clip_cases.problem()
    config = clip_cases.config(kind, clip_cases.GROUPS if groups else [])
    factory, params = OptimizerFactory(config, train_steps=100), parameters(initial)
    optimizer = factory.build_optimizer(params.items())
    found = train(optimizer, params, gradients, factory.build_scheduler(optimizer))
    # Float64 on both sides.
    expected = clip_cases.expected(kind, initial, gradients, groups)
    assert largest_difference(found, expected) < 1e-12


@pytest.mark.parametrize("kind", clip_cases.OF_MUON)
def test_a_clip_of_a_group_acts_on_what_the_auxiliary_optimizer_updates_too(kind):
    initial, gradients = clip_cases.problem()

    def trained(gradients, **clip):
        params = parameters(initial)
        optimizer = OptimizerFactory(clip_cases.of_muon(**clip)).build_optimizer(params.items())
        return train(optimizer, params, gradients)

    found = trained(gradients, **{kind: clip_cases.OF_MUON[kind]})
    expected = trained(clip_cases.clipped_before(kind, gradients))
    assert largest_difference(found, expected) < 1e-12
    assert largest_difference(found, trained(gradients)) > 1e-2


def test_a_scheduled_clip_goes_on_where_its_state_is_loaded():
    initial, gradients = clip_cases.problem()
    optimizers = []
    for _ in range(2):
        factory, params = OptimizerFactory(clip_cases.config()), parameters(initial)
        optimizer = factory.build_optimizer(params.items())
        optimizers.append((optimizer, params, factory.build_scheduler(optimizer)))
    train(*optimizers[0][:2], gradients[:4], optimizers[0][2])
    optimizer, params, scheduler = optimizers[1]
    for name, parameter in params.items():
        parameter.data.copy_(optimizers[0][1][name].data)
    state = optimizers[0][0].state_dict()
    saved = [group.get("global_clipnorm") for group in state["param_groups"]]
    assert saved.count(pytest.approx(clip_cases.bound_at(4))) == 1  # of those that share it
    optimizer.load_state_dict(state)
    found = train(optimizer, params, gradients[4:], scheduler)
    expected = clip_cases.expected("global_clipnorm", initial, gradients)
    assert largest_difference(found, expected) < 1e-12


def test_a_scheduled_clip_is_not_compiled_in():
    factory = OptimizerFactory(clip_cases.config())
    with pytest.raises(ValueError, match="`global_clipnorm` follows a schedule"):
        factory.build_optimizer(parameters(clip_cases.problem()[0]).items(), compile=True)


def test_a_scheduled_clip_needs_an_optimizer_that_clips():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(2))], 0.1)
    with pytest.raises(ValueError, match="`schedules.global_clipnorm`: the optimizer has no such"):
        OptimizerFactory(clip_cases.config()).build_scheduler(optimizer)


def test_a_bound_of_a_group_decides_what_is_not_finite():
    groups = [{"match": "^head", "clipvalue": 1.0}]
    config = config_of("adam", on_nonfinite="raise").replace(param_groups=groups)
    initial, (first, second) = clip_cases.problem(steps=2)
    params = parameters(initial, torch.float32)
    optimizer = OptimizerFactory(config).build_optimizer(params.items())
    first["head/kernel"][:] = 1e30  # which Adam can't hold, but its clip bounds it
    train(optimizer, params, [first])
    second["body/kernel"][:] = 1e30
    with pytest.raises(FloatingPointError, match="NaN: body/kernel$"):
        train(optimizer, params, [second])
