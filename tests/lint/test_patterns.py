import pytest

from optimization.matching.patterns import find
from tests.lint.linting import codes, linted, told

TEXT = """\
optimizer:
  type: adamw
  adamw:
    weight_decay_rate: 0.01
    exclude_from_weight_decay: ['{}']
learning_rate: {{type: constant, constant: {{learning_rate: 0.1}}}}
"""
NEVER = [
    *("kernel:1$", "kernel:0/bias", ":00", "a:b", "dense//kernel", "^/dense", "dense/$", "bias/$"),
    *("layer norm", "a^b", "bias$x", "^a (x|y)", "(?:a//b|c//d)", "(a:1|b:2)$", "dense/(/kernel)"),
    *("(x y)+", ":$", r"kernel:0 ?x", r"bias\n"),
]
SOME = [
    *("bias", "bias$", "^bias", "kernel:0$", "kernel:0", ":0$", "(bias|gamma):0$", ".*", "", "^$"),
    *("(a//b|c)", "a/?", "(a b)?c", "^(?!.*kernel$)", r"layer_\d+/", "a:?", "a:[0-9]$", r"a:\d"),
    *(
        "[^/]+/kernel$",
        "x{2,3}",
        "(?:^|/)bias$",
        r"\bbias\b",
        "(?i)LAYERNORM",
        "a$|b",
        r"\$",
        r"\^x",
    ),
    *(r"layer\.0", "^a$", "(bias$|beta$)", "(^|/)(a|b)(/|$)", "a|^/b", "(?<=x)y"),
]


@pytest.mark.parametrize("pattern", NEVER)
def test_a_pattern_that_matches_no_path(tmp_path, pattern):
    ((line, path, message),) = told(tmp_path, TEXT.format(pattern), "impossible-pattern")
    assert (line, path) == (5, "optimizer.adamw.exclude_from_weight_decay")
    assert message.startswith(f"{pattern!r} can match no path")


PATHS = ["dense/kernel", "bias", "a/b/c", "encoder/layer_0/layer_norm/gamma", "kernel", "x", "a"]


@pytest.mark.parametrize("pattern", NEVER)
def test_what_is_never_matched_is_not_matched(pattern):
    assert not any(find(pattern, path) for path in [*PATHS, "encoder.layer.0.bias"])


@pytest.mark.parametrize("pattern", SOME)
def test_a_pattern_that_may(tmp_path, pattern):
    assert codes(tmp_path, TEXT.format(pattern)) == []


def test_an_expression_of_many_alternatives_is_left_alone(tmp_path):
    assert codes(tmp_path, TEXT.format("(a|b c)" * 9 + "//")) == []


@pytest.mark.parametrize(
    "section",
    [
        "param_groups: [{match: 'a//b', freeze: true}]",
        "layer_decay: {depth: 'layer (\\d+)'}",
        "layer_decay: {with_last_block: 'norm:1'}",
    ],
)
def test_all_fields_of_patterns_are_looked_at(tmp_path, section):
    text = TEXT.format("bias") + section + "\n"
    assert codes(tmp_path, text) == ["impossible-pattern"]


@pytest.mark.parametrize(
    ("pattern", "word"),
    [
        ("LayerNorm", "layer_norm"),
        ("GroupNormalization/.*", "group_normalization"),
        ("Conv2D", "conv_2d"),
        ("layer_norm", None),
        ("(?i)LayerNorm", None),
        ("LN", None),
        ("Head", None),
    ],
)
def test_a_pattern_of_a_class_name(tmp_path, pattern, word):
    found = told(tmp_path, TEXT.format(pattern), "class-name-pattern")
    assert len(found) == (word is not None)
    assert codes(tmp_path, TEXT.format(pattern)) == []  # an info


def test_the_suggestion_is_the_name_that_keras_gives(tmp_path):
    (finding,) = linted(tmp_path, TEXT.format("LayerNorm"), "class-name-pattern")
    assert finding.suggestion.endswith("write 'layer_norm' for these")


def test_keys_of_a_mapping_are_patterns_too(tmp_path):
    text = "optimizer: {type: muon, muon: {split: {'qkv/kernel': 3, '^kernel$:0': 2}}}\n"
    text += "learning_rate: {type: constant, constant: {learning_rate: 0.1}}\n"
    ((_, path, message),) = told(tmp_path, text, "impossible-pattern")
    assert path == "optimizer.muon.split"
    assert "'^kernel$:0'" in message
