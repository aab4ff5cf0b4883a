"""Bases of eigenvectors that follow a matrix, the same on every framework."""

from typing import Any

_TINY = 1e-30  # keeps a norm from 0


def first_basis(xp: Any, q: Any, s: Any) -> Any:
    """Returns the eigenvectors of a statistic in columns, those of the largest eigenvalues first.

    Where it is singular any basis of what is left would do, and each library has another one: it is
    that of the eigenvectors of a fixed diagonal there.
    """
    del q
    s = _of_unit_norm(s, xp)
    values, vectors = map(xp.keep, xp.eigh(s))
    seen = xp.keep(xp.where(values > _rounding(s, xp), 1.0, 0.0))
    used, unused = xp.keep(vectors * seen), xp.keep(vectors * xp.keep(1.0 - seen))
    rest = xp.keep(xp.matmul(unused, xp.swapaxes(unused, 0, 1)))
    # Eigenvalues of at most 1, and of 2 or more.
    fixed = xp.matmul(rest * xp.keep(1.0 - xp.places(s)), rest)
    known = xp.matmul(used * xp.keep(2.0 + values), xp.swapaxes(used, 0, 1))
    _, vectors = xp.eigh(known + fixed)
    vectors = xp.keep(xp.flip(vectors, 1))
    # Of either sign, as it happens.
    return _turned_to(vectors, xp.expand_dims(1.0 + xp.places(s), 1), xp)


def next_basis(xp: Any, q: Any, s: Any) -> Any:
    """Returns a basis that is nearer to a statistic's eigenvectors, by a step of power iteration.

    The columns keep their places, so that what is known in the basis need not be sorted. Where the
    statistic is singular they stay as they are, but for rounding.
    """
    s = _of_unit_norm(s, xp)
    q, moved = xp.keep(q), xp.keep(xp.matmul(s, q))
    order = xp.argsort(-xp.sum(q * moved, axis=0))
    moved = xp.keep(moved + _rounding(s, xp) * q)
    made, _ = xp.qr(xp.take(moved, order, axis=1))
    return _turned_to(xp.keep(xp.take(made, xp.argsort(order), axis=1)), q, xp)


def _turned_to(q: Any, like: Any, xp: Any) -> Any:
    """Returns a basis whose columns have the signs by which they point as others do."""
    return q * xp.where(xp.sum(q * like, axis=0) < 0, -1.0, 1.0)


def _of_unit_norm(s: Any, xp: Any) -> Any:
    s = xp.keep(s)
    return xp.keep(s / (xp.norm(s, wide=True) + _TINY))


def _rounding(s: Any, xp: Any) -> float:
    """Returns how large an eigenvalue of unit norm is told from rounding, with some room."""
    return max(1e-8, 8 * xp.resolution(s) * xp.rows(s) ** 0.5)
