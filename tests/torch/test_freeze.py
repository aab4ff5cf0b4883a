"""Groups that are frozen for the first steps."""

import copy

import numpy as np
import pytest

from tests import freeze_cases as cases
from tests.torch.common import (
    OptimizerFactory,
    largest_difference,
    parameters,
    train,
    weights_of,
)

CONSTANT = {"type": "constant", "constant": {"learning_rate": 0.1}}


def built(config, initial):
    factory, params = OptimizerFactory(config), parameters(initial)
    optimizer = factory.build_optimizer(params.items())
    return optimizer, params, factory.build_scheduler(optimizer)


def test_weights_and_state_stay_and_then_start_as_at_first():
    initial, gradients = cases.problem()
    optimizer, params, scheduler = built(cases.config(on_nonfinite="raise"), initial)
    expected = cases.weights_after(initial, gradients)
    for number, (grads, wanted) in enumerate(zip(gradients, expected, strict=True)):
        if number == 6:  # it goes on in another process
            state = copy.deepcopy(optimizer.state_dict())
            optimizer, params, scheduler = built(cases.config(), weights_of(params))
            optimizer.load_state_dict(state)
        found = train(optimizer, params, [grads], scheduler)
        assert largest_difference(found, wanted) < 1e-12  # float64 on both sides
        frozen = {path for path in found if number < cases.start_of(path)}
        assert frozen == {path for path, p in params.items() if not optimizer.state.get(p)}


@pytest.mark.parametrize("kind", ["schedule_free_adamw", "prodigy"])
def test_counts_of_a_group_start_when_it_thaws(kind):
    initial, gradients = cases.problem(steps=8)
    groups = [{**cases.GROUPS[0], "optimizer": {"type": kind}, "learning_rate": CONSTANT}]
    fields = {"beta_1": 0.9}
    optimizer, params, scheduler = built(cases.config("adam", groups, **fields), initial)
    train(optimizer, params, gradients[:4], scheduler)
    np.testing.assert_array_equal(weights_of(params)["head/kernel"], initial["head/kernel"])
    group = next(g for g in optimizer.param_groups if g["rule"] == "^head")
    assert group.get("k", 0) == 0
    train(optimizer, params, gradients[4:6], scheduler)
    assert optimizer.state[params["head/kernel"]]["step"] == 2
    assert group.get("k", 2) == 2


def test_what_is_refused():
    initial, _ = cases.problem()
    groups = [{"match": ".", "freeze_steps": 3}]
    with pytest.raises(ValueError, match="Every variable is frozen at first"):
        built(cases.config(groups=groups), initial)
    factory = OptimizerFactory(cases.config())
    with pytest.raises(ValueError, match="`freeze_steps` counts in groups"):
        factory.build_optimizer(parameters(initial).items(), compile=True)
