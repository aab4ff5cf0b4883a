"""The formulas of Muon, and of the AdamW in it."""

from typing import Any

from optimization.rules.newton_schulz import orthogonalized


def adamw_step(g: Any, s: Any, h: Any, xp: Any) -> Any:
    m = s.lerp("momentum", g, 1 - h.adam_beta_1)
    v = s.lerp_square("velocity", g, 1 - h.adam_beta_2)
    # As in Keras' Muon; `one_minus_power` would be more exact in float32, by 1e-5 of a step.
    root, correction = xp.sqrt(1 - h.adam_beta_2**h.t), 1 - h.adam_beta_1**h.t
    rate = h.lr * h.adam_lr_ratio * root / correction
    if h.adam_nesterov:
        ahead = h.adam_beta_1 * correction / (1 - h.adam_beta_1 ** (h.t + 1))
        m = ahead * m + (1 - h.adam_beta_1) * g
    return rate * (m / (xp.sqrt(v) + h.epsilon))


def momentum_of(g: Any, s: Any, h: Any, xp: Any) -> Any:
    """Moves the momentum; returns what is orthogonalized."""
    if h.momentum_kind == "heavy_ball":
        m = s.scale_add("momentum", h.momentum, g)
        return g + h.momentum * m if h.nesterov else m
    m, share = s.lerp("momentum", g, 1 - h.momentum), 1 - h.momentum
    if h.momentum_kind == "ema":
        return xp.lerp(g, m, h.momentum) if h.nesterov else m
    now = xp.one_minus_power(h.momentum, h.t)
    if not h.nesterov:
        return m / now
    return (share / now) * g + (h.momentum / xp.one_minus_power(h.momentum, h.t + 1)) * m


def orthogonal(u: Any, rate: Any, h: Any, xp: Any) -> Any:
    """Returns the orthogonal matrix, or matrices, of a momentum in its shape, times a rate."""
    axis = 0 if h.outputs_first else -1
    made = []
    for part in [u] if h.parts == 1 else xp.split(u, h.parts, axis):
        x = xp.to_matrix(part, h.outputs_first)
        made.append(xp.from_matrix(orthogonalized(x, h, xp), part, h.outputs_first))
    return rate * (made[0] if h.parts == 1 else xp.concatenate(made, axis))


def divided(o: Any, s: Any, h: Any, xp: Any) -> Any:
    """Returns an orthogonal update over the root of its second moment, with a norm as it has."""
    o = xp.keep(o)
    if h.second_moment == "row":
        means = xp.means_of_outputs(xp.square(o), h.outputs_first)
        v = s.lerp("row_velocity", means, 1 - h.second_moment_beta)
        v = xp.along_outputs(v, o, h.outputs_first)
    else:
        v = s.lerp_square("velocity", o, 1 - h.second_moment_beta)
    u = xp.keep(o / (xp.sqrt(v) + h.epsilon))
    norm = xp.norm(o)
    if h.update_norm == "orthogonal":
        n = h.parts
        norm = xp.of_sides(lambda a, b: (n * min(a // n, b)) ** 0.5, o, h.outputs_first)
    return norm / (xp.norm(u) + h.epsilon) * u
