"""Groups that are frozen for the first updates."""

import keras
import numpy as np
import pytest

from optimization import OptimizerFactory
from optimization.group_rows import group_rows
from optimization.optimizers import ParamGroup, PipelineOptimizer
from tests import freeze_cases as cases
from tests.golden_cases import make_variables
from tests.keras.stages.test_finite_check import compiled, eager


def built(config, initial):
    factory = OptimizerFactory(config)
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    variables = make_variables({path: w.astype("float32") for path, w in initial.items()})
    optimizer.build(variables)
    return optimizer, variables


@pytest.mark.parametrize("mode", [eager, compiled])
def test_weights_and_state_stay_and_then_start_as_at_first(mode):
    initial, gradients = cases.problem()
    optimizer, variables = built(cases.config(on_nonfinite="skip"), initial)
    step = mode(optimizer, variables)
    expected = cases.weights_after(initial, gradients)
    for number, (grads, wanted) in enumerate(zip(gradients, expected, strict=True)):
        step([keras.ops.convert_to_tensor(grads[v.path].astype("float32")) for v in variables])
        for v in variables:
            found = keras.ops.convert_to_numpy(v)
            np.testing.assert_allclose(found, wanted[v.path], atol=2e-6)  # float32
            state = [x for n, x in optimizer.variables_by_path().items() if n.endswith(v.path)]
            moved = any(np.any(keras.ops.convert_to_numpy(x)) for x in state)
            assert moved == (number >= cases.start_of(v.path))
    assert int(optimizer.nonfinite_steps) == 0


def test_it_is_saved():
    initial, _ = cases.problem()
    optimizer, _ = built(cases.config(), initial)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert [group.freeze_steps for group in again.param_groups] == [4, 9]
    assert [row.marks for row in optimizer.group_table()] == [
        "",
        "frozen for 4 steps",
        "frozen for 9 steps",
    ]
    shapes = {path: tuple(shape) for path, shape in cases.SHAPES.items()}
    rows = group_rows(OptimizerFactory(cases.config()).config, shapes)
    assert [row.marks for row in rows] == [row.marks for row in optimizer.group_table()]


def test_what_is_refused():
    initial, _ = cases.problem()
    with pytest.raises(ValueError, match="Every variable is frozen at first"):
        built(cases.config(groups=[{"match": ".", "freeze_steps": 3}]), initial)
    with pytest.raises(ValueError, match="must be an integer >= 0, received: freeze_steps=-1"):
        ParamGroup(match="a", freeze_steps=-1)
    with pytest.raises(ValueError, match="can't have other settings"):
        ParamGroup(match="a", freeze_steps=1, freeze=True)
    group = ParamGroup(match="a", freeze_steps=2)
    optimizer = PipelineOptimizer(keras.optimizers.RMSprop(0.1), param_groups=[group])
    with pytest.raises(ValueError, match="`freeze_steps` of the group 'a' needs an optimizer of"):
        optimizer.build(make_variables({"a": np.zeros(2, "float32"), "b": np.zeros(2, "float32")}))
