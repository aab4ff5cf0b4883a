"""States that earlier versions have saved on JAX load, and are trained on from."""

import pytest

from tests.jax.common import jax  # noqa: F401  skips where it is not installed
from tests.saved_goldens import STEPS, Goldens, assert_close, kinds

pytest.importorskip("optax")

from tests.jax.saved import Run

GOLDENS = Goldens("jax")
# Those with state of another kind each, since every one takes a compilation; the contract tests
# compare what all types do with what Keras does.
TRAINED = ("adamw, exclusions", "soap, often, merged", "prodigy, everything", "muon, auxiliary")
TRAINED += ("freeze_steps", "state, stochastic", "modifiers, adamw", "zclip")


@pytest.mark.parametrize("name", GOLDENS.cases)
def test_the_state_has_the_leaves_that_were_saved(name):
    case = GOLDENS.cases[name]
    expected = {path: tuple(kind) for path, kind in case["variables"].items()}
    assert kinds(Run(case).arrays()) == expected


@pytest.mark.slow
@pytest.mark.parametrize("name", TRAINED)
def test_a_saved_state_trains_on(name):
    case = GOLDENS.cases[name]
    run = Run(case)
    run.load(GOLDENS.values(name, "saved"))
    run.take_steps(STEPS)
    assert_close(run.values(), GOLDENS.values(name, "trained"), case)
