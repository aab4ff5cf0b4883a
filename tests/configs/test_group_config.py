import pytest

from optimization.configs.errors import ConfigError, ConfigWarning
from optimization.configs.group_config import (
    LayerDecayConfig,
    LrScalingConfig,
    ParamGroupConfig,
)
from optimization.configs.layers import resolve
from optimization.configs.optimization_config import OptimizationConfig, load_optimization_config
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.configs.overrides import parse_override
from optimization.optimizer_factory import OptimizerFactory
from optimization.rules.base import ALL_CLIPS

CONSTANT = {"type": "constant", "constant": {"learning_rate": 0.1}}


PATHS = [
    "vit/cls_token",
    "vit/patch_embed/kernel",
    "vit/patch_embed/bias",
    "vit/blocks_0/norm1/gamma",
    "vit/blocks_0/attn/qkv/kernel",
    "vit/blocks_1/mlp/fc1/kernel",
    "vit/blocks_2/mlp/fc2/bias",
    "vit/norm/gamma",
    "vit/norm/beta",
    "vit/head/kernel",
    "vit/head/bias",
]
# timm 1.0.31: group_with_matcher with the VisionTransformer's group_matcher(coarse=False), on these
# names with "." for "/" and "blocks.0" for "blocks_0", then rate ** (layer_max - layer_id).
TIMM_LAYERS = [0, 0, 0, 1, 1, 2, 3, 3, 3, 4, 4]
TIMM_SCALES = [0.31640625] * 3 + [0.421875] * 2 + [0.5625] + [0.75] * 3 + [1.0] * 2
DEPTH = r"blocks_(\d+)/"


def config(**sections):
    return OptimizationConfig(
        {"optimizer": {"type": "adamw"}, "learning_rate": CONSTANT, **sections}
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, "match: exactly one of `match`, `layer_type` and `ndim` must be set, got none"),
        ({"match": "a", "ndim": [1]}, "ndim: exactly one of .* got match and ndim"),
        ({"match": "("}, "match: '\\(' is not a regular expression"),
        ({"ndim": []}, "ndim: "),
        ({"ndim": [-1]}, r"ndim\[0\]: must be >= 0"),
        ({"match": "a", "learning_rate_multiplier": -1}, "learning_rate_multiplier: must be >= 0"),
        ({"match": "a", "weight_decay": -0.1}, "weight_decay: must be >= 0"),
        ({"match": "a", "clipnorm": -1.0}, "clipnorm: must be >= 0"),
        (
            {"match": "a", "clipnorm": 1.0, "global_clipnorm": 0.0},
            "global_clipnorm: at most one kind of clip may be set, got clipnorm and global",
        ),
        ({"match": "a", "clipvalue": 1.0, "freeze": True}, "freeze: a frozen group has no other"),
        (
            {"match": "a", "optimizer": {"type": "sgd", "sgd": {"clipnorm": 1.0}}},
            "optimizer: `clipnorm` belongs to the whole step: .*, or beside this `optimizer`",
        ),
        ({"match": "a", "warmup": {"type": "linear"}}, "needs a `learning_rate`"),
        ({"freeze_steps": "10%"}, "match: exactly one of .* must be set, got none of them"),
        ({"match": "a", "ndim": [1], "warmup": {"type": "linear"}}, "got match and ndim"),
        ({"match": "a", "freeze": True, "weight_decay": 0.1}, "freeze: a frozen group has no"),
        ({"match": "a", "freeze": True, "optimizer": {"type": "sgd"}}, "freeze: a frozen group"),
        (
            {"match": "a", "optimizer": {"type": "sgd", "sgd": {"clipnorm": 1}}},
            "optimizer: `clipnorm` belongs to the whole step",
        ),
        ({"matches": "a"}, "matches: unknown key; did you mean 'match'"),
    ],
)
def test_wrong_groups(values, message):
    with pytest.raises(ConfigError, match=message):
        ParamGroupConfig(values).validate()


def test_right_groups():
    groups = [
        {"match": "backbone/", "learning_rate_multiplier": 0.1},
        {"layer_type": "LayerNormalization", "weight_decay": 0.0},
        {"ndim": [0, 1], "learning_rate": CONSTANT},
        {"match": "embeddings", "optimizer": {"type": "adagrad"}, "name": "tables"},
        {"match": "layer_(0|1)/", "freeze": True},
    ]
    assert config(param_groups=groups).validate() == []


