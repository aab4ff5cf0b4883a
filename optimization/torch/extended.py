"""Optimizers of the factory: a class of torch, or of this package, that keeps its hooks."""

import functools
from typing import Any

from torch.optim import Optimizer

from optimization.torch.by_name import load_by_name
from optimization.torch.gradients import GradientRules


class Extended:
    """Gives an optimizer what the factory adds to it, as hooks of torch.

    torch does not keep hooks when an optimizer is copied or pickled; without its clips the copy
    would train otherwise.
    """

    gradient_rules: GradientRules | None = None

    def _install(self) -> None:
        before_loading = self._optimizer_load_state_dict_pre_hooks.values()
        if load_by_name not in before_loading:
            self.register_load_state_dict_pre_hook(load_by_name)
        rules = self.gradient_rules
        if rules is not None and rules not in self._optimizer_step_pre_hooks.values():
            self.register_step_pre_hook(rules)

    def __getstate__(self) -> dict[str, Any]:
        return {**super().__getstate__(), "gradient_rules": self.gradient_rules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        self._install()

    def __reduce__(self) -> tuple:
        return _blank, (type(self).__mro__[2],), self.__getstate__()


@functools.cache
def extended(base: type[Optimizer]) -> type[Optimizer]:
    """Returns the class `base` with what the factory adds, under the same name."""
    names = ("__doc__", "__module__", "__qualname__")
    members = {name: getattr(base, name) for name in names}
    return type(base.__name__, (Extended, base), members)


def build(
    base: type[Optimizer], params: Any, rules: GradientRules | None, **arguments: Any
) -> Optimizer:
    """Returns an optimizer of the class `base` that acts on gradients by `rules` first."""
    optimizer = extended(base)(params, **arguments)
    optimizer.gradient_rules = rules
    optimizer._install()
    return optimizer


def _blank(base: type[Optimizer]) -> Optimizer:
    cls = extended(base)
    return cls.__new__(cls)
