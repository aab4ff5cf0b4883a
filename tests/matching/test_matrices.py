import pytest

from optimization.matching.matrices import (
    flattened,
    heads,
    input_axes,
    is_embedding,
    may_be_matrix,
)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.embed_tokens.weight", True),
        ("transformer.wte.weight", True),
        ("transformer.wpe.weight", True),
        ("bert.embeddings.token_type_embeddings.weight", True),
        ("tok_emb.weight", True),
        ("pos_emb", True),
        ("token_embedding/embeddings", True),
        ("shared.weight", True),
        ("patch_embed.proj.weight", False),
        ("embedding_model/layer/dense/kernel", False),
        ("decoder.member.weight", False),
    ],
)
def test_embeddings_are_called_so(name, expected):
    assert is_embedding(name) == expected


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("dense/kernel", (3, 4), True),
        ("dense/bias", (4,), False),
        ("scale", (), False),
        ("conv/kernel", (3, 3, 2, 8), True),
        ("conv3d/kernel", (3, 3, 3, 2, 8), True),
        ("conv1d/kernel", (3, 2, 8), True),
        ("attention/query/kernel", (8, 2, 4), False),
        ("attention/query/bias", (2, 4), False),
        ("layer_norm/gamma", (3, 4), False),
        ("layers.0.norm.weight", (3, 4), False),
        ("pos_table", (1, 3, 3, 8), False),
        ("depthwise_conv2d/kernel", (3, 3, 8, 2), False),
        ("separable/depthwise_kernel", (3, 3, 8, 2), False),
        ("attn.in_proj_weight", (12, 4), True),
        ("attn.relative_position_bias_table", (12, 4), False),
        ("mixer.A_log", (12, 4), False),
    ],
)
def test_matrices_and_kernels(name, shape, expected):
    assert may_be_matrix(name, shape) == expected


@pytest.mark.parametrize(
    ("name", "shape", "expected"),
    [
        ("dense/kernel", (6, 5), (0,)),
        ("conv2d/kernel", (3, 3, 4, 8), (0, 1, 2)),
        ("conv.weight", (8, 4, 3, 3), (1, 2, 3)),
        ("params/layer/weight", (8, 4), (1,)),
        ("embedding/embeddings", (100, 8), (1,)),
        ("patch_embedding/kernel", (4, 4, 3, 8), (0, 1, 2)),  # which is a convolution
        ("depthwise_conv2d/kernel", (3, 3, 4, 2), (0, 1)),
        ("separable_conv2d/depthwise_kernel", (3, 3, 4, 2), (0, 1)),
        ("separable_conv2d/pointwise_kernel", (1, 1, 8, 4), (0, 1, 2)),
        ("dense/bias", (5,), ()),
        ("scale", (), ()),
        # Of one input: less their means they would be 0.
        ("dense/kernel", (1, 5), ()),
        ("linear.weight", (5, 1), ()),
        ("class_token", (1, 1, 8), ()),
    ],
)
def test_inputs_lie_beside_outputs(name, shape, expected):
    assert input_axes(name, shape) == expected


def test_kernels_are_flattened_by_their_outputs():
    assert flattened((3, 2, 4, 5), outputs_first=True) == (3, 40)
    assert flattened((3, 2, 4, 5), outputs_first=False) == (24, 5)


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["layers.0.mlp.weight", "lm_head.weight", "layers.1.mlp.weight"], ["lm_head.weight"]),
        (["features.0.weight", "classifier.0.weight", "classifier.3.weight"], [2]),  # VGG
        (["layer1.0.se.fc.weight", "layer2.0.se.fc.weight", "fc.weight"], [2]),  # ResNet
        (["trunk.weight", "heads.a.0.weight", "heads.a.2.weight", "heads.b.weight"], [2, 3]),
        (["bert.dense.weight", "cls.predictions.decoder.weight"], [1]),
        (["text.up.weight", "visual_projection.weight", "text_projection.weight"], [1, 2]),
        (["0.weight", "2.weight", "4.weight"], [2]),
        (["body/dense/kernel", "body/dense_1/kernel"], [1]),
        (["layers.0.up.weight", "layers.0.down.weight", "layers.1.up.weight"], []),
        (["layer_0/mlp/dense/kernel", "layer_1/mlp/dense/kernel"], []),
        (["block_0/head/kernel", "block_1/head/kernel", "out/kernel"], [2]),
        (["dense.weight"], [0]),
        ([], []),
    ],
)
def test_heads(names, expected):
    expected = {names[each] if isinstance(each, int) else each for each in expected}
    assert heads(names, names) == expected


def test_without_linear_layers_only_names_tell():
    assert heads(["a.weight", "b.weight"], []) == set()
    assert heads(["a.weight", "head.weight"], []) == {"head.weight"}
