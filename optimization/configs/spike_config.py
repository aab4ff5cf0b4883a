"""What is done about spikes, gradients or losses far above the recent ones: sections and formulas.

Formulas are over an array namespace: NumPy, `keras.ops` or `jax.numpy`.
"""

from collections.abc import Iterator
from typing import Annotated, Any, ClassVar, Literal

from annotated_types import Ge, Interval, MinLen

from optimization.configs.base import Config
from optimization.configs.fields import field
from optimization.configs.float32 import Float32Config
from optimization.configs.types import Fraction, PositiveFloat, PositiveInt, Share, Unit

Array = Any
Watched = Literal["gradient_norm", "loss"]


class ZClipConfig(Float32Config):
    """Clips a gradient whose norm is an outlier among the running norms (ZClip).

        z = (norm - mean) / (std + epsilon)
        norm <- clip_factor * (mean + z_threshold^2 / z * std)     where z > z_threshold

    The norm is that over all gradients of an update, as `global_clipnorm` has it, before any other
    clip; a `global_clipnorm` or `gradient_clip_norm` beside it bounds what it leaves. Mean and
    variance are those of the first `warmup_steps` norms, in which nothing is clipped here, and from
    then on exponential averages of the norms that this clip leaves.

    >>> ZClipConfig(z_threshold=3.0).decay
    0.97

    Source: Kumar et al. 2025, arXiv:2504.02507. The authors' code divides by the norm + 1e-6.

    Attributes:
        z_threshold: How many standard deviations above the mean a norm may be.
        decay: The share of mean and variance that stays at each update; alpha in the paper.
        mode: What an outlier is clipped to: `reciprocal`, the less the further it is out, as above;
            `mean`, the mean; `threshold`, mean + z_threshold * std, the bound itself.
        clip_factor: Times that, with `reciprocal`.
        warmup_steps: The updates of which the first mean and variance are.
        epsilon: Added to the standard deviation.
        learns_from_spikes: Whether what is left of an outlier moves mean and variance too.
    """

    z_threshold: PositiveFloat = 2.5
    decay: Share = 0.97
    mode: Literal["reciprocal", "mean", "threshold"] = "reciprocal"
    clip_factor: Annotated[float, Interval(gt=0, le=1)] = 1.0
    warmup_steps: Annotated[PositiveInt, Unit("updates")] = 25
    epsilon: PositiveFloat = 1e-6
    learns_from_spikes: bool = True

    SIZE: ClassVar[int] = 4
    """Of what is kept: the norms seen, up to the warmup's, their mean, variance, those clipped."""
    CLIPPED: ClassVar[int] = 3
    """The place of those clipped in it."""

    def check(self) -> Iterator[tuple[str, str]]:
        if self.clip_factor != 1 and self.mode != "reciprocal":
            yield "clip_factor", f"needs `mode: reciprocal`, got mode {self.mode}"

    def clip(self, norm: Array, kept: Array, xp: Any) -> tuple[Array, Array]:
        """Returns the bound on a norm, infinite for none, and what is kept after it."""
        count, mean, variance, clipped = (kept[i] for i in range(self.SIZE))
        warms, std = count < self.warmup_steps, xp.sqrt(variance)
        finite = norm - norm == 0
        z = (norm - mean) / (std + self.epsilon)
        limit = mean + self.z_threshold * std
        if self.mode == "threshold":
            spikes = norm > limit
        else:
            spikes = z > self.z_threshold
            least = xp.where(spikes, z, self.z_threshold)
            shrunk = self.clip_factor * (mean + self.z_threshold**2 / least * std)
            limit = mean if self.mode == "mean" else shrunk
        spikes = xp.logical_and(xp.logical_and(spikes, finite), xp.logical_not(warms))
        left = xp.where(spikes, limit, norm)
        share = xp.where(warms, 1 / (count + 1), 1 - self.decay)
        new_mean = mean + share * (left - mean)
        # The mean of squares around the mean of all, while all count alike.
        square = xp.where(warms, (left - mean) * (left - new_mean), (left - new_mean) ** 2)
        new_variance = variance + share * (square - variance)
        learns = (
            finite if self.learns_from_spikes else xp.logical_and(finite, xp.logical_not(spikes))
        )
        new = [
            xp.where(xp.logical_and(learns, warms), count + 1, count),
            xp.where(learns, new_mean, mean),
            xp.where(learns, new_variance, variance),
            xp.where(spikes, clipped + 1, clipped),
        ]
        return xp.where(spikes, limit, float("inf")), xp.stack(new)


