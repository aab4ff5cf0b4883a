"""The updates of all optimizers but Adafactor; see `tests.references`."""

import re

import numpy as np


def matches(path, patterns):
    return any(re.search(pattern, path) for pattern in patterns or ())


def first_decay(c, rate):
    """Returns the decay of Keras, w -= lr * weight_decay * w, ahead of everything."""
    decoupled = getattr(c, "decoupled_weight_decay", True)
    return lambda w, t: w - rate(t) * (c.weight_decay or 0) * w if decoupled else w


def coupled(c, w, g):
    """Returns the gradient with the decay of PyTorch's classes, where that is chosen."""
    return g if c.decoupled_weight_decay else g + (c.weight_decay or 0) * w


def sgd(c, rate):
    decayed = first_decay(c, rate)

    def update(path, w, g, t, slots):
        v = slots["v"] = c.momentum * slots.get("v", 0) - rate(t) * g
        return decayed(w, t) + (c.momentum * v - rate(t) * g if c.nesterov else v)

    return update


def sgd_torch(c, rate):
    def update(path, w, g, t, slots):
        g = g + c.weight_decay * w if matches(path, c.weight_keys) else g
        mu = c.momentum
        if t - 1 < c.warmup_steps:
            mu = c.momentum_start + (c.momentum - c.momentum_start) * (t - 1) / c.warmup_steps
        v = slots["v"] = mu * slots.get("v", 0) + g
        return w - rate(t) * (g + mu * v if c.nesterov else v)

    return update


def adam(c, rate):
    decayed = first_decay(c, rate)

    def update(path, w, g, t, slots):
        return _adam_step(c, decayed(w, t), coupled(c, w, g), t, slots, rate)

    return update


def adamw(c, rate):
    def update(path, w, g, t, slots):
        decays = decays_by_lists(c, path)
        decay = (c.weight_decay or c.weight_decay_rate) * decays
        if not c.decoupled_weight_decay:
            return _adam_step(c, w, g + decay * w, t, slots, rate)
        keep = 1 - rate(t) * decay
        if c.weight_decay_order == "before":
            return _adam_step(c, keep * w, g, t, slots, rate)
        return keep * _adam_step(c, w, g, t, slots, rate)

    return update


def _adam_step(c, w, g, t, slots, rate):
    m = slots["m"] = c.beta_1 * slots.get("m", 0) + (1 - c.beta_1) * g
    v = slots["v"] = c.beta_2 * slots.get("v", 0) + (1 - c.beta_2) * g**2
    if c.amsgrad:
        v = slots["max"] = np.maximum(slots.get("max", 0), v)
    c1, c2 = (1 - c.beta_1**t, 1 - c.beta_2**t) if c.correct_bias else (1, 1)
    if c.nesterov:
        # Dozat 2016, algorithm 2 with a constant mu: both terms have a correction of their own.
        c0 = 1 - c.beta_1 ** (t + 1) if c.correct_bias and c.nesterov_correction == "next" else c1
        m = c1 * (c.beta_1 * m / c0 + (1 - c.beta_1) * g / c1)
    if c.epsilon_placement == "corrected":
        return w - rate(t) * (m / c1) / (np.sqrt(v / c2) + c.epsilon)
    return w - rate(t) * np.sqrt(c2) / c1 * m / (np.sqrt(v) + c.epsilon)


def rmsprop(c, rate):
    decayed = first_decay(c, rate)

    def update(path, w, g, t, slots):
        g = coupled(c, w, g)
        v = slots["v"] = c.rho * slots.get("v", 0) + (1 - c.rho) * g**2
        if c.centered:
            a = slots["a"] = c.rho * slots.get("a", 0) + (1 - c.rho) * g
            v = v - a**2
        v = np.maximum(v, 0)  # which rounding may make negative
        u = g / (np.sqrt(v + c.epsilon) if c.epsilon_in_sqrt else np.sqrt(v) + c.epsilon)
        before, after = (rate(t), 1) if c.classic_momentum else (1, rate(t))
        b = slots["b"] = c.momentum * slots.get("b", 0) + before * u
        return decayed(w, t) - after * b

    return update


def adagrad(c, rate):
    decayed = first_decay(c, rate)

    def update(path, w, g, t, slots):
        g = coupled(c, w, g)
        s = slots["s"] = slots.get("s", c.initial_accumulator_value) + g**2
        root = np.sqrt(s + c.epsilon) if c.epsilon_in_sqrt else np.sqrt(s) + c.epsilon
        return decayed(w, t) - rate(t) * g / root

    return update