def test_mistakes_in_a_group_have_their_place(tmp_path):
    path = tmp_path / "groups.yaml"
    path.write_text(
        "optimizer: {type: adamw}\n"
        "learning_rate: {type: constant}\n"
        "param_groups:\n"
        "- match: bias\n"
        "  weight_decay: none\n"
        "- ndim: [1]\n"
        "  learning_rate: {type: cosin}\n"
        "schedules:\n"
        "  beta_1: {type: linear, linear: {initial_learning_rat: 0.9}}\n"
    )
    with pytest.raises(ConfigError) as error:
        load_optimization_config(path)
    assert str(error.value).splitlines() == [
        f"{path}:5: param_groups[0].weight_decay: expected a number, got 'none' (text)",
        f"{path}:7: param_groups[1].learning_rate.type: unknown type 'cosin'; "
        "did you mean 'cosine'?",
        f"{path}:9: schedules.beta_1.linear.initial_learning_rat: unknown key; "
        "did you mean 'initial_learning_rate'?",
    ]


def test_every_optimizer_of_the_catalog_has_a_decay_for_a_group():
    for name in OPTIMIZERS_CLS:
        group = {"match": "a", "weight_decay": 0.1, "optimizer": {"type": name}}
        assert config(optimizer={"type": "sgd"}, param_groups=[group]).validate() == []


@pytest.mark.parametrize(
    ("schedules", "message"),
    [
        (
            {"beta_3": CONSTANT},
            "schedules.beta_3: `adamw` has no number of that name .*; did you mean 'beta_",
        ),
        ({"amsgrad": CONSTANT}, "schedules.amsgrad: `adamw` has no number"),
        ({"weight_decay": CONSTANT}, "schedules.weight_decay: `weight_decay_rate` is 0.0 in the"),
        (
            {"beta_1": {"type": "constant", "constant": {"learning_rate": 7}}},
            "schedules.beta_1: `beta_1` must be < 1, got 7.0, at step 0",
        ),
        ({"beta_1": {"type": None}}, "schedules.beta_1.type: a type is required"),
        ({"beta_1": 0.9}, "schedules.beta_1: expected a mapping, got 0.9"),
        ({"beta_1": {"type": "cosine"}}, "initial_learning_rate: a value is required"),
    ],
)
def test_wrong_schedules(schedules, message):
    with pytest.raises(ConfigError, match=message):
        config(schedules=schedules).validate()


@pytest.mark.parametrize(
    ("section", "name", "message"),
    [
        ({}, "momentum_start", "`sgd_torch` has no number of that name to schedule"),
        ({"warmup_steps": 5}, "momentum", "`momentum` follows `warmup_steps` of the optimizer's"),
    ],
)
def test_the_momentum_of_sgd_torch_has_one_schedule(section, name, message):
    params = {
        "optimizer": {"type": "sgd_torch", "sgd_torch": section},
        "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
        "schedules": {name: CONSTANT},
    }
    with pytest.raises(ConfigError, match=f"schedules.{name}: {message}"):
        OptimizationConfig(params).validate()


def test_right_schedules():
    decaying = {"type": "adamw", "adamw": {"weight_decay_rate": 0.1}}
    schedules = {"weight_decay": CONSTANT, "beta_1": CONSTANT}
    assert config(optimizer=decaying, schedules=schedules).validate() == []
    with pytest.raises(ConfigError, match=r"schedules.weight_decay: `weight_decay` is None in"):
        config(optimizer={"type": "sgd"}, schedules=schedules).validate()


@pytest.mark.parametrize(
    ("optimizer", "name"),
    [("muon", "ns_steps"), ("adagrad", "initial_accumulator_value"), ("sgd_torch", "warmup_steps")],
)
def test_what_cannot_change_while_training_has_no_schedule(optimizer, name):
    with pytest.raises(ConfigError, match=f"schedules.{name}: `{optimizer}` has no number"):
        config(optimizer={"type": optimizer}, schedules={name: CONSTANT}).validate()


