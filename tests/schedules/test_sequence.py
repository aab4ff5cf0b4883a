"""Phases one after the other, against formulas written here and against PyTorch's SequentialLR."""

import math
import pickle

import numpy as np
import pytest

from optimization import (
    ConfigError,
    LrConfig,
    OptimizationConfig,
    OptimizerFactory,
    load_optimization_config,
    register_learning_rate,
)
from optimization.configs.durations import TrainingLength
from optimization.configs.json_schema import schema
from optimization.configs.overrides import read_override
from optimization.configs.rate_curve import RateCurve
from optimization.schedules import LR_CLS, WarmupConfig, curve
from optimization.schedules.sequence import SequenceLrConfig


def phase(kind, until=None, join=False, **fields):
    return {"until": until, "join": join, "type": kind, kind: fields}


def sequence(*phases, **fields):
    return SequenceLrConfig(phases=phases, **fields)


def section(*phases):
    return {"type": "sequence", "sequence": {"phases": list(phases)}}


def config(*phases, **sections):
    return OptimizationConfig(
        {"optimizer": {"type": "sgd"}, "learning_rate": section(*phases), **sections}
    )


def cosine(step, first, length, alpha=0.0):
    part = min(step, length) / length
    return first * (alpha + (1 - alpha) * (1 + math.cos(math.pi * part)) / 2)


UP = phase("linear", 100, initial_learning_rate=0.0, end_learning_rate=0.1)
DOWN = phase("cosine", 500, initial_learning_rate=0.05, alpha=0.1)
LAST = phase("linear", initial_learning_rate=0.02, decay_steps=200)
STEPS = [0, 1, 50, 99, 100, 101, 300, 499, 500, 501, 600, 699, 700, 701, 5000, 10**9]


def by_hand(step):
    if step < 100:
        return 0.1 * step / 100
    if step < 500:
        return cosine(step - 100, 0.05, 400, 0.1)
    return 0.02 * max(0, 200 - (step - 500)) / 200


def test_each_phase_counts_from_its_start_and_its_end_belongs_to_the_next():
    found = curve(sequence(UP, DOWN, LAST), None, STEPS)
    np.testing.assert_allclose(found, [by_hand(step) for step in STEPS], rtol=1e-12, atol=1e-15)


def test_an_offset_moves_all_of_it():
    found = curve(sequence(UP, DOWN, LAST, offset=7), None, [0, 3, *(s + 7 for s in STEPS)])
    expected = [0, 0, *(by_hand(step) for step in STEPS)]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


@pytest.mark.slow
def test_as_pytorchs_sequential_lr():
    torch = pytest.importorskip("torch")
    schedulers = torch.optim.lr_scheduler
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    peer = schedulers.SequentialLR(
        optimizer,
        [
            schedulers.LinearLR(optimizer, start_factor=0.5, total_iters=20),
            schedulers.CosineAnnealingLR(optimizer, T_max=30, eta_min=0.01),
            schedulers.ExponentialLR(optimizer, gamma=0.9),
        ],
        milestones=[20, 50],
    )
    theirs = []
    for _ in range(80):
        theirs.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        peer.step()
    ours = sequence(
        phase("linear", 20, initial_learning_rate=0.05, end_learning_rate=0.1),
        phase("cosine", 50, initial_learning_rate=0.1, alpha=0.1),
        phase("exponential", initial_learning_rate=0.1, decay_steps=1, decay_rate=0.9),
    )
    np.testing.assert_allclose(curve(ours, None, range(80)), theirs, rtol=1e-9)


def test_a_joined_phase_starts_where_the_one_before_ended():
    rate = sequence(
        phase("linear", 100, initial_learning_rate=0.1, end_learning_rate=0.04),
        phase("cosine", 300, join=True, initial_learning_rate=7.0, alpha=0.5),
        phase("exponential", 400, join=True, decay_rate=0.25),
    )
    assert curve(rate, None, [99, 100, 101]).tolist() == pytest.approx(
        [0.1 - 0.06 * 99 / 100, 0.04, cosine(1, 0.04, 200, 0.5)], rel=1e-12
    )
    steps = [299, 300, 301, 350, 399, 400, 401, 10**6]
    expected = [cosine(199, 0.04, 200, 0.5)]
    expected += [0.02 * 0.25 ** (min(step - 300, 100) / 100) for step in steps[1:]]
    np.testing.assert_allclose(curve(rate, None, steps), expected, rtol=1e-12)


