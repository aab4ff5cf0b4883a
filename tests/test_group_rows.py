import math

import keras
import pytest

from optimization import OptimizationConfig, OptimizerFactory
from optimization.group_rows import group_rows

COSINE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.5, "decay_steps": 100}}
WARMUP = {"type": "linear", "linear": {"warmup_steps": 10}}
CONSTANT = {"type": "constant", "constant": {"learning_rate": 0.25}}
SPARED = ["bias", "norm"]
GROUPS = [
    {"match": "layer_0/", "name": "first", "learning_rate_multiplier": 0.5, "weight_decay": 0.3},
    {"match": "embed", "freeze": True},
    {"ndim": [1], "learning_rate": CONSTANT, "learning_rate_multiplier": 2.0},
]


def model():
    return keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(20, 4, name="embed"),
            keras.layers.Dense(4, name="layer_0"),
            keras.layers.LayerNormalization(name="norm"),
            keras.layers.Dense(4, name="layer_1"),
            keras.layers.Dense(2, name="head"),
        ],
        name="net",
    )


@pytest.mark.parametrize(
    "sections",
    [
        {"optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}}},
        {"optimizer": {"type": "sgd", "sgd": {"weight_decay": 0.1, "use_ema": True}}},
        {"optimizer": {"type": "adamw", "adamw": {"weight_decay_rate": 0.1}}, "warmup": WARMUP},
        {
            "optimizer": {
                "type": "adamw",
                "adamw": {"weight_decay_rate": 0.1, "exclude_from_weight_decay": SPARED},
            },
            "param_groups": GROUPS,
            "ema": {"average_decay": 0.9},
        },
        {"optimizer": {"type": "lamb", "lamb": {"exclude_from_weight_decay": SPARED}}},
        {"optimizer": {"type": "muon"}, "param_groups": GROUPS[1:]},
        {
            "optimizer": {"type": "adamw", "adamw": {"weight_decay_rate": 0.1}},
            "layer_decay": {"rate": 0.5, "depth": r"layer_(\d+)/"},
            "param_groups": [{"match": "bias", "optimizer": {"type": "sgd"}}],
        },
        {"optimizer": {"type": "schedule_free_adamw"}, "learning_rate": CONSTANT},
        {
            "optimizer": {"type": "sgd_torch", "sgd_torch": {"weight_decay": 0.1}},
            "lr_scaling": {"base_batch_size": 256, "global_batch_size": 512},
        },
    ],
)
def test_the_rows_are_those_of_the_built_optimizer(sections):
    config = OptimizationConfig({"learning_rate": COSINE, **sections})
    built = model()
    factory = OptimizerFactory(config)
    optimizer = factory.build_optimizer(factory.build_learning_rate(), model=built)
    shapes = {v.path: tuple(v.shape) for v in built.trainable_variables}
    for expected, row in zip(optimizer.group_table(), group_rows(config, shapes), strict=True):
        for name in ("path", "group", "rule", "decayed", "frozen", "averaged", "parameters"):
            assert getattr(row, name) == getattr(expected, name), (row, expected)
        assert row.orthogonalized == expected.orthogonalized
        for name in ("multiplier", "learning_rate", "highest_rate"):
            assert getattr(row, name) == pytest.approx(getattr(expected, name), rel=1e-6), row
        assert bool(row.optimizer) == bool(expected.optimizer)


def rows(shapes, **sections):
    sections = {"optimizer": {"type": "sgd"}, "learning_rate": COSINE, **sections}
    return group_rows(OptimizationConfig(sections), shapes)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"param_groups": [{"match": "kernl"}]}, "'kernl'.* matches no .*nearest: 'head/kernel'"),
        ({"param_groups": [{"layer_type": "Dense"}]}, "'Dense' has a `layer_type`: names say"),
        (
            {"param_groups": [{"ndim": [1]}]},
            "'ndim 1' goes by `ndim`, and 'head/bias' has no shape",
        ),
        ({"param_groups": [{"match": ".", "freeze": True}]}, "Every parameter is frozen"),
        ({"layer_decay": {"rate": 0.5}}, "`depth` of layer_decay matches no trainable variable"),
        ({"optimizer": {"type": "muon"}}, "Muon goes by shapes, and 'head/bias' has no shape"),
        (
            {"optimizer": {"type": "adamw", "adamw": {"exclude_from_weight_decay": ["gamma"]}}},
            "`exclude_from_weight_decay` has only patterns that match no",
        ),
    ],
)
def test_what_matches_nothing_is_an_error(sections, message):
    with pytest.raises(ValueError, match=message):
        rows({"head/kernel": (8, 3), "head/bias": None}, **sections)


def test_what_is_not_known_is_not_made_up():
    (row,) = rows(
        {"w": None}, learning_rate={"type": "cosine", "cosine": {"initial_learning_rate": 1}}
    )
    assert row.parameters is None
    assert math.isnan(row.learning_rate)
    assert row.highest_rate is None
    assert row.rate_text == "?"
