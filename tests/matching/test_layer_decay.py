import pytest

from optimization.matching.layer_decay import LayerDecay

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


def test_multipliers_are_timms():
    decay = LayerDecay(0.75, DEPTH, with_last_block=r"vit/norm/")
    assert decay.multipliers(PATHS) == list(zip(TIMM_LAYERS, TIMM_SCALES, strict=True))


def test_by_default_the_last_norm_goes_with_the_head_as_in_beit():
    multipliers = dict(zip(PATHS, LayerDecay(0.5, DEPTH).multipliers(PATHS), strict=True))
    assert multipliers["vit/norm/gamma"] == multipliers["vit/head/bias"] == (4, 1.0)
    assert multipliers["vit/blocks_2/mlp/fc2/bias"] == (3, 0.5)
    assert multipliers["vit/cls_token"] == (0, 0.0625)


def test_the_least_multiplier():
    multipliers = LayerDecay(0.5, DEPTH, min_multiplier=0.2).multipliers(PATHS)
    assert sorted({m for _, m in multipliers}) == [0.2, 0.25, 0.5, 1.0]


def test_blocks_that_are_not_trained_count():
    paths = [path for path in PATHS if "blocks_0" not in path and "blocks_1" not in path]
    multipliers = dict(zip(paths, LayerDecay(0.5, DEPTH).multipliers(paths), strict=True))
    assert multipliers["vit/blocks_2/mlp/fc2/bias"] == (3, 0.5)
    assert multipliers["vit/cls_token"] == (0, 0.0625)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"rate": 0.0}, "`rate`"),
        ({"rate": 1.5}, "`rate`"),
        ({"min_multiplier": -0.1}, "`min_multiplier`"),
        ({"depth": r"blocks_\d+"}, "exactly one group"),
        ({"depth": r"(blocks)_(\d+)"}, "exactly one group"),
        ({"depth": "("}, "regular expressions"),
        ({"with_last_block": "("}, "regular expressions"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        LayerDecay(**{"rate": 0.75, "depth": DEPTH, **arguments})


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
        LayerDecay(**{"rate": 0.75, "depth": DEPTH, **arguments}).layers(PATHS)
