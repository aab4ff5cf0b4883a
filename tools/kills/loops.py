"""The loops of docs/torch.md and docs/jax.md, with a checkpoint that is written by renaming."""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from optimization import ConfigWarning, OptimizationConfig
from tools.kills.processes import Steps
from tools.kills.sections import Sections, sections

UPDATES, INTERVAL = 60, 3
# A life takes at most so many steps before it is killed: two checkpoints' worth.
MOST_STEPS = 2 * INTERVAL
_SCHEDULE = {
    "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.02}},
    "warmup": {"type": "linear", "linear": {"warmup_steps": 6, "warmup_learning_rate": 0.01}},
}


def _batch(step: int) -> np.ndarray:
    return np.random.default_rng(step).normal(size=(16, 4)).astype("float32")


def _made(factory: Any, chosen: Sections) -> Any:
    """Returns a factory; doubtful settings are meant."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConfigWarning)
        return factory(OptimizationConfig(chosen.optimizer), train_steps=UPDATES)


def _write(directory: Path, name: str, save: Callable[[Any], None]) -> None:
    """Writes a file that is there as a whole or not at all."""
    directory.mkdir(parents=True, exist_ok=True)
    unfinished = directory / "unfinished.tmp"
    with open(unfinished, "wb") as file:
        save(file)
        file.flush()
        os.fsync(file.fileno())
    unfinished.replace(directory / name)


def _leave(directory: Path, values: dict[str, Any]) -> None:
    """Writes what is compared, in the place of the checkpoint."""
    arrays = {name: np.asarray(value) for name, value in values.items()}
    _write(directory, "final.npz", lambda file: np.savez(file, **arrays))
    (directory / "checkpoint.pt").unlink(missing_ok=True)


def torch_loop(kind: str, directory: Path, steps: Steps) -> None:
    """Trains natively on PyTorch."""
    import torch

    from optimization.torch import OptimizerFactory

    torch.set_num_threads(1)
    torch.manual_seed(0)
    chosen = sections(kind, **_SCHEDULE)
    model = torch.nn.ModuleDict({name: torch.nn.Linear(4, 8) for name in chosen.layers})
    model["head"] = torch.nn.Linear(8, 1)
    factory = _made(OptimizerFactory, chosen)
    optimizer = factory.build_optimizer(model)
    scheduler = factory.build_scheduler(optimizer)
    parts = {"model": model, "optimizer": optimizer, "scheduler": scheduler}
    average = factory.build_ema(model, optimizer) if chosen.averages else None
    if average is not None:
        parts["average"] = average
    path, first = directory / "checkpoint.pt", 0
    if path.exists():
        state = torch.load(path)
        first = state.pop("step")
        for name, part in parts.items():
            part.load_state_dict(state[name])
    for step in range(first, UPDATES):
        x = torch.from_numpy(_batch(step))
        optimizer.zero_grad()
        hidden = torch.tanh(sum(model[name](x) for name in chosen.layers))
        torch.nn.functional.mse_loss(model["head"](hidden), x[:, :1]).backward()
        optimizer.step()
        scheduler.step()
        if average is not None:
            average.update_parameters(model)
        steps.count()
        if (step + 1) % INTERVAL == 0:
            state = {name: part.state_dict() for name, part in parts.items()}
            _write(
                directory,
                path.name,
                lambda file, state=state, step=step: torch.save({**state, "step": step + 1}, file),
            )
    moments = optimizer.state_dict()["state"].items()
    _leave(
        directory,
        {
            **{
                f"{part} {name}": value
                for part in {"model", "average"} & parts.keys()
                for name, value in parts[part].state_dict().items()
            },
            **{f"state {i} {k}": value for i, slots in moments for k, value in slots.items()},
        },
    )


def jax_loop(kind: str, directory: Path, steps: Steps) -> None:
    """Trains natively on JAX."""
    import jax
    import jax.numpy as jnp
    import optax

    from optimization.jax import OptimizerFactory

    # Each life compiles the same: the first one keeps it for those after.
    jax.config.update("jax_compilation_cache_dir", str(directory.parent / "compiled"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    chosen = sections(kind, **_SCHEDULE)
    shapes = {**dict.fromkeys(chosen.layers, (4, 8)), "head": (8, 1)}
    params = {
        name: {
            "kernel": 0.5 * jax.random.normal(jax.random.key(i), shape),
            "bias": jnp.zeros(shape[1]),
        }
        for i, (name, shape) in enumerate(shapes.items())
    }
    factory = _made(OptimizerFactory, chosen)
    optimizer = factory.build_optimizer(params)

    def loss(params: Any, x: Any) -> Any:
        def dense(name: str, x: Any) -> Any:
            return x @ params[name]["kernel"] + params[name]["bias"]

        out = dense("head", jnp.tanh(sum(dense(name, x) for name in chosen.layers)))
        return jnp.mean((out - x[:, :1]) ** 2)

    @jax.jit
    def update(params: Any, state: Any, x: Any) -> Any:
        updates, state = optimizer.update(jax.grad(loss)(params, x), state, params)
        return optax.apply_updates(params, updates), state

    both, first = (params, optimizer.init(params)), 0
    path = directory / "checkpoint.pt"
    if path.exists():
        with np.load(path) as arrays:
            leaves = [jnp.asarray(arrays[str(i)]) for i in range(len(arrays.files) - 1)]
            both = jax.tree.unflatten(jax.tree.structure(both), leaves)
            first = int(arrays["step"])
    for step in range(first, UPDATES):
        both = update(*both, _batch(step))
        jax.block_until_ready(both)
        steps.count()
        if (step + 1) % INTERVAL == 0:
            arrays = {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(both))}
            _write(
                directory,
                path.name,
                lambda file, arrays=arrays, step=step: np.savez(file, **arrays, step=step + 1),
            )
    named = jax.tree_util.tree_flatten_with_path(both)[0]
    if chosen.averages:
        averages = factory.averaged_params(both[1], both[0])
        named += jax.tree_util.tree_flatten_with_path({"averages": averages})[0]
    _leave(directory, {jax.tree_util.keystr(path): value for path, value in named})


LOOPS = {"native PyTorch": torch_loop, "native JAX": jax_loop}
