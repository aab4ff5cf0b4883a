"""Settings by parameter, layer-wise rates, scheduled hyperparameters, scaling by batch size."""

import math
from collections.abc import Iterator, Sequence
from typing import Annotated, ClassVar, Literal

from annotated_types import Interval

from optimization.configs.base import Config
from optimization.configs.expressions import compiled
from optimization.configs.fields import Section, Steps, field
from optimization.configs.float32 import Float32Config
from optimization.configs.matcher_config import Dimensions, MatcherConfig
from optimization.configs.optimizer_config import OptimizerConfig
from optimization.configs.types import (
    Check,
    FirstSteps,
    Fraction,
    NonNegativeFloat,
    PositiveInt,
    Regex,
    Unit,
)
from optimization.matching.patterns import find, nearest
from optimization.matching.rules import MATCHERS
from optimization.rules.base import CLIPS
from optimization.schedules import LrConfig, WarmupConfig

Examples = Annotated[PositiveInt, Unit("examples")]
SCALED: tuple[Literal["peak", "floor", "warmup_start"], ...] = ("peak", "floor", "warmup_start")
"""What `lr_scaling` scales unless it says otherwise: everything."""


def _one_group(pattern: str) -> str:
    groups = compiled(pattern).groups
    if groups != 1:
        expected = "must have one group, the number of the block"
        raise ValueError(f"{expected}, got {groups} in {pattern!r}")
    return pattern


class ParamGroupConfig(MatcherConfig, Float32Config):
    """Gives the variables that it matches settings of their own.

    The first rule that matches a variable wins.

    Exactly one of `match`, `layer_type` and `ndim` says which. A rule that matches no variable is
    an error when the optimizer meets its variables.

    Attributes:
        match: A regular expression, searched for in the variable's path.
        layer_type: The class of the layer that has the variable, such as `LayerNormalization`; the
            optimizer must be given the model.
        ndim: The numbers of dimensions, such as [0, 1] for biases and the like.
        name: What to call the group in tables and summaries; None for the matcher.
        learning_rate_multiplier: Times the learning rate, that of the group if it has one.
        learning_rate: A learning rate of the group's own; `type` None for that of all.
        warmup: The warmup of the group's own learning rate.
        weight_decay: In place of the optimizer's; None for the optimizer's.
        optimizer: An optimizer of the group's own; `type` None for that of all. What belongs to
            the whole step (accumulation, the finite check, ...) is set on the optimizer of all.
        freeze: Whether the variables stay as they are.
        freeze_steps: The optimizer steps for which the variables stay as they are, with all that
            the optimizer keeps of them, and have no part in norms. Then they train as variables
            do at first, at the learning rate of that step; the counts of their moments start there.
        clipnorm: The gradient of each variable of the group is scaled down to this L2 norm. A
            group that has a clip of its own has no part in those of all, `gradient_clip_norm`
            among them: neither do these act on it, nor do its gradients count in their norms. At
            most one of the four kinds of clip may be set; 0 is no clip, None that of all.
        clipvalue: Each component of the group's gradients is clipped to [-clipvalue, clipvalue].
        global_clipnorm: All gradients of the group are scaled by one factor, so that the L2 norm
            over all of them together is at most this.
        adaptive_clip_factor: The gradient of each unit of the group is scaled down to this times
            the norm of the unit's weights, as the optimizer's field of that name has it.
    """

    _LEFT_OUT: ClassVar[tuple[str, ...]] = (*CLIPS, "freeze_steps")

    match: Regex | None = None
    layer_type: str | None = None
    ndim: Dimensions | None = None
    name: str | None = None
    learning_rate_multiplier: NonNegativeFloat = 1.0
    learning_rate: Section[LrConfig] = field(default_factory=LrConfig)
    warmup: Section[WarmupConfig] = field(default_factory=WarmupConfig)
    weight_decay: NonNegativeFloat | None = None
    optimizer: Section[OptimizerConfig] = field(default_factory=OptimizerConfig)
    freeze: bool = False
    freeze_steps: Steps[FirstSteps] = field(default=0)
    clipnorm: NonNegativeFloat | None = None
    clipvalue: NonNegativeFloat | None = None
    global_clipnorm: NonNegativeFloat | None = None
    adaptive_clip_factor: NonNegativeFloat | None = None

    def own_clip(self) -> tuple[str, float] | None:
        """Returns the kind of the group's own clip, and its bound, 0 for none; None for no own."""
        found = [(name, getattr(self, name)) for name in CLIPS]
        return next(((name, bound) for name, bound in found if bound is not None), None)

    def check(self) -> Iterator[tuple[str, str]]:
        yield from super().check()
        if self.warmup.type is not None and self.learning_rate.type is None:
            yield "warmup", "needs a `learning_rate` of the group's own"
        clips = [name for name in CLIPS if getattr(self, name) is not None]
        if len(clips) > 1:
            message = f"at most one kind of clip may be set, got {' and '.join(clips)}"
            yield clips[-1], f"{message}; set the others to null"
        # By values, not by what was written: an export writes defaults too.
        if self.freeze:
            changed = {name for name, _ in self._changed()}
            if changed - {*MATCHERS, "freeze", "name"}:
                yield "freeze", "a frozen group has no other settings: nothing is updated"
        section = self.optimizer.get()
        if section is not None:
            changed = {name for name, _ in section._changed()}
            shared = [name for name in section.pipeline_fields() if name in changed]
            if shared:
                message = f"`{shared[0]}` belongs to the whole step: set it on the optimizer of all"
                if shared[0] in CLIPS:
                    message += ", or beside this `optimizer` for a clip of the group's own"
                yield "optimizer", message


