"""What wrappers that hide the shapes of weights do, and what works on shards besides."""

import warnings

import torch
import torch.distributed as dist
from torch.distributed.fsdp import FullyShardedDataParallel, ShardingStrategy
from torch.distributed.optim import ZeroRedundancyOptimizer
from torch.distributed.tensor import DTensor, Partial, Replicate

import optimization.torch as ours
from optimization.torch import OptimizerFactory
from tests.torch.common import config_of
from tests.torch.sharded_matrix import BATCH, Net, batches, largest_difference, set_weights

FLAT = {
    "adamw": {"gradient_clip_norm": 0.0, "clipvalue": 0.1},
    "sgd": {"momentum": 0.9},
    "ftrl": {},
}
REFUSED = [
    *[
        (kind, {})
        for kind in ("lamb", "lars", "stable_adamw", "adafactor", "adafactor_keras", "muon", "soap")
    ],
    ("prodigy", {}),
    ("adamw", {}),  # clips by default
    *[("sgd", {clip: 0.5}) for clip in ("clipnorm", "global_clipnorm", "adaptive_clip_factor")],
]


def train(model, optimizer, part):
    for tokens, x, y in batches():
        optimizer.zero_grad()
        (model(tokens[part], x[part]) - y[part]).square().mean().backward()
        optimizer.step()
    return model


def alone(start, build):
    model = Net()
    set_weights(model, start)
    return weights_of(train(model, build(model), slice(None)))


def weights_of(model):
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def run(mesh, start):
    rank, size = dist.get_rank(), dist.get_world_size()
    part = slice(rank * BATCH // size, (rank + 1) * BATCH // size)
    results = {"fsdp1": {}, "refused": {}}
    for by_name in (True, False):
        options = {"use_orig_params": by_name, "device_id": torch.device("cpu")}
        strategy = ShardingStrategy.FULL_SHARD
        for kind, fields in FLAT.items():
            factory = OptimizerFactory(config_of(kind, **fields))
            model = Net()
            set_weights(model, start)
            model = FullyShardedDataParallel(model, sharding_strategy=strategy, **options)
            train(model, factory.build_optimizer(model), part)
            with FullyShardedDataParallel.summon_full_params(model, writeback=False):
                found = {
                    name.removeprefix("_fsdp_wrapped_module."): p.detach().clone()
                    for name, p in model.named_parameters()
                }
            expected = alone(start, factory.build_optimizer)
            label = f"{kind}, {'names' if by_name else 'no names'}"
            results["fsdp1"][label] = largest_difference(found, expected, start)
        for kind, fields in REFUSED:
            error = None
            try:
                OptimizerFactory(config_of(kind, **fields)).build_optimizer(model)
            except ValueError as raised:
                error = str(raised)
            results["refused"][f"{kind} {fields}, {by_name}"] = error
    results["zero_redundancy"] = zero_redundancy(start, part)
    results["finite"] = raised_everywhere(mesh, rank)
    results["partial"] = partial_gradients(mesh)
    return results


def zero_redundancy(start, part):
    """Returns differences of what has whole parameters shared out over the processes."""
    found = {}
    for name, options in (("LAMB", {}), ("Adafactor", {"min_dim_size_to_factor": 2}), ("Muon", {})):
        cls = getattr(ours, name)
        model = Net()
        set_weights(model, start)
        model = torch.nn.parallel.DistributedDataParallel(model)
        params = [p for p in model.parameters() if p.dim() == 2]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch scripts something
            optimizer = ZeroRedundancyOptimizer(params, optimizer_class=cls, lr=0.02, **options)
        own = weights_of(train(model, optimizer, part).module)
        matrices = alone(
            start,
            lambda m, c=cls, o=options: c(
                [p for p in m.parameters() if p.dim() == 2], lr=0.02, **o
            ),
        )
        found[name] = largest_difference(own, matrices, start)
    return found


def raised_everywhere(mesh, rank):
    """Returns what this process says of a gradient that is infinite in the shard of the last."""
    parameter = torch.nn.Parameter(_split(torch.ones(5, 2), mesh))
    factory = OptimizerFactory(config_of("sgd", on_nonfinite="raise"))
    optimizer = factory.build_optimizer([("w", parameter)])
    parameter.grad = torch.zeros_like(parameter)
    if rank == 1:
        parameter.grad.to_local().fill_(float("inf"))
    said = [None] * dist.get_world_size()
    try:
        optimizer.step()
        error = None
    except FloatingPointError as raised:
        error = str(raised)
    dist.all_gather_object(said, error)
    return said


def partial_gradients(mesh):
    """Returns the weight after a step, whose gradient is the sum of what the processes have."""
    whole = DTensor.from_local(torch.ones(3), mesh, [Replicate()])
    parameter = torch.nn.Parameter(whole)
    factory = OptimizerFactory(config_of("lion", learning_rate=0.5, clipnorm=1.0))
    optimizer = factory.build_optimizer([("w", parameter)])
    values = torch.full((3,), 1.0 if dist.get_rank() else -3.0)
    parameter.grad = DTensor.from_local(values, mesh, [Partial()])
    optimizer.step()
    return parameter.full_tensor().tolist()


def _split(tensor, mesh):
    from torch.distributed.tensor import Shard, distribute_tensor

    return distribute_tensor(tensor, mesh, [Shard(0)], src_data_rank=None)
