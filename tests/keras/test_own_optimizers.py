"""What must hold for each own optimizer, and for Keras' that the factory offers."""

import keras
import numpy as np
import pytest

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.keras.stages.update import Update
from optimization.optimizers import (
    LAMB,
    LARS,
    Adafactor,
    AdafactorKeras,
    Adagrad,
    Adam,
    Adamax,
    AdamWeightDecay,
    Nadam,
    PipelineOptimizer,
    RMSprop,
    ScheduleFreeAdamW,
    ScheduleFreeSGD,
    SGDTorch,
)
from tests.golden_cases import make_variables
from tests.keras.common import (
    TableSchedule,
    final_weights,
    problem,
    relative_error,
    tensorflow_only,
)

pytestmark = pytest.mark.slow


def adafactor(variant, lr, **switches):
    section = OPTIMIZERS_CLS.config_class("adafactor")(
        variant=variant, min_dim_size_to_factor=4, **switches
    )
    return Adafactor(lr, **section.arguments())


EXCLUDED = {"weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias", "norm"]}
OWN = {
    "own_adam": lambda lr=0.01: Adam(lr, amsgrad=True, epsilon_placement="corrected"),
    "adamw": lambda lr=0.01: AdamWeightDecay(lr, **EXCLUDED),
    "lamb": lambda lr=0.01: LAMB(lr, **EXCLUDED),
    "lars": lambda lr=1.0: LARS(lr, **EXCLUDED),
    "sgd_torch": lambda lr=0.01: SGDTorch(lr, nesterov=True, weight_decay=0.1),
    "own_rmsprop": lambda lr=0.01: RMSprop(
        lr, momentum=0.9, centered=True, epsilon_in_sqrt=False, classic_momentum=False
    ),
    "own_adagrad": lambda lr=0.01: Adagrad(lr, epsilon_in_sqrt=False),
    "own_adamax": lambda lr=0.01: Adamax(lr, epsilon_in_norm=True),
    "schedule_free_adamw": lambda lr=0.01: ScheduleFreeAdamW(lr, weight_decay=0.1),
    "schedule_free_sgd": lambda lr=0.01: ScheduleFreeSGD(lr, warmup_steps=3),
    "own_nadam": lambda lr=0.01: Nadam(lr, momentum_decay=0.004),
    "adafactor": lambda lr=0.01: Adafactor(lr, beta1=0.9, min_dim_size_to_factor=4),
    "adafactor_keras": lambda lr=0.01: AdafactorKeras(lr),
    "adafactor_torch": lambda lr=0.01: adafactor("torch", lr, weight_decay=0.1),
    "adafactor_timm": lambda lr=0.01: adafactor("timm", lr, beta1=0.9, step_size="absolute"),
    "adafactor_big_vision": lambda lr=0.01: adafactor("big_vision", lr, weight_decay=0.1),
}
RULES = {
    "sgd": lambda: OPTIMIZERS_CLS["sgd"](0.01),
    "momentum": lambda: OPTIMIZERS_CLS["sgd"](0.01, momentum=0.9, nesterov=True),
    "adam": lambda: Adam(0.01, weight_decay=0.1),
    "amsgrad": lambda: Adam(0.01, amsgrad=True),
    "rmsprop": lambda: RMSprop(0.01, momentum=0.9, centered=True),
    "adagrad": lambda: Adagrad(0.01),
    "adadelta": lambda: OPTIMIZERS_CLS["adadelta"](1.0),
    "adamax": lambda: Adamax(0.01),
    "nadam": lambda: Nadam(0.01),
    "ftrl": lambda: OPTIMIZERS_CLS["ftrl"](0.01),
    "lion": lambda: OPTIMIZERS_CLS["lion"](0.001),
}
KERAS = {
    "keras_adamw": lambda: keras.optimizers.AdamW(0.01, weight_decay=0.1),
    "keras_nadam": lambda: keras.optimizers.Nadam(0.01),
    "muon": lambda: keras.optimizers.Muon(0.01, weight_decay=0.1, exclude_layers=["conv"]),
}
ALL = {**OWN, **RULES, **KERAS}
# FTRL makes each weight anew of its sums, whose rounding is that of larger numbers.
TOLERANCE = {"ftrl": 6e-6}


@pytest.mark.parametrize("cls", [*(type(make()) for make in OWN.values()), PipelineOptimizer])
def test_importing_the_package_registers_it(cls):
    assert keras.saving.get_registered_object(f"optimization>{cls.__name__}") is cls


