"""Matrices made orthogonal by Newton-Schulz iterations, and the coefficients of these."""

from collections.abc import Mapping
from typing import Any

Coefficients = tuple[tuple[float, ...], ...]

# Amsel et al. 2025, for singular values from 1e-3 on, with their margin of 1 % in all but the last.
_POLAR_EXPRESS = (
    (8.28721201814563, -23.595886519098837, 17.300387312530933),
    (4.107059111542203, -2.9478499167379106, 0.5448431082926601),
    (3.9486908534822946, -2.908902115962949, 0.5518191394370137),
    (3.3184196573706015, -2.488488024314874, 0.51004894012372),
    (2.300652019954817, -1.6689039845747493, 0.4188073119525673),
    (1.891301407787398, -1.2679958271945868, 0.37680408948524835),
    (1.8750014808534479, -1.2500016453999487, 0.3750001645474248),
)
COEFFICIENTS: Mapping[str, Coefficients] = {
    "quintic": (
        (4.0848, -6.8946, 2.9270),
        (3.9505, -6.3029, 2.6377),
        (3.7418, -5.5913, 2.3037),
        (2.8769, -3.1427, 1.2046),
        (2.8366, -3.0525, 1.2012),
    ),
    "polar_express": (
        *((a / 1.01, b / 1.01**3, c / 1.01**5) for a, b, c in _POLAR_EXPRESS),
        (1.875, -1.25, 0.375),
    ),
}
"""Name -> a, b and c of each iteration; of later ones those of the last."""


def orthogonalized(x: Any, h: Any, xp: Any) -> Any:
    """Returns U V^T, roughly, of a matrix U S V^T, by Newton-Schulz iterations.

    In bfloat16 each result is rounded, as it is in `torch.optim.Muon`, the norm too.
    """
    given, low = xp.keep(x), h.ns_dtype if h.ns_dtype == "bfloat16" else None
    x = xp.keep(xp.cast(given, low)) if low else given
    # So that the spectral norm is at most 1.
    norm = h.safety_factor * xp.norm(x, wide=True) + 1e-7
    x = xp.keep(x / (xp.cast(norm, low) if low else norm))
    for a, b, c in _iterations(h):
        gram = xp.keep(xp.matmul(x, xp.swapaxes(x, 0, 1)))
        polynomial = xp.keep(xp.matmul_add(gram, gram, gram, (c, b), low))
        x = xp.keep(xp.matmul_add(polynomial, x, x, (1.0, a), low))
    return xp.cast(x, given) if low else x


def _iterations(h: Any) -> list[Any]:
    """Returns the coefficients of each iteration."""
    rows = h.coefficients
    if isinstance(rows, str):
        rows = COEFFICIENTS.get(rows, ((h.muon_a, h.muon_b, h.muon_c),))
    return [rows[min(i, len(rows) - 1)] for i in range(h.ns_steps)]
