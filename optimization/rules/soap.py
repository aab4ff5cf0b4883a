"""SOAP: Adam in the eigenbases of Shampoo's statistics."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from optimization.configs.types import NonNegativeFloat, PositiveFloat, PositiveInt, Share, Unit
from optimization.matching.matrices import outputs_first
from optimization.rules.adam import FIRST, MOMENTS, AdamFields
from optimization.rules.base import OPTIMIZERS_CLS, SUMS_OF_SQUARES
from optimization.rules.decay import DecayLists
from optimization.rules.eigenbases import first_basis, next_basis
from optimization.rules.rule import Slot, given

AXES = 5
"""How many axes of a variable may have bases: those of a kernel of a convolution over volumes."""

_START = 0.1  # of the eigenvalues of `kl`, as in its authors' code
_ROUNDINGS = 32.0  # by as much rounding in float32 has to be less than what counts
_LARGEST = 2.0**40  # of gradients that `kl` divides by the roots of eigenvalues


def _has(axis: int, kl: bool = False) -> Callable[[Any], bool]:
    return lambda h: axis in h.bases and (h.kl or not kl)


def _square(axis: int) -> Callable[[Sequence[int], Any], Sequence[int]]:
    return lambda shape, h: (h.lengths[axis], h.lengths[axis])


def _vector(axis: int) -> Callable[[Sequence[int], Any], Sequence[int]]:
    return lambda shape, h: (h.lengths[axis],)


def _slots(axis: int) -> tuple[Slot, ...]:
    """Returns what is kept of an axis that has a basis."""
    names = [f"{name}_{axis}" for name in ("statistic", "basis", "eigenvalues")]
    kept = [Slot(name, name, name, 0.0, 1, _has(axis), _square(axis)) for name in names[:2]]
    return (*kept, Slot(names[2], names[2], names[2], _START, 1, _has(axis, True), _vector(axis)))


@OPTIMIZERS_CLS.register("soap")
class SOAPConfig(DecayLists, AdamFields):
    """SOAP: Adam of gradients as they are in the eigenbases of Shampoo's statistics.

    Each axis of a matrix or kernel has a statistic S and a basis Q, which starts as the
    eigenvectors of the first S. With G the gradient, and G_i as a matrix whose rows are along axis
    i; x' stands for x in the bases, that is Q_1^T x Q_2 for a matrix:

        m <- beta_1 m + (1 - beta_1) G
        v <- beta_2 v + (1 - beta_2) G'^2
        u' = sqrt(1 - beta_2^t) / (1 - beta_1^t) * m' / (sqrt(v) + epsilon)
        w <- w - lr u;  w <- w - lr * weight_decay * w
        S_i <- b S_i + (1 - b) G_i G_i^T                  b = shampoo_beta
        Q_i <- the Q of S_i Q_i = Q R                     every precondition_frequency updates

    The first gradient makes S and Q and moves nothing, so t counts from the second one. Vectors
    have Adam's step, and so has an axis that is longer than `max_precondition_dim`, where Q stays
    the identity. State is 2 n^2 numbers for each axis of n, beside Adam's.

    With `kl` it is KL-SOAP: G_i is divided by the roots of the eigenvalues l of the other axes, in
    their bases, and S is a mean over these, not a sum. The eigenvalues start from 0.1:

        l_i <- b l_i + (1 - b) mean of (G' / roots of the other l)^2, over the other axes

    They are at least 1 / max(10, min(n, 4000))^2, as in its authors' code.

    Where a statistic has no eigenvectors of its own, since no gradient has reached there, a basis
    starts from those of a fixed matrix and stays as it is: on every framework the same. Beside
    epsilon the divisor has 32 roundings of the root mean square of v, 4e-6 of it in float32, so
    that rounding makes short steps there, not whole ones.

    Source: Vyas et al. 2024, arXiv:2409.11321, algorithm 3 and its authors' code; Lin et al. 2025,
    arXiv:2509.03378.

    Attributes:
        beta_2: The decay of the second moment, the mean of the square in the bases.
        shampoo_beta: The decay of the statistics; None for beta_2.
        precondition_frequency: After how many updates bases follow the statistics. Few are better
            by update, and slower: each takes a QR decomposition of every statistic.
        max_precondition_dim: The longest axis that has a basis.
        merge_dims: Whether the axes of a kernel's inputs are one, as far as their product is at
            most `max_precondition_dim`, those of space first: a kernel of a convolution becomes a
            matrix, as in heavyball. (The authors' code merges the outputs too.)
        precondition_1d: Whether vectors have bases too.
        correct_bias: Whether the moments are corrected for their start from zero, as above.
        normalize_gradients: Whether u is divided by its root mean square, for each variable.
        kl: Whether it is KL-SOAP.
        weight_decay: After the step, w -= learning_rate * weight_decay * w; None or 0 for none.
    """

    class_name = "SOAP"
    usual_rate = 0.003
    argument_order = (*FIRST, "weight_decay")
    largest_gradient = SUMS_OF_SQUARES
    branches = True
    slots = (*MOMENTS, *(slot for axis in range(AXES) for slot in _slots(axis)))

    name: str | None = "SOAP"
    beta_1: Share = 0.95
    beta_2: Share = 0.95
    epsilon: PositiveFloat = 1e-8
    shampoo_beta: Share | None = None
    precondition_frequency: Annotated[PositiveInt, Unit("updates")] = 10
    max_precondition_dim: PositiveInt = 10_000
    merge_dims: bool = False
    precondition_1d: bool = False
    correct_bias: bool = True
    normalize_gradients: bool = False
    kl: bool = False
    weight_decay: NonNegativeFloat | None = 0.01

    def settings(self, path: str, shape: Sequence[int]) -> dict[str, Any]:
        names = ("max_precondition_dim", "merge_dims", "precondition_1d")
        fields = {name: getattr(self, name) for name in names}
        return _shapes(tuple(shape), fields, outputs_first(path))

    def shape_settings(self, shape: Sequence[int], group: Mapping[str, Any]) -> dict[str, Any]:
        return _shapes(tuple(shape), group, True)

    def is_elementwise(self, h: Any) -> bool:
        return not h.bases and not h.normalize_gradients

    def compiles(self, h: Any) -> bool:
        return not h.bases

    def largest_gradient_of(self, h: Any) -> float:
        return _LARGEST if h.kl else self.largest_gradient

    def decay_before(self, h: Any) -> Any:
        return 0.0  # it comes after the step

    def step(self, g: Any, w: Any, s: Any, h: Any, xp: Any) -> Any:
        g = xp.bounded(g, self.largest_gradient_of(h))
        later, done = xp.where(h.t > 1, 1.0, 0.0), xp.maximum(h.t - 1, 1.0)
        m = s.lerp("momentum", g, (1 - h.beta_1) * later)
        if h.bases:
            g = xp.reshape(g, h.lengths)
        rotated = xp.keep(_rotated(g, s, h, xp))
        v = s.lerp_square("velocity", _whole(rotated, h, xp), (1 - h.beta_2) * later)
        u = _whole(_in_bases(m, v, s, h, xp), h, xp)
        if h.normalize_gradients:
            u = xp.keep(u)
            # XLA may multiply this by `epsilon`, which 1e-30 would make less than float32 has.
            u = u / (xp.norm(u) / xp.size(u) ** 0.5 + 1e-20)
        rate = h.lr * later
        if h.correct_bias:
            root = xp.sqrt(xp.one_minus_power(h.beta_2, done))
            rate = rate * root / xp.one_minus_power(h.beta_1, done)
        step = h.modified(rate * u, h.lr)
        if given(h.weight_decay):
            step = xp.keep(step)
            step = step + h.lr * later * h.weight_decay * h.decay(w - step, step)
        step = xp.keep(step)  # before what it is made of moves
        if h.bases:
            _follow(g, rotated, s, h, xp)
        return step


def _shapes(
    shape: tuple[int, ...], fields: Mapping[str, Any], outputs_first: bool
) -> dict[str, Any]:
    """Returns which axes of a variable have bases, their lengths where merged, and its shape.

    What has Adam's step has no shape, so that all of it is updated together.
    """
    most = fields["max_precondition_dim"]
    lengths = _merged(shape, most, outputs_first) if fields["merge_dims"] else shape
    bases = tuple(i for i, n in enumerate(lengths[:AXES]) if 1 < n <= most)
    if not bases or (len(shape) < 2 and not fields["precondition_1d"]):
        return {"bases": (), "lengths": (), "whole": ()}
    return {"bases": bases, "lengths": lengths, "whole": shape}


def _merged(shape: tuple[int, ...], most: int, outputs_first: bool) -> tuple[int, ...]:
    """Returns the lengths of the axes where those of the inputs are merged, from space on."""
    if len(shape) < 2:
        return shape
    inputs = shape[:0:-1] if outputs_first else shape[:-1]
    found: list[int] = []
    for n in inputs:
        if found and found[-1] * n <= most:
            found[-1] *= n
        else:
            found.append(n)
    return (shape[0], *found[::-1]) if outputs_first else (*found, *shape[-1:])


def _whole(x: Any, h: Any, xp: Any) -> Any:
    """Returns what has merged axes in the shape of the variable."""
    return xp.reshape(x, h.whole) if h.lengths != h.whole else x


def _unfolded(x: Any, axis: int, h: Any, xp: Any) -> Any:
    """Returns an array as a matrix whose rows are along an axis."""
    before, after = math.prod(h.lengths[:axis]), math.prod(h.lengths[axis + 1 :])
    x = xp.swapaxes(xp.reshape(x, (before, h.lengths[axis], after)), 0, 1)
    return xp.reshape(x, (h.lengths[axis], before * after))


def _folded(x: Any, axis: int, h: Any, xp: Any) -> Any:
    """Returns the array that `_unfolded` made a matrix of."""
    before, after = math.prod(h.lengths[:axis]), math.prod(h.lengths[axis + 1 :])
    x = xp.swapaxes(xp.reshape(x, (h.lengths[axis], before, after)), 0, 1)
    return xp.reshape(x, h.lengths)


def _rotated(x: Any, s: Any, h: Any, xp: Any, back: bool = False, without: int = -1) -> Any:
    """Returns an array in the bases, or back from them, but for one axis."""
    for axis in (axis for axis in h.bases if axis != without):
        basis = getattr(s, f"basis_{axis}")
        made = xp.matmul(basis if back else xp.swapaxes(basis, 0, 1), _unfolded(x, axis, h, xp))
        x = _folded(made, axis, h, xp)
    return x


def _in_bases(m: Any, v: Any, s: Any, h: Any, xp: Any) -> Any:
    """Returns Adam's step in the bases, back from them."""
    if not h.bases:
        return m / (xp.sqrt(v) + h.epsilon)
    u = _rotated(xp.reshape(m, h.lengths), s, h, xp)
    root = xp.keep(xp.sqrt(xp.reshape(v, h.lengths)))
    # Where the gradient is 0 in the bases rounding is left, which would make whole steps.
    rounding = _ROUNDINGS * xp.resolution(root) / math.prod(h.lengths) ** 0.5 * xp.norm(root)
    return _rotated(u / (root + (h.epsilon + rounding)), s, h, xp, back=True)


def _follow(g: Any, rotated: Any, s: Any, h: Any, xp: Any) -> None:
    """Moves the statistics, and where that is due the bases."""
    beta = h.beta_2 if h.shampoo_beta is None else h.shampoo_beta
    later = xp.where(h.t > 1, 1.0, 0.0)
    means = {axis: _mean_of_axis(rotated, axis, s, h, xp) for axis in h.bases if h.kl}
    products = {}
    for axis in h.bases:
        x = _divided(g, axis, s, h, xp) if h.kl else g
        x = xp.keep(_unfolded(x, axis, h, xp))
        others = math.prod(h.lengths) / h.lengths[axis] if h.kl else 1.0
        products[axis] = xp.matmul(x, xp.swapaxes(x, 0, 1)) / others
    due = xp.recurs(h.done, h.precondition_frequency, g) * later > 0
    for axis in h.bases:
        statistic = xp.keep(s.lerp(f"statistic_{axis}", products[axis], 1 - beta))
        if h.kl:
            moved = s.lerp(f"eigenvalues_{axis}", means[axis], (1 - beta) * later)
            least = 1 / max(10, min(h.lengths[axis], 4000)) ** 2
            setattr(s, f"eigenvalues_{axis}", xp.maximum(moved, least))
        name = f"basis_{axis}"
        basis = getattr(s, name)
        found = xp.when(h.t < 2, first_basis, basis, statistic)
        found = xp.when(due, next_basis, found, statistic)
        if found is not basis:
            setattr(s, name, found)


def _root(axis: int, s: Any, h: Any, xp: Any) -> Any:
    """Returns the roots of an axis' eigenvalues, to compute with what has all axes."""
    shape = [1] * len(h.lengths)
    shape[axis] = h.lengths[axis]
    return xp.reshape(xp.sqrt(getattr(s, f"eigenvalues_{axis}")), tuple(shape))


def _over_roots(x: Any, without: int, s: Any, h: Any, xp: Any) -> Any:
    for axis in (axis for axis in h.bases if axis != without):
        x = x / _root(axis, s, h, xp)
    return x


def _divided(g: Any, axis: int, s: Any, h: Any, xp: Any) -> Any:
    """Returns a gradient over the roots of the other axes' eigenvalues; the first as it is."""
    x = _over_roots(_rotated(g, s, h, xp, without=axis), axis, s, h, xp)  # at first 0
    return x + xp.where(h.t > 1, 0.0, 1.0) * g


def _mean_of_axis(rotated: Any, axis: int, s: Any, h: Any, xp: Any) -> Any:
    """Returns for each entry of an axis the mean square of what the others divide."""
    x = xp.keep(_unfolded(_over_roots(rotated, axis, s, h, xp), axis, h, xp))
    return xp.mean(xp.square(x), axis=1)
