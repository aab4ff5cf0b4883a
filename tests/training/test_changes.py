import pytest

from optimization.training import CheckpointError
from optimization.training.changes import changes, check_identity, explained, summary
from optimization.training.errors import MisfitError
from tests.training.tiny import tiny

GROUPS = "trainer.optimizer_config.param_groups="


def told(before, *after):
    return [str(change) for change in changes(tiny(*before).as_dict(), tiny(*after))]


def test_what_differs_is_told_by_its_path():
    assert told(()) == []
    assert told((), "trainer.train_steps=3,runtime.seed=1") == [
        "trainer.train_steps: was 12, is 3",
        "runtime.seed: was 0, is 1",
    ]
    assert told(["task.init_checkpoint=x"]) == ['task.init_checkpoint: was x, is ""']


def test_of_another_type_the_values_are_not_compared():
    assert told((), "trainer.optimizer_config.learning_rate={type: constant}") == [
        "trainer.optimizer_config.learning_rate.type: was cosine, is constant"
    ]


def test_groups_are_compared_by_name():
    slow = GROUPS + "[{name: slow, match: kernel, learning_rate_multiplier: 0.5}]"
    slower = GROUPS + "[{name: slow, match: kernel, learning_rate_multiplier: 0.1}]"
    assert told([slow], slower) == [
        "trainer.optimizer_config.param_groups[slow].learning_rate_multiplier: was 0.5, is 0.1"
    ]
    assert told([slow], GROUPS + "[{ndim: [1], freeze: true}]") == [
        'trainer.optimizer_config.param_groups: was ["slow"], is ["[1]"]'
    ]


def test_values_of_another_version_do_not_count():
    was = tiny().as_dict()
    was["trainer"]["old"] = 1
    del was["trainer"]["max_to_keep"], was["experiment"]
    assert changes(was, tiny()) == []


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ([], ["trainer.optimizer_config.optimizer.type=adam"]),
        (
            [GROUPS + "[{match: bias, optimizer: {type: adam}}]"],
            [GROUPS + "[{match: bias, optimizer: {type: lamb}}]"],
        ),
    ],
)
def test_another_optimizer_is_an_error_whatever_its_variables(before, after):
    found = changes(tiny(*before).as_dict(), tiny(*after))
    with pytest.raises(CheckpointError, match=r"optimizer\.type: was \w+, is \w+"):
        check_identity("run/ckpt-1", found)
    check_identity("run/ckpt-1", changes(tiny().as_dict(), tiny("task.hidden=4")))


def test_a_misfit_is_explained_by_the_settings_of_its_part_or_not_at_all():
    found = changes(tiny().as_dict(), tiny("task.hidden=4,trainer.train_steps=3"))
    model, optimizer = (MisfitError("variables", {name}) for name in ("model", "optimizer"))
    assert "task.hidden: was 0, is 4" in str(explained("run/ckpt-1", found, model))
    assert "train_steps" not in str(explained("run/ckpt-1", found, model))
    assert explained("run/ckpt-1", found, optimizer) is optimizer


def test_a_summary_is_one_line():
    found = changes(tiny().as_dict(), tiny("task.hidden=4,trainer.train_steps=3"))
    assert summary(found) == (
        "changed since: task.hidden was 0, is 4; trainer.train_steps was 12, is 3"
    )
    assert summary(found * 11).endswith("; and 2 more")
