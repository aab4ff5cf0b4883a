"""Muon for hidden matrices and kernels of convolutions, AdamW for the rest."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from optimization.configs.types import NonNegativeFloat, Patterns, PositiveFloat, PositiveInt, Share
from optimization.matching.matrices import hidden_matrices, outputs_first
from optimization.matching.patterns import matches_any
from optimization.rules.base import MEANS_OF_SQUARES, OPTIMIZERS_CLS
from optimization.rules.rule import Rule, Slot

_LARGEST = 2.0**110  # of orthogonalized matrices: the norm of their momentum stays below 2**128


def _by_adamw(h: Any) -> bool:
    return not h.orthogonalized


@OPTIMIZERS_CLS.register("muon", torch="optimization.torch.recipes:muon")
class MuonConfig(Rule):
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

    class_name = "Muon"
    largest_gradient = MEANS_OF_SQUARES
    native_note = "AdamW for what is no hidden matrix ([below](#what-muon-orthogonalizes))"
    goes_by_model = True
    argument_order = ("adam_beta_1", "adam_beta_2", "adam_weight_decay", "epsilon", "weight_decay")
    slots = (
        Slot("momentum", "momentums", "momentum_buffer", when=lambda h: h.orthogonalized),
        Slot("momentum", "momentums", "exp_avg", when=_by_adamw),
        Slot("velocity", "adam_velocities", "exp_avg_sq", when=_by_adamw),
    )
    decay_arguments = ("weight_decay", "adam_weight_decay")
    variable_settings: ClassVar = {"use_muon": True, "flatten": False}
    native_arguments: ClassVar = {
        "adam_beta_1": "adam_betas.0",
        "adam_beta_2": "adam_betas.1",
        "epsilon": "adam_eps",
        "muon_a": "ns_coefficients.0",
        "muon_b": "ns_coefficients.1",
        "muon_c": "ns_coefficients.2",
    }
    not_native = ("exclude_embeddings",)

    name: str | None = "Muon"
    weight_decay: NonNegativeFloat | None = 0.004
    adam_beta_1: Share = 0.9
    adam_beta_2: Share = 0.999
    adam_weight_decay: NonNegativeFloat | None = 0.004
    epsilon: PositiveFloat = 1e-7
    exclude_layers: Patterns | None = None
    exclude_embeddings: bool = True
    muon_a: float = 3.4445
    muon_b: float = -4.7750
    muon_c: float = 2.0315
    adam_lr_ratio: PositiveFloat = 1.0
    momentum: Share = 0.95
    ns_steps: PositiveInt = 5
    nesterov: bool = True
    rms_rate: PositiveFloat | None = 0.2

    def all_settings(
        self, paths: Sequence[str], shapes: Mapping[str, Sequence[int]]
    ) -> list[dict[str, Any]]:
        matrices = hidden_matrices(shapes, self.exclude_embeddings)
        return [
            {"orthogonalized": self.takes(path, matrices), "outputs_first": outputs_first(path)}
            for path in paths
        ]

    def takes(self, path: str, matrices: set[str]) -> bool:
        """Says whether Muon updates a variable, given all hidden matrices."""
        return path in matrices and not matches_any(path, self.exclude_layers)

    def shape_settings(self, shape: Sequence[int], group: Mapping[str, Any]) -> dict[str, Any]:
        is_matrix = len(shape) == 2 or (group["flatten"] and len(shape) > 2)
        return {"orthogonalized": group["use_muon"] and is_matrix, "outputs_first": True}

    def is_elementwise(self, h: Any) -> bool:
        return not h.orthogonalized

    def largest_gradient_of(self, h: Any) -> float:
        return _LARGEST if h.orthogonalized else self.largest_gradient

    def decay_before(self, h: Any) -> Any:
        return h.weight_decay if h.orthogonalized else h.adam_weight_decay

    def decay_rates(self, h: Any) -> list[Any]:
        return [self.decay_before(h)]

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.bounded(g, self.largest_gradient_of(h))
        if not h.orthogonalized:
            return _adamw_step(g, s, h, xp)
        m = s.scale_add("momentum", h.momentum, g)
        x = xp.to_matrix(g + h.momentum * m if h.nesterov else m, h.outputs_first)
        rate = h.lr if h.rms_rate is None else h.lr * h.rms_rate * xp.width(x) ** 0.5
        return xp.from_matrix(rate * _orthogonalized(x, h, xp), w, h.outputs_first)


def _adamw_step(g: Any, s: Any, h: Any, xp: Any) -> Any:
    m = s.lerp("momentum", g, 1 - h.adam_beta_1)
    v = s.lerp_square("velocity", g, 1 - h.adam_beta_2)
    # As in Keras' Muon; `one_minus_power` would be more exact in float32, by 1e-5 of a step.
    root = xp.sqrt(1 - h.adam_beta_2**h.t)
    rate = h.lr * h.adam_lr_ratio * root / (1 - h.adam_beta_1**h.t)
    return rate * (m / (xp.sqrt(v) + h.epsilon))


def _orthogonalized(x: Any, h: Any, xp: Any) -> Any:
    """Returns U V^T, roughly, of a matrix U S V^T, by Newton-Schulz iterations."""
    x = xp.keep(x)
    x = xp.keep(x / (xp.norm(x, wide=True) + 1e-7))  # so that the spectral norm is at most 1
    for _ in range(h.ns_steps):
        gram = xp.keep(xp.matmul(x, xp.swapaxes(x, 0, 1)))
        polynomial = h.muon_c * xp.matmul(gram, gram) + h.muon_b * gram
        x = xp.keep(xp.matmul(polynomial, x) + h.muon_a * x)
    return x
