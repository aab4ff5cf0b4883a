"""Adafactor with all its switches, by Shazeer and Stern 2018 and the sources of its variants."""

import re

import numpy as np

FLOAT32 = np.finfo("float32").eps


def formula(
    rate,
    factored=True,
    multiply_by_parameter_scale=True,
    beta1=None,
    decay_rate=0.8,
    step_offset=0,
    clipping_threshold=1.0,
    min_dim_size_to_factor=128,
    epsilon1=1e-30,
    epsilon2=1e-3,
    weight_decay=None,
    step_size="absolute",
    warmup_init=False,
    epsilon1_mode="added",
    factored_axes="two_largest",
    beta_2_cap=1.0,
    momentum_of="scaled_update",
    weight_decay_kind="plain",
    weight_decay_first=False,
    decays=lambda path: True,
    resolution=FLOAT32,
):
    added = epsilon1 if epsilon1_mode == "added" else 0.0
    floor = 0.0 if epsilon1_mode == "added" else epsilon1 or resolution

    def axes(shape):
        small, large = sorted(range(len(shape)), key=lambda d: (shape[d], d))[-2:]
        if factored_axes == "two_largest":
            return (small, large) if shape[small] >= min_dim_size_to_factor else None
        candidates = [(len(shape) - 2, len(shape) - 1)]
        if factored_axes == "last_two":
            return candidates[0] if min(shape[-2:]) >= min_dim_size_to_factor else None
        if len(shape) > 2:
            candidates.insert(0, (0, 1))
        fit = [c for c in candidates if all(shape[d] > min_dim_size_to_factor for d in c)]
        return next(iter(fit), None)

    def second_moment(g, b, slots):
        squared = g**2 + added
        pair = axes(g.shape) if factored and g.ndim > 1 else None
        if pair is None:
            slots["v"] = b * slots.get("v", 0) + (1 - b) * squared
            return slots["v"]
        small, large = pair
        # Kept with the averaged axis in place, so that the product broadcasts.
        rows = slots["r"] = b * slots.get("r", 0) + (1 - b) * squared.mean(large, keepdims=True)
        columns = slots["c"] = b * slots.get("c", 0) + (1 - b) * squared.mean(small, keepdims=True)
        return rows * columns / np.maximum(rows.mean(small, keepdims=True), floor)

    def rms(x):
        return np.sqrt((x**2).mean())

    def size(t):
        if step_size == "relative":
            return min(1e-6 * t if warmup_init else 1e-2, t**-0.5)
        return min(rate(t), t**-0.5) if step_size == "capped" else rate(t)

    def update(path, w, g, t, slots):
        lr = size(t) if step_size == "relative" else rate(t)
        kind = {"plain": 1, "learning_rate": lr}.get(weight_decay_kind)
        decay = weight_decay if weight_decay and decays(path) else 0
        start = w * (1 - decay * kind) if weight_decay_first else w
        b = min(beta_2_cap, 1 - max(t - step_offset, 1) ** -decay_rate)
        u = g / np.sqrt(np.maximum(second_moment(g, b, slots), floor**2))
        if clipping_threshold is not None:
            u = u / max(1, rms(u) / clipping_threshold)
        alpha = size(t) * (max(rms(start), epsilon2) if multiply_by_parameter_scale else 1)
        if momentum_of == "scaled_update":
            u = alpha * u
        if beta1 is not None:
            u = slots["m"] = beta1 * slots.get("m", 0) + (1 - beta1) * u
        if momentum_of == "update":
            u = alpha * u
        return (1 - decay * (alpha if kind is None else kind)) * w - u

    return update


_SWITCHES = (
    *("factored", "multiply_by_parameter_scale", "beta1", "decay_rate", "step_offset"),
    *("clipping_threshold", "min_dim_size_to_factor", "epsilon1", "epsilon2", "weight_decay"),
    *("step_size", "warmup_init", "epsilon1_mode", "factored_axes", "momentum_of"),
    *("weight_decay_kind", "weight_decay_first"),
)


def adafactor(c, rate):
    patterns = c.include_in_weight_decay
    return formula(
        rate,
        **{name: getattr(c, name) for name in _SWITCHES},
        beta_2_cap=1.0 if c.beta_2_cap is None else c.beta_2_cap,
        decays=lambda path: patterns is None or any(re.search(p, path) for p in patterns),
        resolution=np.finfo("float64").eps,
    )


def adafactor_keras(c, rate):
    """Of a rate that follows a schedule, which `relative_step` does not cap."""
    return formula(
        rate,
        decay_rate=-c.beta_2_decay,
        clipping_threshold=c.clip_threshold,
        epsilon1=c.epsilon_1,
        epsilon2=c.epsilon_2,
        weight_decay=c.weight_decay,
        min_dim_size_to_factor=1,
        factored_axes="last_two",
        weight_decay_kind="learning_rate",
        weight_decay_first=True,
    )
