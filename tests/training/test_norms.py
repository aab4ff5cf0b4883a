import numpy as np
import pytest

from optimization.training.norms import KINDS
from tests.training.tiny import read_summaries, tiny, trainer

pytestmark = pytest.mark.slow
SECTION = "trainer.optimizer_config"
# A batch is all of the data, so that its gradient is that of an earlier trainer's weights.
WHOLE = (
    "task.train_data.global_batch_size=40,task.train_data.shuffle=false",
    f"{SECTION}.optimizer.sgd.momentum=0,{SECTION}.warmup.type=null",
    f"{SECTION}.learning_rate.type=constant,{SECTION}.learning_rate.constant.learning_rate=0.1",
    "trainer.summary_interval=3,trainer.train_steps=3",
)
GROUPS = f"{SECTION}.param_groups=[{{match: bias, name: biases, learning_rate_multiplier: 0.5}}]"


def norms(directory, *overrides):
    """Returns the norms of the third step, and the weights before and after it."""
    before = trainer(directory / "before", *WHOLE, *overrides, "trainer.train_steps=2")
    before.train()
    one = trainer(directory / "run", *WHOLE, *overrides)
    one.train()
    found = read_summaries(directory / "run/train")
    values = {tag: steps[3] for tag, steps in found.items() if 3 in steps}
    weights = [[v.numpy() for v in each.model.trainable_variables] for each in (before, one)]
    return values, *weights


def norm(*arrays):
    return np.sqrt(sum(np.square(a.astype("float64")).sum() for a in arrays))


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_norms_of_groups_are_those_of_numpy(tmp_path, accumulation):
    found, before, after = norms(
        tmp_path,
        "trainer.norm_summaries=groups",
        GROUPS,
        f"{SECTION}.optimizer.sgd.gradient_accumulation_steps={accumulation}",
    )
    for index, (name, rate) in enumerate({"default": 0.1, "biases": 0.05}.items()):
        update = after[index] - before[index]
        expected = [norm(update) / rate, norm(update), norm(before[index])]
        expected.append(expected[1] / expected[2])
        actual = [found[f"{kind}/{name}"] for kind in KINDS]
        np.testing.assert_allclose(actual, expected, rtol=1e-4)


def test_the_norms_of_layers_are_those_of_numpy(tmp_path):
    found, before, after = norms(tmp_path, "trainer.norm_summaries=layers", "task.hidden=4")
    names = sorted(tag.partition("/")[2] for tag in found if tag.startswith("weight_norm/"))
    assert [name.rpartition("/")[2] for name in names] == ["head", "hidden", "norm"]
    head = next(name for name in names if name.endswith("head"))
    assert found[f"weight_norm/{head}"] == pytest.approx(norm(*before[-2:]), rel=1e-5)
    updates = [one - other for one, other in zip(after[-2:], before[-2:], strict=True)]
    assert found[f"update_norm/{head}"] == pytest.approx(norm(*updates), rel=1e-4)
    assert found[f"gradient_norm/{head}"] == pytest.approx(norm(*updates) / 0.1, rel=1e-4)


def test_what_is_frozen_has_none_and_the_whole_is_as_reported(tmp_path):
    frozen = f"{SECTION}.param_groups=[{{match: bias, freeze: true}}]"
    found, *_ = norms(tmp_path, "trainer.norm_summaries=groups", frozen)
    assert [tag for tag in found if tag.startswith("weight_norm/")] == ["weight_norm/default"]
    assert found["gradient_norm/default"] == pytest.approx(found["gradient_norm"], rel=1e-6)


def test_training_is_the_same_with_them_and_none_are_there_without(tmp_path):
    found, _, plain = norms(tmp_path / "plain")
    assert not [tag for tag in found if tag.startswith(KINDS[1:])]
    _, _, measured = norms(tmp_path / "measured", "trainer.norm_summaries=layers")
    for one, other in zip(plain, measured, strict=True):
        np.testing.assert_array_equal(one, other)


def test_another_value_is_an_error():
    with pytest.raises(ValueError, match="norm_summaries: .*'group'"):
        tiny("trainer.norm_summaries=group")