def adadelta(c, rate):
    decayed = first_decay(c, rate)

    def update(path, w, g, t, slots):
        g = coupled(c, w, g)
        v = slots["v"] = c.rho * slots.get("v", 0) + (1 - c.rho) * g**2
        d = np.sqrt(slots.get("d", 0) + c.epsilon) / np.sqrt(v + c.epsilon) * g
        slots["d"] = c.rho * slots.get("d", 0) + (1 - c.rho) * d**2
        return decayed(w, t) - rate(t) * d

    return update


def adamax(c, rate):
    decayed = first_decay(c, rate)

    def update(path, w, g, t, slots):
        g = coupled(c, w, g)
        m = slots["m"] = c.beta_1 * slots.get("m", 0) + (1 - c.beta_1) * g
        size = np.abs(g) + c.epsilon if c.epsilon_in_norm else np.abs(g)
        u = slots["u"] = np.maximum(c.beta_2 * slots.get("u", 0), size)
        u = u if c.epsilon_in_norm else u + c.epsilon
        return decayed(w, t) - rate(t) / (1 - c.beta_1**t) * m / u

    return update


def nadam(c, rate):
    decayed = first_decay(c, rate)

    def mu(t):
        return c.beta_1 * (1 - 0.5 * 0.96 ** (t * c.momentum_decay))

    def update(path, w, g, t, slots):
        g = coupled(c, w, g)
        m = slots["m"] = c.beta_1 * slots.get("m", 0) + (1 - c.beta_1) * g
        v = slots["v"] = c.beta_2 * slots.get("v", 0) + (1 - c.beta_2) * g**2
        product = slots["mu"] = slots.get("mu", 1) * mu(t)
        u = mu(t + 1) * m / (1 - product * mu(t + 1)) + (1 - mu(t)) * g / (1 - product)
        return decayed(w, t) - rate(t) * u / (np.sqrt(v / (1 - c.beta_2**t)) + c.epsilon)

    return update


def decays_by_lists(c, path):
    include, exclude = c.include_in_weight_decay, c.exclude_from_weight_decay
    return matches(path, include) or (not matches(path, exclude) if exclude else not include)


def radam(c, rate):
    """As algorithm 2 of Liu et al. 2020, with both decays."""

    def update(path, w, g, t, slots):
        decay = decays_by_lists(c, path) * (c.weight_decay or 0)
        if c.decoupled_weight_decay:
            w = w - rate(t) * decay * w
        else:
            g = g + decay * w
        m = slots["m"] = c.beta_1 * slots.get("m", 0) + (1 - c.beta_1) * g
        v = slots["v"] = c.beta_2 * slots.get("v", 0) + (1 - c.beta_2) * g**2
        c2 = 1 - c.beta_2**t
        m = m / (1 - c.beta_1**t)
        last = 2 / (1 - c.beta_2) - 1
        rho = last - 2 * t * c.beta_2**t / c2
        if rho <= 5:
            return w - rate(t) * m
        r = np.sqrt((rho - 4) * (rho - 2) * last / ((last - 4) * (last - 2) * rho))
        if c.epsilon_placement == "corrected":
            return w - rate(t) * r * m / (np.sqrt(v / c2) + c.epsilon)
        return w - rate(t) * r * m * np.sqrt(c2) / (np.sqrt(v) + c.epsilon)

    return update


def adopt(c, rate):
    """As algorithm 2 of Taniguchi et al. 2024, with the clip of its second version.

    The first gradient starts the second moment, and nothing else.
    """

    def update(path, w, g, t, slots):
        decay = decays_by_lists(c, path) * (c.weight_decay or 0)
        g = g if c.decoupled_weight_decay else g + decay * w
        if t == 1:
            slots["v"], slots["m"] = g**2, 0.0
            return w
        n = g / np.maximum(np.sqrt(slots["v"]), c.epsilon)
        if c.clip_exponent is not None:
            bound = (t - 1) ** c.clip_exponent
            n = np.clip(n, -bound, bound)
        m = slots["m"] = c.beta_1 * slots["m"] + (1 - c.beta_1) * n
        slots["v"] = c.beta_2 * slots["v"] + (1 - c.beta_2) * g**2
        return w - rate(t) * (m + c.decoupled_weight_decay * decay * w)

    return update


