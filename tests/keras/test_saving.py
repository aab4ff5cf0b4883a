import copy
import pickle

import keras
import numpy as np
import pytest

from optimization.optimizers import LAMB, AdamWeightDecay, PipelineOptimizer
from tests.golden_cases import make_variables
from tests.keras.common import (
    BACKEND,
    UNCOMPILED,
    TableSchedule,
    data,
    final_weights,
    problem,
    small_model,
    tensorflow_only,
)

pytestmark = pytest.mark.slow


def configs_of(optimizer):
    again = [
        keras.optimizers.deserialize(keras.optimizers.serialize(optimizer)),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(optimizer)),
        PipelineOptimizer.from_config(optimizer.get_config()),
    ]
    return [optimizer.get_config(), *(o.get_config() for o in again)]


@keras.saving.register_keras_serializable(package="optimization_tests")
def pass_on(pairs):
    return pairs


@pytest.mark.parametrize(
    "arguments",
    [
        {"ema": {"average_decay": 0.9, "start_step": 2}, "global_clipnorm": 0.5},
        {"clipnorm": 0.5, "gradient_clip_norm": 2.0, "loss_scale_factor": 8.0},
        {"gradient_aggregator": pass_on, "gradient_transformers": [pass_on, pass_on]},
        pytest.param(
            {"clipvalue": 0.5, "jit_compile": True},
            marks=pytest.mark.skipif(BACKEND == "torch", reason="an error there"),
        ),
    ],
    ids=["ema", "clips", "functions", "jit"],
)
def test_serialization_loses_nothing(arguments):
    inner = LAMB(
        TableSchedule([0.1, 0.2]),
        weight_decay_rate=0.1,
        exclude_from_weight_decay=["bias"],
        name="inner",
    )
    optimizer = PipelineOptimizer(inner, name="outer", **arguments)
    first, *others = configs_of(optimizer)
    for other in others:
        assert other == first
    for argument, value in arguments.items():
        if argument != "ema" and not callable(value) and not isinstance(value, list):
            assert first[argument] == value
    assert first["optimizer"]["config"]["exclude_from_weight_decay"] == ["bias"]


def test_configs_of_earlier_versions_load():
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1), clipvalue=0.5)
    saved = keras.saving.serialize_keras_object(optimizer)
    assert saved["registered_name"] == "optimization>PipelineOptimizer"
    saved["module"] = "optimization.optimizers.optimizer"
    # What came later has its default.
    for name in ("schedules", "layer_types", "excluded_names", "adaptive_clip_factor"):
        del saved["config"][name]
    again = keras.saving.deserialize_keras_object(saved)
    assert again.get_config() == optimizer.get_config()


def test_the_inner_class_is_stored_by_its_public_name():
    config = PipelineOptimizer(keras.optimizers.SGD(0.1)).get_config()["optimizer"]
    assert (config["module"], config["class_name"]) == ("keras.optimizers", "SGD")


@pytest.mark.parametrize(
    "arguments",
    [
        {"ema": {"average_decay": 0.9}, "global_clipnorm": 0.5},
        pytest.param(
            {"ema": {"average_decay": 0.9, "trainable_weights_only": False}},
            marks=pytest.mark.skipif(BACKEND == "jax", reason="an error there"),
        ),
        pytest.param({"clipnorm": 0.5, "jit_compile": True}, marks=tensorflow_only),
    ],
    ids=["ema", "ema of all weights", "jit"],
)
def test_training_goes_on_exactly_from_a_saved_model(tmp_path, arguments):
    x, y = data()
    whole = small_model(schedule=True, **arguments)
    everything = not (arguments.get("ema") or {}).get("trainable_weights_only", True)
    if everything:
        whole.optimizer.shadow_copy(whole)

    def train(model):
        model.fit(x, y, batch_size=16, epochs=1, shuffle=False, verbose=0)

    train(whole)
    whole.save(tmp_path / "model.keras")
    train(whole)
    resumed = keras.models.load_model(tmp_path / "model.keras")
    if everything:
        resumed.optimizer.shadow_copy(resumed)
    assert resumed.optimizer.get_config() == whole.optimizer.get_config()
    assert int(resumed.optimizer.iterations) == 4
    train(resumed)
    assert_same_state(whole, resumed)


def assert_same_state(model, other):
    for ours, theirs in zip(model.weights, other.weights, strict=True):
        np.testing.assert_array_equal(ours.numpy(), theirs.numpy(), err_msg=ours.path)
    states = [m.optimizer.variables_by_path() for m in (model, other)]
    assert set(states[0]) == set(states[1])
    for path, variable in states[0].items():
        np.testing.assert_array_equal(variable.numpy(), states[1][path].numpy(), err_msg=path)


