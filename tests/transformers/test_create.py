import json

import keras
import numpy as np
import pytest

from optimization import ConfigError, OptimizationConfig, OptimizerFactory, optimizers
from optimization.optimizers import PipelineOptimizer
from optimization.transformers import AdamWeightDecay, WarmUp, create_optimizer
from tests.golden_cases import GOLDEN
from tests.keras.common import final_weights, relative_error
from tests.schedules.common import keras_values

with np.load(GOLDEN / "transformers_tensorflow.npz") as stored:
    FIGURES = dict(stored)
PATHS = [name.removeprefix("initial|") for name in FIGURES if name.startswith("initial|")]
CASES = [name.removesuffix("|rates") for name in FIGURES if name.endswith("|rates")]
INITIAL = {path: FIGURES[f"initial|{path}"] for path in PATHS}
GRADIENTS = [{p: FIGURES[f"gradients|{p}"][step] for p in PATHS} for step in range(25)]


@pytest.mark.parametrize("case", CASES)
def test_updates_and_rates_equal_those_of_transformers(case):
    optimizer, schedule = create_optimizer(**json.loads(case))
    expected = {path: FIGURES[f"{case}|{path}"] for path in PATHS}
    # Both float32; at the first steps 1 - beta_2^t is rounded at 1e-5, relative to a step of 0.02.
    assert relative_error(final_weights(optimizer, INITIAL, GRADIENTS), expected) < 5e-6
    np.testing.assert_allclose(
        keras_values(schedule, range(25)), FIGURES[f"{case}|rates"], rtol=1e-6, atol=1e-9
    )


def test_the_cases_cover_decay_clips_and_no_warmup():
    given = [json.loads(case) for case in CASES]
    assert len(given) == 4
    for name in ("weight_decay_rate", "include_in_weight_decay", "adam_clipnorm"):
        assert any(name in case for case in given)


def test_without_a_rate_it_is_adam_and_with_one_it_excludes_by_name():
    plain, _ = create_optimizer(1e-3, 10, 2)
    assert type(plain.optimizer) is optimizers.Adam
    assert not isinstance(plain.optimizer, AdamWeightDecay)
    decaying, _ = create_optimizer(1e-3, 10, 2, weight_decay_rate=0.1)
    assert isinstance(decaying, PipelineOptimizer)
    variables = [
        keras.Variable(np.ones(2, "float32"), name=name)
        for name in ("kernel", "bias", "layer_normalization_gamma", "LayerNorm_beta")
    ]
    decaying.build(variables)
    assert [decaying.optimizer.is_decayed(v) for v in variables] == [True, False, False, False]


def test_a_config_says_the_same():
    _, schedule = create_optimizer(0.02, 100, 10, min_lr_ratio=0.1, power=2.0)
    config = OptimizationConfig(
        {
            "optimizer": {"type": "adam"},
            "learning_rate": {
                "type": "polynomial",
                "polynomial": {
                    "initial_learning_rate": 0.02,
                    "end_learning_rate": 0.002,
                    "power": 2.0,
                },
            },
            "warmup": {"type": "linear", "linear": {"warmup_steps": 10, "mode": "delay"}},
        }
    )
    steps = [0, 1, 9, 10, 11, 50, 99, 100, 101, 1000]
    ours = OptimizerFactory(config, train_steps=100)
    expected = ours.learning_rate_curve(steps)
    np.testing.assert_array_equal(schedule.curve(steps), expected)
    polynomial = keras.optimizers.schedules.PolynomialDecay(0.02, 90, 0.002, power=2.0)
    values = [float(WarmUp(0.02, polynomial, 10)(step)) for step in steps]
    # Keras subtracts s / total from 1 in float32.
    np.testing.assert_allclose(values, expected, rtol=1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"num_warmup_steps": 10},
        {"adam_clipnorm": 1.0, "adam_global_clipnorm": 1.0},
        {"adam_beta1": 1.0},
    ],
)
@pytest.mark.parametrize("decay", [0.0, 0.1])
def test_numbers_that_make_no_sense(wrong, decay):
    arguments = {"init_lr": 0.1, "num_train_steps": 10, "num_warmup_steps": 2, **wrong}
    with pytest.raises(ConfigError):
        create_optimizer(**arguments, weight_decay_rate=decay)


def test_a_decay_below_zero_is_an_error():
    with pytest.raises(ValueError, match="`weight_decay_rate` must be >= 0"):
        create_optimizer(0.1, 10, 2, weight_decay_rate=-0.1)


SCRIPT = """
import numpy as np
import keras
from {module} import AdamWeightDecay, WarmUp, create_optimizer

model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4), keras.layers.Dense(1)])
optimizer, lr_schedule = create_optimizer(
    init_lr=5e-2, num_train_steps=20, num_warmup_steps=4, weight_decay_rate=0.01
)
model.compile(optimizer=optimizer, loss="mse")
x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
history = model.fit(x, x[:, :1], epochs=5, batch_size=8, verbose=0)
schedule = WarmUp(
    initial_learning_rate=1e-3,
    decay_schedule_fn=keras.optimizers.schedules.PolynomialDecay(1e-3, 10),
    warmup_steps=5,
)
by_hand = AdamWeightDecay(learning_rate=schedule, weight_decay_rate=0.1,
                          exclude_from_weight_decay=["bias"], clipnorm=1.0)
model.compile(optimizer=by_hand, loss="mse")
model.fit(x, x[:, :1], epochs=1, batch_size=8, verbose=0)
losses = history.history["loss"]
rates = [float(lr_schedule(step)) for step in (0, 2, 4, 12, 20)]
"""


def test_a_script_for_transformers_runs_with_the_import_changed():
    names = {}
    keras.utils.set_random_seed(0)
    exec(SCRIPT.format(module="optimization.transformers"), names)
    assert names["losses"][-1] < names["losses"][0]
    np.testing.assert_allclose(names["rates"], [0, 0.025, 0.05, 0.025, 0], atol=1e-9)
