"""Muon's `auxiliary`: what is wrong with it, and the groups that it makes of a config."""

import pytest

from optimization import ConfigError, OptimizationConfig
from optimization.group_rows import group_rows

CONSTANT = {"type": "constant", "constant": {"learning_rate": 0.02}}
OWN = {"type": "constant", "constant": {"learning_rate": 0.001}}
PLATEAU = {
    "type": "hf_reduce_lr_on_plateau",
    "hf_reduce_lr_on_plateau": {"initial_learning_rate": 0.1},
}
ADAMW = {"type": "adamw", "adamw": {"weight_decay_rate": 0.3}}
SHAPES = {
    "embed/embeddings": (9, 4),
    "layer_0/kernel": (4, 6),
    "layer_0/bias": (6,),
    "conv/kernel": (3, 3, 2, 5),
    "head/kernel": (6, 3),
}


def config_of(auxiliary, muon=None, **sections):
    optimizer = {"type": "muon", "muon": {"auxiliary": auxiliary, **(muon or {})}}
    return OptimizationConfig({"optimizer": optimizer, "learning_rate": CONSTANT, **sections})


def told(config):
    """Returns the group, the optimizer and the rate of each parameter, and whether it decays."""
    config.validate()
    rows = group_rows(config, SHAPES)
    return {r.path: (r.group, r.optimizer, round(r.learning_rate, 6), r.decayed) for r in rows}


MUONS = ("default", "muon", 0.02, True)


def test_it_has_what_muon_leaves():
    found = told(config_of({**ADAMW, "learning_rate_multiplier": 0.1}))
    rest = ("auxiliary", "adamw", 0.002, True)
    matrices = {"layer_0/kernel", "conv/kernel"}
    assert found == {path: MUONS if path in matrices else rest for path in SHAPES}


def test_its_own_rate_is_not_that_of_all():
    found = told(config_of({"type": "sgd", "learning_rate": OWN, "learning_rate_multiplier": 2}))
    assert found["embed/embeddings"] == ("auxiliary", "sgd", 0.002, False)


def test_it_has_what_it_is_given_besides():
    also = [{"ndim": [4]}, {"match": "layer_0"}]
    found = told(config_of({**ADAMW, "also": also}))
    assert {row[0] for row in found.values()} == {"auxiliary"}
    with pytest.raises(ValueError, match="'layer_7'.*matches no trainable variable"):
        told(config_of({**ADAMW, "also": [{"match": "layer_7"}]}))


def test_patterns_of_muon_choose():
    muon = {"exclude_layers": ["conv"], "include_layers": ["head"]}
    found = told(config_of(ADAMW, muon))
    assert {path for path, row in found.items() if row == MUONS} == {
        "layer_0/kernel",
        "head/kernel",
    }


def test_a_group_has_it_with_the_settings_of_the_group():
    groups = [
        {"match": "embed|layer_0", "learning_rate_multiplier": 0.5, "weight_decay": 0.0},
        {"match": "head", "learning_rate": {"type": "constant", "constant": {"learning_rate": 3}}},
    ]
    found = told(config_of({**ADAMW, "learning_rate_multiplier": 0.1}, param_groups=groups))
    assert found == {
        "embed/embeddings": ("embed|layer_0/auxiliary", "adamw", 0.001, False),
        "layer_0/kernel": ("embed|layer_0", "muon", 0.01, False),
        "layer_0/bias": ("embed|layer_0/auxiliary", "adamw", 0.001, False),
        "conv/kernel": MUONS,
        "head/kernel": ("head/auxiliary", "adamw", 3, True),
    }


def test_a_group_may_be_all_of_muon_or_all_of_it():
    for match in ("bias$", "layer_0/kernel"):
        assert told(config_of(ADAMW, param_groups=[{"match": match, "weight_decay": 0.0}]))
    with pytest.raises(ValueError, match="earlier groups took all"):
        told(config_of(ADAMW, param_groups=[{"match": "bias$"}, {"match": "bias$", "name": "b"}]))


