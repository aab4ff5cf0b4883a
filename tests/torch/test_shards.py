"""Split weights in one process, of which each shard is whole: what is refused, and what is copied.

That two processes compute the same is in `test_sharded`.
"""

import pytest

from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.layerwise import LayerwiseRule
from optimization.rules.rule import Rule, Slot
from tests.torch.common import OptimizerFactory, config_of, torch

if not torch.distributed.is_available():
    pytest.skip("PyTorch is without torch.distributed", allow_module_level=True)

import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import Replicate, Shard, distribute_tensor

from optimization.torch.derived import native_class  # isort: skip
from optimization.torch.shards import added_up, layout_of, norms_of_parts, own_part  # isort: skip


@pytest.fixture(scope="module")
def mesh():
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


@pytest.fixture
def registered(monkeypatch):
    monkeypatch.setattr(OPTIMIZERS_CLS, "_entries", dict(OPTIMIZERS_CLS._entries))
    return OPTIMIZERS_CLS.register


def split(values, mesh, placement):
    return torch.nn.Parameter(distribute_tensor(torch.as_tensor(values), mesh, [placement]))


def model_of(mesh):
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(3, 4), torch.nn.BatchNorm1d(4))
    return fully_shard(model, mesh=mesh)


def averaged(mesh, **fields):
    config = {"optimizer": {"type": "sgd"}, "ema": {"average_decay": 0.5, **fields}}
    factory = OptimizerFactory(config_of("sgd", 0.5).__class__({**_constant(), **config}))
    model = model_of(mesh)
    optimizer = factory.build_optimizer(model)
    return model, optimizer, factory.build_ema(model, optimizer)


def _constant():
    return {"learning_rate": {"type": "constant", "constant": {"learning_rate": 0.5}}}


def step(model, optimizer, average):
    optimizer.zero_grad()
    model(torch.ones(2, 3) * torch.tensor([[1.0], [2.0]])).square().sum().backward()
    optimizer.step()
    average.update_parameters(model)


def test_norms_are_those_of_whole_tensors(mesh):
    x = split([[3.0, 4.0], [0.0, 0.0]], mesh, Shard(0))
    layouts, parts = [layout_of(x)], [own_part(x).detach()]
    assert layouts[0].shape == layouts[0].local == (2, 2)
    assert [len(groups) for groups in layouts[0].sharers] == [1, 0]
    assert norms_of_parts(parts, layouts)[0] == 5
    assert norms_of_parts(parts, layouts, [(1,)])[0].flatten().tolist() == [5, 0]
    assert norms_of_parts([torch.full((1,), 1e-30)], [layout_of(torch.ones(1))])[0] > 0
    assert added_up(parts, [layouts[0].sharers[0]])[0].equal(parts[0])


def test_state_is_split_as_the_axes_of_the_weight_that_it_has(mesh):
    config = config_of("adafactor", min_dim_size_to_factor=2)
    for placement, placed in ((Shard(0), {4: 0}), (Shard(1), {3: 0}), (Replicate(), {})):
        parameter = split(torch.ones(4, 3), mesh, placement)
        optimizer = OptimizerFactory(config).build_optimizer([("w", parameter)])
        parameter.grad = torch.ones_like(parameter)
        optimizer.step()
        for name in ("exp_avg_sq_row", "exp_avg_sq_col"):
            state = optimizer.state[parameter][name]
            axis = placed.get(state.shape[0])
            assert state.placements == ((Replicate() if axis is None else Shard(axis)),)
        size = parameter.detach().full_tensor().square().mean().sqrt().item()
        assert optimizer.effective_learning_rates()["w"] == pytest.approx(0.01 * size)


@pytest.mark.parametrize("fused", [None, True])
def test_torchs_own_classes_update_shards(mesh, fused):
    config = config_of("adamw", epsilon_placement="corrected", weight_decay_rate=0.1)
    values, found = torch.arange(6.0).reshape(2, 3), []
    for parameter in (split(values, mesh, Shard(0)), torch.nn.Parameter(values.clone())):
        optimizer = OptimizerFactory(config).build_optimizer([("w", parameter)], fused=fused)
        assert isinstance(optimizer, torch.optim.AdamW)
        for factor in (1.0, 2.0):
            parameter.grad = factor * parameter.detach()
            optimizer.step()
        assert optimizer.param_groups[0]["params"] == [parameter]
        assert type(optimizer.state[parameter]["exp_avg"]) is type(parameter.detach())
        found.append(getattr(parameter, "full_tensor", lambda p=parameter: p)().detach())
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


