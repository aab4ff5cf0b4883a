import keras
import numpy as np
import pytest

from optimization import optimizers
from optimization.transformers import AdamWeightDecay, WarmUp
from tests.golden_cases import make_variables
from tests.keras.common import final_weights, problem, relative_error


@pytest.mark.parametrize(
    ("include", "exclude", "decays"),
    [
        (None, None, lambda path: True),
        (None, ["bias", "absent"], lambda path: "bias" not in path),
        (None, "bias", lambda path: "bias" not in path),
        (["kernel"], None, lambda path: True),  # alone it excludes nothing
        (["gamma"], ["norm"], lambda path: "norm" not in path or "gamma" in path),
        ("gamma", "norm", lambda path: "norm" not in path or "gamma" in path),
        (None, ["dense.kernel"], lambda path: True),  # no expression
        (None, ["bias:0"], lambda path: "bias" not in path),  # as TensorFlow called it
    ],
)
def test_names_are_parts_of_paths(include, exclude, decays):
    initial, gradients = problem(steps=3)
    arguments = {"include_in_weight_decay": include, "exclude_from_weight_decay": exclude}
    optimizer = AdamWeightDecay(0.01, weight_decay_rate=0.3, **arguments)
    variables = make_variables(initial)
    optimizer.build(variables)
    assert [optimizer.is_decayed(v) for v in variables] == [decays(path) for path in initial]
    again = AdamWeightDecay.from_config(optimizer.get_config())
    exact = [f"^{path}$" for path in initial if decays(path)]
    ours = optimizers.AdamWeightDecay(0.01, weight_decay_rate=0.3, include_in_weight_decay=exact)
    expected = final_weights(ours, initial, gradients)
    assert relative_error(final_weights(again, initial, gradients), expected) == 0


def test_it_is_saved_with_its_schedule():
    decay = keras.optimizers.schedules.PolynomialDecay(0.1, 10)
    optimizer = AdamWeightDecay(
        WarmUp(0.1, decay, 5, power=2.0), exclude_from_weight_decay=["bias"], clipnorm=1.0
    )
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer))
    assert type(again) is AdamWeightDecay
    assert again.get_config() == optimizer.get_config()
    assert again.get_config()["exclude_from_weight_decay"] == ["bias"]


def test_the_former_keywords():
    # lr / (1 + decay * step), as in Keras' former optimizers.
    initial, gradients = problem(steps=3)
    rates = [0.1, 0.1 / 1.5, 0.1 / 2.0]
    optimizer = AdamWeightDecay(lr=0.1, decay=0.5)
    variables = make_variables(initial)
    for rate, gradient in zip(rates, gradients, strict=True):
        assert float(keras.ops.convert_to_numpy(optimizer.learning_rate)) == pytest.approx(rate)
        optimizer.apply(
            [keras.ops.convert_to_tensor(gradient[path]) for path in initial], variables
        )
    assert np.isfinite(variables[0].numpy()).all()
