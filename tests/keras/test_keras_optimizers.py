"""Keras' own optimizers, which are updated plainly or compiled as a whole."""

import keras
import pytest

from optimization.keras.stages.update import Update
from optimization.optimizers import PipelineOptimizer
from tests.keras.common import final_weights, problem, relative_error, tensorflow_only
from tests.keras.test_contracts import check_names, check_pipeline

pytestmark = pytest.mark.slow

MAKERS = {
    "adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "nadam": lambda: keras.optimizers.Nadam(0.01),
    "muon": lambda: keras.optimizers.Muon(0.01, weight_decay=0.1, exclude_layers=["conv"]),
}
every_one = pytest.mark.parametrize("make", MAKERS.values(), ids=MAKERS)


@every_one
def test_state_has_unique_names_and_nothing_else(make):
    check_names(make)


@every_one
def test_the_pipeline_adds_nothing_to_the_inner_optimizer(make):
    check_pipeline(make)


@tensorflow_only
@every_one
def test_it_is_compiled_as_a_whole(make):
    initial, gradients = problem()
    expected = final_weights(PipelineOptimizer(make(), global_clipnorm=1.0), initial, gradients)
    compiled = PipelineOptimizer(make(), global_clipnorm=1.0, jit_compile=True)
    actual = final_weights(compiled, initial, gradients)
    # XLA fuses and reorders the same float32 operations.
    assert relative_error(actual, expected) < 1e-6
    (function,) = compiled.stage(Update).updates.compiled.values()
    assert function.experimental_get_tracing_count() == 1
    assert not compiled.stage(Update).updates.fused