def stable_adamw(c, rate):
    """As algorithm 2 of Wortsman et al. 2023: AdamW with the clip of AdaFactor's updates."""

    def update(path, w, g, t, slots):
        b1 = c.beta_1 * (1 - c.beta_1 ** (t - 1)) / (1 - c.beta_1**t)
        b2 = c.beta_2 * (1 - c.beta_2 ** (t - 1)) / (1 - c.beta_2**t)
        v = slots["v"] = b1 * slots.get("v", 0) + (1 - b1) * g
        u = slots["u"] = b2 * slots.get("u", 0) + (1 - b2) * g**2
        rms = np.sqrt(np.mean(g**2 / np.maximum(u, c.epsilon**2)))
        eta = rate(t) / max(1, rms)
        decay = decays_by_lists(c, path) * (c.weight_decay or 0)
        return w - eta * decay * w - eta * v / (np.sqrt(u) + c.epsilon)

    return update


def lion(c, rate):
    decayed = first_decay(c, rate)

    def update(path, w, g, t, slots):
        m = slots.get("m", 0)
        slots["m"] = c.beta_2 * m + (1 - c.beta_2) * g
        return decayed(w, t) - rate(t) * np.sign(c.beta_1 * m + (1 - c.beta_1) * g)

    return update


def ftrl(c, rate):
    decayed = first_decay(c, rate)

    def update(path, w, g, t, slots):
        w, lr, power = decayed(w, t), rate(t), -c.learning_rate_power
        n = slots.get("n", c.initial_accumulator_value)
        new = slots["n"] = n + g**2
        g = g + 2 * c.l2_shrinkage_regularization_strength * w
        z = slots["z"] = slots.get("z", 0) + g - (new**power - n**power) / lr * w
        l1 = c.l1_regularization_strength
        l2 = c.l2_regularization_strength + c.beta / (2 * lr)
        return (np.clip(z, -l1, l1) - z) / (new**power / lr + 2 * l2)

    return update


def _norm(x):
    return np.sqrt((x**2).sum())


def _exclusions(c, path):
    """Returns Keras' decay of a variable, that in its gradient, and whether steps are scaled."""
    decays = not matches(path, c.exclude_from_weight_decay)
    adapts = c.exclude_from_layer_adaptation
    excluded = c.exclude_from_weight_decay if adapts is None else adapts
    first, inside = decays * (c.weight_decay or 0), decays * c.weight_decay_rate
    return first, inside, not matches(path, excluded)


def lamb(c, rate, modified=lambda u, g: u, decays=lambda w, u, t: w):
    def update(path, w, g, t, slots):
        first, decay, adapts = _exclusions(c, path)
        w = w - rate(t) * first * w
        m = slots["m"] = c.beta_1 * slots.get("m", 0) + (1 - c.beta_1) * g
        v = slots["v"] = c.beta_2 * slots.get("v", 0) + (1 - c.beta_2) * g**2
        root = np.sqrt(v / (1 - c.beta_2**t))
        u = modified(m / (1 - c.beta_1**t) / (root + c.epsilon), g)
        u = u + decay * decays(w, u, t)
        return w - rate(t) * (_norm(w) / _norm(u) if adapts else 1) * u

    return update


def lars(c, rate):
    def update(path, w, g, t, slots):
        first, decay, adapts = _exclusions(c, path)
        w = w - rate(t) * first * w

        def scaled(x):
            return rate(t) * (c.eeta * _norm(w) / _norm(x) if adapts else 1) * x

        g = g + decay * w
        g = scaled(g) if c.classic_momentum else g
        v = slots["v"] = c.momentum * slots.get("v", 0) + g
        u = c.momentum * v + g if c.nesterov else v
        return w - (u if c.classic_momentum else scaled(u))

    return update


def _is_hidden(c, path, shape):
    """Says whether Muon's matrices contain a variable of the tests'."""
    if len(shape) < 2 or matches(path, c.exclude_layers):
        return False
    spared = "head" in path or ("embedding" in path and c.exclude_embeddings)
    return not spared or matches(path, c.include_layers)


# Amsel et al. 2025, the code of their appendix: all polynomials but the last with a margin of 1 %.
_POLAR_EXPRESS = """
8.28721201814563 -23.595886519098837 17.300387312530933
4.107059111542203 -2.9478499167379106 0.5448431082926601
3.9486908534822946 -2.908902115962949 0.5518191394370137
3.3184196573706015 -2.488488024314874 0.51004894012372
2.300652019954817 -1.6689039845747493 0.4188073119525673
1.891301407787398 -1.2679958271945868 0.37680408948524835
1.8750014808534479 -1.2500016453999487 0.3750001645474248
"""
_QUINTIC = """
4.0848 -6.8946 2.9270
3.9505 -6.3029 2.6377
3.7418 -5.5913 2.3037
2.8769 -3.1427 1.2046
2.8366 -3.0525 1.2012
"""


