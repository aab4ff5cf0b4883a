"""The step sizes that optimizers of PyTorch estimate, to be looked at."""

from torch.optim import Optimizer

from optimization.matching.rules import DEFAULT
from optimization.torch.summed import Summed


def estimated_step_sizes(optimizer: Optimizer) -> dict[str, float]:
    """Returns the step sizes that an optimizer estimates by itself, as Prodigy does its d.

    >>> estimated_step_sizes(Prodigy([torch.nn.Parameter(torch.ones(2))], lr=1.0))
    {'default': 1e-06}

    Args:
        optimizer: A class of this package, or what `build_optimizer` returned.

    Returns:
        Estimates by the name of the group whose optimizer has it, "default" for that of all; empty
        where no optimizer estimates.
    """
    parts = getattr(optimizer, "parts", {DEFAULT: optimizer})
    return {
        name: float(part.param_groups[0][slot.native])
        for name, part in parts.items()
        if isinstance(part, Summed)
        for slot in part.rule.shared
        if slot.name == part.rule.estimate
    }