def test_a_first_rate_that_is_left_out_keeps_the_other_rates_as_they_are_written():
    constant = phase("constant", 100, learning_rate=0.5)
    left_out = sequence(constant, phase("linear", 200, join=True, end_learning_rate=0.1))
    found = curve(left_out, None, [99, 100, 150, 200, 300])
    assert found.tolist() == pytest.approx([0.5, 0.5, 0.3, 0.1, 0.1])
    written = {"initial_learning_rate": 1.0, "end_learning_rate": 0.1}
    scaled = sequence(constant, phase("linear", 200, join=True, **written))
    assert curve(scaled, None, [100, 200]).tolist() == pytest.approx([0.5, 0.05])


def test_the_last_until_holds_the_rate_and_without_it_the_last_phase_goes_on():
    exponential = {"initial_learning_rate": 1.0, "decay_steps": 10, "decay_rate": 0.5}
    first = phase("constant", 10)
    held = sequence(first, phase("exponential", 30, **exponential))
    assert curve(held, None, [29, 30, 31, 10**6]).tolist() == [2**-1.9, 0.25, 0.25, 0.25]
    endless = sequence(first, phase("exponential", **exponential))
    assert curve(endless, None, [30, 40, 110]).tolist() == [0.25, 0.125, 2.0**-10]
    assert held.end() == ("phases[1].until", 30)
    assert endless.end() is None


def test_a_sequence_of_constants_is_stepwise_but_for_the_boundaries():
    constants = [(300, 0.1), (600, 0.02), (None, 0.001)]
    rate = sequence(*(phase("constant", end, learning_rate=value) for end, value in constants))
    stepwise = LR_CLS.config_class("stepwise")(boundaries=[300, 600], values=[0.1, 0.02, 0.001])
    steps = [s for s in range(1000) if s not in (300, 600)]
    np.testing.assert_array_equal(curve(rate, None, steps), curve(stepwise, None, steps))
    assert curve(rate, None, [300, 600]).tolist() == [0.02, 0.001]


def test_a_sequence_inside_of_a_sequence_and_a_phase_with_its_own_warmup():
    inner = section(phase("constant", 50, learning_rate=1.0), phase("linear", 80, join=True))
    rate = sequence(
        phase("constant", 100, learning_rate=0.2),
        {"until": 200, "join": True, **inner},
        phase("hf_linear", initial_learning_rate=0.3, num_warmup_steps=10, num_training_steps=30),
    )
    found = curve(rate, None, [149, 150, 165, 180, 199, 200, 205, 210, 220, 230, 999])
    expected = [0.2, 0.2, 0.1, 0.0, 0.0, 0.0, 0.15, 0.3, 0.15, 0.0, 0.0]
    np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-15)


# ---- lengths -----------------------------------------------------------------------------------


def sized(made, train_steps=1000, steps_per_epoch=40, **others):
    return made.sized(TrainingLength(train_steps, steps_per_epoch, **others))


def test_every_duration_may_say_until_and_a_length_left_out_is_that_of_the_phase():
    made, problems = sized(
        config(
            phase("linear", "10%", initial_learning_rate=1.0),
            phase("cosine", "5 epochs", initial_learning_rate=1.0),
            phase("warmup_stable_decay", 700, initial_learning_rate=1.0, stable_steps="30%"),
            phase("hf_cosine", initial_learning_rate=1.0, num_warmup_steps="1 epoch"),
        )
    )
    assert problems == []
    first, second, third, fourth = made.learning_rate.get().phases
    assert (first.until, first.get().decay_steps) == (100, 100)
    assert (second.until, second.get().decay_steps) == (200, 100)
    assert (third.get().stable_steps, third.get().decay_steps) == (300, 200)
    assert (fourth.get().num_warmup_steps, fourth.get().num_training_steps) == (40, 300)


@pytest.mark.parametrize(("mode", "left"), [("replace", 900), ("delay", 850)])
def test_the_last_phase_lasts_to_the_end_of_the_training(mode, left):
    warmup = {"type": "linear", "linear": {"warmup_steps": 50, "mode": mode}}
    last = phase("linear", initial_learning_rate=1.0)
    made, _ = sized(config(phase("constant", "10%"), last, warmup=warmup))
    assert made.learning_rate.get().phases[1].get().decay_steps == left
    made, _ = sized(config(phase("constant", 10), last), start=200)
    assert made.learning_rate.get().phases[1].get().decay_steps == 790


