"""Schedulers that follow a metric keep the settings of the config, and the rate of the state."""

import pytest

from optimization import ConfigWarning
from tests.torch.test_resume import (
    HEAD,
    INITIAL,
    built,
    config_for,
    grouped,
    halfway,
    resumed,
)


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
