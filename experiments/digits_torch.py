"""Handwritten digits on PyTorch: one process, or several that torchrun or Ray Train starts.

    torchrun --standalone --nproc-per-node=2 experiments/digits_torch.py --model_dir=/tmp/digits

Each process takes its share of the global batch. Batch t is a function of t alone, and a checkpoint
holds the model, the optimizer and the step, so that a run that was stopped, or started again after
a process died, goes on as if it had never stopped.
"""

import argparse
import datetime
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import numpy as np

from optimization import ConfigError, extras, load_optimization_config

try:
    import torch
except ModuleNotFoundError as error:
    raise SystemExit(f"error: {extras.explained(error)}") from None
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from experiments.digits import load_split
from optimization.torch import OptimizerFactory

CHECKPOINT = "checkpoint.pt"
CONFIG = str(Path(__file__).resolve().parent.parent / "configs/experiments/digits.yaml")


def build_model() -> nn.Module:
    """Returns a small convnet for images of 8 x 8."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(16 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


def tensors(is_training: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Returns images, (N, 1, 8, 8) float32, and labels, (N,) int64."""
    images, labels = load_split(0.2, is_training)
    return torch.from_numpy(images).reshape(-1, 1, 8, 8), torch.from_numpy(labels).long()


def batch_rows(step: int, batch_size: int, examples: int) -> np.ndarray:
    """Returns the rows of the global batch of a step; each epoch has an order of its own."""
    epoch, batch = divmod(step, examples // batch_size)
    order = np.random.default_rng(epoch).permutation(examples)
    return order[batch * batch_size : (batch + 1) * batch_size]


def train(
    model_dir: str,
    config_file: str = CONFIG,
    train_steps: int = 1000,
    batch_size: int = 64,
    checkpoint_interval: int = 100,
) -> dict[str, float]:
    """Trains to `train_steps`, from the checkpoint in `model_dir` on; all processes call it.

    Returns:
        The last loss, if there was a step left to take, and the accuracy on the held-out images.
    """
    several = dist.is_initialized() and dist.get_world_size() > 1
    rank, processes = (dist.get_rank(), dist.get_world_size()) if several else (0, 1)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = build_model().to(device)
    factory = OptimizerFactory(load_optimization_config(config_file), train_steps)
    optimizer = factory.build_optimizer(model)
    scheduler = factory.build_scheduler(optimizer)
    path = os.path.join(model_dir, CHECKPOINT)
    step = 0
    if os.path.exists(path):
        state = torch.load(path, map_location=device)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        step = state["step"]
        if rank == 0:
            print(f"resumed at step {step} from {path}", flush=True)
    parallel = DistributedDataParallel(model) if several else model
    images, labels = tensors(is_training=True)
    results = {}
    if step >= train_steps and rank == 0:
        print(f"trained already: {step} steps are done, --train_steps is {train_steps}", flush=True)
    while step < train_steps:
        rows = batch_rows(step, batch_size, len(images)).reshape(processes, -1)[rank]
        outputs = parallel(images[rows].to(device))
        loss = nn.functional.cross_entropy(outputs, labels[rows].to(device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        step += 1
        results["loss"] = loss.detach()
        if rank == 0 and (step % checkpoint_interval == 0 or step == train_steps):
            parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
            state = {name: part.state_dict() for name, part in parts.items()}
            os.makedirs(model_dir, exist_ok=True)
            torch.save({**state, "step": step}, f"{path}.new")
            os.replace(f"{path}.new", path)  # A checkpoint is there whole or not at all.
            print(f"step {step}/{train_steps}  loss {loss.item():.4g}", flush=True)
    images, labels = tensors(is_training=False)
    with torch.no_grad():
        found = model(images.to(device)).argmax(1).cpu()
    results["accuracy"] = (found == labels).float().mean()
    return {name: value.item() for name, value in results.items()}


def check(options: argparse.Namespace, processes: int) -> None:
    """Ends the program, with one line, for what would end each process.

    Before the processes connect: where all that are connected end at once, those that torchrun
    starts after them may be refused.
    """
    try:
        extras.require("sklearn")
        examples = len(load_split(0.2, is_training=True)[1])
        if options.batch_size % processes or options.batch_size > examples:
            message = f"must be a multiple of {processes}, the number of processes, and at most "
            raise ValueError(f"--batch_size {message}{examples}, got {options.batch_size}")
        OptimizerFactory(load_optimization_config(options.config_file), options.train_steps)
    except (ConfigError, ImportError, ValueError) as error:
        raise SystemExit(f"error: {error}") from None


def positive(text: str) -> int:
    """Returns the number above 0 that a flag has."""
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"must be an integer > 0, got {text!r}")
    return int(text)


def parser() -> argparse.ArgumentParser:
    """Returns the parser of the command line."""
    result = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    result.add_argument("--model_dir", required=True, help="which all machines have in common")
    result.add_argument("--config_file", default=CONFIG, help="with an optimizer section")
    result.add_argument("--train_steps", type=positive, default=1000)
    result.add_argument("--batch_size", type=positive, default=64, help="of all processes together")
    result.add_argument("--checkpoint_interval", type=positive, default=100)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Runs the command line, as one of several processes where torchrun's variables are set."""
    options = parser().parse_args(argv)
    check(options, int(os.environ.get("WORLD_SIZE", 1)))
    if "WORLD_SIZE" in os.environ:
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        backend = "nccl" if torch.cuda.is_available() else "gloo"
        # Processes that start again may miss each other: then torchrun starts them once more.
        dist.init_process_group(backend, timeout=datetime.timedelta(minutes=1))
    results = train(**vars(options))
    if not dist.is_initialized() or dist.get_rank() == 0:
        print("  ".join(f"{name} {value:.4g}" for name, value in results.items()), flush=True)
    if dist.is_initialized():
        dist.destroy_process_group()


if __name__ == "__main__":
    main()
