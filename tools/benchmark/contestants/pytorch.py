"""torch.optim's optimizers, and this project's on PyTorch."""

import importlib
import importlib.metadata
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

import optimization
from tools.benchmark.contestants import UnsupportedError
from tools.benchmark.lists import Parameter
from tools.benchmark.variants import (
    ACCUMULATOR,
    ADOPT_BETA_2,
    BETA_1,
    BETA_2,
    CLIP_NORM,
    EMA_DECAY,
    EPSILON,
    EXCLUDED,
    LION_BETA_2,
    MOMENTUM,
    MOMENTUM_DECAY,
    MUON_MOMENTUM,
    PRODIGY_FACTOR,
    PRODIGY_START,
    RHO,
    SLOW_ALPHA,
    SLOW_BETA,
    SOAP_BETA,
    SOAP_FREQUENCY,
    TRUST_COEFFICIENT,
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
        module = _module(tensors)
        optimizer = self._built(module, variant)
        if hasattr(optimizer, "train"):  # a schedule-free one
            optimizer.train()
        average = None
        if variant.ema:
            average = AveragedModel(module, multi_avg_fn=get_ema_multi_avg_fn(EMA_DECAY))
        clip_norm = CLIP_NORM if variant.clip else None
        return _Update(tensors, module, optimizer, average, variant.accumulation, clip_norm)

    def _built(self, module: torch.nn.Module, variant: Variant) -> torch.optim.Optimizer:
        cls, arguments = self._optimizer(variant)
        return cls(_groups(module, variant), variant.learning_rate, **arguments)

    def _optimizer(self, variant: Variant) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        path = {self._path: True}
        kinds = {**_CLASSES, "adafactor": ("Adafactor", {})}
        name, arguments = kinds.get(variant.algorithm, ("", {}))
        cls = getattr(torch.optim, name, None)
        if cls is None or (self._path == "fused" and name not in _FUSED):
            raise UnsupportedError(f"torch.optim has no {variant.algorithm}, {self._path}")
        return cls, {**arguments, **path}


_BETAS = {"betas": (BETA_1, BETA_2), "eps": EPSILON}
_FUSED = ("AdamW", "SGD", "Adagrad")
_CLASSES: dict[str, tuple[str, dict[str, Any]]] = {
    "adamw": ("AdamW", _BETAS),
    "sgd": ("SGD", {"momentum": MOMENTUM}),
    "nadam": ("NAdam", {**_BETAS, "momentum_decay": MOMENTUM_DECAY}),
    "adamax": ("Adamax", _BETAS),
    "adagrad": ("Adagrad", {"initial_accumulator_value": ACCUMULATOR, "eps": EPSILON}),
    "rmsprop": ("RMSprop", {"alpha": RHO, "eps": EPSILON}),
    "radam": ("RAdam", _BETAS),
}
_PRODIGY = {**_BETAS, "d0": PRODIGY_START, "d_coef": PRODIGY_FACTOR}
_OF_PACKAGES: dict[str, dict[str, tuple[str, dict[str, Any]]]] = {
    "timm": {
        "lamb": ("Lamb", {**_BETAS, "max_grad_norm": None, "always_adapt": True}),
        "lars": (
            "Lars",
            {"momentum": MOMENTUM, "trust_coeff": TRUST_COEFFICIENT, "always_adapt": True},
        ),
        "lion": ("Lion", {"betas": (BETA_1, LION_BETA_2)}),
        "adafactor": ("Adafactor", {"scale_parameter": True}),
    },
    "pytorch_optimizer": {
        "lamb": ("Lamb", {**_BETAS, "max_grad_norm": 0.0}),
        "lars": ("LARS", {"momentum": MOMENTUM, "trust_coefficient": TRUST_COEFFICIENT}),
        "lion": ("Lion", {"betas": (BETA_1, LION_BETA_2)}),
        "adafactor": ("AdaFactor", {"betas": (None, BETA_2), "relative_step": False}),
        "adamax": ("AdaMax", _BETAS),
        "ademamix": (
            "AdEMAMix",
            {"betas": (BETA_1, BETA_2, SLOW_BETA), "alpha": SLOW_ALPHA, "eps": EPSILON},
        ),
        "adopt": ("ADOPT", {"betas": (BETA_1, ADOPT_BETA_2), "eps": EPSILON}),
        "stable_adamw": ("StableAdamW", {**_BETAS, "kahan_sum": False}),
        "prodigy": ("Prodigy", {**_PRODIGY, "bias_correction": True}),
        "soap": (
            "SOAP",
            {
                **{"betas": (SOAP_BETA, SOAP_BETA), "eps": EPSILON},
                "precondition_frequency": SOAP_FREQUENCY,
            },
        ),
    },
    "prodigyopt": {"prodigy": ("Prodigy", {**_PRODIGY, "use_bias_correction": True})},
    "schedulefree": {"schedule_free_adamw": ("AdamWScheduleFree", {**_BETAS, "foreach": True})},
}


class Package(Torch):
    """The optimizers of a package for PyTorch.

    Args:
        name: `timm`, `pytorch_optimizer`, `prodigyopt` or `schedulefree`.
    """

    def __init__(self, name: str) -> None:
        super().__init__("foreach")
        self._name = name
        self._module = importlib.import_module({"timm": "timm.optim"}.get(name, name))

    def versions(self) -> dict[str, str]:
        """Returns the versions of the package and of PyTorch."""
        return {self._name: importlib.metadata.version(self._name), **super().versions()}

    def _optimizer(self, variant: Variant) -> tuple[type[torch.optim.Optimizer], dict[str, Any]]:
        found = _OF_PACKAGES[self._name].get(variant.algorithm)
        if found is None:
            raise UnsupportedError(f"{self._name} has no {variant.algorithm} that torch has not")
        return getattr(self._module, found[0]), found[1]


class TorchMuon(Torch):
    """torch.optim.Muon for matrices, and AdamW for all else."""

    def __init__(self) -> None:
        super().__init__("fused")

    def _built(self, module: torch.nn.Module, variant: Variant) -> torch.optim.Optimizer:
        if variant.algorithm != "muon":
            raise UnsupportedError(f"torch.optim.Muon has no {variant.algorithm}")
        return _MuonAndAdamW(list(module.parameters()), variant.learning_rate)


class _MuonAndAdamW(torch.optim.Optimizer):
    """Both in turn, as one."""

    def __init__(self, weights: list[torch.nn.Parameter], rate: float) -> None:
        super().__init__(weights, {"lr": rate})
        self._both = [
            torch.optim.Muon(
                [w for w in weights if w.ndim == 2],
                rate,
                weight_decay=0.0,
                momentum=MUON_MOMENTUM,
                nesterov=False,
                adjust_lr_fn="match_rms_adamw",
            ),
            torch.optim.AdamW(
                [w for w in weights if w.ndim != 2], rate, weight_decay=0.0, fused=True, **_BETAS
            ),
        ]

    def step(self, closure: Any = None) -> None:
        """Takes a step of each."""
        for optimizer in self._both:
            optimizer.step()
        self.state = {w: state for each in self._both for w, state in each.state.items()}


class ProjectTorch:
    """This project's factory on PyTorch."""

    def __init__(self) -> None:
        from optimization import torch as native

        self._factory = native.OptimizerFactory

    def versions(self) -> dict[str, str]:
        """Returns the versions of the project and of PyTorch."""
        return {"optimizer-factory": optimization.__version__, "torch": torch.__version__}

    def build(self, tensors: Sequence[Parameter], variant: Variant) -> "_Update":
        """Returns the update of these parameters; clips are the optimizer's own."""
        from tools.benchmark.contestants.configs import config

        module = _module(tensors)
        try:
            # In PyTorch the loop accumulates.
            factory = self._factory(config(variant, accumulates=False, native=True))
            optimizer = factory.build_optimizer(module)
        except (optimization.ConfigError, ValueError) as error:
            raise UnsupportedError(str(error)) from error
        average = factory.build_ema(module, optimizer, in_step=True) if variant.ema else None
        update = _Update(tensors, module, optimizer, None, variant.accumulation, None)
        update.kept_average = average
        return update


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
        self.kept_average: AveragedModel | None = None  # one that the optimizer moves
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
        average = self._average or self.kept_average
        return None if average is None else [w.detach().numpy() for w in average.parameters()]

    def state_bytes(self) -> int:
        values = [v for state in self._optimizer.state.values() for v in state.values()]
        tensors = [value for value in values if isinstance(value, torch.Tensor)]
        average = self._average or self.kept_average
        if average is not None:
            tensors += average.parameters()
        if self._accumulation > 1:
            tensors += [weight.grad for weight in self._weights]
        return sum(tensor.nbytes for tensor in tensors)

    def close(self) -> None:
        self._optimizer.zero_grad(set_to_none=True)
