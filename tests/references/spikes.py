"""ZClip and the skip of spikes in float64, from their papers, one number after the other."""

import math

import numpy as np


class ZClip:
    """Algorithm 1 of arXiv:2504.02507, and the other two ways to clip of the authors' package."""

    def __init__(self, threshold=2.5, alpha=0.97, mode="reciprocal", factor=1.0, warmup=25):
        self.threshold, self.alpha, self.mode = threshold, alpha, mode
        self.factor, self.warmup = factor, warmup
        self.seen, self.mean, self.variance, self.clipped = [], None, None, 0

    def bound(self, norm, learns_from_spikes=True):
        """Returns the bound on the norm of a gradient, None for none, and learns the norm."""
        if self.mean is None:
            self.seen.append(norm)
            if len(self.seen) == self.warmup:
                self.mean, self.variance = np.mean(self.seen), np.var(self.seen)
            return None
        deviation = math.sqrt(self.variance)
        z = (norm - self.mean) / (deviation + 1e-6)
        bound = None
        if self.mode == "threshold":
            if norm > self.mean + self.threshold * deviation:
                bound = self.mean + self.threshold * deviation
        elif z > self.threshold:
            eta = z / self.threshold
            bound = self.mean
            if self.mode == "reciprocal":
                bound = self.factor * (self.mean + self.threshold * deviation / eta)
        self.clipped += bound is not None
        if bound is None or learns_from_spikes:
            left = norm if bound is None else bound
            self.mean = self.alpha * self.mean + (1 - self.alpha) * left
            change = (left - self.mean) ** 2
            self.variance = self.alpha * self.variance + (1 - self.alpha) * change
        return bound


def are_spikes(values, window, warmup, sigma=None, quantile=None):
    """Says of each value whether it is above what the last ones before it allow."""
    found, recent = [], []
    for value in values:
        is_spike = False
        if len(recent) >= warmup:
            if sigma is not None:
                limit = np.mean(recent) + sigma * np.std(recent, ddof=1)
            else:
                limit = np.quantile(recent, quantile)
            is_spike = not value <= limit or not np.isfinite(value)
        found.append(bool(is_spike))
        if np.isfinite(value):
            recent = [*recent, value][-window:]
    return found


def norms(count=120, seed=5):
    """Returns norms with spikes, and a level that changes."""
    random = np.random.default_rng(seed)
    found = np.abs(random.normal(2.0, 0.3, count)) + np.where(np.arange(count) > 80, 1.0, 0.0)
    for place, factor in ((12, 5.0), (40, 30.0), (41, 8.0), (70, 2.0), (100, 1e3)):
        found[place] *= factor
    return found
