"""torch.optim's optimizers, and this project's on PyTorch."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import optimization
from tools.benchmark.contestants import UnsupportedError
from tools.benchmark.lists import Parameter
from tools.benchmark.variants import (
    BETA_1,
    BETA_2,
    CLIP_NORM,
    EMA_DECAY,
    EPSILON,
    EXCLUDED,
    MOMENTUM,
    Variant,
)


class Torch:
    """torch.optim.

    Args:
        path: `foreach` or `fused`.
    """

    def __init__(self, path: str) -> None:
        self._path = path

    def versions(self) -> dict[str, str]:
        """Returns PyTorch's version."""
        return {"torch": torch.__version__}

    def build(self, tensors: Sequence[Parameter], variant: Variant) -> "_Update":
        """Returns the update of these parameters."""
        cls, arguments = self._optimizer(variant)
        module = _module(tensors)
        optimizer = cls(_groups(module, variant), variant.learning_rate, **arguments)
        average = None
        if variant.ema:
            average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
        clip_norm = CLIP_NORM if variant.clip else None
        return _Update(tensors, module, optimizer, average, variant.accumulation, clip_norm)

    def _optimizer(self, variant: Variant) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        if variant.algorithm == "adafactor" and self._path == "foreach":
            return torch.optim.Adafactor, {"foreach": True}
        arguments = {self._path: True}
        if variant.algorithm == "adamw":
            betas = (BETA_1, BETA_2)
            return torch.optim.AdamW, {"betas": betas, "eps": EPSILON, **arguments}
        if variant.algorithm == "sgd":
            return torch.optim.SGD, {"momentum": MOMENTUM, **arguments}
        raise UnsupportedError(f"torch.optim has no {variant.algorithm}, {self._path}")


class ProjectTorch:
    """This project's factory on PyTorch.

    Args:
        options: Options of `build_optimizer`.
    """

    def __init__(self, **options: bool) -> None:
        from optimization import torch as native

        self._factory = native.OptimizerFactory
        self._options = options

    def versions(self) -> dict[str, str]:
        """Returns the versions of the project and of PyTorch."""
        return {"optimizer-factory": optimization.__version__, "torch": torch.__version__}

    def build(self, tensors: Sequence[Parameter], variant: Variant) -> "_Update":
        """Returns the update of these parameters; clips are the optimizer's own."""
        from tools.benchmark.contestants.configs import config

        module = _module(tensors)
        try:
            # In PyTorch the loop accumulates; and torch's own classes alone are fused.
            form = bool(self._options.get("fused"))
            factory = self._factory(config(variant, accumulates=False, torch_form=form))
            optimizer = factory.build_optimizer(module, **self._options)
        except (optimization.ConfigError, ValueError) as error:
            raise UnsupportedError(str(error)) from error
        average = factory.build_ema(module) if variant.ema else None
        return _Update(tensors, module, optimizer, average, variant.accumulation, None)


def _module(tensors: Sequence[Parameter]) -> torch.nn.Module:
    module = torch.nn.Module()
    for tensor in tensors:
        weight = torch.nn.Parameter(torch.tensor(tensor.weights()))
        module.register_parameter(tensor.name, weight)
    return module


def _groups(module: torch.nn.Module, variant: Variant) -> list[dict[str, Any]]:
    groups: dict[float, list] = {}
    for name, weight in module.named_parameters():
        excluded = variant.exclude and any(x in name for x in EXCLUDED)
        groups.setdefault(0.0 if excluded else variant.weight_decay, []).append(weight)
    return [{"params": weights, "weight_decay": decay} for decay, weights in groups.items()]


class _Update:
    def __init__(
        self,
        tensors: Sequence[Parameter],
        module: torch.nn.Module,
        optimizer: torch.optim.Optimizer,
        average: AveragedModel | None,
        accumulation: int,
        clip_norm: float | None,
    ) -> None:
        self._module = module
        self._weights = list(module.parameters())
        self._optimizer = optimizer
        self._average = average
        self._accumulation = accumulation
        self._clip_norm = clip_norm
        self._calls = 0
        self.set_gradients([tensor.gradient() for tensor in tensors])

    def set_gradients(self, gradients: Sequence[np.ndarray]) -> None:
        self._gradients = [torch.tensor(gradient) for gradient in gradients]
        if self._accumulation == 1:
            for weight, gradient in zip(self._weights, self._gradients, strict=True):
                weight.grad = gradient

    @torch.no_grad()
    def run(self, calls: int) -> None:
        for _ in range(calls):
            self._call()

    def _call(self) -> None:
        self._calls += 1
        if self._accumulation > 1:
            self._accumulate()
            if self._calls % self._accumulation:
                return
        if self._clip_norm is not None:
            torch.nn.utils.clip_grad_norm_(self._weights, self._clip_norm, foreach=True)
        self._optimizer.step()
        if self._average is not None:
            self._average.update_parameters(self._module)

    def _accumulate(self) -> None:
        """Adds the gradients of a micro-batch, as backward does for a loss that is divided."""
        share = 1 / self._accumulation
        if self._calls % self._accumulation == 1:
            self._optimizer.zero_grad(set_to_none=True)
            for weight, gradient in zip(self._weights, self._gradients, strict=True):
                weight.grad = gradient * share
        else:
            grads = [weight.grad for weight in self._weights]
            torch._foreach_add_(grads, self._gradients, alpha=share)

    def weights(self) -> list[np.ndarray]:
        return [weight.detach().numpy() for weight in self._weights]

    def averages(self) -> list[np.ndarray] | None:
        if self._average is None:
            return None
        return [weight.detach().numpy() for weight in self._average.module.parameters()]

    def state_bytes(self) -> int:
        values = [v for state in self._optimizer.state.values() for v in state.values()]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        if self._average is not None:
            tensors += self._average.module.parameters()
        if self._accumulation > 1:
            tensors += [weight.grad for weight in self._weights]
        return sum(tensor.nbytes for tensor in tensors)

    def close(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
