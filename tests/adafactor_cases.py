"""Twenty-five steps of every Adafactor: inputs, the peers' settings, and the same of a section.

It imports NumPy alone, since the tools that compute golden figures run without Keras.
"""

import numpy as np

STEPS = 25
# Above 1 / sqrt(t) at times, so that a cap shows; on the scale of the weights where there is one.
RATES = [(0.4, 0.05, 0.6, 0.02, 0.3)[step % 5] for step in range(STEPS)]
# Sizes around what is factored from 16, from more than 16, from 32 and from 128 on.
SHAPES = {
    "scalar": (),
    "one/bias": (1,),
    "bias": (9,),
    "column/kernel": (7, 1),
    "row/kernel": (1, 6),
    "dense_16/kernel": (16, 17),
    "dense_17/kernel": (18, 17),
    "dense_31/kernel": (33, 31),
    "dense_32/kernel": (32, 32),
    "dense_127/kernel": (127, 129),
    "dense_128/kernel": (128, 130),
    "three/kernel": (4, 9, 5),
    "heads/kernel": (33, 3, 34),
    "conv/kernel": (3, 2, 17, 18),
    "torch_conv/kernel": (20, 17, 2, 3),
    "narrow_conv/kernel": (3, 1, 5, 6),
}


def inputs(steps=STEPS, shapes=None):
    """Returns the initial weights and the gradients of each step, float32."""
    random = np.random.RandomState(11)

    def draw(scale, shift=0.0):
        return {
            path: (random.randn(*shape) * scale + shift * np.ones(shape)).astype("float32")
            for path, shape in (shapes or SHAPES).items()
        }

    return draw(0.3, 0.1), [draw(0.5 if step % 4 else 3.0) for step in range(steps)]


def sample(weights):
    """Returns some entries of each tensor, spread over all of it."""
    return {
        path: np.asarray(value).reshape(-1)[:: max(1, np.size(value) // 24)]
        for path, value in weights.items()
    }


# Of each: the peer's class, its arguments (`lr` in RATES where it says so), and our section.
PEER_CASES = {
    "torch": ("torch", {}, {"variant": "torch"}),
    "torch epsilon": (
        "torch",
        {"eps": (0.05, 0.2), "weight_decay": 0.1, "beta2_decay": -0.6, "d": 1.1},
        {
            "variant": "torch",
            "epsilon1": 0.05,
            "epsilon2": 0.2,
            "weight_decay": 0.1,
            "decay_rate": 0.6,
            "clipping_threshold": 1.1,
        },
    ),
    "timm relative": ("timm", {"lr": None, "weight_decay": 0.1}, {"weight_decay": 0.1}),
    "timm warmup": (
        "timm",
        {"lr": None, "warmup_init": True, "betas": (0.9, 0.999)},
        {"warmup_init": True, "beta1": 0.9},
    ),
    "timm unscaled": (
        "timm",
        {"lr": None, "scale_parameter": False, "clip_threshold": 0.5},
        {"multiply_by_parameter_scale": False, "clipping_threshold": 0.5},
    ),
    "timm absolute": (
        "timm",
        {"weight_decay": 0.1, "betas": (0.8, 0.999), "min_dim_size_to_factor": 4},
        {
            "step_size": "absolute",
            "weight_decay": 0.1,
            "beta1": 0.8,
            "min_dim_size_to_factor": 4,
        },
    ),
    "big_vision": (
        "big_vision",
        {"min_dim_size_to_factor": 32, "weight_decay": 0.05},
        {"weight_decay": 0.05},
    ),
    "big_vision decay": (
        "big_vision",
        {
            "weight_decay": 0.01,
            "unscaled_wd": True,
            "clipping_threshold": 1.0,
            "beta2_cap": 0.7,
            "momentum": None,
            "eps": 1e-3,
        },
        {
            "min_dim_size_to_factor": 16,
            "weight_decay": 0.01,
            "weight_decay_kind": "plain",
            "clipping_threshold": 1.0,
            "beta_2_cap": 0.7,
            "beta1": None,
            "momentum_of": "update",
            "epsilon1": 1e-3,
        },
    ),
}


def section(name):
    """Returns what our section `adafactor` says for a case."""
    peer, _, values = PEER_CASES[name]
    return {"variant": peer, **values}
