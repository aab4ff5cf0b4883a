"""The formula of Adafactor, whose switches are the fields of `adafactor`."""

import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from optimization.matching.patterns import matches_any
from optimization.rules.base import SUMS_OF_SQUARES
from optimization.rules.layerwise import LayerwiseRule
from optimization.rules.rule import Numbers, Slot, given
from optimization.schedules.decays import RelativeStepLrConfig


def _means(name: str, plural: str, native: str, axis: int) -> Slot:
    """Returns the slot of the means over the factored axis d0 or d1, which has all other axes."""

    def shape(shape: Sequence[int], h: Any) -> Sequence[int]:
        return (*shape[: h.axes[axis]], *shape[h.axes[axis] + 1 :])

    return Slot(name, plural, native, when=lambda h: h.axes is not None, shape=shape)


class AdafactorFormula(LayerwiseRule):
    """Adafactor (Shazeer and Stern 2018, arXiv:1804.04235), its memory factored for real.

    A factored variable has row and column means, and nothing of its own size, unless there is a
    momentum. All state is float32 at least. The first second moment is the first square, so that
    nothing has to be corrected.
    """

    largest_gradient = SUMS_OF_SQUARES
    slots = (
        _means("row", "rows", "exp_avg_sq_row", 0),
        _means("column", "columns", "exp_avg_sq_col", 1),
        Slot("velocity", "velocities", "exp_avg_sq", when=lambda h: h.axes is None),
        Slot("momentum", "momentums", "exp_avg", 0.0, 1, lambda h: h.beta1 is not None),
        Slot(
            *("count", "counts", "", 0.0, 2),
            when=lambda h: h.step_count == "per_parameter",
            shape=lambda shape, h: (),
            dtype="int",
        ),
    )

    def switched(self, h: Numbers) -> Numbers:
        """Returns the numbers by the names of the switches."""
        return h

    def decay_before(self, h: Numbers) -> float:
        return 0.0

    def decays(self, path: str) -> bool:
        included = getattr(self, "include_in_weight_decay", None)
        return included is None or matches_any(path, included)

    @property
    def is_relative_to_weights(self) -> bool:
        """Whether steps are in proportion to the weights."""
        return self._switch("multiply_by_parameter_scale")

    def _switch(self, name: str) -> Any:
        return self.variable_settings.get(name, getattr(self, name, None))

    def settings(self, path: str, shape: Sequence[int]) -> dict[str, Any]:
        names = ("factored", "factored_axes", "min_dim_size_to_factor")
        return self.shape_settings(shape, {name: self._switch(name) for name in names})

    def shape_settings(self, shape: Sequence[int], group: Mapping[str, Any]) -> dict[str, Any]:
        names = ("factored_axes", "min_dim_size_to_factor")
        axes = axes_to_factor(tuple(shape), *(group[name] for name in names))
        return {"axes": axes if group["factored"] else None}

    def averaged_axes(self, h: Numbers) -> Sequence[int]:
        return h.axes or ()

    def norms_of(self, h: Numbers) -> list[str]:
        h = self.switched(h)
        wanted = {"w": h.multiply_by_parameter_scale, "u": h.clipping_threshold is not None}
        return [name for name, is_wanted in wanted.items() if is_wanted]

    def move(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> None:
        h = self.switched(h)
        steps = _next_step(s, h, g, xp, h.step_offset)
        share = xp.maximum(steps, 1.0) ** -h.decay_rate
        if h.beta_2_cap is not None:
            share = xp.maximum(share, 1 - h.beta_2_cap)
        added = 0.0 if h.epsilon1_mode == "clamp" else h.epsilon1
        most = self._largest_square(g, xp)
        # By `scale_add`, since old + (new - old) loses what is small beside a large `old`.
        if h.axes is None:
            s.scale_add("velocity", 1 - share, share * (xp.minimum(xp.square(g), most) + added))
            return
        of_rows, of_columns = (xp.minimum(mean, most) for mean in h.means)
        s.scale_add("row", 1 - share, share * (of_rows + added))
        s.scale_add("column", 1 - share, share * (of_columns + added))

    def _largest_square(self, like: Any, xp: Any) -> float:
        is_float64 = xp.resolution(like) < 1e-10
        return math.inf if is_float64 else self.largest_gradient**2

    def direction(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        h = self.switched(h)
        g = xp.bounded(g, self.largest_gradient)
        floor = h.epsilon1 if h.epsilon1_mode == "clamp" else None
        if h.epsilon1 is None:
            floor = xp.resolution(g)
        if h.axes is None:
            v = s.velocity
            return g * xp.rsqrt(v if floor is None else xp.maximum(v, floor * floor))
        d0, d1 = h.axes
        columns = xp.expand_dims(s.column, d1)
        # R has lost axis d0, so d1 may have moved down by one.
        mean_of_rows = xp.mean(s.row, axis=d1 - (d1 > d0), keepdims=True)
        if floor is None:
            # Apart, roots do not underflow where that of a product or a quotient would: of a row
            # of zeros beside large gradients, for one.
            of_rows = xp.rsqrt(s.row) * xp.sqrt(mean_of_rows)
            return g * xp.expand_dims(of_rows, d0) * xp.rsqrt(columns)
        v = xp.expand_dims(s.row / xp.maximum(mean_of_rows, floor), d0) * columns
        return g * xp.rsqrt(xp.maximum(v, floor * floor))

    def finish(self, u: Any, w: Any, s: Any, norms: Any, h: Any, xp: Any) -> Any:
        h = self.switched(h)
        lr, alpha = self.rates(w, s, norms, h, xp)
        if h.clipping_threshold is not None:
            root = norms.u / xp.size(u) ** 0.5
            u = u / xp.maximum(root / h.clipping_threshold, 1.0)
        if h.momentum_of == "scaled_update":
            u = _with_momentum(alpha * u, s, h)
        else:
            u = alpha * _with_momentum(u, s, h)
        u = h.modified(u, alpha)
        if "count" in s:  # PyTorch counts by itself
            s.count = s.count + 1
        return u + _decay(lr, alpha, h) * h.decay(w, u) if given(h.weight_decay) else u

    def rates(self, w: Any, s: Any, norms: Any, h: Any, xp: Any) -> tuple[Any, Any]:
        """Returns the learning rate, and alpha: the size of the step; see `finish`."""
        h = self.switched(h)
        t, lr = _next_step(s, h, w, xp), h.lr
        if h.step_size == "relative" and (h.step_count == "per_parameter" or lr is None):
            own = RelativeStepLrConfig(warmup_init=h.warmup_init)
            lr = h.multiplier * own.value(t - 1.0, xp)
        alpha = xp.minimum(lr, xp.rsqrt(t)) if h.step_size == "capped" else lr
        if not h.multiply_by_parameter_scale:
            return lr, alpha
        root = norms.w / xp.size(w) ** 0.5
        if given(h.weight_decay) and h.weight_decay_first:
            root = xp.abs(1 - _decay(lr, alpha, h)) * root
        return lr, alpha * xp.maximum(root, h.epsilon2)


def _next_step(s: Any, h: Any, like: Any, xp: Any, since: int = 0) -> Any:
    """Returns t of the update to come, less a number of steps."""
    done = s.count if "count" in s else h.done
    return xp.steps_since(done, since, like) + 1.0


def _with_momentum(u: Any, s: Any, h: Any) -> Any:
    if h.beta1 is None:
        return u
    return s.scale_add("momentum", h.beta1, (1 - h.beta1) * u)


def _decay(lr: Any, alpha: Any, h: Any) -> Any:
    """Returns the share of itself that a weight loses."""
    factors = {"plain": 1.0, "learning_rate": lr, "step_size": alpha}
    return h.weight_decay * factors[h.weight_decay_kind]


@functools.cache
def axes_to_factor(
    shape: tuple[int, ...], factored_axes: str, min_dim_size_to_factor: int
) -> tuple[int, int] | None:
    """Returns which two axes of a tensor are factored, (d0, d1); None for none.

    The row means are those over d0, the column means those over d1. Among axes of equal size the
    last counts as the larger, as in Flax and optax. `timm` takes the first two of more than two if
    both are larger than the least size, as PyTorch's convolutions have their channels there, else
    the last.
    """
    last = len(shape) - 1
    if last < 1:
        return None
    if factored_axes == "timm":
        pairs = [(1, 0), (last, last - 1)] if last > 1 else [(1, 0)]
        large = [pair for pair in pairs if min(shape[d] for d in pair) > min_dim_size_to_factor]
        return large[0] if large else None
    d0, d1 = last, last - 1
    if factored_axes == "two_largest":
        *_, d1, d0 = sorted(range(len(shape)), key=shape.__getitem__)
    return (d0, d1) if min(shape[d0], shape[d1]) >= min_dim_size_to_factor else None
