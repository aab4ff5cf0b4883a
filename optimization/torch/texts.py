"""How optimizers and schedulers of PyTorch print: with their groups by name."""

import inspect
from collections.abc import Mapping
from typing import Any

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from optimization.configs.printing import call, differing
from optimization.matching.rules import DEFAULT
from optimization.torch.resume import OWN, RATES

_NO_SETTINGS = (*OWN, *RATES, "lr", "lr_multiplier")


def optimizer_text(optimizer: Optimizer) -> str:
    """Returns the class with what differs from its defaults, and a line for each group."""
    lines = [_class_text(optimizer)]
    factory = getattr(optimizer, "factory", None)
    highest = {} if factory is None else factory.highest_rates()
    rows = [_row(optimizer, number, highest) for number in range(len(optimizer.param_groups))]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        cells = [cell.ljust(width) for cell, width in zip(row, widths, strict=True)]
        lines.append("  " + "  ".join(cells).rstrip())
    return "\n".join(lines)


def _class_text(optimizer: Optimizer) -> str:
    parts: Mapping[str, Optimizer] = getattr(optimizer, "parts", {})
    if parts:
        texts = ", ".join(f"{name}={_class_text(part)}" for name, part in parts.items())
        return f"{type(optimizer).__name__}({texts})"
    usual = inspect.signature(type(optimizer).__init__).parameters
    settings = {name: v for name, v in optimizer.defaults.items() if name in usual and name != "lr"}
    return call(type(optimizer).__name__, **differing(optimizer, settings))


def _row(optimizer: Optimizer, number: int, highest: Mapping[str, float]) -> tuple[str, ...]:
    group = optimizer.param_groups[number]
    count, size = len(group["params"]), sum(p.numel() for p in group["params"])
    multiplier = group.get("lr_multiplier", 1.0)
    usual = getattr(optimizer, "updater_of", lambda group: optimizer)(group).defaults
    settings = {
        name: value
        for name, value in group.items()
        if name not in _NO_SETTINGS and value != usual.get(name, value)
    }
    own = [f"lr_multiplier={multiplier:.4g}"] if multiplier != 1 else []
    own += [f"{name}={value}" for name, value in settings.items()]
    return (
        f"{group.get('group_name', f'group {number}')}:",
        f"{count} parameter{'' if count == 1 else 's'},",
        f"{size:,} number{'' if size == 1 else 's'},",
        f"lr {_rate_text(group, highest.get(group.get('rule', '')))}",
        ", ".join(own),
    )


def _rate_text(group: Mapping[str, Any], highest: float | None) -> str:
    if group["lr"] is None:
        return "of its own"
    now = f"{float(group['lr']):.4g}"
    if highest is None:
        return now
    highest *= group["lr_multiplier"]
    is_below = highest > float(group["lr"]) and f"{highest:.4g}" != now
    return f"{now} now, up to {highest:.4g}" if is_below else now


def rates_text(scheduler: LRScheduler) -> str:
    """Returns a scheduler as its class, the steps done, and the rate of each group."""
    groups = enumerate(scheduler.optimizer.param_groups)
    rates = {g.get("group_name", f"group {number}"): float(g["lr"]) for number, g in groups}
    alone = list(rates) in ([DEFAULT], ["group 0"])
    shown = next(iter(rates.values())) if alone else rates
    return call(type(scheduler).__name__, last_epoch=scheduler.last_epoch, lr=shown)