@pytest.mark.parametrize("make", OWN.values(), ids=OWN)
def test_serialization_keeps_everything(make):
    optimizer = make(TableSchedule([0.1, 0.2]))
    for serialize, deserialize in (
        (keras.saving.serialize_keras_object, keras.saving.deserialize_keras_object),
        (keras.optimizers.serialize, keras.optimizers.deserialize),
    ):
        again = deserialize(serialize(optimizer))
        assert type(again) is type(optimizer)
        assert again.get_config() == optimizer.get_config()


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_moments_are_float32_and_low_precision_weights_learn(name, dtype):
    optimizer = OWN[name]()
    initial, gradients = problem()
    # Small gradients: their squares, or 1 - beta_2, vanish in low precision.
    gradients = [{path: np.abs(g) * 1e-4 for path, g in step.items()} for step in gradients]
    weights = final_weights(optimizer, initial, gradients, dtype=dtype)
    slots = [v for v in optimizer.variables if len(v.shape) > 0]
    assert {v.dtype for v in slots} == {"float32"}
    expected = final_weights(OWN[name](), initial, gradients)
    moved = {path: expected[path] - initial[path] for path in expected}
    actual = {path: weights[path].astype("float32") - initial[path] for path in weights}
    # A weight is rounded at each of 10 steps, by 2^-8 of itself in bfloat16 (2^-11 in float16);
    # steps that are smaller than that are all lost.
    rounding = 10 * np.float32(2.0**-8)
    scale = max(np.abs(value).max() for value in initial.values())
    for path in moved:
        assert np.isfinite(actual[path]).all()
        assert np.abs(actual[path] - moved[path]).max() < rounding * scale


@pytest.mark.parametrize("make", ALL.values(), ids=ALL)
def test_state_has_unique_names_and_nothing_else(make):
    optimizer = PipelineOptimizer(make())
    initial, _ = problem(steps=1)
    optimizer.build(make_variables(initial))
    named = optimizer.variables_by_path()
    assert {id(v) for v in named.values()} == {id(v) for v in optimizer.variables}
    assert len(optimizer.variables) == len(named)
    # The same names in the same process, after other optimizers: none is counted up.
    again = PipelineOptimizer(make())
    with keras.name_scope("another_scope"):
        again.build(make_variables(initial))
    assert list(again.variables_by_path()) == [
        name.replace("/" + path, "/another_scope/" + path)
        for name in named
        for path in [next((p for p in initial if name.endswith("/" + p)), "?")]
    ]


@tensorflow_only
@pytest.mark.parametrize("name", ALL)
def test_sparse_gradients_with_repeated_indices_equal_dense_ones(name):
    import tensorflow as tf

    random = np.random.default_rng(5)
    # Muon is for matrices and treats embeddings by their path.
    initial, gradients = problem({"embedding/embeddings": (7, 4), "dense/kernel": (6, 5)}, steps=12)
    sparse, dense = [], []
    for step in gradients:
        indices = random.integers(0, 5, size=9)
        values = random.normal(size=(9, 4)).astype("float32")
        whole = np.zeros((7, 4), "float32")
        np.add.at(whole, indices, values)
        dense.append({**step, "embedding/embeddings": whole})
        sparse.append((indices, values, step["dense/kernel"]))

    def run_sparse(optimizer):
        variables = make_variables(initial)
        for indices, values, kernel in sparse:
            slices = tf.IndexedSlices(tf.constant(values), tf.constant(indices), (7, 4))
            optimizer.apply([slices, tf.constant(kernel)], variables)
        return {v.path: v.numpy() for v in variables}

    def make():
        exclusions = {"lars": LARS, "lamb": LAMB, "adamw": AdamWeightDecay}
        inner = exclusions[name](0.01, weight_decay_rate=0.1) if name in exclusions else ALL[name]()
        return PipelineOptimizer(inner, global_clipnorm=2.0)

    expected = final_weights(make(), initial, dense)
    # The same sums in another order, rounded to float32 at each of 12 steps.
    assert relative_error(run_sparse(make()), expected) < TOLERANCE.get(name, 1e-6)


@tensorflow_only
@pytest.mark.parametrize("name", ALL)
def test_jit_compiled_update_equals_the_plain_one(name):
    initial, gradients = problem()
    plain = PipelineOptimizer(ALL[name](), global_clipnorm=1.0)
    compiled = PipelineOptimizer(ALL[name](), global_clipnorm=1.0, jit_compile=True)
    expected = final_weights(plain, initial, gradients)
    actual = final_weights(compiled, initial, gradients)
    # XLA fuses and reorders the same float32 operations.
    assert relative_error(actual, expected) < TOLERANCE.get(name, 1e-6)
    # What can't be fused is compiled as a whole.
    functions = list(compiled.stage(Update).updates.compiled.values())
    assert len(functions) == (1 if name in KERAS else 0)
    assert bool(compiled.stage(Update).updates._fused._updates) is (name not in KERAS)
    assert all(function.experimental_get_tracing_count() == 1 for function in functions)


@pytest.mark.parametrize("name", ALL)
def test_the_pipeline_adds_nothing_to_the_inner_optimizer(name):
    initial, gradients = problem()
    expected = final_weights(ALL[name](), initial, gradients)
    actual = final_weights(PipelineOptimizer(ALL[name]()), initial, gradients)
    assert relative_error(actual, expected) == 0
