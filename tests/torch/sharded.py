"""What `test_sharded` runs in each of two processes, as `torchrun` runs a program.

`python -m tests.torch.sharded results.json` writes what the parts return, by their names.
"""

import json
import os
import sys
import tempfile
from datetime import timedelta

import torch
import torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh

from tests.torch import sharded_checkpoints, sharded_matrix, sharded_refusals, sharded_spikes


def main(path):
    dist.init_process_group("gloo", timeout=timedelta(seconds=300))
    torch.set_num_threads(1)  # two processes, and a machine may have two cores
    if os.environ.get("DOUBLE"):
        torch.set_default_dtype(torch.float64)
    mesh, start = init_device_mesh("cpu", (dist.get_world_size(),)), sharded_matrix.initial()
    folder = [tempfile.mkdtemp(dir=os.path.dirname(path))]
    dist.broadcast_object_list(folder)
    results = {
        **sharded_refusals.run(mesh, start),
        "checkpoints": sharded_checkpoints.run(mesh, start, folder[0]),
        "spikes": sharded_spikes.run(mesh),
        "matrix": sharded_matrix.run(mesh, start),
    }
    if dist.get_rank() == 0:
        with open(path, "w") as file:
            json.dump(results, file, indent=1)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