def test_known_phases_need_no_length_of_the_training():
    rate = sequence(phase("constant", 80, learning_rate=1.0), phase("linear", 100, join=True))
    assert curve(rate, None, [80, 90, 100]).tolist() == [1.0, 0.5, 0.0]
    factory = OptimizerFactory(config(phase("constant", 80), phase("linear", 100, join=True)))
    assert factory.config.learning_rate.get().phases[1].get().decay_steps == 20
    open_end = config(phase("constant", 80), phase("linear", join=True))
    with pytest.raises(ConfigError) as error:
        OptimizerFactory(open_end)
    place = r"learning_rate.sequence.phases[1].linear.decay_steps: 'remaining' takes `train_steps`"
    assert str(error.value).startswith(place)


def test_what_is_only_known_with_numbers_is_checked_then():
    short = sequence(phase("one_cycle", 1, max_learning_rate=1.0), phase("constant"))
    with pytest.raises(ConfigError, match=r"phases\[0\].one_cycle.total_steps: must be > 1, got 1"):
        curve(short, None, [0])


# ---- warmups -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("replace", lambda s: by_flat(10) * s / 10 if s < 10 else by_flat(s)),
        ("delay", lambda s: by_flat(0) * s / 10 if s < 10 else by_flat(s - 10)),
        ("multiply", lambda s: by_flat(s) * min(s / 10, 1)),
    ],
)
def test_a_warmup_comes_before_it_as_before_any_other_rate(mode, expected):
    rate = sequence(phase("linear", 100, initial_learning_rate=0.4, decay_steps=200), DOWN)
    warmup = WarmupConfig(type="linear", linear={"warmup_steps": 10, "mode": mode}).get()
    steps = [0, 1, 9, 10, 11, 99, 100, 101, 109, 110, 111, 499, 500, 510, 511, 10**6]
    expected = [expected(step) for step in steps]
    np.testing.assert_allclose(curve(rate, warmup, steps), expected, rtol=1e-12)


def by_flat(step):
    return 0.4 * (200 - step) / 200 if step < 100 else cosine(step - 100, 0.05, 400, 0.1)


def test_a_first_phase_with_its_own_warmup_takes_no_other(tmp_path):
    warm = phase("hf_linear", 50, initial_learning_rate=1.0, num_warmup_steps=5)
    warmup = {"type": "linear", "linear": {"warmup_steps": 5}}
    with pytest.raises(ConfigError, match=r"phases\[0\].hf_linear.num_warmup_steps: is a warmup"):
        OptimizerFactory(config(warm, phase("constant"), warmup=warmup))
    OptimizerFactory(config(phase("constant", 50), {**warm, "until": 100}, warmup=warmup))


# ---- what is wrong -----------------------------------------------------------------------------

WRONG = """\
optimizer: {type: sgd}
learning_rate:
  type: sequence
  sequence:
    phases:
      - until: 110%
        type: linear
        linear: {initial_learning_rate: 0.1}
      - until: 500
        type: cosine
        cosine:
          alpha: -2
          decay_step: 3
      - type: cosin
        jion: true
"""


def test_all_mistakes_are_told_at_once_with_path_and_line(tmp_path):
    path = tmp_path / "wrong.yaml"
    path.write_text(WRONG)
    with pytest.raises(ConfigError) as error:
        load_optimization_config(path)
    at = "learning_rate.sequence.phases"
    assert str(error.value).splitlines() == [
        f"{path}:6: {at}[0].until: must be at most 100%, got '110%' (text)",
        f"{path}:12: {at}[1].cosine.alpha: must be >= 0, got -2",
        f"{path}:13: {at}[1].cosine.decay_step: unknown key; did you mean 'decay_steps'?",
        f"{path}:14: {at}[2].type: unknown type 'cosin'; did you mean 'cosine'?",
        f"{path}:15: {at}[2].jion: unknown key; did you mean 'join'?",
    ]


