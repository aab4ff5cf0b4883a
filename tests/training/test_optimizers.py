"""Every registered optimizer trains through the trainer and resumes exactly.

Of those that are the same class, the first.
"""

import pytest
from rich.console import Console

from optimization import OPTIMIZERS_CLS
from optimization.training import Trainer
from tests.rules import contracts
from tests.training.tiny import assert_same_bits, tiny, weights

# What a type needs beside its defaults.
SETTINGS = {
    "adafactor": {"variant": "torch", "beta1": 0.9},  # with state of every kind
    "muon": {"exclude_layers": ["head"]},
}


def config(name, steps):
    # FTRL divides by the learning rate, so that it must not start at 0.
    rate = "trainer.optimizer_config.warmup.linear.warmup_learning_rate=0.01"
    result = tiny("task.hidden=4", rate, f"trainer.train_steps={steps}")
    result.trainer.optimizer_config.optimizer = type(result.trainer.optimizer_config.optimizer)(
        {"type": name, name: SETTINGS.get(name, {})}
    )
    if OPTIMIZERS_CLS.config_class(name).schedule_free:
        # It averages by itself, under a constant rate and with a warmup of its own.
        result.trainer.optimizer_config.warmup.type = None
        result.trainer.optimizer_config.learning_rate = type(
            result.trainer.optimizer_config.learning_rate
        )({"type": "constant", "constant": {"learning_rate": 0.1}})
    else:
        result.trainer.optimizer_config.ema = {"average_decay": 0.9}
    return result


def trained(name, steps, directory):
    trainer = Trainer(config(name, steps), directory, console=Console(quiet=True))
    start = weights(trainer)
    trainer.train(evaluate=True)
    return trainer, start


@pytest.mark.slow
@pytest.mark.parametrize("name", contracts.classes())
def test_it_trains_and_resumes_bit_for_bit(tmp_path, name):
    whole, start = trained(name, 6, tmp_path / "whole")
    assert int(whole.optimizer.iterations) == 6
    assert (weights(whole)["tiny/head/kernel"] != start["tiny/head/kernel"]).any()
    trained(name, 4, tmp_path / "parts")
    resumed, _ = trained(name, 6, tmp_path / "parts")
    assert_same_bits(weights(resumed), weights(whole))