class SkipSpikesConfig(Config):
    """Leaves out an update whose gradient norm or loss is far above the recent ones.

        value > mean + sigma * std        of the last `window` values
        value > their quantile            with `quantile`

    Weights, moments, averages and schedules stay, as with `on_nonfinite: skip`, and the update is
    counted. A value that is NaN or infinite is above everything. Each finite value is one of the
    recent ones of the next updates, those of skipped updates too: a lasting change is soon usual.

    >>> SkipSpikesConfig(sigma=6.0).window
    128

    Source: the skip-step optimizers with which OLMo 2 was trained (arXiv:2501.00656).

    Attributes:
        of: What is looked at: the `gradient_norm`, over all gradients of an update before clips,
            the `loss`, or both, of which one is enough to skip.
        sigma: How many standard deviations above the mean a value may be; None for `quantile`.
        quantile: The quantile of the recent values, interpolated, above which a value is skipped,
            1 for the largest of them; None for `sigma`. One of the two must be set.
        window: How many values are recent.
        warmup_steps: Nothing is skipped before so many values are known; None for half the window.
    """

    of: Annotated[tuple[Watched, ...], MinLen(1)] = ("gradient_norm",)
    sigma: PositiveFloat | None = None
    quantile: Fraction | None = None
    window: Annotated[int, Ge(2), Unit("updates")] = 128
    warmup_steps: Annotated[int, Ge(2), Unit("updates")] | None = field(default=None)

    def check(self) -> Iterator[tuple[str, str]]:
        given = [name for name in ("sigma", "quantile") if getattr(self, name) is not None]
        if len(given) != 1:
            got = " and ".join(given) or "none of them"
            message = f"exactly one of `sigma` and `quantile` must be set, got {got}"
            yield given[-1] if given else "sigma", message
        if len(set(self.of)) < len(self.of):
            yield "of", f"must have each name once, got [{', '.join(self.of)}]"
        if self.warmup_steps is not None and self.warmup_steps > self.window:
            message = f"must be at most `window`, {self.window}, got {self.warmup_steps}"
            yield "warmup_steps", message

    @property
    def size(self) -> int:
        """The length of what is kept of each kind of value: a count, and the recent ones."""
        return 1 + self.window

    def judge(self, value: Array, kept: Array, xp: Any) -> tuple[Array, Array]:
        """Says whether a value is a spike, and returns what is kept after it, the newest last."""
        count, recent = kept[0], kept[1:]
        least = max(self.window // 2, 2) if self.warmup_steps is None else self.warmup_steps
        is_known = xp.arange(self.window, dtype="float32") >= self.window - count
        if self.sigma is not None:
            total = xp.maximum(count, 2.0)
            mean = xp.sum(xp.where(is_known, recent, 0.0)) / total
            squares = xp.sum(xp.where(is_known, (recent - mean) ** 2, 0.0))
            limit = mean + self.sigma * xp.sqrt(squares / (total - 1))
        else:
            limit = self._quantile(recent, is_known, count, xp)
        finite = value - value == 0
        fine = xp.logical_and(finite, value <= limit)
        spikes = xp.logical_and(count >= least, xp.logical_not(fine))
        known = xp.stack([xp.minimum(count + 1, float(self.window))])
        moved = xp.concatenate([known, recent[1:], xp.stack([value])])
        return spikes, xp.where(finite, moved, kept)

    def _quantile(self, recent: Array, is_known: Array, count: Array, xp: Any) -> Array:
        """Returns the quantile of the known ones of recent values, linearly interpolated."""
        places = xp.arange(self.window, dtype="float32")
        ordered = xp.sort(xp.where(is_known, recent, float("inf")))
        position = (self.quantile or 0.0) * xp.maximum(count - 1, 0.0)
        low = xp.floor(position)

        def at(place: Array) -> Array:
            return xp.sum(xp.where(places == place, ordered, 0.0))

        below, rest = at(low), position - low
        above = at(xp.minimum(low + 1, xp.maximum(count - 1, 0.0)))
        return below + rest * (above - below)