def _coefficients(c):
    """Returns the coefficients of each iteration."""
    if c.coefficients == "simple":
        return [(c.muon_a, c.muon_b, c.muon_c)] * c.ns_steps
    rows = np.array(c.coefficients if isinstance(c.coefficients, tuple) else 0)
    if c.coefficients == "quintic":
        rows = np.array(_QUINTIC.split(), float).reshape(-1, 3)
    if c.coefficients == "polar_express":
        rows = np.array(_POLAR_EXPRESS.split(), float).reshape(-1, 3) / 1.01 ** np.array([1, 3, 5])
        rows = np.concatenate([rows, [[15 / 8, -10 / 8, 3 / 8]]])
    return [rows[min(i, len(rows) - 1)] for i in range(c.ns_steps)]


def _newton_schulz(c, x):
    """Returns an almost orthogonal matrix; as of its transpose, whichever is the wider."""
    x = x / (c.safety_factor * _norm(x) + 1e-7)
    for a, b, d in _coefficients(c):
        x = a * x + b * x @ x.T @ x + d * x @ x.T @ x @ x.T @ x
    return x


def _muon_momentum(c, g, t, slots):
    mu = c.momentum
    if c.momentum_kind == "heavy_ball":
        m = slots["m"] = mu * slots.get("m", 0) + g
        return g + mu * m if c.nesterov else m
    m = slots["m"] = mu * slots.get("m", 0) + (1 - mu) * g
    if c.momentum_kind == "ema":
        return (1 - mu) * g + mu * m if c.nesterov else m
    # optax: the mean of the step to come, of both parts corrected.
    if not c.nesterov:
        return m / (1 - mu**t)
    return mu * m / (1 - mu ** (t + 1)) + (1 - mu) * g / (1 - mu**t)


def muon(c, rate):
    def adamw(w, g, t, slots):
        w = w - rate(t) * (c.adam_weight_decay or 0) * w
        b1, b2 = c.adam_beta_1, c.adam_beta_2
        m = slots["m"] = b1 * slots.get("m", 0) + (1 - b1) * g
        v = slots["v"] = b2 * slots.get("v", 0) + (1 - b2) * g**2
        if c.adam_nesterov:  # Dozat 2016, both parts corrected; times what is divided by below
            m = b1 * m / (1 - b1 ** (t + 1)) + (1 - b1) * g / (1 - b1**t)
            m = m * (1 - b1**t)
        lr = rate(t) * c.adam_lr_ratio * np.sqrt(1 - b2**t) / (1 - b1**t)
        return w - lr * m / (np.sqrt(v) + c.epsilon)

    def update(path, w, g, t, slots):
        if not _is_hidden(c, path, w.shape):
            return adamw(w, g, t, slots)
        w = w - rate(t) * (c.weight_decay or 0) * w
        u = _muon_momentum(c, g, t, slots)
        if c.of_signs:
            u = np.sign(u)
        # Outputs are Keras' last axis, and PyTorch's first; here they are rows.
        is_first = path.endswith("weight")
        u = u.reshape(len(u), -1) if is_first else u.reshape(-1, u.shape[-1]).T
        parts = next((n for pattern, n in c.split.items() if re.search(pattern, path)), 1)
        matrices = np.split(u, parts)
        o = np.concatenate([_newton_schulz(c, matrix) for matrix in matrices])
        outputs, inputs = matrices[0].shape
        if c.second_moment != "none":
            squares = np.mean(o**2, 1, keepdims=True) if c.second_moment == "row" else o**2
            b = c.second_moment_beta
            v = slots["v"] = b * slots.get("v", 0) + (1 - b) * squares
            before = _norm(o)
            o = o / (np.sqrt(v) + c.epsilon)
            if c.update_norm == "orthogonal":
                before = np.sqrt(parts * min(outputs, inputs))
            o = o * before / (_norm(o) + c.epsilon)
        scale = 1
        if c.rms_rate is not None:
            scales = {
                "spectral": max(outputs, inputs),
                "shape": max(1, outputs / inputs),
                "unit_rms": outputs / inputs,
            }
            scale = c.rms_rate * np.sqrt(scales[c.scale])
        return w - rate(t) * scale * (o if is_first else o.T).reshape(w.shape)

    return update