class LayerDecayConfig(Config):
    """Lowers the learning rate from the head of a network to its first layers, for fine-tuning.

    A variable of layer l, of L = (number of the last block) + 2, has the multiplier

        multiplier = max(rate^(L - l), min_multiplier)

    A variable in whose path `depth` is found is of layer (number of its block) + 1, one that comes
    before the first of these of layer 0, any other of layer L: the head.

    Source: Clark et al. 2020, arXiv:2003.10555; layers are numbered as in BEiT and timm.

    Attributes:
        rate: In (0, 1].
        depth: A regular expression whose one group is the number of the block in a path. Blocks
            that are not trained count.
        min_multiplier: The least multiplier.
        with_last_block: A regular expression for variables behind the blocks that count as of
            the last one, such as the last norm, as in timm; None for none.
    """

    _MAIN: ClassVar[str] = "rate"

    rate: Annotated[float, Interval(gt=0, le=1)] = 0.75
    depth: Annotated[Regex, Check(_one_group)] = r"layer_(\d+)/"
    min_multiplier: Fraction = 0.0
    with_last_block: Regex | None = None

    def multipliers(self, paths: Sequence[str]) -> list[tuple[int, float]]:
        """Returns the layer and the multiplier of each variable.

        Raises:
            ValueError: If an expression is found in no path, or `depth` finds what is no number.
        """
        blocks = [self._block(path) for path in paths]
        inside = [index for index, block in enumerate(blocks) if block is not None]
        last = self.with_last_block
        late = [last is not None and find(last, path) is not None for path in paths]
        for name, found in (("depth", bool(inside)), ("with_last_block", not last or any(late))):
            if not found:
                pattern = getattr(self, name)
                raise ValueError(
                    f"Argument `{name}` of layer_decay matches no trainable variable: {pattern!r} "
                    f"(nearest: {nearest(pattern, paths)})"
                )
        top = max(block for block in blocks if block is not None) + 2
        layers = [0 if index < inside[0] else top for index in range(len(paths))]
        for index, block in enumerate(blocks):
            if block is not None:
                layers[index] = block + 1
            elif late[index]:
                layers[index] = top - 1
        return [(layer, max(self.rate ** (top - layer), self.min_multiplier)) for layer in layers]

    def _block(self, path: str) -> int | None:
        found = find(self.depth, path)
        if found is None:
            return None
        try:
            return int(found[1])
        except (TypeError, ValueError):
            raise ValueError(
                f"Argument `depth` of layer_decay must find a number, received: depth="
                f"{self.depth!r}, which finds {found[1]!r} in {path!r}"
            ) from None


class LrScalingConfig(Config):
    """Scales the learning rate with the batch size.

        lr <- lr * global_batch_size / base_batch_size              rule `linear`
        lr <- lr * sqrt(global_batch_size / base_batch_size)        rule `sqrt`

    The factor is on the whole curve, the warmup included, as in Model Garden, in Swin's code and
    where a rate is written for one batch. timm, DeiT, MAE and DINOv2 scale the peak alone: write
    `scales: [peak]`.

    Source: `linear`: Goyal et al. 2017, arXiv:1706.02677; `sqrt`: Krizhevsky 2014, arXiv:1404.5997.

    Attributes:
        rule: The rate is multiplied by global_batch_size / base_batch_size with `linear`, and by
            the root of that with `sqrt`.
        base_batch_size: The batch for which the learning rate is written.
        global_batch_size: The batch over all replicas, and over all accumulated gradients; None
            for what the trainer, or the caller of the factory, says.
        scales: What is scaled: the `peak`, with all that is a share of it; the `floor`, rates to
            which a decay comes down (`min_learning_rate`, `end_learning_rate`, `min_lr`,
            `lr_end`); the `warmup_start`, `warmup_learning_rate`. What is left out stays as it is
            written.
    """

    rule: Literal["linear", "sqrt"] = "linear"
    base_batch_size: Examples = 256
    global_batch_size: Examples | None = None
    scales: tuple[Literal["peak", "floor", "warmup_start"], ...] = SCALED

    def check(self) -> Iterator[tuple[str, str]]:
        if "peak" not in self.scales:
            yield "scales", f"must have 'peak', without which nothing is scaled, got {self._said()}"
        elif len(set(self.scales)) < len(self.scales):
            yield "scales", f"must have each name once, got {self._said()}"

    def _said(self) -> str:
        return f"[{', '.join(self.scales)}]"

    def kept(self) -> tuple[str, ...]:
        """Returns what stays as it is written, of the peak, the floor and the warmup's start."""
        return tuple(name for name in SCALED if name not in self.scales)

    def factor(self) -> float:
        """Returns the factor.

        Raises:
            ValueError: If `global_batch_size` is not set.
        """
        if self.global_batch_size is None:
            raise ValueError("`global_batch_size` is not set")
        ratio = self.global_batch_size / self.base_batch_size
        return ratio if self.rule == "linear" else math.sqrt(ratio)
