import keras
import numpy as np
import pytest

from optimization.keras import state
from tests.golden_cases import make_variable


def variables(**values):
    return {
        path.replace("__", "/"): make_variable(path.replace("__", "/"), value)
        for path, value in values.items()
    }


def values(variables):
    return {path: variable.numpy() for path, variable in variables.items()}


class Store(dict):
    """A store of Keras' saving takes "/" for a level, and has no values then."""

    def __setitem__(self, key, value):
        assert "/" not in key
        super().__setitem__(key, value)


def test_what_is_saved_is_loaded_by_name_not_by_position():
    store = Store()
    state.save(values(variables(a__x=[1.0, 2.0], b__x=[3.0, 4.0])), store)
    loaded = variables(b__x=[0.0, 0.0], a__x=[0.0, 0.0])
    state.load(loaded, state.read(store), list(loaded))
    np.testing.assert_array_equal(loaded["a/x"].numpy(), [1.0, 2.0])
    np.testing.assert_array_equal(loaded["b/x"].numpy(), [3.0, 4.0])


def test_a_mismatch_lists_everything_and_changes_nothing():
    store = Store()
    state.save(values(variables(a=[1.0], b=[1.0, 2.0], c=[1.0])), store)
    loaded = variables(a=[0.0], b=[0.0], d=[0.0])
    with pytest.raises(ValueError, match=r"Missing: \['d'\].*Left over: \['c'\].*b: \(2,\) saved"):
        state.load(loaded, state.read(store), list(loaded))
    assert all(float(v.numpy()[0]) == 0 for v in loaded.values())
    loaded = variables(a=[0.0], b=[0.0, 0.0], c=[0.0], d=[0.0])
    with pytest.raises(ValueError, match=r"this model. Missing: \['d'\]. To go on with it"):
        state.load(loaded, state.read(store), list(loaded))


def test_values_without_a_variable_may_wait():
    store = Store()
    state.save(values(variables(a=[1.0], average__b=[2.0])), store)
    waiting = state.load(variables(a=[0.0]), state.read(store), ["a"], later="average/")
    assert list(waiting) == ["average/b"]
    np.testing.assert_array_equal(waiting["average/b"], [2.0])


def test_names_that_meet_are_numbered():
    first, second, third = (make_variable("x", [0.0]) for _ in range(3))
    named = state.by_unique_name([("x", first), ("y", second), ("x", third)])
    assert {name: id(v) for name, v in named.items()} == {
        "x": id(first),
        "y": id(second),
        "x#2": id(third),
    }


def test_names_come_from_attributes_and_the_models_paths():
    optimizer = keras.optimizers.Nadam(0.1)
    models = [make_variable("a/kernel", [0.0]), make_variable("b/kernel", [0.0])]
    optimizer.build(models)
    assert sorted(state.inner_variables_by_path(optimizer, [v.path for v in models])) == [
        "iterations",
        "learning_rate",
        "momentums/a/kernel",
        "momentums/b/kernel",
        "u_product",
        "velocities/a/kernel",
        "velocities/b/kernel",
    ]