def test_the_muon_of_a_group_has_its_own():
    muon = {"type": "muon", "muon": {"auxiliary": {"type": "lion"}}}
    config = OptimizationConfig(
        {
            "optimizer": {"type": "sgd"},
            "learning_rate": CONSTANT,
            "param_groups": [{"match": "layer_0", "optimizer": muon}],
        }
    )
    found = told(config)
    assert {path: row[1] for path, row in found.items()} == {
        **dict.fromkeys(SHAPES, "sgd"),
        "layer_0/kernel": "muon",
        "layer_0/bias": "lion",
    }


def test_frozen_variables_stay():
    found = told(config_of(ADAMW, param_groups=[{"match": "embed", "freeze": True}]))
    assert found["embed/embeddings"] == ("embed", "", 0.0, False)


@pytest.mark.parametrize(
    ("auxiliary", "muon", "message"),
    [
        ({}, {}, r"muon.auxiliary.type: a type is required.*adamw"),
        ({"type": "adam_w"}, {}, "auxiliary.type: unknown type 'adam_w'; did you mean 'adamw'"),
        ({"type": "muon"}, {}, "auxiliary.type: can't be `muon`"),
        ({"type": "adamw", "beta_1": 0.9}, {}, "auxiliary.beta_1: unknown key"),
        ({**ADAMW, "warmup": {"type": "linear"}}, {}, "warmup: needs a `learning_rate` of its own"),
        ({**ADAMW, "also": [{}]}, {}, r"also\[0\].match: exactly one of `match`"),
        ({**ADAMW, "also": ["embed"]}, {}, r"also\[0\]: expected a mapping"),
        ({**ADAMW, "learning_rate_multiplier": -1}, {}, "learning_rate_multiplier: must be >= 0"),
        (
            {"type": "adamw", "adamw": {"clipnorm": 1.0}},
            {},
            "auxiliary.adamw.clipnorm: belongs to the whole step",
        ),
        (
            {**ADAMW, "learning_rate": PLATEAU},
            {},
            "auxiliary.learning_rate.type: .*follows a metric",
        ),
        (ADAMW, {"adam_beta_1": 0.8}, "muon.adam_beta_1: needs no `auxiliary`"),
        (ADAMW, {"variant": "jordan", "adam_lr_ratio": 0.1}, "adam_lr_ratio: needs no `auxiliary`"),
        ("adamw", {}, "auxiliary: .*write {type: adamw}"),
    ],
)
def test_mistakes(auxiliary, muon, message):
    with pytest.raises(ConfigError, match=message):
        config_of(auxiliary, muon).validate()


def test_no_group_has_its_name():
    with pytest.raises(ConfigError, match="'auxiliary' is that of the auxiliary optimizer"):
        config_of(ADAMW, param_groups=[{"match": "x", "name": "auxiliary"}]).validate()


def test_a_variant_leaves_it_as_it_is():
    config = config_of(ADAMW)
    config.override({"optimizer": {"muon": {"variant": "moonlight"}}})
    assert config.optimizer.muon.auxiliary.type == "adamw"
    assert config.optimizer.muon.weight_decay == 0.1


def test_it_is_exported_and_read():
    config = config_of({**ADAMW, "also": [{"ndim": [4]}], "learning_rate": OWN})
    again = OptimizationConfig(config.as_dict())
    assert again == config
    assert told(again) == told(config)


def test_a_norm_over_what_two_optimizers_update_is_refused():
    def problems(**clip):
        return config_of(ADAMW, param_groups=[{"match": "layer_0", **clip}])

    message = (
        r"param_groups\[0\].global_clipnorm: can't be one norm .*write `clipnorm`, `clipvalue`"
    )
    with pytest.raises(ConfigError, match=message):
        problems(global_clipnorm=1.0).validate()
    for clip in ({"global_clipnorm": 0.0}, {"clipnorm": 1.0}, {"adaptive_clip_factor": 0.1}):
        assert told(problems(**clip))
    assert told(problems(global_clipnorm=1.0, optimizer={"type": "lion"}))
