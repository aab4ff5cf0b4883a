"""What is saved natively in `golden/saved`, and how it is gone on from."""

import copy
import warnings
from pathlib import Path
from typing import Any

import torch
import torch.distributed.checkpoint.state_dict as dcp

import optimization.torch as native
from optimization import ConfigWarning, OptimizationConfig
from tests.saved_cases import OF_TYPE
from tests.saved_goldens import STEPS, Values, gradients

DTYPES = {None: torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
# The classes by themselves, whose state has their own names and positions.
CLASSES: dict[str, dict[str, Any]] = {
    "ADOPT": {},
    "AdEMAMix": {"alpha_warmup": 5, "beta_3_warmup": 5},
    "Adadelta": {},
    "Adafactor": {"lr": 0.05, "min_dim_size_to_factor": 2, "beta1": 0.9},
    "Adagrad": {},
    "AdamW": {"amsgrad": True},
    "Adamax": {},
    "Ftrl": {},
    "LAMB": {"weight_decay": 0.1},
    "LARS": {"nesterov": True},
    "Lion": {},
    "Muon": {"flatten": True},
    "Prodigy": {"d0": 0.01, "d_coef": 8.0},
    "RAdam": {},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "SOAP": {"precondition_frequency": 2},
    "SGD": {"momentum": 0.9},
    "ScheduleFreeAdamW": {"warmup_steps": 5},
    "ScheduleFreeSGD": {"warmup_steps": 5},
    "StableAdamW": {},
}


class Saved(torch.nn.Module):
    """Parameters with the names, and layers of the types, of the network on Keras' side."""

    def __init__(self):
        super().__init__()
        self.conv = torch.nn.Conv2d(2, 3, 2, bias=False)
        self.layer_0 = torch.nn.Linear(3, 4)
        self.norm = torch.nn.BatchNorm1d(4)
        self.head = torch.nn.Linear(4, 2)


class Run:
    """A model, its optimizer, and what belongs to them.

    Args:
        case: What makes them.
    """

    def __init__(self, case: dict[str, Any]):
        self.case = case
        torch.manual_seed(0)
        self.model = Saved().to(DTYPES[case.get("task", {}).get("dtype")])
        self.scheduler = self.average = None
        if "class" in case:
            self.optimizer = getattr(native, case["class"])(self._groups(), **case["arguments"])
            return
        with warnings.catch_warnings():
            # A warmup of two steps is nearly all of such a training.
            warnings.simplefilter("ignore", ConfigWarning)
            factory = native.OptimizerFactory(OptimizationConfig(case["config"]))
            self.optimizer = factory.build_optimizer(self.model)
            self.scheduler = factory.build_scheduler(self.optimizer)
            if case["config"].get("ema") or factory.config.optimizer.get().use_ema:
                self.average = factory.build_ema(self.model, self.optimizer)

    def _groups(self) -> list[dict[str, Any]]:
        """Returns matrices and vectors, with names or without."""
        named = list(self.model.named_parameters())
        groups = []
        for many in (True, False):
            own = [pair for pair in named if (pair[1].ndim > 1) == many]
            params = own if self.case["named"] else [parameter for _, parameter in own]
            muon = {"use_muon": many} if self.case["class"] == "Muon" else {}
            groups.append({"params": params, **muon})
        return groups

    def take_steps(self, first: int) -> None:
        """Takes the steps from number `first` on, with the gradients of the case."""
        params = list(self.model.parameters())
        for step in range(first, first + STEPS):
            found = gradients([p.shape for p in params], step, self.case)
            for parameter, gradient in zip(params, found, strict=True):
                parameter.grad = None
                if gradient is not None:
                    parameter.grad = torch.tensor(gradient, dtype=parameter.dtype)
            self.optimizer.step()
            if self.average is not None:
                self.average.update_parameters(self.model)
            if self.case.get("follows"):
                self.scheduler.step(1.0 - 0.01 * step)
            elif self.scheduler is not None:
                self.scheduler.step()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Returns all numbers: of the model, the optimizer, its groups, and the average."""
        found: dict[str, Any] = {f"model/{n}": v for n, v in self.model.state_dict().items()}
        names = {parameter: name for name, parameter in self.model.named_parameters()}
        for parameter, state in self.optimizer.state.items():
            for key, value in state.items():
                found[f"optimizer/{key}/{names[parameter]}"] = value
        for number, group in enumerate(self.optimizer.state_dict()["param_groups"]):
            for key, value in group.items():
                kept = int | float | tuple | torch.Tensor
                if isinstance(value, kept) and not isinstance(value, bool):
                    found[f"group {number}/{key}"] = value
        if self.average is not None:
            found |= {f"average/{n}": v for n, v in self.average.state_dict().items()}
        return {name: torch.as_tensor(value) for name, value in found.items()}

    def kinds(self) -> dict[str, tuple[str, list[int]]]:
        """Returns the dtype and the shape of each."""
        return {
            name: (str(tensor.dtype).removeprefix("torch."), list(tensor.shape))
            for name, tensor in self.tensors().items()
        }

    def values(self) -> Values:
        """Returns them in float64."""
        return {name: tensor.double().numpy().copy() for name, tensor in self.tensors().items()}

    def state(self) -> dict[str, Any]:
        """Returns what is saved, each part as its own `state_dict` returns it."""
        parts = {"scheduler": self.scheduler, "average": self.average}
        state = {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **{name: part.state_dict() for name, part in parts.items() if part is not None},
        }
        if "class" not in self.case:  # as distributed checkpoints have it
            state["by_name"] = dcp.get_optimizer_state_dict(self.model, self.optimizer)
        return copy.deepcopy(state)

    def load(self, saved: dict[str, Any], by_name: bool = False) -> None:
        """Loads what was saved, each part by its own `load_state_dict`."""
        if by_name:  # first: torch takes a step to make state, and some steps move at a rate of 0
            dcp.set_optimizer_state_dict(self.model, self.optimizer, saved["by_name"])
        self.model.load_state_dict(saved["model"])
        if not by_name:
            self.optimizer.load_state_dict(saved["optimizer"])
        parts = {"scheduler": self.scheduler, "average": self.average}
        for name, part in parts.items():
            if part is not None:
                part.load_state_dict(saved[name])


def class_cases() -> dict[str, dict[str, Any]]:
    """Returns the cases of the classes by themselves."""
    return {
        f"class {name}{'' if named else ', without names'}": {
            **{"class": name, "arguments": arguments, "named": named},
            **OF_TYPE.get(name.lower(), {}),
        }
        for name, arguments in CLASSES.items()
        for named in (True, False)
    }


def save(case: dict[str, Any], directory: Path) -> tuple[dict[str, Any], dict[str, Values]]:
    """Saves a case; returns what its file has, and the values then and after more steps."""
    run = Run(case)
    run.take_steps(0)
    if case.get("swapped"):
        run.optimizer.eval()
    saved = run.values()
    told = {"variables": run.kinds()}
    torch.save(run.state(), directory / "state.pt")
    if case.get("swapped"):
        run.optimizer.train()
    run.take_steps(STEPS)
    return told, {"saved": saved, "trained": run.values()}
