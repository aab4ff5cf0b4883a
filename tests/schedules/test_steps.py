import numpy as np
import pytest

from optimization.schedules import curve
from optimization.schedules.steps import telling_steps
from tests.schedules.common import T, lr_examples, lr_examples_without_warmup, warmup_examples


def check(*configs):
    rate, warmup = configs if len(configs) == 2 else (*configs, None)
    highest = curve(rate, warmup, np.arange(3 * T)).max()
    steps = telling_steps([config.as_dict() for config in configs])
    # Between the points a rate can rise a little further.
    assert curve(rate, warmup, steps).max() == pytest.approx(highest, rel=1e-3)


@pytest.mark.parametrize(("name", "config"), lr_examples())
def test_the_highest_rate_is_at_a_telling_step(name, config):
    del name
    check(config)


@pytest.mark.parametrize(("name", "config"), lr_examples_without_warmup())
def test_so_it_is_after_a_warmup(name, config):
    del name
    for _, warmup in warmup_examples():
        if not (warmup.mode == "multiply" and curve(config, None, [0]) == 0):
            check(config, warmup)
