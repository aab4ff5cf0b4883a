import numpy as np
import pytest

from optimization import ConfigError, ConfigWarning
from tests.torch.common import OptimizerFactory, config_of, torch
from tests.torch.test_resume import HEAD, INITIAL, built, config_for, grouped, halfway, resumed

from optimization.torch import GreedyLR  # isort: skip

SETTINGS = [
    {"patience": 1, "min_lr": 0.01, "factor": 0.5},
    {"patience": 2, "mode": "max", "threshold_mode": "rel", "cooldown": 1, "warmup": 2},
    {"patience": 0, "smooth": True, "window_size": 3, "min_lr": [0.01, 0.001]},
    {"patience": 0, "min_lr": 0.05, "reset_start": 3, "max_lr": 0.3},
]


def optimizer_of():
    groups = [
        {"params": [torch.nn.Parameter(torch.zeros(2))], "lr": 0.1},
        {"params": [torch.nn.Parameter(torch.zeros(2))], "lr": torch.tensor(0.05)},
    ]
    return torch.optim.SGD(groups)


def rates_of(optimizer):
    return [float(group["lr"]) for group in optimizer.param_groups]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_the_rates_are_those_of_transformers(settings):
    theirs = pytest.importorskip("transformers.optimization", reason="the peer")
    if not hasattr(theirs, "GreedyLR"):
        pytest.skip("this release of transformers has no GreedyLR")
    one, other = optimizer_of(), optimizer_of()
    mine, reference = GreedyLR(one, **settings), theirs.GreedyLR(other, **settings)
    for value in np.random.default_rng(0).normal(size=60).round(1):
        one.step()
        mine.step(torch.tensor(value))
        reference.step(float(value))
        # The second rate is a tensor of float32.
        np.testing.assert_allclose(rates_of(one), rates_of(other), rtol=1e-6)
        assert mine.get_last_lr() == rates_of(one)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_state_resumes(settings):
    one, other = optimizer_of(), optimizer_of()
    values = np.random.default_rng(1).normal(size=40)
    scheduler = GreedyLR(one, **settings)
    for value in values[:20]:
        scheduler.step(value)
    resumed = GreedyLR(other, **settings)
    other.load_state_dict(one.state_dict())
    resumed.load_state_dict(scheduler.state_dict())
    assert resumed.last_epoch == scheduler.last_epoch == 20
    for value in values[20:]:
        scheduler.step(value)
        resumed.step(value)
        assert rates_of(one) == rates_of(other)


def test_a_part_of_a_state_loads():
    optimizer = optimizer_of()
    scheduler = GreedyLR(optimizer, smooth=True, window_size=3)
    scheduler.step(4.0)
    scheduler.load_state_dict({"factor": 0.8, "best": 5.0, "num_bad_epochs": 3})
    assert (scheduler.factor, scheduler.best, scheduler.num_bad_epochs) == (0.8, 5.0, 3)
    assert (scheduler.patience, scheduler.last_epoch) == (10, 1)
    assert scheduler._streaming_avg.values == [4.0]
    assert rates_of(optimizer) == pytest.approx([0.1, 0.05])
    scheduler.load_state_dict({"_last_lr": [0.5, 0.25]})
    assert rates_of(optimizer) == scheduler._last_lr == [0.5, 0.25]


def test_its_state_is_read_and_set_as_in_transformers():
    scheduler = GreedyLR(optimizer_of(), patience=0, factor=0.5)
    assert scheduler._streaming_avg is None
    assert scheduler._init_lrs == scheduler._last_lr == pytest.approx([0.1, 0.05])
    scheduler.patience = 7
    scheduler.cooldown_counter = 2
    assert scheduler.state_dict()["patience"] == 7
    scheduler.step(1.0)
    assert scheduler.cooldown_counter == 1
    with pytest.raises(AttributeError, match="_nothing"):
        _ = scheduler._nothing


