"""`configure_optimizers` of a LightningModule from a config, in one line."""

import math
from typing import Any

from optimization.configs.errors import Problem, warn
from optimization.configs.optimization_config import OptimizationConfig
from optimization.rules.base import ALL_CLIPS
from optimization.schedules.metric import MetricLrConfig
from optimization.torch.factory import OptimizerFactory


def configure_optimizers(
    module: Any, config: OptimizationConfig, **lengths: int | None
) -> dict[str, Any]:
    """Returns what `configure_optimizers` of a LightningModule has to return.

    The schedule counts optimizer steps; its length is the trainer's `estimated_stepping_batches`.
    A learning rate that follows a metric is stepped after each epoch, by what the module logs as
    `val_` and the config's `metric`. Groups have their names for `LearningRateMonitor`.

    >>> import types
    >>> module = torch.nn.Linear(3, 1)  # a LightningModule, which has a trainer
    >>> trainer = {"estimated_stepping_batches": 10, "gradient_clip_val": None}
    >>> module.trainer = types.SimpleNamespace(**trainer)
    >>> linear = {"type": "linear", "linear": {"initial_learning_rate": 0.5}}
    >>> config = OptimizationConfig({"optimizer": {"type": "lion"}, "learning_rate": linear})
    >>> configure_optimizers(module, config)["lr_scheduler"]["interval"]
    'step'

    Args:
        module: The LightningModule, whose parameters are trained.
        config: What to build.
        **lengths: `steps_per_epoch`, `global_batch_size` and `tokens_per_step`, as
            `OptimizerFactory` has them, and `train_steps` where it is not the trainer's.

    Raises:
        ConfigError: As `OptimizerFactory` does.
    """
    steps = module.trainer.estimated_stepping_batches
    known = {"train_steps": int(steps)} if math.isfinite(steps) and steps > 0 else {}
    factory = OptimizerFactory(config, **{**known, **lengths})
    clips = _clips(factory.config)
    if module.trainer.gradient_clip_val and clips:
        message = "clips the gradient that `gradient_clip_val` of the trainer has clipped before"
        warn(Problem("clipped-twice", clips[0], message))
    optimizer = factory.build_optimizer(module)
    for group in optimizer.param_groups:
        group["name"] = group["group_name"]
    scheduler = {"scheduler": factory.build_scheduler(optimizer), "interval": "step"}
    rate = factory.config.learning_rate.get()
    if isinstance(rate, MetricLrConfig):
        scheduler |= {"interval": "epoch", "monitor": f"val_{rate.metric}"}
        scheduler["reduce_on_plateau"] = True  # which Lightning knows of torch's class alone
    return {"optimizer": optimizer, "lr_scheduler": scheduler}


def _clips(config: OptimizationConfig) -> list[str]:
    """Returns the paths of what clips: fields of the optimizer, `zclip`, and clips of groups."""
    section, kind = config.optimizer.get(), config.optimizer.type
    found = [f"optimizer.{kind}.{name}" for name in ALL_CLIPS if getattr(section, name, None)]
    found += [] if config.zclip is None else ["zclip"]
    for index, group in enumerate(config.param_groups):
        name, bound = group.own_clip() or ("", 0.0)
        found += [f"param_groups[{index}].{name}"] if bound else []
    return found
