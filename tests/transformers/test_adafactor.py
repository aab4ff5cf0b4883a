import copy
import pickle

import pytest

torch = pytest.importorskip("torch", reason="PyTorch is installed for some of the tests only")

import optimization.torch  # noqa: E402
import optimization.transformers as ours  # noqa: E402

SETTINGS = [
    {},
    {"warmup_init": True, "beta1": 0.9, "weight_decay": 0.1},
    {"lr": 1e-2, "relative_step": False, "scale_parameter": False},
    {
        "lr": 1e-2,
        "relative_step": False,
        "eps": (1e-8, 0.01),
        "clip_threshold": 0.5,
        "decay_rate": -0.5,
    },
]
CASE = pytest.mark.parametrize("settings", SETTINGS, ids=str)
ROUNDING = {"rtol": 1e-5, "atol": 1e-6}  # of some updates in float32


@pytest.fixture
def theirs():
    return pytest.importorskip("transformers.optimization", reason="the peer")


def parameters():
    generator = torch.Generator().manual_seed(0)
    shapes = [(3, 4), (5,), (2, 3, 4)]
    return [torch.nn.Parameter(torch.randn(shape, generator=generator)) for shape in shapes]


def updates(optimizer, first, last, schedule=None):
    """Takes updates; returns the weights."""
    weights = [p for group in optimizer.param_groups for p in group["params"]]
    for step in range(first, last):
        generator = torch.Generator().manual_seed(step)
        for weight in weights:
            weight.grad = 0.1 * torch.randn(weight.shape, generator=generator)
        optimizer.step()
        if schedule is not None:
            schedule.step()
    return [weight.detach().clone() for weight in weights]


@CASE
def test_updates_and_state_are_those_of_transformers(theirs, settings):
    mine = ours.Adafactor(parameters(), **settings)
    reference = theirs.Adafactor(parameters(), **settings)
    torch.testing.assert_close(updates(mine, 0, 5), updates(reference, 0, 5), **ROUNDING)
    saved, expected = mine.state_dict(), reference.state_dict()
    assert set(expected["param_groups"][0]) <= set(saved["param_groups"][0])
    for index, state in expected["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(
                torch.as_tensor(saved["state"][index][name], dtype=torch.float32),
                torch.as_tensor(value, dtype=torch.float32),
                **ROUNDING,
            )


@CASE
def test_state_goes_both_ways(theirs, settings):
    for first, second in ((theirs, ours), (ours, theirs), (ours, ours)):
        whole = first.Adafactor(parameters(), **settings)
        updates(whole, 0, 5)
        resumed = second.Adafactor(copy.deepcopy(whole.param_groups[0]["params"]), **settings)
        resumed.load_state_dict(copy.deepcopy(whole.state_dict()))
        torch.testing.assert_close(updates(resumed, 5, 9), updates(whole, 5, 9), **ROUNDING)


def test_the_settings_of_a_group_and_the_other_class():
    weights = parameters()
    groups = [{"params": weights[:1]}, {"params": weights[1:], "scale_parameter": False}]
    mine = ours.Adafactor(groups, eps=(1e-30, 0.5))
    weights = parameters()
    groups = [
        {"params": weights[:1]},
        {"params": weights[1:], "multiply_by_parameter_scale": False},
    ]
    other = optimization.torch.Adafactor(groups, variant="hf", epsilon2=0.5)
    assert [(a == b).all() for a, b in zip(updates(mine, 0, 3), updates(other, 0, 3), strict=True)]


@pytest.mark.parametrize("settings", SETTINGS[:2], ids=str)
def test_the_schedule_shows_the_steps(theirs, settings):
    mine = ours.Adafactor(parameters(), **settings)
    reference = theirs.Adafactor(parameters(), **settings)
    schedules = ours.get_adafactor_schedule(mine, 0.25), theirs.AdafactorSchedule(reference, 0.25)
    assert schedules[0].get_last_lr() == [0.25]
    updates(mine, 0, 3, schedules[0])
    updates(reference, 0, 3, schedules[1])
    (shown,), (expected,) = (schedule.get_last_lr() for schedule in schedules)
    assert shown == pytest.approx(float(expected), rel=1e-5)
    resumed = pickle.loads(pickle.dumps(schedules[0]))
    resumed.load_state_dict({"last_epoch": 7})
    assert (resumed.last_epoch, resumed.get_last_lr()) == (7, [shown])


def test_the_schedule_needs_a_rate_that_makes_itself():
    for optimizer in (
        ours.Adafactor(parameters(), lr=0.1, relative_step=False),
        torch.optim.SGD(parameters(), lr=0.1),
    ):
        with pytest.raises(ValueError, match="relative_step=True"):
            ours.AdafactorSchedule(optimizer)
        assert optimizer.param_groups[0]["lr"] == 0.1


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"lr": 0.1}, "`lr` must be None with"),
        ({"relative_step": False}, "`lr` must be None with"),
        ({"warmup_init": True, "lr": 0.1, "relative_step": False}, "warmup_init"),
        ({"eps": 0.1}, "`eps` must be two numbers"),
        ({"eps": (0.0, 0.1)}, "eps: must be > 0"),
        ({"clip_threshold": 0.0}, "clip_threshold: must be > 0"),
        ({"decay_rate": 0.8}, "`decay_rate` must be < 0"),
        ({"beta1": 1.0}, "beta1: must be < 1"),
        ({"scale_parameter": 3}, "scale_parameter: expected true or false"),
    ],
)
def test_wrong_arguments(settings, match):
    with pytest.raises(ValueError, match=match):
        ours.Adafactor(parameters(), **settings)
    optimizer = ours.Adafactor(parameters())
    with pytest.raises(ValueError, match=match):
        optimizer.add_param_group({"params": parameters(), **settings})