@pytest.mark.parametrize(
    ("groups", "message"),
    [
        (
            [{"match": "a"}, {"match": "a"}],
            r"param_groups\[1\].name: the name 'a' is that of param",
        ),
        ([{"match": "a", "name": "default"}], "the name 'default' is that of the rest"),
        (
            [{"match": "a", "optimizer": {"type": "ftrl"}, "learning_rate_multiplier": 0.0}],
            "learning_rate_multiplier: `ftrl` divides by the learning rate, which this makes 0",
        ),
        (
            [
                {
                    "match": "a",
                    "optimizer": {"type": "ftrl"},
                    "learning_rate": CONSTANT,
                    "warmup": {"type": "linear", "linear": {"warmup_steps": 3}},
                }
            ],
            r"param_groups\[0\].warmup.type: `ftrl` divides by the learning rate, which is 0 at",
        ),
    ],
)
def test_groups_that_contradict(groups, message):
    with pytest.raises(ConfigError, match=message):
        config(param_groups=groups).validate()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"rate": 0}, "rate: must be > 0"),
        ({"rate": 1.1}, "rate: must be <= 1"),
        ({"depth": "layer"}, "depth: must have one group, the number of the block, got 0"),
        ({"depth": r"(a)(\d)"}, "got 2 in"),
        ({"min_multiplier": 2}, "min_multiplier: must be <= 1"),
        ({"with_last_block": "("}, "with_last_block: '\\(' is not a regular expression"),
    ],
)
def test_wrong_layer_decay(values, message):
    with pytest.raises(ConfigError, match=message):
        LayerDecayConfig(values)


def test_multipliers_are_timms():
    decay = LayerDecayConfig(rate=0.75, depth=DEPTH, with_last_block=r"vit/norm/")
    assert decay.multipliers(PATHS) == list(zip(TIMM_LAYERS, TIMM_SCALES, strict=True))


def test_by_default_the_last_norm_goes_with_the_head_as_in_beit():
    multipliers = dict(
        zip(PATHS, LayerDecayConfig(rate=0.5, depth=DEPTH).multipliers(PATHS), strict=True)
    )
    assert multipliers["vit/norm/gamma"] == multipliers["vit/head/bias"] == (4, 1.0)
    assert multipliers["vit/blocks_2/mlp/fc2/bias"] == (3, 0.5)
    assert multipliers["vit/cls_token"] == (0, 0.0625)


def test_the_least_multiplier():
    multipliers = LayerDecayConfig(rate=0.5, depth=DEPTH, min_multiplier=0.2).multipliers(PATHS)
    assert sorted({m for _, m in multipliers}) == [0.2, 0.25, 0.5, 1.0]


def test_blocks_that_are_not_trained_count():
    paths = [path for path in PATHS if "blocks_0" not in path and "blocks_1" not in path]
    multipliers = dict(
        zip(paths, LayerDecayConfig(rate=0.5, depth=DEPTH).multipliers(paths), strict=True)
    )
    assert multipliers["vit/blocks_2/mlp/fc2/bias"] == (3, 0.5)
    assert multipliers["vit/cls_token"] == (0, 0.0625)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": r"block/(\d+)"}, "matches no trainable variable: .*nearest"),
        ({"depth": r"vit/(\w+)/"}, "must find a number.*'patch_embed'"),
        ({"with_last_block": "final"}, "`with_last_block`.*nearest"),
    ],
)
def test_expressions_that_find_nothing_of_use(arguments, message):
    with pytest.raises(ValueError, match=message):
        LayerDecayConfig(**{"rate": 0.75, "depth": DEPTH, **arguments}).multipliers(PATHS)


def test_the_factor_of_the_batch_size():
    assert LrScalingConfig(global_batch_size=1024).factor() == 4.0
    assert LrScalingConfig(rule="sqrt", global_batch_size=1024).factor() == 2.0
    assert LrScalingConfig(base_batch_size=64, global_batch_size=32).factor() == 0.5
    with pytest.raises(ConfigError, match="rule: must be one of 'linear' or 'sqrt'"):
        LrScalingConfig(rule="cubic")


def test_the_path_of_an_override_changes_the_schedule_that_it_names():
    base = config(optimizer={"type": "adam"}, schedules={"beta_1": CONSTANT, "beta_2": CONSTANT})
    override = "schedules.beta_1.constant.learning_rate=0.5"
    found = resolve(base, [parse_override(override)])
    assert found.schedules["beta_1"].get().learning_rate == 0.5
    assert found.schedules["beta_2"] == base.schedules["beta_2"]
    found = resolve(base, [parse_override("schedules.beta_2=null")])
    assert list(found.schedules) == ["beta_1"]
    assert list(base.schedules) == ["beta_1", "beta_2"]
    # What is written whole is all there is, so that an export loads over any other config.
    for whole in ({"schedules": {}}, {"schedules": {"epsilon": CONSTANT}}):
        assert list(resolve(base, [whole]).schedules) == list(whole["schedules"])
    muon = config(optimizer={"type": "muon", "muon": {"split": {"qkv": 3, "kv": 2}}})
    found = resolve(muon, [parse_override("optimizer.muon.split.kv=4")])
    assert found.optimizer.muon.split == {"qkv": 3, "kv": 4}


