"""The updates of the optimizers, transcribed from their papers and sources, in float64 NumPy.

Each function returns `update(name, w, g, t, slots) -> w` with t = 1, 2, ...
"""

import numpy as np

LR = 0.02


def sgd(momentum=0.0, nesterov=False, weight_decay=0.0, decoupled=True):
    def update(name, w, g, t, slots):
        w = w - LR * weight_decay * w if decoupled else w
        g = g if decoupled else g + weight_decay * w
        v = slots["v"] = momentum * slots.get("v", 0) + g
        return w - LR * (momentum * v + g if nesterov else v)

    return update


def adamw(weight_decay=0.0, order="before", amsgrad=False, correct=True, placement="uncorrected"):
    b1, b2, eps = 0.9, 0.999, 1e-3

    def update(name, w, g, t, slots):
        w = w - LR * weight_decay * w if order == "before" else w
        m = slots["m"] = b1 * slots.get("m", 0) + (1 - b1) * g
        v = slots["v"] = b2 * slots.get("v", 0) + (1 - b2) * g**2
        if amsgrad:
            v = slots["max"] = np.maximum(slots.get("max", 0), v)
        if placement == "corrected":
            w = w - LR * (m / (1 - b1**t)) / (np.sqrt(v / (1 - b2**t)) + eps)
        else:
            rate = LR * np.sqrt(1 - b2**t) / (1 - b1**t) if correct else LR
            w = w - rate * m / (np.sqrt(v) + eps)
        return w - LR * weight_decay * w if order == "after" else w

    return update


def rmsprop(momentum=0.0, centered=False, in_sqrt=True):
    def update(name, w, g, t, slots):
        v = slots["v"] = 0.9 * slots.get("v", 0) + 0.1 * g**2
        if centered:
            a = slots["a"] = 0.9 * slots.get("a", 0) + 0.1 * g
            v = v - a**2
        u = LR * g / (np.sqrt(v + 1e-3) if in_sqrt else np.sqrt(v) + 1e-3)
        b = slots["b"] = momentum * slots.get("b", 0) + u
        return w - b

    return update


def adagrad(in_sqrt=True):
    def update(name, w, g, t, slots):
        s = slots["s"] = slots.get("s", 0.1) + g**2
        return w - LR * g / (np.sqrt(s + 1e-3) if in_sqrt else np.sqrt(s) + 1e-3)

    return update


def adadelta(weight_decay=0.0):
    def update(name, w, g, t, slots):
        w = w - LR * weight_decay * w
        v = slots["v"] = 0.9 * slots.get("v", 0) + 0.1 * g**2
        d = np.sqrt(slots.get("d", 0) + 1e-3) / np.sqrt(v + 1e-3) * g
        slots["d"] = 0.9 * slots.get("d", 0) + 0.1 * d**2
        return w - LR * d

    return update


def adamax(in_norm=False):
    def update(name, w, g, t, slots):
        m = slots["m"] = 0.9 * slots.get("m", 0) + 0.1 * g
        size = np.abs(g) + (1e-3 if in_norm else 0)
        u = slots["u"] = np.maximum(0.999 * slots.get("u", 0), size)
        return w - LR / (1 - 0.9**t) * m / (u + (0 if in_norm else 1e-3))

    return update


def lion(weight_decay=0.0):
    def update(name, w, g, t, slots):
        m = slots.get("m", 0)
        slots["m"] = 0.99 * m + 0.01 * g
        return w - LR * weight_decay * w - LR * np.sign(0.9 * m + 0.1 * g)

    return update


def ftrl(l1=0.0, l2=0.0, shrinkage=0.0, beta=0.0, power=-0.5):
    def update(name, w, g, t, slots):
        n = slots.get("n", 0.1)
        new = slots["n"] = n + g**2
        z = slots.get("z", 0) + g + 2 * shrinkage * w - (new**-power - n**-power) / LR * w
        slots["z"] = z
        return (np.clip(z, -l1, l1) - z) / (new**-power / LR + 2 * (l2 + beta / (2 * LR)))

    return update


def _norm(x):
    return np.sqrt((x**2).sum())


def lamb(weight_decay=0.0, adapt=True):
    def update(name, w, g, t, slots):
        m = slots["m"] = 0.9 * slots.get("m", 0) + 0.1 * g
        v = slots["v"] = 0.999 * slots.get("v", 0) + 0.001 * g**2
        u = m / (1 - 0.9**t) / (np.sqrt(v / (1 - 0.999**t)) + 1e-3) + weight_decay * w
        return w - LR * (_norm(w) / _norm(u) if adapt else 1) * u

    return update


def lars(weight_decay=0.0, nesterov=False, classic=True):
    def ratio(w, u):
        return 0.5 * _norm(w) / _norm(u)

    def update(name, w, g, t, slots):
        g = g + weight_decay * w
        if classic:
            g = LR * ratio(w, g) * g
        v = slots["v"] = 0.8 * slots.get("v", 0) + g
        u = 0.8 * v + g if nesterov else v
        return w - u if classic else w - LR * ratio(w, u) * u

    return update


def muon(nesterov=True):
    adam = adamw(weight_decay=0.1)

    def update(name, w, g, t, slots):
        if w.ndim != 2:
            return adam(name, w, g, t, slots)
        w = w - LR * 0.1 * w
        m = slots["m"] = 0.95 * slots.get("m", 0) + g
        x = g + 0.95 * m if nesterov else m
        x = x / (_norm(x) + 1e-7)
        for _ in range(5):
            a = x @ x.T
            x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
        return w - LR * 0.2 * np.sqrt(max(w.shape)) * x

    return update


def weights_of(update, initial, gradients):
    """Returns the weights after an update with each set of gradients."""
    weights = {name: np.array(value) for name, value in initial.items()}
    slots = {name: {} for name in initial}
    for t, grads in enumerate(gradients, start=1):
        for name in weights:
            weights[name] = update(name, weights[name], grads[name], t, slots[name])
    return weights
