"""Muon."""

from optimization.configs.base import config_dataclass
from optimization.configs.types import (
    Decay,
    NonNegativeFloat,
    Patterns,
    PositiveFloat,
    PositiveInt,
)
from optimization.rules.base import (
    OPTIMIZERS_CLS,
    KerasOptimizerConfig,
)


@OPTIMIZERS_CLS.register(
    "muon", "optimization.optimizers.muon:Muon", torch="optimization.torch.recipes:muon"
)
@config_dataclass
class MuonConfig(KerasOptimizerConfig):
    """Muon: momentum whose matrices are made orthogonal; all else is AdamW's.

        m <- momentum m + g;  u = m               with `nesterov`: u = g + momentum m
        x = u / |u|, then `ns_steps` times: x <- a x + (b A + c A^2) x,  A = x x^T
        w <- w - lr * rms_rate * sqrt(max(rows, columns)) * x

    with a, b, c = `muon_a`, `muon_b`, `muon_c`. Muon updates hidden matrices, and kernels of
    convolutions as matrices; AdamW all else, with the rate lr * adam_lr_ratio: vectors, embeddings,
    and the output layer. That is the one with a usual name (`lm_head`, `head`, `classifier`,
    `logits`, `output`, ...), else the last linear layer.

    Source: Jordan et al. 2024, https://kellerjordan.github.io/posts/muon; Liu et al. 2025,
    arXiv:2502.16982; as in Keras' Muon.

    Attributes:
        weight_decay: For the variables that Muon updates.
        adam_weight_decay: For the variables that AdamW updates.
        exclude_layers: Regular expressions for the paths of matrices that AdamW updates too.
        exclude_embeddings: Whether AdamW updates embeddings, known by their layer or its name.
        muon_a: The first coefficient of the Newton-Schulz iteration.
        muon_b: The second coefficient.
        muon_c: The third coefficient.
        adam_lr_ratio: AdamW's learning rate over Muon's.
        ns_steps: The number of Newton-Schulz iterations.
        rms_rate: Muon's update is scaled by rms_rate * sqrt(max(rows, columns)); None for no
            scaling.
        adam_beta_1: AdamW's decay of the first moment.
        adam_beta_2: AdamW's decay of the second moment.
        epsilon: Keeps AdamW's divisor from 0.
        momentum: Muon's momentum.
        nesterov: Whether Muon's gradient is taken ahead of the step.
    """

    name: str | None = "Muon"
    weight_decay: NonNegativeFloat | None = 0.004
    adam_beta_1: Decay = 0.9
    adam_beta_2: Decay = 0.999
    adam_weight_decay: NonNegativeFloat | None = 0.004
    epsilon: PositiveFloat = 1e-7
    exclude_layers: Patterns | None = None
    exclude_embeddings: bool = True
    muon_a: float = 3.4445
    muon_b: float = -4.7750
    muon_c: float = 2.0315
    adam_lr_ratio: PositiveFloat = 1.0
    momentum: Decay = 0.95
    ns_steps: PositiveInt = 5
    nesterov: bool = True
    rms_rate: PositiveFloat | None = 0.2