def test_what_is_wrong_in_a_layer_of_a_schedule_is_told_where_it_was_written():
    base = config(optimizer={"type": "adam"}, schedules={"beta_1": CONSTANT})
    layer = parse_override("schedules.beta_1.constant.learning_rat=0.5")
    with pytest.raises(
        ConfigError, match=r"--params_override .*schedules\.beta_1\.constant\."
    ) as e:
        resolve(base, [layer])
    assert "did you mean 'learning_rate'" in str(e.value)


def test_groups_and_schedules_survive_files():
    wanted = config(
        param_groups=[{"match": "a", "learning_rate": CONSTANT}, {"ndim": [1]}],
        schedules={"beta_1": CONSTANT},
        layer_decay={"rate": 0.5},
        lr_scaling={"base_batch_size": 32},
    )
    assert OptimizationConfig.from_json(wanted.to_json()) == wanted
    assert OptimizationConfig(wanted.as_dict()) == wanted
    wanted.lock()
    with pytest.raises(ConfigError, match=r"param_groups\[0\]: the config is locked"):
        wanted.param_groups[0].match = "b"
    with pytest.raises(ConfigError, match=r"schedules.beta_1: the config is locked"):
        wanted.schedules["beta_1"].type = "cosine"
    with pytest.raises(TypeError, match="read-only"):
        wanted.schedules["beta_2"] = CONSTANT


def test_a_branch_that_is_not_selected_in_a_group_is_a_warning():
    group = {"match": "a", "optimizer": {"type": "sgd", "adam": {"beta_1": 0.5}}}
    with pytest.warns(ConfigWarning, match=r"param_groups\[0\].optimizer.adam: is set, but"):
        config(param_groups=[group]).validate()


@pytest.mark.parametrize(
    "group",
    [
        {"match": "a", "freeze": True, "name": "still"},
        {"match": "a", "optimizer": {"type": "sgd", "sgd": {"momentum": 0.5}}},
        {"ndim": [0, 1], "optimizer": {"type": "adafactor"}, "learning_rate": CONSTANT},
    ],
)
def test_a_group_is_read_back_from_its_export_which_has_the_defaults_too(group):
    wanted = config(param_groups=[group])
    wanted.validate()
    again = OptimizationConfig(wanted.as_dict())
    again.validate()
    assert again == wanted


LINEAR = {"initial_learning_rate": 1.0, "end_learning_rate": 0.1, "decay_steps": 10}


def scheduled(linear=LINEAR, **adamw):
    name = next(iter(adamw))
    optimizer = {"type": "adamw", "adamw": adamw}
    return config(optimizer=optimizer, schedules={name: {"type": "linear", "linear": linear}})


@pytest.mark.parametrize("clip", ALL_CLIPS)
def test_a_clip_follows_a_schedule_and_is_drawn(clip):
    config = scheduled(**{clip: 1.0})
    assert config.validate() == []
    assert OptimizerFactory(config).plot(clip).curves[0].values[-1] == pytest.approx(0.1)


def test_a_clip_that_follows_a_schedule_is_there_and_above_0():
    with pytest.raises(ConfigError, match="schedules.clipnorm: `clipnorm` is None in the"):
        scheduled(clipnorm=None).validate()
    with pytest.raises(ConfigError, match="`gradient_clip_norm` must be > 0, got 0.0, at step 10"):
        scheduled({**LINEAR, "end_learning_rate": 0.0}, gradient_clip_norm=1.0).validate()


def test_a_picture_of_a_clip_has_what_a_group_has_of_its_own():
    groups = [{"match": "head", "clipvalue": 0.5}, {"match": "tail"}]
    config = scheduled(global_clipnorm=1.0).replace(param_groups=groups)

    def last(what, group):
        return OptimizerFactory(config).plot(what, group).curves[0].values[-1]

    assert last("clipvalue", "head") == 0.5
    assert last("global_clipnorm", "head") == 0.0  # the group has another
    assert last("global_clipnorm", "tail") == pytest.approx(0.1)
