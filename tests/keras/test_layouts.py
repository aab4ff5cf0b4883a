"""State under `keras.distribution`, in a process that has two devices of JAX."""

import keras
import pytest

from tests.rules import contracts


@pytest.mark.slow
@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Keras distributes models on JAX")
def test_a_rule_of_each_kind_is_laid_out_as_its_weights(tmp_path):
    from tests.jax.test_sharding import run_on_devices

    found = run_on_devices("tests.keras.layouts", tmp_path / "found.json", devices=2)
    assert found["problems"] == []
    assert found["cases"] == len(contracts.ONE_OF_EACH_KIND)
