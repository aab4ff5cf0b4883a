"""Who takes part: each contestant says how it builds the update of a list of parameters."""

import dataclasses
import importlib
import typing
from collections.abc import Sequence
from typing import Any

import numpy as np

from tools.benchmark.lists import Parameter
from tools.benchmark.variants import Variant


class UnsupportedError(Exception):
    """The contestant has no such update."""


class Update(typing.Protocol):
    """An update of a list of parameters that has its weights, gradients and state."""

    def run(self, calls: int) -> None:
        """Applies the gradients `calls` times, and returns when the results are there."""

    def set_gradients(self, gradients: Sequence[np.ndarray]) -> None:
        """Replaces the gradients."""

    def weights(self) -> list[np.ndarray]:
        """Returns the weights."""

    def averages(self) -> list[np.ndarray] | None:
        """Returns their averages, if there are any."""

    def state_bytes(self) -> int:
        """Returns the bytes of all variables of the optimizer, averages and accumulators too."""

    def close(self) -> None:
        """Lets go of what a collection of garbage does not find."""


class Contestant(typing.Protocol):
    """Builds updates."""

    def versions(self) -> dict[str, str]:
        """Returns the versions of the packages that it consists of."""

    def build(self, tensors: Sequence[Parameter], variant: Variant) -> Update:
        """Returns the update of these parameters, each with its weights and gradient drawn.

        Raises:
            UnsupportedError: If there is none.
        """


@dataclasses.dataclass(frozen=True)
class Entry:
    """How a contestant is loaded.

    Attributes:
        target: Module of this package and class.
        what: What it is, in words.
        arguments: Arguments of the class.
        ours: Whether it belongs to this project.
        environment: Environment variables of its process.
    """

    target: str
    what: str
    arguments: dict[str, Any] = dataclasses.field(default_factory=dict)
    ours: bool = False
    environment: dict[str, str] = dataclasses.field(default_factory=dict)


CONTESTANTS = {
    "ours": Entry(
        "project:Project",
        "the factory's optimizer, in the training loop's shape, with the section's defaults",
        ours=True,
    ),
    "ours-plain": Entry(
        "project:Project", "the same, `jit_compile: false`", {"jit_compile": False}, ours=True
    ),
    "ours-jit": Entry(
        "project:Project", "the same, `jit_compile: true`", {"jit_compile": True}, ours=True
    ),
    "ours-2-devices": Entry(
        "project:Project",
        "the same under MirroredStrategy, on two logical CPU devices: twice the weights",
        {"devices": 2},
        ours=True,
    ),
    "ours-torch": Entry(
        "pytorch:ProjectTorch", "`optimization.torch`, averages in the step", ours=True
    ),
    "ours-jax": Entry(
        "jax_optax:ProjectJax",
        "`optimization.jax` in `jax.jit`, weights and state donated",
        ours=True,
    ),
    "keras": Entry("keras_tf:Keras", "Keras on TensorFlow, `apply` in a `tf.function`"),
    "keras-jit": Entry(
        "keras_tf:Keras", "the same, compiled by XLA as a whole", {"jit_compile": True}
    ),
    "torch-foreach": Entry("pytorch:Torch", "torch.optim, `foreach=True`", {"path": "foreach"}),
    "torch-fused": Entry("pytorch:Torch", "torch.optim, `fused=True`", {"path": "fused"}),
    "torch-muon": Entry("pytorch:TorchMuon", "torch.optim.Muon, with AdamW, `fused=True`"),
    "timm": Entry("pytorch:Package", "timm's optimizers for PyTorch", {"name": "timm"}),
    "pytorch-optimizer": Entry(
        "pytorch:Package", "those of pytorch_optimizer", {"name": "pytorch_optimizer"}
    ),
    "prodigyopt": Entry("pytorch:Package", "that of prodigyopt", {"name": "prodigyopt"}),
    "schedulefree": Entry("pytorch:Package", "those of schedulefree", {"name": "schedulefree"}),
    "optax": Entry("jax_optax:Optax", "optax in `jax.jit`, weights and state donated"),
    "garden": Entry("garden:Garden", "TensorFlow Model Garden, legacy optimizers, `tf.function`"),
    "garden-jit": Entry("garden:Garden", "the same, compiled by XLA", {"jit_compile": True}),
}


def load(name: str) -> Contestant:
    """Imports the contestant of that name, with its framework.

    Raises:
        ImportError: If something that it needs is not installed.
    """
    entry = CONTESTANTS[name]
    module, _, cls = entry.target.partition(":")
    imported = importlib.import_module(f"tools.benchmark.contestants.{module}")
    return getattr(imported, cls)(**entry.arguments)
