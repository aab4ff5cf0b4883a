"""What is saved natively on JAX in `golden/saved`, and how it is gone on from.

A state is a pytree, which libraries save by the paths of its leaves: these and their values are all
that is kept of it.
"""

import warnings
from pathlib import Path
from typing import Any

import jax
import numpy as np
import optax

from optimization import OPTIMIZERS_CLS, ConfigWarning, OptimizationConfig
from optimization.jax import OptimizerFactory
from tests.saved_cases import CASES
from tests.saved_goldens import STEPS, Values, gradients, kinds

SHAPES = {
    "conv": {"kernel": (2, 2, 2, 3)},
    "layer_0": {"kernel": (3, 4), "bias": (4,)},
    "norm": {"gamma": (4,), "beta": (4,)},
    "head": {"kernel": (4, 2), "bias": (2,)},
}
# Beside one of each type: what else has a state of its own.
OTHERS = (
    *("adafactor, torch", "muon, normuon", "soap, often, merged", "ema", "use_ema", "groups"),
    *("accumulation, average, skipping", "adaptive clip", "group with another optimizer"),
    *("layer_decay with groups", "schedules of both betas", "bfloat16, adamw"),
    *("modifiers, adamw", "modifiers, momentum", "state, stochastic", "state, nearest, one slot"),
    *("state, weights without copies", "zclip", "skip_spikes", "freeze_steps"),
    *("accumulation that grows", "schedules of a clip and of the average"),
)


def cases() -> dict[str, dict[str, Any]]:
    """Returns what is saved natively: of each type its last case, and `OTHERS`."""
    last = {n.partition(",")[0]: n for n, case in CASES.items() if "without" not in case}
    names = {name for kind, name in last.items() if kind in OPTIMIZERS_CLS} | set(OTHERS)
    return {name: case for name, case in CASES.items() if name in names}


class Run:
    """Parameters, their optimizer and its state.

    Args:
        case: What makes them.
    """

    def __init__(self, case: dict[str, Any]):
        self._case = case
        random, dtype = np.random.default_rng(0), case.get("task", {}).get("dtype", "float32")
        self.params = {
            layer: {n: jax.numpy.asarray(random.normal(0, 0.5, s), dtype) for n, s in own.items()}
            for layer, own in SHAPES.items()
        }
        with warnings.catch_warnings():
            # A warmup of two steps is nearly all of such a training.
            warnings.simplefilter("ignore", ConfigWarning)
            factory = OptimizerFactory(OptimizationConfig(case["config"]))
            self._optimizer = factory.build_optimizer(self.params)
        self.state = jax.eval_shape(self._optimizer.init, self.params)

    def init(self) -> None:
        """Makes the first state."""
        self.state = self._optimizer.init(self.params)

    def take_steps(self, first: int) -> None:
        """Takes the steps from number `first` on, with the gradients of the case."""
        leaves, structure = jax.tree.flatten(self.params)

        @jax.jit
        def update(params: Any, state: Any, grads: Any) -> Any:
            updates, state = self._optimizer.update(grads, state, params)
            return optax.apply_updates(params, updates), state

        for step in range(first, first + STEPS):
            found = gradients([x.shape for x in leaves], step, self._case)
            pairs = zip(found, leaves, strict=True)
            grads = structure.unflatten([jax.numpy.asarray(g, x.dtype) for g, x in pairs])
            self.params, self.state = update(self.params, self.state, grads)

    def arrays(self) -> dict[str, Any]:
        """Returns all arrays, or what has their shapes, by their paths."""
        both = {"params": self.params, "state": self.state}
        leaves = jax.tree_util.tree_flatten_with_path(both)[0]
        return {jax.tree_util.keystr(p, simple=True, separator="/"): x for p, x in leaves}

    def load(self, values: Values) -> None:
        """Takes the arrays of a run that was saved."""
        both = {"params": self.params, "state": self.state}
        structure = jax.tree.structure(both)
        now = [jax.numpy.asarray(values[path], x.dtype) for path, x in self.arrays().items()]
        loaded = structure.unflatten(now)
        self.params, self.state = loaded["params"], loaded["state"]

    def values(self) -> Values:
        """Returns them in float64."""
        return {path: np.asarray(x, "float64") for path, x in self.arrays().items()}


def save(case: dict[str, Any], directory: Path) -> tuple[dict[str, Any], dict[str, Values]]:
    """Trains a case; returns what its file has, and the values then and after more steps."""
    run = Run(case)
    run.init()
    run.take_steps(0)
    saved, told = run.values(), {"variables": kinds(run.arrays())}
    run.take_steps(STEPS)
    return told, {"saved": saved, "trained": run.values()}
