"""State in bfloat16 in Keras, beside float32 state that is rounded by hand."""

import keras
import numpy as np
import pytest

from optimization import OptimizationConfig, OptimizerFactory
from optimization.optimizers import AdamWeightDecay, PipelineOptimizer
from tests.golden_cases import make_variables
from tests.rules.rounded_by_hand import rounded_by_hand

SHAPES = {"hidden/kernel": (5, 6), "hidden/bias": (6,), "head/kernel": (6, 3)}
STATE = {"dtype": "bfloat16", "seed": 7}


def built(state, kind="adamw", **fields):
    random = np.random.default_rng(2)
    variables = make_variables({p: random.normal(size=s) for p, s in SHAPES.items()})
    section = {"type": kind, kind: {**fields, "state": state}}
    rate = {"type": "constant", "constant": {"learning_rate": 0.01}}
    factory = OptimizerFactory(OptimizationConfig({"optimizer": section, "learning_rate": rate}))
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    optimizer.build(variables)
    return variables, optimizer


def arrays(optimizer):
    found = optimizer.variables_by_path()
    return {n: v for n, v in found.items() if "kernel" in n or "bias" in n}


@pytest.mark.parametrize("kind", ["adamw", "muon", "lamb"])
def test_state_is_that_of_float32_rounded(kind):
    variables, low = built(STATE, kind)
    others, exact = built(None, kind)
    random, names = np.random.default_rng(3), list(SHAPES)
    for step in range(3):
        grads = [random.normal(size=s).astype("float32") for s in SHAPES.values()]
        low.apply([keras.ops.convert_to_tensor(g) for g in grads], variables)
        exact.apply([keras.ops.convert_to_tensor(g) for g in grads], others)
        for pair in zip(variables, others, strict=True):
            np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, pair))
        wide = arrays(exact)
        for name, kept in arrays(low).items():
            assert keras.backend.standardize_dtype(kept.dtype) == "bfloat16"
            _, plural, path = name.split("/", 2)
            slot = "velocity" if "velocit" in plural else "momentum"
            value = keras.ops.convert_to_numpy(wide[name])
            expected = rounded_by_hand(value, 7, names.index(path), slot, step)
            found = keras.ops.convert_to_numpy(keras.ops.cast(kept, "float32"))
            np.testing.assert_array_equal(found, expected)
            wide[name].assign(expected)


def test_a_saved_model_goes_on(tmp_path):
    """Also with weights in bfloat16 that have no copies."""
    inputs = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
    state = {"dtype": "bfloat16", "weights": "stochastic"}
    rate = {"type": "constant", "constant": {"learning_rate": 0.01}}
    sections = {"optimizer": {"type": "adamw", "adamw": {"state": state}}, "learning_rate": rate}
    factory, found = OptimizerFactory(OptimizationConfig(sections)), []
    for stops in (False, True):
        keras.utils.set_random_seed(1)
        model = keras.Sequential(
            [keras.Input((5,)), keras.layers.Dense(4, dtype="bfloat16", name="d")]
        )
        model.compile(factory.build_optimizer(factory.build_learning_rate()), "mse")
        for part in range(2):
            model.fit(inputs, inputs[:, :4], batch_size=8, shuffle=False, verbose=0)
            if stops and part == 0:
                model.save(tmp_path / "model.keras")
                model = keras.models.load_model(tmp_path / "model.keras")
        assert not any("master" in name for name in model.optimizer.variables_by_path())
        found.append([np.asarray(w, "float32") for w in model.get_weights()])
    for first, second in zip(*found, strict=True):
        np.testing.assert_array_equal(first, second)


def test_the_class_takes_it():
    optimizer = PipelineOptimizer(AdamWeightDecay(0.1), state={"dtype": "bfloat16"})
    assert "state=StateConfig(dtype='bfloat16')" in repr(optimizer)
    again = PipelineOptimizer.from_config(optimizer.get_config())
    assert again.state == {"dtype": "bfloat16"}


def test_what_is_no_rule_has_its_own_state():
    optimizer = PipelineOptimizer(keras.optimizers.Adam(0.1), state={"dtype": "bfloat16"})
    with pytest.raises(ValueError, match="`state`: the state of Adam is its own"):
        optimizer.build(make_variables({"a": np.ones(2)}))
