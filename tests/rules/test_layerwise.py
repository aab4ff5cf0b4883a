import pytest

from optimization.rules.lamb import LAMBConfig


@pytest.mark.parametrize(
    ("decay", "adaptation", "decays", "adapts"),
    [
        (None, None, [True, True], [True, True]),
        (["bias"], None, [True, False], [True, False]),
        (["bias"], [], [True, False], [True, True]),
        (None, ["kernel"], [True, True], [False, True]),
    ],
)
def test_exclusions(decay, adaptation, decays, adapts):
    rule = LAMBConfig(exclude_from_weight_decay=decay, exclude_from_layer_adaptation=adaptation)
    paths = ("a/kernel", "a/bias")
    assert [rule.decays(path) for path in paths] == decays
    assert [rule.settings(path, (2,))["adapt"] for path in paths] == adapts
