"""One config, the same training: Keras on this backend and native JAX.

`tools/agreement.py` runs every optimizer under every learning rate, for docs/agreement.md; here
each runs under one, and the learning rates are compared by themselves.
"""

import pytest

from tests import agreement
from tests.jax.common import jax  # noqa: F401  skips where it is not installed

pytest.importorskip("keras")

# A schedule-free optimizer under a rate that falls is doubtful, and yet the same everywhere.
pytestmark = pytest.mark.filterwarnings("ignore::optimization.ConfigWarning")

RATES = [agreement.WITH_WARMUP]
CASES = {f"{row}, {rate}": config for row, rate, config in agreement.configs(RATES)}


@pytest.mark.parametrize("config", CASES.values(), ids=CASES)
def test_weights_agree(config):
    found = agreement.jax_weights(config)
    # What is promised of 50 float32 steps.
    assert agreement.figure(agreement.keras_weights(config), found) < agreement.UPDATES_LIMIT


@pytest.mark.parametrize("name", agreement.learning_rates())
def test_learning_rates_agree(name):
    sections = agreement.learning_rates()[name]
    found = agreement.jax_rates(sections)
    assert agreement.figure(agreement.keras_rates(sections), found) < agreement.RATES_LIMIT
