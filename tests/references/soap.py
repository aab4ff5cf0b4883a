"""SOAP and KL-SOAP in float64; see `tests.references`."""

import math

import numpy as np

from tests.references.updates import decays_by_lists

_ROUNDING = 1e-8  # where an eigenvalue is as small, a basis stays as it was


def soap(c, rate):
    """As algorithm 3 of Vyas et al. 2024, in its authors' order: a step, then the statistics."""

    def update(path, w, g, t, slots):
        lengths = _lengths(c, path, w.shape)
        g = g.reshape(lengths)
        axes = [a for a, n in enumerate(lengths) if 1 < n <= c.max_precondition_dim]
        if w.ndim < 2 and not c.precondition_1d:
            axes = []
        if t == 1:
            slots["m"] = slots["v"] = np.zeros(lengths)
            slots["s"] = {a: np.zeros((lengths[a],) * 2) for a in axes}
            slots["l"] = {a: np.full(lengths[a], 0.1) for a in axes}
            _add_to_statistics(c, g, slots, lambda x, axis: x)
            slots["q"] = {a: _eigenvectors(s) for a, s in slots["s"].items()}
            return w
        b1, b2, q = c.beta_1, c.beta_2, slots["q"]
        m = slots["m"] = b1 * slots["m"] + (1 - b1) * g
        inside = _turned(g, q)
        v = slots["v"] = b2 * slots["v"] + (1 - b2) * inside**2
        transposed = {a: each.T for a, each in q.items()}
        u = _turned(_turned(m, q) / (np.sqrt(v) + c.epsilon), transposed)
        if c.normalize_gradients:
            u = u / np.sqrt(np.mean(u**2))
        c1, c2 = (1 - b1 ** (t - 1), 1 - b2 ** (t - 1)) if c.correct_bias else (1, 1)
        w = w - rate(t) * math.sqrt(c2) / c1 * u.reshape(w.shape)
        w = w - rate(t) * decays_by_lists(c, path) * (c.weight_decay or 0) * w
        _follow(c, g, inside, t, slots)
        return w

    return update


def _follow(c, g, inside, t, slots):
    q, roots = slots["q"], {a: np.sqrt(each) for a, each in slots["l"].items()}

    def divided(x, axis):
        for a, root in roots.items():
            if a != axis:
                x = np.moveaxis(np.moveaxis(x, a, -1) / root, -1, a)
        return x

    def whitened(x, axis):
        others = {a: each for a, each in q.items() if a != axis}
        return divided(_turned(x, others), axis)

    _add_to_statistics(c, g, slots, whitened if c.kl else lambda x, axis: x)
    for axis, root in roots.items():
        others = tuple(a for a in range(g.ndim) if a != axis)
        mean = np.mean(divided(inside, axis) ** 2, others)
        moved = _beta(c) * root**2 + (1 - _beta(c)) * mean
        most = max(10, min(len(root), 4000))  # of the inverse roots
        slots["l"][axis] = np.maximum(moved, most**-2.0)
    if (t - 1) % c.precondition_frequency:
        return
    for axis, s in slots["s"].items():
        order = np.argsort(-np.einsum("ij,ik,kj->j", q[axis], s, q[axis]))
        slots["v"], slots["l"][axis] = np.take(slots["v"], order, axis), slots["l"][axis][order]
        sorted_ones = q[axis][:, order]
        lift = _ROUNDING * np.linalg.norm(s)
        q[axis] = np.linalg.qr(s @ sorted_ones + lift * sorted_ones)[0]


def _beta(c):
    return c.beta_2 if c.shampoo_beta is None else c.shampoo_beta


def _add_to_statistics(c, g, slots, whitened):
    for axis, s in slots["s"].items():
        others = [a for a in range(g.ndim) if a != axis]
        x = whitened(g, axis)
        product = np.tensordot(x, x, (others, others))
        if c.kl:
            product = product / (g.size / len(s))
        slots["s"][axis] = _beta(c) * s + (1 - _beta(c)) * product


def _turned(x, matrices):
    for axis, q in matrices.items():
        x = np.moveaxis(np.tensordot(x, q, (axis, 0)), -1, axis)
    return x


def _eigenvectors(s):
    """Returns eigenvectors, the largest first, and in the null space those of a fixed matrix."""
    n = len(s)
    values, vectors = np.linalg.eigh(s / (np.linalg.norm(s) + 1e-30))
    rank = np.sum(values > _ROUNDING)
    empty = vectors[:, : n - rank]
    projector = empty @ empty.T
    _, chosen = np.linalg.eigh(projector @ np.diag(1 - np.arange(n) / n) @ projector)
    return np.concatenate([vectors[:, ::-1][:, :rank], chosen[:, ::-1][:, : n - rank]], 1)


def _lengths(c, path, shape):
    """Returns the shape with the axes of inputs merged, from those of space on."""
    if not c.merge_dims:
        return shape
    if path.endswith("weight"):  # PyTorch's, with outputs first
        return tuple(_lengths(c, "kernel", shape[::-1])[::-1])
    *inputs, outputs = shape or (1,)
    merged = []
    for n in inputs:
        fits = bool(merged) and merged[-1] * n <= c.max_precondition_dim
        merged = [*merged[:-1], merged[-1] * n] if fits else [*merged, n]
    return (*merged, outputs) if shape else shape
