"""What happens to gradients before the update: are they finite, and which clip acts."""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from optimization.configs.spike_config import ZClipConfig
from optimization.rules.base import most_after
from optimization.rules.norms import Norm, root_of_squares

_ROWS, _NARROW = 1024, 64


class Clips(NamedTuple):
    """The bounds of clips, as sections have them, arrays where they follow schedules."""

    gradient_clip_norm: Any = None
    clipnorm: Any = None
    clipvalue: Any = None
    global_clipnorm: Any = None
    adaptive_clip_factor: Any = None
    adaptive_clip_epsilon: float = 1e-3

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> "Clips":
        """Returns those of the fields of a section; 0 is no clip, as None is."""
        found: dict[str, Any] = {n: values[n] or None for n in cls._fields if n in values}
        return cls(**found)

    @property
    def act(self) -> bool:
        """Whether there is one."""
        return any(bound is not None for bound in self[:-1])

    @property
    def most(self) -> float:
        """What no gradient exceeds after them, by numbers; infinite for no bound."""
        return most_after(self[:4], self.adaptive_clip_factor)


def are_within(grads: Sequence[jax.Array], most: Sequence[float]) -> jax.Array:
    """Says whether all entries of all gradients are finite, and none is larger than its bound."""
    pairs = zip(grads, most, strict=True)
    return jnp.all(jnp.array([jnp.all(_is_within(g, bound)) for g, bound in pairs]))  # or of none


def _is_within(g: jax.Array, most: float) -> jax.Array:
    limited = math.isfinite(most) and g.dtype != jnp.float64
    return jnp.abs(g) <= most if limited else jnp.isfinite(g)


def norm_of(arrays: Sequence[jax.Array]) -> Norm:
    """Returns the L2 norm over all entries of some arrays, whatever their size."""

    def squares(arrays: Sequence[jax.Array], factor: Any = None) -> jax.Array:
        return sum((sum_of_squares(_wide(x, factor)) for x in arrays), jnp.float32(0))

    return _root(squares, list(arrays))


def sum_of_squares(x: jax.Array) -> jax.Array:
    """Returns the sum of the squares of an array, in rows first where it is large.

    XLA computes a sum over everything in one thread, number by number, and sums over rows by
    vectors in all threads; on CPUs that is several times as fast. No axes are joined, and rows are
    made of the first alone, so that an array which is split over devices is read where it is.
    """
    if x.size < _ROWS * _ROWS:
        return jnp.sum(jnp.square(x))
    axes = tuple(range(x.ndim - 1))
    if (x.ndim == 1 or x.shape[-1] < _NARROW) and x.shape[0] % _ROWS == 0:
        x, axes = x.reshape(_ROWS, -1, *x.shape[1:]), (0,)
    return jnp.sum(jnp.sum(jnp.square(x), axis=axes))


def unitwise_norm(x: jax.Array) -> Norm:
    """Returns the norm of each unit, in a shape that broadcasts with x.

    A unit is all that leads to an output: all axes but the last; or all of a bias or scalar.
    """
    one_unit = sum(size > 1 for size in x.shape) <= 1
    axes = None if one_unit else tuple(range(x.ndim - 1))

    def squares(arrays: Sequence[jax.Array], factor: Any = None) -> jax.Array:
        return jnp.sum(jnp.square(_wide(arrays[0], factor)), axis=axes, keepdims=not one_unit)

    return _root(squares, [x])


def _wide(x: jax.Array, factor: Any) -> jax.Array:
    x = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    return x if factor is None else x * factor.astype(x.dtype)


def _root(squares: Any, arrays: Sequence[jax.Array]) -> Norm:
    """Returns the root of sums of squares; see `root_of_squares`."""

    def either(fine: Any, then: Any, otherwise: Any, operands: Sequence[Any]) -> Sequence[Any]:
        return lax.cond(fine, then, otherwise, *operands)

    return root_of_squares(squares, arrays, jnp, either)


class Clipped(NamedTuple):
    """Gradients after the clips, and what is told of them."""

    grads: Sequence[jax.Array]
    norm: jax.Array
    exceeded: jax.Array


