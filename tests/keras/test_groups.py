import json

import keras
import pytest

from optimization.keras.groups import named, owning_layer_types
from optimization.matching.rules import assigned
from optimization.optimizers import ParamGroup
from tests.keras.common import TableSchedule

PATHS = ["encoder/dense/kernel", "encoder/dense/bias", "head/kernel", "head/bias"]
NDIMS = [2, 1, 2, 1]
TYPES = ["Dense", "Dense", "Special", "Special"]


def names(*groups, types=TYPES):
    return [group and group.name for group in assigned(named(groups), PATHS, NDIMS, types)]


def test_the_first_match_has_the_variable():
    groups = [ParamGroup(match="head/", name="head"), ParamGroup(ndim=[0, 1], name="small")]
    assert names(*groups) == [None, "small", "head", "head"]
    assert names(ParamGroup(layer_type="Special", name="s")) == [None, None, "s", "s"]
    assert names() == [None] * 4


def test_without_a_name_a_group_is_called_after_its_matcher():
    groups = [ParamGroup(match="bias$"), ParamGroup(layer_type="Dense"), ParamGroup(ndim=2)]
    groups.append(ParamGroup(match=""))
    assert [g.name for g in named(groups)] == ["bias$", "Dense", "ndim 2", "all"]


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        ([ParamGroup(match="encodr/dense/kernel")], "nearest: 'encoder/dense/kernel'"),
        ([ParamGroup(layer_type="Conv2D")], "layer types: Dense, Special"),
        ([ParamGroup(ndim=[3])], r"ndim of the variables: \[1, 2\]"),
        (
            [ParamGroup(match="head", name="first"), ParamGroup(match="head/bias")],
            "earlier groups took all it matches: head/bias \\(by 'first'\\)",
        ),
    ],
)
def test_a_group_without_a_variable_is_an_error(groups, message):
    with pytest.raises(ValueError, match=message):
        names(*groups)


def test_layer_types_need_the_model():
    with pytest.raises(ValueError, match="set_model"):
        names(ParamGroup(layer_type="Dense"), types=[None] * 4)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({}, "exactly one of"),
        ({"match": "a", "ndim": [1]}, "exactly one of"),
        ({"match": "("}, "regular expressions"),
        ({"ndim": []}, "`ndim`"),
        ({"ndim": [-1]}, "`ndim`"),
        ({"match": "a", "learning_rate_multiplier": -1.0}, "`learning_rate_multiplier`"),
        ({"match": "a", "learning_rate_multiplier": float("inf")}, "`learning_rate_multiplier`"),
        ({"match": "a", "learning_rate": -0.1}, "`learning_rate`"),
        ({"match": "a", "freeze": True, "learning_rate_multiplier": 0.5}, "freeze=True"),
        ({"match": "a", "freeze": True, "hyperparameters": {"beta_1": 0.5}}, "freeze=True"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        ParamGroup(**arguments)


def test_what_can_not_be_a_groups_optimizer():
    with pytest.raises(TypeError, match="keras.optimizers.Optimizer"):
        ParamGroup(match="a", optimizer="adam")
    with pytest.raises(ValueError, match="clipnorm"):
        ParamGroup(match="a", optimizer=keras.optimizers.Adam(0.1, clipnorm=1.0))


def test_names_are_used_once():
    with pytest.raises(ValueError, match="'same'"):
        named([ParamGroup(match="a", name="same"), ParamGroup(match="b", name="same")])
    with pytest.raises(ValueError, match="'default'"):
        named([ParamGroup(match="a", name="default")])
    with pytest.raises(TypeError, match="ParamGroup"):
        named([{"match": "a"}])


@pytest.mark.parametrize(
    "group",
    [
        ParamGroup(match="a", learning_rate_multiplier=0.1, hyperparameters={"weight_decay": 0.0}),
        ParamGroup(ndim=[0, 1], learning_rate=TableSchedule([0.1, 0.2]), name="small"),
        ParamGroup(layer_type="Embedding", optimizer=keras.optimizers.Adagrad(0.3)),
        ParamGroup(match="b", freeze=True),
    ],
    ids=["match", "schedule", "optimizer", "freeze"],
)
def test_the_config_is_json_and_loses_nothing(group):
    config = json.loads(json.dumps(group.get_config()))
    again = ParamGroup.from_config(config)
    assert json.loads(json.dumps(again.get_config())) == config
    assert again.matcher == group.matcher


def test_layers_own_their_own_variables_also_inside_other_layers():
    inner = keras.Sequential([keras.layers.Dense(2), keras.layers.LayerNormalization()])
    model = keras.Sequential([keras.layers.Input((2,)), inner, keras.layers.Dense(1)])
    types = owning_layer_types(model)
    expected = ["Dense", "Dense", "LayerNormalization", "LayerNormalization", "Dense", "Dense"]
    assert [types[id(v)] for v in model.trainable_variables] == expected
