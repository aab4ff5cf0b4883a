import keras
import numpy as np
import pytest

from optimization.optimizers import AdamWeightDecay, ParamGroup, PipelineOptimizer
from tests.golden_cases import make_variable, make_variables
from tests.keras.common import problem


def decayed_by(optimizer, initial=None, dtype="float32"):
    """Returns the paths of the variables that a step without gradients moves."""
    initial = initial or problem(steps=1)[0]
    variables = [make_variable(path, value, dtype=dtype) for path, value in initial.items()]
    optimizer.apply([keras.ops.zeros(v.shape, dtype) for v in variables], variables)
    actual = {v.path for v in variables if not np.array_equal(v.numpy(), initial[v.path])}
    assert actual == {row.path for row in optimizer.group_table() if row.decayed}
    return actual


def adamw(**kwargs):
    return PipelineOptimizer(keras.optimizers.AdamW(0.1, weight_decay=0.1), **kwargs)


def test_exclusions_are_searched_in_paths_and_saved():
    optimizer = adamw()
    optimizer.exclude_from_weight_decay(var_names=["bias$", "^block/norm"])
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    for each in (optimizer, again):
        expected = {"embedding/embeddings", "block/conv/kernel", "block/dense/kernel"}
        assert decayed_by(each) == expected


def test_exclusions_hold_in_groups():
    optimizer = adamw(param_groups=[ParamGroup(match="norm", learning_rate_multiplier=0.5)])
    optimizer.exclude_from_weight_decay(var_names=["beta"])
    decayed = decayed_by(optimizer)
    assert "block/norm/gamma" in decayed
    assert "block/norm/beta" not in decayed


def test_variables_can_be_named_themselves():
    initial = {"a/kernel": np.ones(2, "float32"), "b/kernel": np.ones(2, "float32")}
    variables = [make_variable(path, value, dtype="bfloat16") for path, value in initial.items()]
    optimizer = adamw()
    optimizer.exclude_from_weight_decay(var_list=variables[:1])
    again = PipelineOptimizer.from_config(optimizer.get_config())
    for each in (optimizer, again):
        each.build(variables)
        assert [row.decayed for row in each.group_table()] == [False, True]


def test_wrong_exclusions():
    optimizer = adamw()
    optimizer.exclude_from_weight_decay(var_names=["biass$"])
    with pytest.raises(ValueError, match="biass"):
        optimizer.build(make_variables(problem(steps=1)[0]))
    with pytest.raises(ValueError, match="regular expressions"):
        adamw().exclude_from_weight_decay(var_names=["("])
    own = PipelineOptimizer(AdamWeightDecay(0.1, weight_decay_rate=0.1))
    with pytest.raises(ValueError, match="rules of its own"):
        own.exclude_from_weight_decay(var_names=["bias"])
    built = adamw()
    built.build(make_variables(problem(steps=1)[0]))
    with pytest.raises(ValueError, match="before `build`"):
        built.exclude_from_weight_decay(var_names=["bias"])
