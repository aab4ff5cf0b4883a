"""Schedulers whose rate follows a metric, as the factory builds them."""

from collections.abc import Iterator, Mapping
from typing import Any, ClassVar

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau

from optimization.configs import printing
from optimization.schedules.metric import HfGreedyLrConfig, MetricLrConfig
from optimization.torch.greedy import SETTINGS, GreedyLR
from optimization.torch.resume import STEP, changes, report
from optimization.torch.schedule import set_rate

_OF_OLD_VERSIONS = ("verbose",)  # of torch; it changes nothing


class _Configured(LRScheduler):
    """Has the settings of the config, also where state with others is loaded."""

    settings: ClassVar[tuple[str, ...]] = SETTINGS

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned, or a part of it; the rest stays as it is.

        Raises:
            ValueError: For the state of another scheduler.
        """
        if "num_bad_epochs" not in state_dict and "base_lrs" in state_dict:
            raise ValueError(
                "The loaded state is that of a scheduler that follows the steps; this one follows "
                "a metric. Set the `learning_rate` that was saved, or start without the state."
            )
        own = self.state_dict()
        unknown = [name for name in state_dict if name not in own and name not in _OF_OLD_VERSIONS]
        if unknown:
            raise ValueError(
                f"The loaded state is that of another scheduler than `{type(self).__name__}`, "
                f"which has no {', '.join(map(repr, unknown))}. Set the `learning_rate` that was "
                "saved, or start without the state."
            )
        own = {name: value for name, value in own.items() if name in self.settings}
        report(changes(state_dict, own), "learning_rate")
        super().load_state_dict({**state_dict, **own})


class ConfiguredPlateau(_Configured, ReduceLROnPlateau):
    """torch's scheduler, which keeps the settings of the config when state is loaded."""

    settings = (
        *("mode", "factor", "patience", "threshold", "threshold_mode", "cooldown", "eps"),
        *("min_lrs", "default_min_lr"),
    )

    def __repr__(self) -> str:
        values = {name: value for name, value in vars(self).items() if name in self.settings}
        changed = printing.differing(self, values)
        return printing.call(type(self).__name__, last_lr=self.get_last_lr(), **changed)


class ConfiguredGreedyLR(_Configured, GreedyLR):
    """`GreedyLR`, which keeps the settings of the config when state is loaded."""


def following(config: MetricLrConfig, optimizer: Optimizer, last_epoch: int) -> LRScheduler:
    """Returns the scheduler of a rate that follows a metric.

    Raises:
        ValueError: For a `last_epoch`.
    """
    if last_epoch != -1:
        raise ValueError(
            "Argument `last_epoch` must be -1 for a rate that follows a metric: load the "
            f"scheduler's state, received: last_epoch={last_epoch}"
        )
    settings = config.settings()
    # The rates of groups are multiples of the one that is followed, and so are their bounds.
    for bound in ("min_lr", "max_lr"):
        if bound in settings:
            multipliers = [group.get("lr_multiplier", 1.0) for group in optimizer.param_groups]
            settings[bound] = [settings[bound] * multiplier for multiplier in multipliers]
    if isinstance(config, HfGreedyLrConfig):
        return ConfiguredGreedyLR(optimizer, **settings)
    return ConfiguredPlateau(optimizer, **settings)


def go_on(group: dict[str, Any], saved: Mapping[str, Any]) -> Iterator[str]:
    """Gives a group the rate that was saved, where no scheduler of ours had counted steps.

    Yields:
        What the user should know.
    """
    if saved.get(STEP) is not None or "lr" not in saved:
        return
    ratio = group.get("lr_multiplier", 1.0) / (saved.get("lr_multiplier", 1.0) or 1.0)
    set_rate(group, float(saved["lr"]) * ratio)
    if saved.get("first_lr", group.get("first_lr")) != group.get("first_lr"):
        yield f"the rate follows a metric, and goes on from the saved one ({float(group['lr'])})"
