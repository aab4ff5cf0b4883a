"""Groups that are frozen for the first updates."""

import numpy as np
import pytest

from tests import freeze_cases as cases
from tests.jax.common import OptimizerFactory, train
from tests.jax.test_gradients import as_paths, as_tree

CONSTANT = {"type": "constant", "constant": {"learning_rate": 0.1}}


def test_weights_and_state_stay_and_then_start_as_at_first():
    initial, gradients = cases.problem()
    params = as_tree(initial)
    tx = OptimizerFactory(cases.config(on_nonfinite="skip")).build_optimizer(params)
    state = first = tx.init(params)
    for number, wanted in enumerate(cases.weights_after(initial, gradients)):
        params, state = train(tx, params, [as_tree(gradients[number])], state)
        for path, weight in as_paths(params).items():
            if number < cases.start_of(path):
                outer, inner = path.split("/")
                kept, before = state.slots["momentum"], first.slots["momentum"]
                np.testing.assert_array_equal(kept[outer][inner], before[outer][inner])
                np.testing.assert_array_equal(weight, np.float32(initial[path]))
            np.testing.assert_allclose(weight, wanted[path], atol=2e-6)  # float32
    assert int(state.nonfinite_steps) == 0


@pytest.mark.parametrize("kind", ["schedule_free_adamw", "prodigy"])
def test_what_a_group_shares_stays_too(kind):
    initial, gradients = cases.problem(steps=4)
    groups = [{**cases.GROUPS[0], "optimizer": {"type": kind}, "learning_rate": CONSTANT}]
    params = as_tree(initial)
    tx = OptimizerFactory(cases.config(groups=groups)).build_optimizer(params)
    first = tx.init(params)
    params, state = train(tx, params, [as_tree(g) for g in gradients], first)
    assert first.shared["^head"].keys() == state.shared["^head"].keys()
    for name, value in first.shared["^head"].items():
        np.testing.assert_array_equal(state.shared["^head"][name], value)
    np.testing.assert_array_equal(
        as_paths(params)["head/kernel"], np.float32(initial["head/kernel"])
    )


def test_something_must_train_at_first():
    params = as_tree(cases.problem()[0])
    config = cases.config(groups=[{"match": ".", "freeze_steps": 3}])
    with pytest.raises(ValueError, match="Every variable is frozen at first"):
        OptimizerFactory(config).build_optimizer(params)
