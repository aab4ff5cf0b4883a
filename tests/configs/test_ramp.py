import math

import numpy as np
import pytest

from optimization import OptimizerFactory
from optimization.configs.errors import ConfigError, ConfigWarning
from optimization.configs.optimization_config import OptimizationConfig, resolved
from optimization.configs.ramp import Ramp

BATCH, TOKENS, EPOCH = 10, 70, 13
LENGTHS = {
    "train_steps": 1000,
    "global_batch_size": BATCH,
    "tokens_per_step": TOKENS,
    "steps_per_epoch": EPOCH,
}


def config(accumulation, **sections):
    return OptimizationConfig(
        {
            "optimizer": {"type": "sgd"},
            "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.1}},
            "accumulation": accumulation,
            **sections,
        }
    )


def ramp_of(accumulation):
    return resolved(config(accumulation), **LENGTHS).ramp()


def test_what_an_update_is_of_and_what_was_taken_before():
    ramp = Ramp((1, 3, 2), (4, 6))
    counts = [1, 1, 1, 1, 3, 3, 2, 2, 2]
    assert [ramp.at(step) for step in range(9)] == counts
    assert [ramp.before(step) for step in range(10)] == [sum(counts[:n]) for n in range(10)]


def seen_linearly(counts, until, batch):
    """Returns the micro-batches of each update of a linear ramp, as a loop counts what it sees.

    Megatron-LM's `--rampup-batch-size`: the batch has grown by an increment for each share of the
    samples of the ramp that was seen.
    """
    share, seen, found = until / (len(counts) - 1), 0, []
    for _ in range(200):
        found.append(counts[min(int(seen / share), len(counts) - 1)])
        seen += found[-1] * batch
    return found


@pytest.mark.parametrize(
    ("until", "amount", "batch"),
    [
        ("1k examples", 1000, BATCH),
        ("0.777k examples", 777, BATCH),
        ("7k tokens", 7000, TOKENS),
        ("5 epochs", 5 * EPOCH, 1),
    ],
)
@pytest.mark.parametrize("counts", [[1, 2, 3, 4, 5, 6, 7, 8], [2, 4, 6], [8, 1]])
def test_a_linear_ramp_is_megatrons(counts, until, amount, batch):
    ramp = ramp_of({"micro_batches": counts, "until": until})
    assert [ramp.at(step) for step in range(200)] == seen_linearly(counts, amount, batch)


def test_boundaries_in_any_unit():
    accumulation = {"micro_batches": [1, 2, 4, 8], "boundaries": [20, "1k examples", "10%"]}
    # 20 updates of 10, and 40 of 20.
    assert ramp_of(accumulation).boundaries == (20, 60, 100)
    assert ramp_of({"micro_batches": [1, 2, 4], "until": "10%"}).boundaries == (50, 100)
    assert ramp_of({"micro_batches": [1, 2, 4], "until": 5}).boundaries == (3, 5)


def steps_until(ramp, micro_batches, start=0):
    """Returns in how many updates from `start` on so many micro-batches are, to the nearest."""
    seen, step = 0.0, start
    while seen + ramp.at(step) <= micro_batches:
        seen += ramp.at(step)
        step += 1
    return round(step - start + (micro_batches - seen) / ramp.at(step))


GROWS = {"micro_batches": [1, 4, 16], "boundaries": [50, 80]}
LINEAR = {"type": "linear", "linear": {"initial_learning_rate": 0.1, "decay_steps": "2k examples"}}


# Not every training comes to the last phase.
@pytest.mark.filterwarnings("ignore::optimization.configs.errors.ConfigWarning")
def test_lengths_of_data_are_the_updates_in_which_they_are_seen():
    ramp = Ramp((1, 4, 16), (50, 80))
    warmup = {"type": "linear", "linear": {"warmup_steps": "21k tokens"}}
    made = resolved(config(GROWS, warmup=warmup), **LENGTHS)
    assert made.warmup.linear.warmup_steps == steps_until(ramp, 21000 / TOKENS) == 88
    made = resolved(config(GROWS, learning_rate=LINEAR), 82, EPOCH, BATCH, TOKENS)
    assert made.learning_rate.linear.decay_steps == steps_until(ramp, 200) == 82
    # From where the decay starts: after the warmup that delays it.
    warmup["linear"] |= {"warmup_steps": 40, "mode": "delay"}
    made = resolved(config(GROWS, learning_rate=LINEAR, warmup=warmup), 84, EPOCH, BATCH, TOKENS)
    assert made.learning_rate.linear.decay_steps == steps_until(ramp, 200, 40) == 44
    stable = {
        "initial_learning_rate": 0.1,
        "stable_steps": "1k examples",
        "decay_steps": "5 epochs",
    }
    rate = {"type": "warmup_stable_decay", "warmup_stable_decay": stable}
    made = resolved(config(GROWS, learning_rate=rate), 78, EPOCH, BATCH, TOKENS)
    found = made.learning_rate.warmup_stable_decay
    assert found.stable_steps == steps_until(ramp, 100) == 62
    assert found.decay_steps == steps_until(ramp, 65, 62) == 16
    ema = {"start_step": "3k examples"}
    assert resolved(config(GROWS, ema=ema), **LENGTHS).ema.start_step == steps_until(ramp, 300)


