import dataclasses

import pytest

from optimization.matching.rules import Rule, assigned

NAMES = ["layer.weight", "layer.bias", "norm.weight"]
NDIMS = [2, 1, 1]
OWNERS = ["Linear", "Linear", "LayerNorm"]


@dataclasses.dataclass
class Plain(Rule):
    match: str | None = None
    layer_type: str | None = None
    ndim: tuple[int, ...] | None = None
    name: str | None = None


def test_the_first_rule_that_matches_has_a_parameter():
    rules = [Plain(layer_type="LayerNorm"), Plain(ndim=(1,)), Plain(match="weight$", name="w")]
    owners = assigned(rules, NAMES, NDIMS, OWNERS)
    assert [rule.label for rule in owners] == ["w", "ndim 1", "LayerNorm"]
    assert [rule.matcher for rule in rules] == [
        "layer_type='LayerNorm'",
        "ndim=(1,)",
        "match='weight$'",
    ]
    assert assigned([rules[0]], NAMES, NDIMS, OWNERS)[:2] == [None, None]


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (
            [Plain(match="wieght")],
            r"^The parameter group \(match='wieght'\) .*nearest: 'layer.weig",
        ),
        ([Plain(ndim=(3,))], r"ndim of the variables: \[1, 2\]"),
        ([Plain(layer_type="Dense")], "layer types: LayerNorm, Linear"),
        ([Plain(match="."), Plain(match="bias")], r"earlier groups took .*bias \(by '.'\)"),
    ],
)
def test_a_rule_without_a_parameter_is_an_error(rules, message):
    with pytest.raises(ValueError, match=message):
        assigned(rules, NAMES, NDIMS, OWNERS)


def test_layer_types_must_be_known():
    with pytest.raises(ValueError, match="needs the model"):
        assigned([Plain(layer_type="Linear")], NAMES, NDIMS, [None] * 3)
