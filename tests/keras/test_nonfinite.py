"""Gradients that are large, tiny, infinite or NaN, and late steps, with Keras."""

import math

import keras
import numpy as np
import pytest

from optimization import OptimizationConfig, OptimizerFactory
from optimization.keras import compiling
from tests import nonfinite_cases as cases
from tests.golden_cases import make_variables
from tests.keras.common import BACKEND
from tests.keras.stages.test_finite_check import compiled, eager, expected_error


class Training:
    """A training of `cases.SHAPES`, of which a step is traced once."""

    def __init__(self, kind, mode=compiled, **fields):
        factory = OptimizerFactory(OptimizationConfig(cases.config_of(kind, **fields)))
        self.optimizer = factory.build_optimizer(factory.build_learning_rate())
        self.start = {f"{name}/kernel": x for name, x in cases.arrays(1).items()}
        self.variables = make_variables(self.start)
        self.optimizer.build(self.variables)
        self.blank = [keras.ops.convert_to_numpy(v) for v in self.optimizer.variables]
        self._step = mode(self.optimizer, self.variables)

    def run(self, gradients, start=None):
        """Returns the weights `WATCHED` after each update, from the beginning."""
        for variable, value in zip(self.variables, self.start.values(), strict=True):
            variable.assign(value)
        for variable, value in zip(self.optimizer.variables, self.blank, strict=True):
            variable.assign(value)
        if start is not None:
            self.optimizer.iterations.assign(start)
        found = []
        watched = list(cases.SHAPES).index(cases.WATCHED)
        for grads in gradients:
            self._step([keras.ops.convert_to_tensor(g) for g in grads.values()])
            found.append(keras.ops.convert_to_numpy(self.variables[watched]).copy())
        return found

    def watched(self, size):
        found = self.run(cases.gradients(size))
        named = self.optimizer.variables_by_path()
        return found, {name: keras.ops.convert_to_numpy(v) for name, v in named.items()}


@pytest.mark.slow
@pytest.mark.parametrize("kind", cases.KINDS)
def test_the_outcome_of_each_size(kind, monkeypatch):
    # So that on TensorFlow the watched variable is compiled, and small ones are stacked.
    monkeypatch.setattr(compiling, "_SMALL", 100)
    cases.check(kind, Training(kind).watched)


@pytest.mark.parametrize("mode", [eager, compiled])
@pytest.mark.parametrize("kind", ["adam", "adafactor", "muon", "sgd"])
def test_skip_leaves_out_what_the_rule_cannot_hold(kind, mode):
    training = Training(kind, mode, on_nonfinite="skip", loss_scale_factor=8.0)
    for size in (1e15, 1e37, math.inf, math.nan):
        scaled = [{n: np.float32(8) * g for n, g in each.items()} for each in cases.gradients(size)]
        found = training.run(scaled)
        is_left_out = (size >= 1e37 and cases.is_limited(kind)) or not math.isfinite(size)
        assert int(training.optimizer.nonfinite_steps) == is_left_out, size
        if is_left_out:
            np.testing.assert_array_equal(found[cases.BEFORE], found[cases.BEFORE - 1])


@pytest.mark.parametrize("mode", [eager, compiled])
def test_raise_names_what_the_rule_cannot_hold(mode):
    training = Training("adam", mode, on_nonfinite="raise")
    words = r"A gradient above 9.2e\+18 counts as infinite(.|\n)*not finite(.|\n)*middle/kernel"
    with pytest.raises(expected_error(mode), match=words):
        training.run(cases.gradients(1e30))


@pytest.mark.parametrize(
    "clip", [{"global_clipnorm": 1.0}, {"clipnorm": 1.0}, {"adaptive_clip_factor": 0.1}]
)
def test_what_is_clipped_can_be_held(clip):
    training = Training("adam", on_nonfinite="skip", **clip)
    found, expected = (training.run(cases.gradients(size)) for size in (1e30, 1e4))
    assert int(training.optimizer.nonfinite_steps) == 0
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_a_bound_of_a_clip_may_be_too_large():
    training = Training("adam", on_nonfinite="skip", clipvalue=1e30)
    training.run(cases.gradients(1e30))
    assert int(training.optimizer.nonfinite_steps) == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", cases.KINDS)
def test_late_steps(kind):
    """Int64 counts on TensorFlow; int32 stays at its end, where it would become negative."""
    training, grads = Training(kind), [cases.arrays(100 + step) for step in range(4)]
    last = (2**53, 2**53 + 4) if BACKEND == "tensorflow" else (2**31 - 4, 2**31 - 2)
    for start, end in ((10**9, 10**9 + 4), last):
        found = training.run(grads, start)
        assert int(training.optimizer.iterations) == end
        assert np.isfinite(found[-1]).all()
        if kind != "adafactor_keras":  # whose rate is 1 / sqrt(t) at most
            assert (found[-1] != found[-2]).any()