def schedule_free(c, rate):
    """As Defazio et al. print it: x, y and z of each variable; the weights are y."""
    is_sgd = not hasattr(c, "beta_1")
    share = c.momentum if is_sgd else c.beta_1

    def update(path, w, g, t, slots):
        lr = rate(t) * min(1, t / c.warmup_steps if c.warmup_steps else 1)
        slots["largest"] = max(slots.get("largest", 0), lr)
        weight = t**c.r * slots["largest"] ** c.weight_lr_power
        total = slots["total"] = slots.get("total", 0) + weight
        if not is_sgd:
            v = slots["v"] = c.beta_2 * slots.get("v", 0) + (1 - c.beta_2) * g**2
            g = g / (np.sqrt(v / (1 - c.beta_2**t)) + c.epsilon)
        z = slots["z"] = slots.get("z", w) - lr * (g + c.weight_decay * w)
        share_of_z = weight / total
        x = slots["x"] = (1 - share_of_z) * slots.get("x", w) + share_of_z * z
        return (1 - share) * z + share * x

    return update


def ademamix(c, rate):
    """As algorithm 1 of Pagliardini et al. 2024, with the schedules of its section 3."""

    def half_life_linear(t):
        if not c.beta_3_warmup or t >= c.beta_3_warmup:
            return c.beta_3
        x, first, last = t / c.beta_3_warmup, np.log(c.beta_1), np.log(c.beta_3)
        return min(np.exp(first * last / ((1 - x) * last + x * first)), c.beta_3)

    def update(path, w, g, t, slots):
        decays = decays_by_lists(c, path)
        b3 = half_life_linear(t)
        alpha = min(t * c.alpha / c.alpha_warmup, c.alpha) if c.alpha_warmup else c.alpha
        m1 = slots["m1"] = c.beta_1 * slots.get("m1", 0) + (1 - c.beta_1) * g
        m2 = slots["m2"] = b3 * slots.get("m2", 0) + (1 - b3) * g
        v = slots["v"] = c.beta_2 * slots.get("v", 0) + (1 - c.beta_2) * g**2
        m1, v = m1 / (1 - c.beta_1**t), v / (1 - c.beta_2**t)
        u = (m1 + alpha * m2) / (np.sqrt(v) + c.epsilon)
        return w - rate(t) * (u + decays * (c.weight_decay or 0) * w)

    return update


def prodigy(c, rate):
    """Mishchenko and Defazio 2023, algorithm 4, whose sums are over all weights of an update."""
    start, moved = {}, {}  # x0; and the terms of r and s of each weight, as of its last update
    seen = {"t": 1, "d": c.d0, "most": c.d0}
    beta_3 = np.sqrt(c.beta_2) if c.beta_3 is None else c.beta_3

    def estimate(t):
        if t != seen["t"]:
            r = sum(r for r, _ in moved.values())
            length = sum(np.abs(s).sum() for _, s in moved.values())
            hat = c.d_coef * r / length if length else 0.0
            seen["t"], seen["most"] = t, max(seen["most"], hat)
            if c.growth_rate is None:
                seen["d"] = seen["most"]
            else:
                before = max(hat, c.d0) if seen["d"] == c.d0 else seen["d"]
                seen["d"] = min(seen["most"], before * c.growth_rate)
        return seen["d"]

    def update(path, w, g, t, slots):
        d, decay = estimate(t), (c.weight_decay or 0) * decays_by_lists(c, path)
        gamma = rate(t)
        if c.use_bias_correction:
            gamma *= np.sqrt(1 - c.beta_2**t) / (1 - c.beta_1**t)
        if not c.decoupled_weight_decay:
            g, decay = g + decay * w, 0.0
        x0 = start.setdefault(path, w)
        r, s = moved.get(path, (0.0, np.zeros_like(w)))
        r = beta_3 * r + gamma * d**2 * np.vdot(g, x0 - w)
        s = beta_3 * s + (1 if c.safeguard_warmup else gamma) * d**2 * g
        moved[path] = r, s
        m = slots["m"] = c.beta_1 * slots.get("m", 0) + (1 - c.beta_1) * d * g
        v = slots["v"] = c.beta_2 * slots.get("v", 0) + (1 - c.beta_2) * d**2 * g**2
        return w - gamma * d * (m / (np.sqrt(v) + d * c.epsilon) + decay * w)

    return update
