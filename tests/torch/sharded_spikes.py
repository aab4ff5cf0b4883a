"""ZClip and `skip_spikes` on a model of `fully_shard`: the norm is that of all its gradients."""

import torch
import torch.distributed as dist
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import distribute_tensor

from optimization.torch import OptimizerFactory
from tests import spike_cases as cases
from tests.torch.common import model_of
from tests.torch.sharded_matrix import whole


def run(mesh):
    """Returns weights, averages and counts, and which steps each process has left out."""
    initial, gradients, losses = cases.problem()
    found, skipped = {}, [False] * len(gradients)
    for name, config in configs().items():
        factory, model = OptimizerFactory(config, train_steps=cases.STEPS), model_of(initial)
        fully_shard(model, mesh=mesh)
        optimizer = factory.build_optimizer(model)
        scheduler = factory.build_scheduler(optimizer)
        average = None if config.ema is None else factory.build_ema(model, optimizer)
        for number, (grads, loss) in enumerate(zip(gradients, losses, strict=True)):
            for path, gradient in grads.items():
                parameter = getattr(model, path.replace("/", "_"))
                parameter.grad = distribute_tensor(
                    torch.tensor(gradient), mesh, parameter.placements, src_data_rank=None
                )
            # Each process has the loss of its own part of the batch, and here another sign of it.
            optimizer.tell_loss(loss * (3.0 if dist.get_rank() else -1.0))
            optimizer.step()
            scheduler.step()
            skipped[number] = optimizer.skipped
            if average is not None:
                average.update_parameters(model)
        found[name] = {"weights": by_path(model.named_parameters())}
        if average is not None:
            found[name]["average"] = by_path(average.module.named_parameters())
        counts = [optimizer.clipped_spikes, optimizer.skipped_spikes]
        found[name] |= {"counts": everywhere(counts), "skipped": everywhere(skipped)}
    return found


def configs():
    """Returns configs of both, of which one looks at the loss too."""
    sections = {"skip_spikes": cases.SKIPS["both"], "ema": cases.AVERAGE}
    return {
        "zclip": cases.config(fields={"momentum": 0.0}, zclip=cases.ZCLIP),
        "skip_spikes": cases.config(fields={"momentum": 0.9}, rate="linear", **sections),
    }


def by_path(named):
    return {name.replace("_", "/"): whole(p).tolist() for name, p in named}


def everywhere(value):
    found = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found
