"""Formulas over lists of tensors are the formulas over arrays of NumPy, or a clear error."""

import random

import numpy as np
import pytest

from optimization.rules.arrays import Arrays, State
from tests.torch.common import torch

from optimization.torch.functions import FUNCTIONS, ListState  # isort: skip
from optimization.torch.lists import Tensors  # isort: skip

XP = Arrays(np)
SHAPES = [(3,), (2, 2)]


def values(seed):
    """Returns a gradient, a weight and two slots, m and v, of each shape."""
    drawn = np.random.default_rng(seed)
    return [[drawn.normal(1, 0.5, shape) for shape in SHAPES] for _ in range(4)]


def by_numpy(formula, seed=0):
    """Returns the weights after a step, and the slots, by NumPy."""
    found = []
    for g, w, m, v in zip(*values(seed), strict=True):
        s = State({"m": m, "v": v})
        with np.errstate(all="ignore"):
            w = w - formula(g, w, s, XP)
        found += [w, np.broadcast_to(s.m, w.shape), np.broadcast_to(s.v, w.shape)]
    return found


def by_torch(formula, seed=0):
    g, w, m, v = ([torch.tensor(x) for x in each] for each in values(seed))
    s = ListState({"m": m, "v": v})
    formula(Tensors(list(g)), Tensors(w), s, FUNCTIONS).add_to(w, -1.0)
    assert all(np.array_equal(a, b.numpy()) for a, b in zip(values(seed)[0], g, strict=True))
    return [x.numpy() for each in zip(w, m, v, strict=True) for x in each]


def check(formula, seed=0):
    for actual, expected in zip(by_torch(formula, seed), by_numpy(formula, seed), strict=True):
        np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


# What a step of a program does with two values a and b, a number c, and the slot of a name.
STEPS = [
    lambda a, b, c, name, s, xp: a + b,
    lambda a, b, c, name, s, xp: a - b,
    lambda a, b, c, name, s, xp: a * b,
    lambda a, b, c, name, s, xp: a / b,
    lambda a, b, c, name, s, xp: -a,
    lambda a, b, c, name, s, xp: c * a,
    lambda a, b, c, name, s, xp: c - a,
    lambda a, b, c, name, s, xp: c / a,
    lambda a, b, c, name, s, xp: xp.sqrt(xp.abs(a)),
    lambda a, b, c, name, s, xp: xp.maximum(a, b),
    lambda a, b, c, name, s, xp: xp.minimum(c, a),
    lambda a, b, c, name, s, xp: xp.lerp(a, b, 0.25),
    lambda a, b, c, name, s, xp: a / (1 + xp.norm(b)),
    lambda a, b, c, name, s, xp: xp.clip(a, -0.5, 0.5),
    lambda a, b, c, name, s, xp: s.lerp(name, a, 0.3),
    lambda a, b, c, name, s, xp: s.lerp_square(name, a, 0.3),
    lambda a, b, c, name, s, xp: s.add_square(name, a),
    lambda a, b, c, name, s, xp: s.scale_add(name, c, a),
    lambda a, b, c, name, s, xp: getattr(s, name),
    lambda a, b, c, name, s, xp: (setattr(s, name, a), getattr(s, name))[1],
]


def program(seed, kept):
    """Returns a formula of random steps, of which each is kept with a probability."""
    drawn = random.Random(seed)
    steps = [
        (drawn.choice(STEPS), drawn.random(), drawn.random(), drawn.choice([0.5, -1.5, 2.0]))
        for _ in range(drawn.randint(3, 9))
    ]
    names = [drawn.choice("mv") for _ in steps]
    keeps = [drawn.random() < kept for _ in steps]

    def formula(g, w, s, xp):
        found = [g, w]
        for (step, first, second, number), name, keep in zip(steps, names, keeps, strict=True):
            a, b = (found[int(place * len(found))] for place in (first, second))
            made = step(a, b, number, name, s, xp)
            found.append(xp.keep(made) if keep else made)
        return found[-1]

    return formula


def test_random_formulas_that_keep_all_are_numpys():
    for seed in range(400):
        check(program(seed, kept=1.0), seed)


def test_random_formulas_are_numpys_or_say_what_to_keep():
    errors = []
    for seed in range(400):
        try:
            check(program(seed, kept=0.3), seed)
        except RuntimeError as error:
            errors.append(str(error))
    assert 0 < len(errors) < 300
    assert all("xp.keep" in error for error in errors)


def difference_of_gradients(keep):
    def formula(g, w, s, xp):
        before = xp.keep(s.m) if keep else s.m
        s.m = g
        return g - before

    return formula


def test_a_slot_as_it_was_before_it_moved_is_kept():
    check(difference_of_gradients(keep=True))
    with pytest.raises(RuntimeError, match=r"before it moved; pass it through `xp\.keep`"):
        by_torch(difference_of_gradients(keep=False))


def a_view(g, w, s, xp):
    before = xp.expand_dims(s.m, 0)
    s.lerp("m", g, 0.5)
    return xp.sum(before, axis=0)


@pytest.mark.parametrize(
    "formula",
    [
        lambda g, w, s, xp: xp.where(g * w > 0, g, 0.5 * g),
        lambda g, w, s, xp: g * (g > 0.5),
        lambda g, w, s, xp: g * xp.where((g > 1) & ~(w > 1), 0.1, 1.0),
        lambda g, w, s, xp: xp.where(xp.norm(g) > 2, g / xp.norm(g), g),
        lambda g, w, s, xp: g * xp.where(xp.norm(g) > 2, 0.1, 1.0),
        lambda g, w, s, xp: g**2 + abs(w) ** 0.5 + 2.0**g,
        lambda g, w, s, xp: xp.power(xp.abs(g), xp.abs(w)),
        lambda g, w, s, xp: xp.expm1(g),
        lambda g, w, s, xp: g / xp.sqrt(xp.sum(xp.square(g))),
        lambda g, w, s, xp: g / xp.mean(xp.abs(g)),
        lambda g, w, s, xp: (xp.norm(g) + s.m) - (xp.norm(w) - s.v),
        lambda g, w, s, xp: s.lerp("m", xp.norm(g), 0.5),
        lambda g, w, s, xp: s.scale_add("m", 0.5, s.m),
        a_view,
    ],
)
def test_what_formulas_of_numpy_may_do(formula):
    check(formula)


def test_an_if_on_what_arrays_hold_is_an_error():
    for condition in (lambda g, xp: g > 0, lambda g, xp: xp.norm(g) > 0):
        with pytest.raises(TypeError, match=r"no `if`.*xp\.where"):
            by_torch(lambda g, w, s, xp, c=condition: g if c(g, xp) else w)


@pytest.mark.parametrize("xp", [XP, FUNCTIONS])
def test_a_function_that_there_is_not(xp):
    with pytest.raises(AttributeError, match="no function 'maximun'; did you mean 'maximum'"):
        xp.maximun  # noqa: B018
