import keras
import numpy as np
import pytest

from optimization.keras.inner import argument_of, is_decayed
from optimization.optimizers import (
    LAMB,
    LARS,
    Adafactor,
    AdamWeightDecay,
    SGDTorch,
)
from tests.golden_cases import make_variables


@pytest.mark.parametrize(
    ("optimizer", "name", "argument"),
    [
        (keras.optimizers.SGD(0.1), "momentum", "momentum"),
        (keras.optimizers.SGD(0.1), "weight_decay", "weight_decay"),
        (AdamWeightDecay(0.1), "weight_decay", "weight_decay_rate"),
        (SGDTorch(0.1), "weight_decay", "weight_decay"),
        (Adafactor(0.1), "weight_decay", "weight_decay"),
    ],
)
def test_what_a_hyperparameter_is_called(optimizer, name, argument):
    assert argument_of(optimizer, name) == argument
    assert hasattr(optimizer, argument)


@pytest.mark.parametrize(
    ("name", "message"),
    [("momentun", "did you mean 'momentum'"), ("qqq", "known: momentum, nesterov, weight_decay")],
)
def test_an_unknown_hyperparameter(name, message):
    with pytest.raises(ValueError, match=message):
        argument_of(keras.optimizers.SGD(0.1), name)


EXCLUDED = {"exclude_from_weight_decay": ["bias"]}
DECAYS = {
    "keras": (lambda rate: keras.optimizers.AdamW(0.1, weight_decay=rate), [True, True]),
    "adamw": (lambda rate: AdamWeightDecay(0.1, weight_decay_rate=rate, **EXCLUDED), [True, False]),
    "lamb": (lambda rate: LAMB(0.1, weight_decay_rate=rate, **EXCLUDED), [True, False]),
    "lars": (lambda rate: LARS(0.1, weight_decay_rate=rate, **EXCLUDED), [True, False]),
    "sgd_torch": (lambda rate: SGDTorch(0.1, weight_decay=rate), [True, False]),
    "adafactor": (
        lambda rate: Adafactor(0.1, weight_decay=rate, include_in_weight_decay=["kernel"]),
        [True, False],
    ),
}


@pytest.mark.parametrize(("make", "expected"), DECAYS.values(), ids=DECAYS)
def test_what_is_decayed(make, expected):
    for rate, decayed in ((0.1, expected), (0.0, [False, False])):
        optimizer = make(rate)
        variables = make_variables(
            {"a/kernel": np.ones((2, 2), "float32"), "a/bias": np.ones(2, "float32")}
        )
        optimizer.build(variables)
        assert [is_decayed(optimizer, v) for v in variables] == decayed