def test_lengths_in_the_phases_of_a_sequence_count_from_their_start():
    ramp = Ramp((1, 4, 16), (50, 80))
    phases = [
        {"until": "450 examples", "type": "constant", "constant": {"learning_rate": 0.1}},
        {"until": "90%", **LINEAR},
        {"type": "constant", "constant": {"learning_rate": 0.1}},
    ]
    rate = {"type": "sequence", "sequence": {"phases": phases}}
    made = resolved(config(GROWS, learning_rate=rate), 87, EPOCH, BATCH, TOKENS)
    made = made.learning_rate.sequence
    assert made.phases[0].until == 45
    assert made.phases[1].linear.decay_steps == steps_until(ramp, 200, 45)


def test_a_factory_says_how_many_there_are():
    factory = OptimizerFactory(config(GROWS))
    assert [factory.micro_batches(step) for step in (0, 49, 50, 80)] == [1, 1, 4, 16]
    assert factory.first_micro_batch(82) == 50 + 30 * 4 + 2 * 16
    for step in (-1, 0.5, True):
        with pytest.raises(ValueError, match="`step` must be an integer >= 0"):
            factory.micro_batches(step)
    plain = {"type": "sgd", "sgd": {"gradient_accumulation_steps": 3}}
    factory = OptimizerFactory(config(None, optimizer=plain))
    assert (factory.micro_batches(7), factory.first_micro_batch(7)) == (3, 21)


@pytest.mark.parametrize(
    ("accumulation", "sections", "message"),
    [
        ({}, {}, "micro_batches: a value is required"),
        ({"micro_batches": [2]}, {}, "must hold two numbers or more"),
        ({"micro_batches": [1, 0], "boundaries": [2]}, {}, r"micro_batches\[1\]: must be > 0"),
        ({"micro_batches": [1, 2]}, {}, "boundaries: must hold 1, one less than the 2"),
        ({"micro_batches": [1, 2], "boundaries": [3], "until": 4}, {}, "until: cannot be set bes"),
        ({"micro_batches": [1, 2, 3], "until": 1}, {}, "until: must be >= 2, an update for each"),
        ({"micro_batches": [1, 2], "boundaries": ["remaining"]}, {}, "in a learning rate only"),
        (
            {"micro_batches": [1, 2, 3], "boundaries": ["90 examples", 9]},
            {},
            "has a phase begin at step 9 after one at 9",
        ),
        (
            GROWS,
            {"optimizer": {"type": "sgd", "sgd": {"gradient_accumulation_steps": 2}}},
            "gradient_accumulation_steps: must be 1 with `accumulation`",
        ),
        (GROWS, {"lr_scaling": {}}, "lr_scaling.global_batch_size: is needed with `accumulation`"),
        (
            GROWS,
            {"learning_rate": {"type": "linear", "linear": {**LINEAR["linear"], "per": "epoch"}}},
            "per: '1 epoch' is a number of steps that `accumulation` changes",
        ),
    ],
)
def test_what_cannot_be_is_told_once(accumulation, sections, message):
    with pytest.raises(ConfigError, match=message) as error:
        resolved(config(accumulation, **sections), **LENGTHS)
    assert len(str(error.value).splitlines()) == 1


def test_a_length_that_is_needed_is_told():
    for until, name in (("1M examples", "global_batch_size"), ("3 epochs", "steps_per_epoch")):
        with pytest.raises(ConfigError, match=f"takes `{name}`, which is not known"):
            resolved(config({"micro_batches": [1, 2], "until": until}), train_steps=100)
    scaling = {"base_batch_size": 8, "global_batch_size": 16}
    made = config({"micro_batches": [1, 2], "until": "1M examples"}, lr_scaling=scaling)
    with pytest.raises(ConfigError, match="takes `global_batch_size`"):  # it is of no micro-batch
        resolved(made, train_steps=100)


def test_it_works_over_arrays():
    ramp, steps = Ramp((1, 4, 16), (50, 80)), np.arange(100)
    np.testing.assert_array_equal(ramp.at(steps, np), [*map(ramp.at, range(100))])
    np.testing.assert_array_equal(ramp.before(steps, np), [*map(ramp.before, range(100))])
    assert math.isclose(float(ramp.at(50.0)), 4)


def test_phases_beyond_the_end_are_told():
    with pytest.warns(ConfigWarning, match="boundaries: the phase from step 1200 on is not reach"):
        resolved(config({"micro_batches": [1, 2, 3], "boundaries": [9, 1200]}), **LENGTHS)
