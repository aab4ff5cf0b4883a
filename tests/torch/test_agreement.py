"""One config, the same training: Keras on this backend and native PyTorch.

`tools/agreement.py` runs every optimizer under every learning rate, for docs/agreement.md; here
each runs under one, and the learning rates are compared by themselves.
"""

import pytest

from tests import agreement
from tests.torch.common import skip_beside_tensorflow

skip_beside_tensorflow()

from optimization.torch.recipes import is_native  # noqa: E402

# A schedule-free optimizer under a rate that falls is doubtful, and yet the same everywhere.
pytestmark = pytest.mark.filterwarnings("ignore::optimization.ConfigWarning")

NATIVE = [
    (row, rate, config)
    for row, rate, config in agreement.configs([agreement.WITH_WARMUP])
    if is_native(config.optimizer.type)
]


def test_every_registered_learning_rate_is_in_a_case():
    assert agreement.unlisted() == []


@pytest.mark.parametrize(
    ("row", "config"), [(r, c) for r, _, c in NATIVE], ids=[f"{r}, {n}" for r, n, _ in NATIVE]
)
def test_weights_agree(row, config):
    native = agreement.torch_weights(config)
    # What is promised of 50 float32 steps.
    assert agreement.figure(agreement.keras_weights(config), native) < agreement.UPDATES_LIMIT


@pytest.mark.parametrize("name", agreement.learning_rates())
def test_learning_rates_agree(name):
    sections = agreement.learning_rates()[name]
    expected = agreement.torch_rates(sections)
    assert agreement.figure(agreement.keras_rates(sections), expected) < agreement.RATES_LIMIT