def test_a_loaded_model_keeps_its_exclusions_though_keras_loses_scopes(tmp_path):
    def tower(name):
        return keras.Sequential([keras.layers.Dense(4, name="dense")], name=name)

    inputs = keras.layers.Input((4,))
    model = keras.Model(inputs, tower("second")(tower("first")(inputs)))
    inner = AdamWeightDecay(0.1, weight_decay_rate=0.5, exclude_from_weight_decay=["first/"])
    model.compile(PipelineOptimizer(inner, ema={}), loss="mse")
    x = np.random.default_rng(0).normal(size=(8, 4)).astype("float32")
    model.fit(x, x, verbose=0)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    # Keras made both kernels' paths the same; the optimizer tells them apart.
    assert "average/first/dense/kernel" in loaded.optimizer.variables_by_path()
    for trained in (model, loaded):
        trained.fit(x, x, shuffle=False, verbose=0)
    assert_same_state(model, loaded)


def test_a_model_saved_while_swapped_knows_it(tmp_path):
    x, y = data()
    model = small_model(ema={"average_decay": 0.9})
    model.fit(x, y, verbose=0)
    weights = model.get_weights()
    with model.optimizer.averaged():
        averaged = model.get_weights()
        model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    for actual, expected in zip(loaded.get_weights(), averaged, strict=True):
        np.testing.assert_array_equal(actual, expected)
    loaded.optimizer.swap()
    for actual, expected in zip(loaded.get_weights(), weights, strict=True):
        np.testing.assert_array_equal(actual, expected)
    loaded.fit(x, y, verbose=0)


def test_the_state_is_saved_once(tmp_path):
    import h5py

    x, y = data()
    model = small_model(ema={})
    model.fit(x, y, verbose=0)
    model.save_weights(tmp_path / "model.weights.h5")
    stored = []
    with h5py.File(tmp_path / "model.weights.h5") as file:
        file["optimizer"].visititems(
            lambda name, item: stored.append(name) if isinstance(item, h5py.Dataset) else None
        )
    assert len(stored) == len(model.optimizer.variables)


def test_state_of_another_optimizer_is_refused_and_changes_nothing(tmp_path):
    x, y = data()
    saved = small_model(ema={})
    saved.fit(x, y, verbose=0)
    saved.save_weights(tmp_path / "model.weights.h5")
    model = small_model(global_clipnorm=1.0)
    model.optimizer.build(model.trainable_variables)
    with pytest.raises(ValueError, match=r"Left over: .*average/model/head/kernel"):
        model.load_weights(tmp_path / "model.weights.h5")
    assert int(model.optimizer.iterations) == 0


def uncompiled_model():
    """Of layers that Keras numbers anew each time, and one that is named."""
    return keras.Sequential(
        [
            keras.layers.Input((4,)),
            keras.layers.Dense(5, activation="tanh"),
            keras.layers.Dense(5),
            keras.layers.Dense(1, name="head"),
        ]
    )


def unnamed_model(build_optimizer=False, **kwargs):
    model = uncompiled_model()
    optimizer = PipelineOptimizer(keras.optimizers.Adam(0.01), **kwargs)
    model.compile(optimizer, loss="mse", **UNCOMPILED)
    if build_optimizer:
        model.optimizer.build(model.trainable_variables)
    return model


def train(model):
    x, y = data()
    model.fit(x, y, batch_size=16, shuffle=False, verbose=0)


def state_of(model):
    return [variable.numpy() for variable in [*model.weights, *model.optimizer.variables]]


