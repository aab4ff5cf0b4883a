import pytest

from optimization import ConfigWarning
from optimization.keras.paths import Among, path_of, saved_names, settled
from tests.golden_cases import make_variable


def variables(*paths):
    return [make_variable(path, [0.0]) for path in paths]


def test_the_path_is_the_variables_own():
    (variable,) = variables("encoder/dense/kernel")
    assert path_of(variable) == variable.path == "encoder/dense/kernel"


def test_what_has_no_path_has_its_name():
    class Named:
        name = "kernel"

    assert path_of(Named()) == "kernel"


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        (None, ["dense/kernel", "dense/kernel"]),
        (["first/dense/kernel", "second/dense/kernel"],) * 2,
        (["model/first/dense/kernel", "dense/kernel"],) * 2,
        # Not the same variables: another number, another name, half a part of a name.
        (["first/dense/kernel"], ["dense/kernel", "dense/kernel"]),
        (["first/dense/kernel", "second/dense/bias"], ["dense/kernel", "dense/kernel"]),
        (["first_dense/kernel", "dense/kernel"], ["dense/kernel", "dense/kernel"]),
    ],
)
def test_saved_paths_hold_for_the_same_variables_only(saved, expected):
    assert settled(variables("dense/kernel", "dense/kernel"), saved) == expected


def test_patterns_without_a_match_are_named_with_the_nearest_paths():
    paths = ["block/layer_norm/gamma", "head/kernel"]
    among = Among.of(paths, [make_variable(path, [0.0]) for path in paths])
    among.require(["gamma", "head"], "exclude")
    with pytest.raises(ValueError, match=r"`exclude`.*'LayerNorm'.*'block/layer_norm/gamma'"):
        among.require(["LayerNorm"], "exclude")
    with pytest.warns(ConfigWarning, match=r"exclude: .*'LayerNorm'.*'block/layer_norm/gamma'"):
        among.require(["head", "LayerNorm"], "exclude")
    among.require(["head", "LayerNorm"], "exclude")  # once: warnings are errors in tests


def matched(names, saved):
    """With every name a path of the model, as among its own weights."""
    return [saved_names(names, saved, names)[name] for name in names]


@pytest.mark.parametrize(
    ("names", "saved"),
    [
        (["dense_7/kernel", "dense_8/kernel"], ["dense/kernel", "dense_1/kernel"]),
        # By number, not by letter.
        (["dense_9/kernel", "dense_10/kernel"], ["dense/kernel", "dense_1/kernel"]),
        (["dense_1/kernel", "dense_2/kernel"], ["dense/kernel", "dense_1/kernel"]),
        (["seq_3/dense_7/kernel", "head/kernel"], ["seq/dense/kernel", "head/kernel"]),
        # The layers of two blocks have their own numbers.
        (["block_4/dense_9/bias", "block_5/dense_8/bias"], ["block/dense_1/bias", "block_1/dense"]),
        (["a/dense_2/kernel#2", "a/dense_2/kernel"], ["a/dense/kernel#2", "a/dense/kernel"]),
    ],
)
def test_automatic_numbers_are_matched_in_order(names, saved):
    saved = [name if "bias" in name or "kernel" in name else f"{name}/bias" for name in saved]
    assert matched(names, saved) == saved


@pytest.mark.parametrize(
    ("names", "saved"),
    [
        (["dense_1/kernel", "dense_2/kernel"], ["dense/kernel"]),  # one more
        (["encoder/kernel"], ["decoder/kernel"]),
        (["block2/kernel"], ["block1/kernel"]),  # a number of the user's own
        # The bias would come from another layer than its kernel.
        (
            ["dense_5/kernel", "dense_5/bias", "dense_6/kernel"],
            ["dense/kernel", "dense_1/bias", "dense_1/kernel"],
        ),
    ],
)
def test_what_is_not_clear_is_not_matched(names, saved):
    assert matched(names, saved) == names


def test_only_the_models_paths_are_renumbered():
    paths = ["dense_3/kernel"]
    names = ["groups/body_2/learning_rate", "groups/body_2/momentums/dense_3/kernel", "iteration"]
    saved = ["groups/body_1/learning_rate", "groups/body_1/momentums/dense/kernel", "iteration"]
    assert list(saved_names(names, saved, paths).values()) == names
    saved = [name.replace("body_1", "body_2") for name in saved]
    assert list(saved_names(names, saved, paths).values()) == saved