@pytest.mark.parametrize(
    ("phases", "messages"),
    [
        ([], ["phases: must have at least one phase"]),
        (
            [phase("constant", 100), phase("constant"), phase("constant", 50), phase("constant")],
            [
                "phases[1].until: is required of all phases but the last",
                "phases[2].until: must be above the end of the phase before, 100, got 50",
            ],
        ),
        ([phase("constant", join=True)], ["phases[0].join: must be false: no phase comes before"]),
        ([{"until": 5}, phase("constant")], ["phases[0].type: a type is required, none was given"]),
        (
            [{"until": 5, "linear": {"offset": 1}}, phase("constant")],
            ["phases[0].type: a type is required for `linear.offset`"],
        ),
        (
            [phase("constant", 5), phase("hf_greedy", initial_learning_rate=1.0)],
            ["phases[1].type: `hf_greedy` follows a metric, as only the learning rate of all can"],
        ),
        (
            [phase("linear", 5, initial_learning_rate=1.0), phase("linear", 9, join=True)],
            ["phases[1].join: cannot be true: the phase before ends at a rate of 0"],
        ),
        (
            [phase("constant", 5), phase("linear", 9, join=True, initial_learning_rate=0.0)],
            ["phases[1].join: cannot be true: the phase starts from 0, of which no factor makes"],
        ),
        (
            [phase("constant", 5), phase("linear", 9)],
            ["phases[1].linear.initial_learning_rate: a value is required, none was given"],
        ),
        (
            [
                phase("constant", 5),
                phase("cosine_restarts", 9, join=True, first_decay_steps=2, t_mul=1.0005),
            ],
            ["phases[1].cosine_restarts.t_mul: must be 1 or at least 1.001, got 1.0005"],
        ),
    ],
)
def test_what_contradicts_itself(phases, messages):
    with pytest.raises(ConfigError) as error:
        OptimizerFactory(config(*phases), train_steps=1000)
    lines = str(error.value).splitlines()
    assert len(lines) == len(messages)
    for line, message in zip(lines, messages, strict=True):
        assert line.startswith(f"learning_rate.sequence.{message}")


def test_a_class_of_keras_is_no_phase():
    keras = pytest.importorskip("keras")
    name = "a_keras_class_as_a_phase"

    @register_learning_rate(name)
    class Mine(keras.optimizers.schedules.LearningRateSchedule):
        def __init__(self, first: float = 0.1):
            self.first = first

        def __call__(self, step):
            return self.first

    try:
        with pytest.raises(ConfigError, match="is a class of Keras, which no phase can be"):
            config(phase(name, 5), phase("constant")).validate()
    finally:
        del LR_CLS._entries[name]


def test_a_formula_of_ones_own_is_a_phase():
    name = "a_formula_as_a_phase"

    @register_learning_rate(name)
    def mine(step, *, first: float = 0.1, xp):
        return first * xp.cos(step / 100)  # which checks without NumPy don't know

    try:
        rate = sequence(phase(name, 50, first=2.0), phase("linear", 60, join=True))
        expected = [2 * math.cos(0.49), 2 * math.cos(0.5), math.cos(0.5), 0.0]
        np.testing.assert_allclose(curve(rate, None, [49, 50, 55, 60]), expected, atol=1e-15)
        made = config(phase(name, 50, first=2.0), phase("linear", 60, join=True))
        assert made.validate() == []
    finally:
        del LR_CLS._entries[name]


# ---- as a part of configs ----------------------------------------------------------------------


def test_round_trips():
    made = config(UP, {**DOWN, "until": "50%", "join": True}, LAST)
    for other in (
        OptimizationConfig(made.as_dict()),
        OptimizationConfig.from_json(made.to_json()),
        pickle.loads(pickle.dumps(made)),
        made.replace(),
    ):
        assert other == made
        assert repr(other) == repr(made)
    left_out = sequence(phase("constant", 5), phase("linear", 9, join=True))
    assert "initial_learning_rate" not in left_out.as_dict()["phases"][1]["linear"]
    assert SequenceLrConfig(left_out.as_dict()) == left_out


def test_an_override_reaches_one_value_of_a_phase():
    made = config(UP, DOWN, LAST)
    path = "learning_rate.sequence.phases[1]"
    for text in (f"{path}.until=400", f"{path}.cosine.alpha=0.5", f"{path}.join=true"):
        made.override(read_override(text)[0])
    second = made.learning_rate.get().phases[1]
    assert (second.until, second.cosine.alpha, second.join) == (400, 0.5, True)
    with pytest.raises(ConfigError, match=r"phases\[1\].cosine.alpha: must be >= 0, got -3"):
        made.override(read_override(f"{path}.cosine.alpha=-3")[0])


