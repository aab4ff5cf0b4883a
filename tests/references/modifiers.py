"""Modifiers of updates, transcribed from their papers around the transcriptions of optimizers."""

import numpy as np

from tests.references import updates

DECAYS = {
    "adamw": ("weight_decay_rate",),
    "muon": ("weight_decay", "adam_weight_decay"),
    "adafactor": ("weight_decay",),
    "nadam": ("weight_decay",),
}
"""The rates of decay of the types around which modifiers are transcribed, beside `lamb`."""


def is_modified(c):
    decays = c.cautious_weight_decay or c.corrected_weight_decay
    of_step = c.cautious or c.max_update_rms or decays or c.lookahead
    return of_step or c.centralize_gradients or c.mars


def cautious(u, g):
    """Returns an update of Liang et al. 2024, algorithm 1, as the authors scale it."""
    agree = (u * g > 0).astype("float64")
    return u * agree / max(agree.mean(), 1e-3)


def agreeing(w, u):
    """Returns the weights that decay in Chen et al. 2025, algorithm 1."""
    return np.where(w * u >= 0, w, 0)


def centered(path, g):
    """Returns a gradient of Yong et al. 2020, equation 1, with an output in each row."""
    if g.ndim < 2:
        return g
    if path.endswith(("weight", "embeddings")):
        rows = g.reshape(len(g), -1)
        return (rows - rows.mean(1, keepdims=True)).reshape(g.shape)
    columns = g.reshape(-1, g.shape[-1])
    return (columns - columns.mean(0)).reshape(g.shape)


BETAS = {"adamw": "beta_1", "lamb": "beta_1", "nadam": "beta_1", "schedule_free_adamw": "beta_1"}


def varied_less(kind, c, path, g, slots):
    """Returns a gradient of Yuan et al. 2024, algorithm 2, where x_0 is x_1."""
    beta = c.mars_beta
    if beta is None and kind == "muon":
        beta = c.momentum if updates._is_hidden(c, path, g.shape) else c.adam_beta_1
    elif beta is None:
        beta = getattr(c, BETAS[kind])
    last = slots.get("last gradient", g)
    slots["last gradient"] = g
    corrected = g + c.mars_gamma * beta / (1 - beta) * (g - last)
    return corrected / max(1, np.linalg.norm(corrected))


def synchronized(c, before, fast, t, slots):
    """Returns the fast weights of Zhang et al. 2019, algorithm 1, after update t."""
    slow = slots.setdefault("slow", before)
    if t % c.lookahead_steps:
        return fast
    slots["slow"] = slow + c.lookahead_share * (fast - slow)
    return slots["slow"]


def modified(kind, c, rate, transcriptions):
    """Returns the update of a type with modifiers; `transcriptions` are those without."""
    compared = {}  # with what `cautious` compares: a correction is for the moments alone
    of_step = with_step_modified(kind, c, rate, transcriptions, compared)

    def update(path, w, g, t, slots):
        g = compared["g"] = centered(path, g) if c.centralize_gradients else g
        moving = varied_less(kind, c, path, g, slots) if c.mars else g
        fast = of_step(path, w, moving, t, slots)
        return synchronized(c, w, fast, t, slots) if c.lookahead else fast

    return update


def with_step_modified(kind, c, rate, transcriptions, compared):
    """Returns the update of a type with the modifiers of what is subtracted from a weight."""
    if not (c.cautious or c.max_update_rms or c.cautious_weight_decay or c.corrected_weight_decay):
        return transcriptions[kind](c, rate)

    def masks(u, g, size=1.0):
        u = cautious(u, compared["g"]) if c.cautious else u
        most = np.inf if c.max_update_rms is None else c.max_update_rms * size
        return u * min(1, most / np.sqrt(np.mean(u**2)))

    decays = agreeing if c.cautious_weight_decay else lambda w, u: w

    def share(t):
        """Returns the share of the decay in Defazio 2025, algorithm 1."""
        return rate(t) / c.peak_learning_rate if c.corrected_weight_decay else 1

    if kind == "lamb":
        return updates.lamb(c, rate, masks, lambda w, u, t: share(t) * decays(w, u))
    bare = transcriptions[kind](c.replace(**dict.fromkeys(DECAYS[kind], 0.0)), rate)

    def update(path, w, g, t, slots):
        name = DECAYS[kind][0]
        if kind == "muon" and not updates._is_hidden(c, path, w.shape):
            name = DECAYS[kind][1]
        decay = (getattr(c, name) or 0.0) * (1 if kind == "adafactor" else rate(t))
        decay = decay * share(t)
        start = w if kind == "adafactor" else (1 - decay) * w
        size = rate(t)
        if kind == "adafactor" and c.multiply_by_parameter_scale:
            size *= max(np.sqrt(np.mean(w**2)), c.epsilon2)
        u = masks(start - bare(path, start, g, t, slots), g, size)
        return w - decay * decays(w, u) - u

    return update
