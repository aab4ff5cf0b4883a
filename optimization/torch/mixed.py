"""An optimizer of PyTorch whose groups have algorithms of their own."""

import builtins
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.optim import Optimizer

from optimization.matching.rules import DEFAULT
from optimization.torch.extended import extended, without_hooks
from optimization.torch.masters import ExactState
from optimization.torch.resume import TYPE
from optimization.torch.schedule_free import ScheduleFree, check_training

_OF_PARTS = ("master_weights", "precision")  # each part has its own


class Algorithm(NamedTuple):
    """What updates the groups of a rule: its type in a config, its class, and arguments of that."""

    type: str
    cls: "builtins.type[Optimizer]"
    arguments: Mapping[str, Any]


class MixedOptimizer(ExactState, Optimizer):
    """Updates each group by the algorithm of its rule: SGD for the body, Lion for the head.

    Each algorithm is an optimizer in `parts`, which has its groups and the state in common with
    this one, and updates them exactly as it does alone. All else acts on the whole: hooks, clips,
    schedulers, `state_dict`, `zero_grad`.

    A group that is added by hand says with `rule`, or with `optimizer_type`, which algorithm
    updates it; without both that is the algorithm of "default".

    >>> sgd, lion = Algorithm("sgd", torch.optim.SGD, {}), Algorithm("lion", Lion, {})
    >>> body, head = torch.nn.Parameter(torch.ones(2)), torch.nn.Parameter(torch.ones(2))
    >>> groups = [{"params": [body], "lr": 0.5}, {"params": [head], "lr": 0.1, "rule": "head"}]
    >>> optimizer = MixedOptimizer(groups, {"default": sgd, "head": lion})
    >>> [type(part).__name__ for part in optimizer.parts.values()]
    ['SGD', 'Lion']

    Args:
        params: Groups, each with the name of its `rule`.
        algorithms: By the name of a rule, its algorithm; that of "default" updates the groups of
            all rules that have none.

    Attributes:
        parts: The optimizers that update groups, by the name of the rule.
    """

    def __init__(self, params: Any, algorithms: Mapping[str, Algorithm]):
        self.algorithms = dict(algorithms)
        super().__init__(params, {})
        self.parts: dict[str, Any] = {}
        for label, groups in self._groups_by_rule().items():
            self._make_part(label, groups)

    def _make_part(self, label: str, groups: list[dict[str, Any]]) -> None:
        algorithm = self.algorithms[label]
        part = extended(algorithm.cls)(groups, **algorithm.arguments)
        part.master_weights, part.precision = self.master_weights, self.precision
        self.state.update(part.state)  # of classes that make it at once
        part.state = self.state
        self.parts[label] = part

    def _groups_by_rule(self) -> dict[str, list[dict[str, Any]]]:
        found: dict[str, list[dict[str, Any]]] = {}
        for group in self.param_groups:
            found.setdefault(self._label_of(group), []).append(group)
        return found

    def _label_of(self, group: Mapping[str, Any]) -> str:
        label = group.get("rule")
        return label if label in self.algorithms else DEFAULT

    def updater_of(self, group: Mapping[str, Any]) -> Any:
        return self.parts[self._label_of(group)]

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as torch does, to the algorithm that it names."""
        super().add_param_group(param_group)
        if "parts" not in self.__dict__:  # which are made of all groups at once
            return
        try:
            self._name_algorithm(param_group)
            label = self._label_of(param_group)
            if label in self.parts:
                self.parts[label].add_param_group(param_group)
            else:
                self._make_part(label, [param_group])
        except Exception:
            self.param_groups.pop()
            raise

    def _name_algorithm(self, group: dict[str, Any]) -> None:
        kind = group.get(TYPE)
        if "rule" not in group and kind is not None:
            labels = [label for label, each in self.algorithms.items() if each.type == kind]
            if labels:
                group["rule"] = labels[0]
        own = self.algorithms[self._label_of(group)].type
        if group.setdefault(TYPE, own) != own:
            having = ", ".join(f"{each.type} ({name})" for name, each in self.algorithms.items())
            raise ValueError(
                f"Argument `{TYPE}` must be the type of the group's rule, received: {kind!r}; "
                f"these are there: {having}"
            )

    @property
    def master_weights(self) -> bool:
        return all(part.master_weights for part in self.__dict__.get("parts", {}).values())

    @master_weights.setter
    def master_weights(self, value: bool) -> None:
        for part in self.parts.values():
            part.master_weights = value

    @property
    def precision(self) -> Any:
        return next((part.precision for part in self.__dict__.get("parts", {}).values()), None)

    @precision.setter
    def precision(self, value: Any) -> None:
        for part in self.parts.values():
            part.precision = value

    # torch.compile would take a group for that at its place in `param_groups`, which is another one
    # in a part: the parts' steps are compiled, each by itself.
    @torch.compiler.disable(recursive=False)
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step, as other optimizers do."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        check_training(self.param_groups)
        for part in self.parts.values():
            without_hooks(type(part).step)(part)
        return loss

    def eval(self) -> None:
        """Has the parameters of schedule-free parts hold x, for evaluation; others stay."""
        for part in self.parts.values():
            if isinstance(part, ScheduleFree):
                part.eval()

    def train(self) -> None:
        """Has the parameters of schedule-free parts hold y, for training; others stay."""
        for part in self.parts.values():
            if isinstance(part, ScheduleFree):
                part.train()

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "algorithms": self.algorithms, "parts": self.parts}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__({k: v for k, v in state.items() if k not in _OF_PARTS})
        if "parts" in state:  # of a copy, whose parts are copies that share what these do
            return
        for label, groups in self._groups_by_rule().items():
            part, params = self.parts[label], [p for group in groups for p in group["params"]]
            states: dict[Tensor, Any] = {p: self.state[p] for p in params if p in self.state}
            part.__setstate__({"state": states, "param_groups": groups})
            part.state = self.state
