"""The decays of averages of weights, transcribed from where they come from, in float64."""

import math


def dino(n, base, steps):
    """DINO's momentum of the teacher in update n, from 1: a cosine from `base` to 1.

    Caron et al. 2021, arXiv:2104.14294, section 3.1: "from 0.996 to 1 during training".
    """
    done = min(n - 1, steps)
    return 1 + 0.5 * (base - 1) * (1 + math.cos(math.pi * done / steps))


def yolo(n, decay, tau):
    """YOLOv5's and Ultralytics' decay in update n, from 1, which rises by the time constant tau."""
    return decay * (1 - math.exp(-n / tau))


def warmed_up(n, decay, gamma, power, update_after_step):
    """The decay of timm's ModelEmaV3 with `use_warmup` in update n, from 1, and of diffusers."""
    m = max(0, n - update_after_step - 1)
    return 0.0 if m <= 0 else min(1 - (1 + m / gamma) ** -power, decay)


def tensorflow(n, decay):
    """The decay of TensorFlow's ExponentialMovingAverage with `num_updates` n."""
    return min(decay, (1 + n) / (10 + n))


FORMS = {
    "constant": ({"average_decay": 0.9, "dynamic_decay": False}, lambda n: 0.9),
    "tensorflow": ({"average_decay": 0.5}, lambda n: tensorflow(n, 0.5)),
    "dino": (
        {"average_decay": 0.6, "dynamic_decay": "cosine", "rise_steps": 7},
        lambda n: dino(n, 0.6, 7),
    ),
    "yolo": (
        {"average_decay": 0.99, "dynamic_decay": "exponential", "time_constant": 5.0},
        lambda n: yolo(n, 0.99, 5),
    ),
    "timm": (
        {"average_decay": 0.8, "dynamic_decay": "power", "start_step": 3},
        lambda n: warmed_up(n, 0.8, 1, 2 / 3, 2),
    ),
    "diffusers": (
        {"average_decay": 0.99, "dynamic_decay": "power", "gamma": 2.5, "power": 0.75},
        lambda n: warmed_up(n + 1, 0.99, 2.5, 0.75, 0),
    ),
}
"""Settings of `ema`, and their decay as a function of the update, from 1."""

SCHEDULE = {
    "type": "linear",
    "linear": {"initial_learning_rate": 0.5, "decay_steps": 4, "end_learning_rate": 1.0},
}
"""A schedule of a decay; SCHEDULED is its value in update n, from 1."""


def scheduled(n):
    return 0.5 + 0.5 * min(n - 1, 4) / 4