def clipped(
    grads: Sequence[jax.Array], params: Sequence[jax.Array], clips: Clips, zclip: Any = None
) -> Clipped:
    """Returns the gradients after ZClip, with its bound, BERT's clip and then one of the others."""
    norm = norm_of(grads)
    first, exceeded = norm.value, []
    for bound in (zclip, clips.gradient_clip_norm):
        if bound is not None:
            exceeded.append(norm.value > bound)
            grads = [_times(g, norm.clip(bound)) for g in grads]
            norm = norm.limited(bound)
    if clips.global_clipnorm is not None:
        exceeded.append(norm.value > clips.global_clipnorm)
        factors = norm.clip(clips.global_clipnorm)
        grads = [_times(g, factors) for g in grads]
    elif clips.clipvalue is not None:
        limits = [jnp.asarray(clips.clipvalue, g.dtype) for g in grads]
        exceeded += [jnp.any(jnp.abs(g) > most) for g, most in zip(grads, limits, strict=True)]
        grads = [jnp.clip(g, -most, most) for g, most in zip(grads, limits, strict=True)]
    elif clips.clipnorm is not None:
        norms = [norm_of([g]) for g in grads]
        exceeded += [own.value > clips.clipnorm for own in norms]
        pairs = zip(grads, norms, strict=True)
        grads = [_times(g, own.clip(clips.clipnorm)) for g, own in pairs]
    elif clips.adaptive_clip_factor is not None:
        norms = [unitwise_norm(g) for g in grads]
        bounds = [_adaptive_bound(p, clips) for p in params]
        exceeded += [jnp.any(n.value > b) for n, b in zip(norms, bounds, strict=True)]
        triples = zip(grads, norms, bounds, strict=True)
        grads = [_times(g, own.clip(bound)) for g, own, bound in triples]
    return Clipped(grads, first, jnp.any(jnp.array([False, *exceeded])))


class GroupClips(NamedTuple):
    """The clips of groups that have their own, by label, and those of all others under ""."""

    by_label: Mapping[str, Clips]
    has_zclip: bool = False

    @classmethod
    def of(
        cls,
        section: Mapping[str, Any],
        own: Mapping[str, tuple[str, float]],
        has_zclip: bool = False,
    ) -> "GroupClips":
        """Returns those of a section's fields, and of groups: their kinds and bounds, by label."""
        shared = Clips.of(section)
        epsilon = {"adaptive_clip_epsilon": shared.adaptive_clip_epsilon}
        clips = {n: Clips.of({kind: bound, **epsilon}) for n, (kind, bound) in own.items()}
        return cls({"": shared, **clips}, has_zclip)

    @property
    def act(self) -> bool:
        """Whether there is one."""
        return self.has_zclip or any(clips.act for clips in self.by_label.values())

    def of_group(self, label: str) -> Clips:
        """Returns the clips that act on a group."""
        return self.by_label.get(label, self.by_label[""])

    def clipped(
        self,
        grads: Sequence[jax.Array],
        params: Sequence[jax.Array],
        labels: Sequence[str],
        now: Mapping[str, Any],
        zclip: ZClipConfig | None = None,
        kept: Any = None,
    ) -> tuple[Clipped, Any]:
        """Returns gradients after their clips, with norms over those that share them.

        Args:
            grads: The gradients.
            params: Their parameters.
            labels: The group of each.
            now: Numbers of all, which those that follow schedules have in this update.
            zclip: A clip that acts on those of all before their other ones.
            kept: What that has kept; what it keeps from now on is returned too.
        """
        follows = {name: now[name] for name in Clips._fields if name in now}
        shared = self.by_label[""]._replace(**follows)
        grads, found = list(grads), []
        for owner, clips in {**self.by_label, "": shared}.items():
            places = [p for p, n in enumerate(labels) if (n if n in self.by_label else "") == owner]
            own = [grads[p] for p in places]
            first = None
            if zclip is not None and not owner and own:
                first, kept = zclip.clip(norm_of(own).value.astype(kept.dtype), kept, jnp)
            found.append(clipped(own, [params[p] for p in places], clips, first))
            for place, gradient in zip(places, found[-1].grads, strict=True):
                grads[place] = gradient
        norms = [each.norm for each in found]
        norm = norms[0] if len(norms) == 1 else norm_of([jnp.stack(norms)]).value
        exceeded = jnp.any(jnp.array([each.exceeded for each in found]))
        return Clipped(grads, norm, exceeded), kept


def _times(x: jax.Array, clip: tuple[jax.Array, jax.Array]) -> jax.Array:
    divisor, factor = clip
    return x * (1 / divisor).astype(x.dtype) * factor.astype(x.dtype)


def _adaptive_bound(param: jax.Array, clips: Clips) -> jax.Array:
    """Returns the bound on the norm of each unit's gradient (Brock et al. 2021)."""
    return clips.adaptive_clip_factor * jnp.maximum(
        unitwise_norm(param).value, clips.adaptive_clip_epsilon
    )