def test_the_average_of_sharded_modules_is_applied_to_the_model(mesh):
    model, optimizer, average = averaged(mesh)
    for _ in range(3):
        step(model, optimizer, average)
    own = [p.full_tensor().clone() for p in model.parameters()]
    held = [p.full_tensor().clone() for p in average.module.parameters()]
    assert not all(torch.equal(*pair) for pair in zip(own, held, strict=True))
    with average.applied_to(model), torch.no_grad():
        outputs = model(torch.ones(2, 3))  # which leaves the model with whole weights
    model.eval()
    with torch.no_grad():
        model(torch.ones(2, 3))
    step(model.train(), optimizer, average)
    assert outputs.isfinite().all()
    with average.applied_to(model):
        found = [p.full_tensor().clone() for p in model.parameters()]
        assert all(map(torch.equal, found, (p.full_tensor() for p in average.module.parameters())))
    with pytest.raises(RuntimeError, match=r"with average\.applied_to\(model\)"):
        average(torch.ones(2, 3))


def test_the_weights_are_back_where_an_evaluation_fails(mesh):
    model, optimizer, average = averaged(mesh)
    step(model, optimizer, average)
    own = [p.full_tensor().clone() for p in model.parameters()]
    with pytest.raises(ZeroDivisionError), average.applied_to(model):
        raise ZeroDivisionError
    assert all(map(torch.equal, own, (p.full_tensor() for p in model.parameters())))


def test_buffers_of_sharded_modules_are_copied_or_averaged(mesh):
    for trainable_only in (True, False):
        model, optimizer, average = averaged(mesh, trainable_weights_only=trainable_only)
        for _ in range(2):
            step(model, optimizer, average)
        own, held = (dict(each.named_buffers()) for each in (model, average.module))
        assert own.keys() == held.keys()
        assert torch.equal(own["1.running_mean"], held["1.running_mean"]) == trainable_only


def test_a_rule_that_is_neither_elementwise_nor_layerwise_gets_whole_weights(mesh, registered):
    @registered("centred")
    class Centred(Rule):
        """Takes the mean of each column off the gradient.

        w <- w - lr (g - mean(g))

        Source: a test.
        """

        class_name = "Centred"
        slots = (Slot("latest", "latests", "latest"),)

        def step(self, g, w, s, h, xp):
            s.latest = g - xp.mean(g, axis=0, keepdims=True)
            return h.lr * s.latest

    parameter = split([[1.0, 1.0], [1.0, 1.0]], mesh, Shard(0))
    optimizer = native_class(Centred)([parameter], lr=0.5)
    parameter.grad = split([[1.0, 2.0], [3.0, 2.0]], mesh, Shard(0)).detach()
    optimizer.step()
    assert parameter.full_tensor().tolist() == [[1.5, 1.0], [0.5, 1.0]]
    assert optimizer.state[parameter]["latest"].full_tensor().tolist() == [[-1.0, 0.0], [1.0, 0.0]]


def test_a_layerwise_rule_that_takes_means_of_anything_is_an_error(mesh, registered):
    @registered("odd")
    class Odd(LayerwiseRule):
        """Takes a mean of a mean.

        w <- w - lr mean(mean(g)) g

        Source: a test.
        """

        class_name = "Odd"

        def norms_of(self, h):
            return ()

        def direction(self, g, w, s, h, xp):
            g = xp.keep(g)
            return xp.mean(xp.mean(g, axis=1), axis=0) * g

        def finish(self, u, w, s, norms, h, xp):
            return h.lr * u

    parameter = split([[1.0, 1.0], [1.0, 1.0]], mesh, Shard(0))
    parameter.grad = torch.ones_like(parameter)
    with pytest.raises(
        RuntimeError, match=r"formula of Odd takes `xp\.mean` of what .* `Rule`, not"
    ):
        native_class(Odd)([parameter], lr=0.5).step()


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("ftrl", {}),
        ("adafactor", {"step_size": "relative", "weight_decay": 0.1}),
        ("schedule_free_sgd", {}),
    ],
)
def test_a_first_step_of_rates_and_gradients_of_0_only_makes_state(kind, fields):
    """As torch takes it to load distributed checkpoints."""
    config = config_of(kind, **fields)
    if fields.get("step_size") == "relative":
        config = type(config)({"optimizer": {"type": kind, kind: fields}})
    weight = torch.nn.Parameter(torch.ones(2, 2))
    optimizer = OptimizerFactory(config).build_optimizer([("w", weight)])
    weight.grad = torch.zeros(2, 2)
    (group,) = optimizer.param_groups
    counted = group.get("k")
    group["lr"] = 0.0
    optimizer.step()
    assert weight.tolist() == [[1.0, 1.0]] * 2
    assert optimizer.state[weight]["step"] == 0
    assert group.get("k") == counted