@pytest.mark.parametrize("kind", ["hf_greedy", "hf_reduce_lr_on_plateau"])
def test_a_config_that_follows_a_metric(kind):
    section = {"initial_learning_rate": 0.1, "factor": 0.5, "patience": 1, "min_lr": 0.04}
    config = config_of("sgd", {"type": kind, kind: section})
    config.override({"param_groups": [{"match": "bias", "learning_rate_multiplier": 0.1}]})
    factory = OptimizerFactory(config)
    optimizer = factory.build_optimizer(torch.nn.Linear(2, 2))
    scheduler = factory.build_scheduler(optimizer)
    expected = GreedyLR if kind == "hf_greedy" else torch.optim.lr_scheduler.ReduceLROnPlateau
    assert isinstance(scheduler, expected)
    assert isinstance(scheduler, torch.optim.lr_scheduler.LRScheduler)
    assert rates_of(optimizer) == pytest.approx([0.1, 0.01])
    for value in (1.0, 2.0, 3.0):
        scheduler.step(value)
    assert rates_of(optimizer) == pytest.approx([0.05, 0.005])
    for value in (4.0, 5.0):
        scheduler.step(value)
    assert rates_of(optimizer) == pytest.approx([0.04, 0.004])
    with pytest.raises(ValueError, match="must be -1"):
        factory.build_scheduler(optimizer, last_epoch=3)


def test_what_follows_the_steps_cannot_be_beside_it():
    section = {"initial_learning_rate": 0.1}
    rate = {"type": "hf_greedy", "hf_greedy": section}
    constant = {"type": "constant", "constant": {"learning_rate": 0.9}}
    config = config_of("sgd", rate, momentum=0.9)
    config.override({"schedules": {"momentum": constant}})
    with pytest.raises(ConfigError, match=r"learning_rate.type: follows a metric"):
        OptimizerFactory(config)
    config = config_of("sgd", rate)
    config.override({"param_groups": [{"match": "bias", "learning_rate": constant}]})
    with pytest.raises(ConfigError, match=r"param_groups\[0\].learning_rate: .*all groups"):
        OptimizerFactory(config)


def test_it_needs_an_optimizer():
    with pytest.raises(TypeError, match="list is not an Optimizer"):
        GreedyLR([])


@pytest.mark.parametrize("kind", ["hf_reduce_lr_on_plateau", "hf_greedy"])
def test_a_follower_of_a_metric_goes_on_with_the_rate_that_it_had(kind):
    def config(**section):
        section = {"initial_learning_rate": 0.5, "factor": 0.5, "patience": 0, **section}
        rate = {"type": kind, kind: section}
        rules = [{**HEAD, "learning_rate_multiplier": 0.5}]
        return grouped(rules, learning_rate=rate, warmup={"type": None})

    factory, optimizer, _ = built(config())
    scheduler = factory.build_scheduler(optimizer)
    for metric in (1.0, 2.0, 3.0):
        scheduler.step(metric)
    rates = [group["lr"] for group in optimizer.param_groups]
    assert rates != [0.5, 0.25]
    states = optimizer.state_dict(), scheduler.state_dict()
    for order in ("scheduler load_o load_s", "scheduler load_s load_o", "load_o scheduler"):
        other, _, _ = resumed(config(), INITIAL, *states, order)
        assert [group["lr"] for group in other.param_groups] == rates
    factory, other, _ = built(config(patience=7))
    scheduler = factory.build_scheduler(other)
    with pytest.warns(ConfigWarning, match=r"learning_rate: .*\n  patience: 0 -> 7"):
        scheduler.load_state_dict(states[1])
    assert scheduler.patience == 7
    _, _, steps, _ = halfway(config_for("lion"))
    with pytest.raises(ValueError, match="follows the steps; this one follows a metric"):
        scheduler.load_state_dict(steps)


def test_state_of_another_scheduler_is_an_error():
    def scheduler(kind):
        section = {"initial_learning_rate": 0.5}
        config = grouped([], learning_rate={"type": kind, kind: section}, warmup={"type": None})
        factory, optimizer, _ = built(config)
        return factory.build_scheduler(optimizer), optimizer

    (plateau, optimizer), (greedy, _) = map(scheduler, ("hf_reduce_lr_on_plateau", "hf_greedy"))
    plateau.load_state_dict({})
    foreign = optimizer.state_dict()
    for one, state in [
        (plateau, greedy.state_dict()),
        (greedy, plateau.state_dict()),
        (plateau, foreign),
        (greedy, foreign),
    ]:
        before = one.state_dict()
        with pytest.raises(ValueError, match=f"of another scheduler than `{type(one).__name__}`"):
            one.load_state_dict(state)
        assert one.state_dict() == before
    factory, optimizer, _ = built(config_for("lion"))
    with pytest.raises(ValueError, match="not that of a scheduler that follows the steps"):
        factory.build_scheduler(optimizer).load_state_dict(foreign)