def test_what_was_made_of_a_read_only_config_is_not_kept_when_it_changes():
    rate = sequence(phase("constant", 10, learning_rate=0.5), phase("constant", learning_rate=0.1))
    rate.lock()
    assert curve(rate, None, [9, 10]).tolist() == [0.5, 0.1]
    assert rate.pieces() is rate.pieces()
    changed = rate.replace(phases=[*rate.phases[:1], phase("constant", learning_rate=0.2)])
    changed.lock()
    assert curve(changed, None, [9, 10]).tolist() == [0.5, 0.2]
    assert list(rate._children()) == ["phases[0]", "phases[1]"]


def test_groups_and_hyperparameters_may_follow_one():
    made = config(
        UP,
        DOWN,
        LAST,
        optimizer={"type": "adamw", "adamw": {"weight_decay_rate": 0.1}},
        param_groups=[{"match": "bias", "learning_rate": section(DOWN, LAST)}],
        schedules={
            "weight_decay": section(
                phase("linear", "50%", initial_learning_rate=0.1, end_learning_rate=0.2),
                phase("constant", join=True),
            )
        },
    )
    factory = OptimizerFactory(made, train_steps=700)
    group = factory.config.param_groups[0].learning_rate.get()
    assert curve(group, None, [500]).tolist() == [0.02]
    decay = factory.config.schedules["weight_decay"].get()
    assert curve(decay, None, [0, 175, 350, 900]).tolist() == pytest.approx([0.1, 0.15, 0.2, 0.2])
    wrong = {"schedules": {"weight_decay": section(phase("constant", -1))}}
    with pytest.raises(ConfigError, match=r"weight_decay.sequence.phases\[0\].until: must be > 0"):
        made.override(wrong)


def test_where_it_bends_and_ends():
    made, _ = sized(config(UP, DOWN, phase("linear", initial_learning_rate=0.02, offset=20)))
    rate = RateCurve(made.learning_rate.get())
    assert rate.end() == ("phases[2].linear.decay_steps", 1000)
    assert {100, 500, 520, 1000} <= rate.bends()
    hump = sequence(*(phase("constant", end, learning_rate=end) for end in (777, 778)), LAST)
    assert max(RateCurve(hump).values(RateCurve(hump).steps(10**6))) == 778


def test_a_decay_that_ends_early_is_told_at_its_place():
    made = config(phase("constant", 100, learning_rate=1.0), LAST)
    with pytest.warns(match=r"phases\[1\].linear.decay_steps: the decay ends at step 300"):
        OptimizerFactory(made, train_steps=1000)
    ended = config(phase("constant", 100, learning_rate=1.0), phase("linear", 400, join=True))
    with pytest.warns(match=r"phases\[1\].until: the decay ends .* write 1000 or leave it out"):
        OptimizerFactory(ended, train_steps=1000)


def test_the_schema_knows_phases():
    jsonschema = pytest.importorskip("jsonschema")
    valid = jsonschema.Draft202012Validator(schema()).is_valid
    made = config(UP, {**DOWN, "join": True}, LAST).as_dict()
    assert valid(made)
    for number, wrong in enumerate(
        [{"until": -1}, {"join": "yes"}, {"jion": True}, {"type": "cosin"}, {"linear": {"a": 1}}]
    ):
        phases = made["learning_rate"]["sequence"]["phases"]
        rate = section({**phases[0], **wrong}, *phases[1:])
        assert not valid({**made, "learning_rate": rate}), number


def test_the_message_for_a_number_in_the_place_of_a_phase():
    with pytest.raises(ConfigError, match=r"phases\[0\]: expected a mapping, got 0.1; write {type"):
        LrConfig(type="sequence", sequence={"phases": [0.1]})


def test_no_phases_beside_a_warmup_are_told_once_lengths_are_known():
    rate = {"type": "sequence", "sequence": {"phases": [], "per": "10%"}}
    warmup = {"type": "linear", "linear": {"warmup_steps": 1}}
    config = OptimizationConfig(
        optimizer={"type": "sgd"}, learning_rate=rate, warmup=warmup, schedules={}
    )
    with pytest.raises(ConfigError, match="phases: must have at least one phase"):
        OptimizerFactory(config, train_steps=100)