@pytest.mark.parametrize("build_optimizer", [False, True])
def test_weights_are_loaded_into_a_model_built_anew(tmp_path, build_optimizer):
    model = unnamed_model(ema={}, gradient_accumulation_steps=3)
    train(model)
    model.save_weights(tmp_path / "model.weights.h5")
    train(model)
    again = unnamed_model(build_optimizer, ema={}, gradient_accumulation_steps=3)
    again.load_weights(tmp_path / "model.weights.h5")
    assert int(again.optimizer.iterations) == 1
    train(again)
    for actual, expected in zip(state_of(again), state_of(model), strict=True):
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.parametrize(
    "copied",
    [copy.deepcopy, lambda o: copy.copy(copy.copy(o)), lambda o: pickle.loads(pickle.dumps(o))],
    ids=["deepcopy", "copy of a copy", "pickle"],
)
@pytest.mark.parametrize("whole_model", [False, True])
def test_a_copy_has_the_state(copied, whole_model):
    model = unnamed_model(ema={}, on_nonfinite="skip")
    train(model)
    if whole_model:
        again = copied(model)
    else:
        again = unnamed_model()
        again.set_weights(model.get_weights())
        again.compile(copied(model.optimizer), loss="mse", **UNCOMPILED)
    for each in (model, again):
        train(each)
    for actual, expected in zip(state_of(again), state_of(model), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_what_is_set_after_loading_stays(tmp_path):
    model = unnamed_model()
    train(model)
    model.save_weights(tmp_path / "model.weights.h5")
    again = unnamed_model()
    again.load_weights(tmp_path / "model.weights.h5")
    again.optimizer.learning_rate = 0.5
    train(again)
    assert float(again.optimizer.learning_rate) == 0.5


def test_a_model_saved_before_it_was_trained_loads(tmp_path):
    model = unnamed_model(ema={})
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    model.save_weights(tmp_path / "model.weights.h5")
    train(loaded)
    before = [variable.numpy() for variable in loaded.optimizer.variables]
    with pytest.warns(UserWarning, match="nothing was loaded into it"):
        loaded.load_weights(tmp_path / "model.weights.h5")
    for variable, expected in zip(loaded.optimizer.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), expected)
    uncompiled_model().save_weights(tmp_path / "uncompiled.weights.h5")
    for other in (unnamed_model(), unnamed_model(build_optimizer=True)):
        with pytest.warns(UserWarning, match="nothing was loaded into it"):
            other.load_weights(tmp_path / "uncompiled.weights.h5")
        train(other)


@pytest.mark.parametrize("build_optimizer", [False, True])
def test_state_without_what_is_needed_is_refused_in_words(tmp_path, build_optimizer):
    saved = unnamed_model()
    saved.compile(PipelineOptimizer(keras.optimizers.SGD(0.1)), loss="mse", **UNCOMPILED)
    train(saved)
    saved.save_weights(tmp_path / "model.weights.h5")
    model = unnamed_model(build_optimizer)

    def go_on():
        model.load_weights(tmp_path / "model.weights.h5")
        train(model)

    with pytest.raises(ValueError, match=r"Missing: .*head/kernel[\s\S]*skip_mismatch=True"):
        go_on()


def test_set_weights_sets_all_of_them():
    first, second = (PipelineOptimizer(keras.optimizers.Adam(0.1), ema={}) for _ in range(2))
    final_weights(first, *problem(steps=3))
    second.build(make_variables(problem()[0]))
    second.set_weights([v.numpy() for v in first.variables])
    for a, b in zip(first.variables, second.variables, strict=True):
        np.testing.assert_array_equal(a.numpy(), b.numpy())
    with pytest.raises(ValueError, match="`weights`"):
        second.set_weights([1.0])


@tensorflow_only
@pytest.mark.parametrize("by_path", [False, True])
def test_a_tensorflow_checkpoint_restores_everything(tmp_path, by_path):
    import tensorflow as tf

    def optimizer():
        return PipelineOptimizer(keras.optimizers.Adam(TableSchedule([0.1, 0.2])), ema={})

    def checkpoint(o):
        if by_path:
            named = o.variables_by_path()
            return tf.train.Checkpoint(**{k.replace("/", "."): v for k, v in named.items()})
        return tf.train.Checkpoint(optimizer=o)

    initial, gradients = problem(steps=3)
    saved, restored = optimizer(), optimizer()
    final_weights(saved, initial, gradients)
    path = checkpoint(saved).write(str(tmp_path / "state"))
    restored.build(make_variables(initial))
    checkpoint(restored).read(path).assert_consumed()
    expected = saved.variables_by_path()
    for key, variable in restored.variables_by_path().items():
        np.testing.assert_array_equal(variable.numpy(), expected[key].numpy(), err_msg=key)


@tensorflow_only
def test_a_checkpoint_does_not_depend_on_the_order_of_variables(tmp_path):
    import tensorflow as tf

    initial = {"a/kernel": np.zeros(3, "float32"), "b/kernel": np.zeros(3, "float32")}
    saved = PipelineOptimizer(keras.optimizers.SGD(0.1, momentum=0.9))
    final_weights(saved, initial, [{"a/kernel": np.ones(3, "f4"), "b/kernel": -np.ones(3, "f4")}])
    path = tf.train.Checkpoint(optimizer=saved).write(str(tmp_path / "state"))
    restored = PipelineOptimizer(keras.optimizers.SGD(0.1, momentum=0.9))
    restored.build(make_variables(initial)[::-1])
    tf.train.Checkpoint(optimizer=restored).read(path).assert_consumed()
    momentum = restored.variables_by_path()["optimizer/momentums/b/kernel"]
    np.testing.assert_allclose(momentum.numpy(), 0.1, rtol=1e-6)
