import math

import pytest

import optimization
from optimization.schedules.registry import WARMUP_CLS
from tests.lint.linting import SGD, codes, experiment, told


def rate(kind, fields, warmup="{}"):
    section = f"{SGD}\nlearning_rate: {{type: {kind}, {kind}: {{{fields}}}}}\nwarmup: {warmup}"
    return experiment(1000, section)


def linear(start, steps=100, kind="linear"):
    fields = f"warmup_steps: {steps}, warmup_learning_rate: {start}"
    return f"{{type: {kind}, {kind}: {{{fields}}}}}"


RISING = {
    "a restart": ("cosine_restarts", "initial_learning_rate: 1, first_decay_steps: 950"),
    "a cycle": ("polynomial", "initial_learning_rate: 1, decay_steps: 900, cycle: true"),
    "growth": ("exponential", "initial_learning_rate: 1, decay_steps: 100, decay_rate: 1.1"),
    "a last value": ("stepwise", "boundaries: [950], values: [0.1, 1.0]"),
}
FALLING = {
    "whole cycles": (
        "cosine_restarts",
        "initial_learning_rate: 1, first_decay_steps: 500, t_mul: 1",
    ),
    "a restart before": ("cosine_restarts", "initial_learning_rate: 1, first_decay_steps: 800"),
    "one cycle": ("one_cycle", "max_learning_rate: 1"),
    "a constant": ("constant", "learning_rate: 1"),
    "a little": ("exponential", "initial_learning_rate: 1, decay_steps: 1000, decay_rate: 1.01"),
}


@pytest.mark.parametrize("case", RISING)
def test_a_rate_that_rises_at_the_end(tmp_path, case):
    assert "rate-rises-at-end" in codes(tmp_path, rate(*RISING[case]))


@pytest.mark.parametrize("case", FALLING)
def test_a_rate_that_does_not(tmp_path, case):
    assert codes(tmp_path, rate(*FALLING[case])) == []


def test_the_message_says_from_where_to_where(tmp_path):
    text = rate(*RISING["a last value"])
    ((line, path, message),) = told(tmp_path, text, "rate-rises-at-end")
    assert (line, path) == (6, "trainer.optimizer_config.learning_rate.stepwise.boundaries")
    assert message == "the rate rises at the end, from 0.1 at step 900 to 1"


def test_a_warmup_up_to_the_end_is_no_rise(tmp_path):
    found = codes(tmp_path, rate("constant", "learning_rate: 1", linear(0, 990)))
    assert found == ["warmup-over-quarter"]


@pytest.mark.parametrize(
    ("start", "found"), [(0.1, []), (0.0999, ["warmup-jump"]), (0.0, ["warmup-jump"]), (1.0, [])]
)
def test_a_constant_warmup_may_jump_by_ten(tmp_path, start, found):
    warmup = linear(start, kind="constant")
    assert codes(tmp_path, rate("constant", "learning_rate: 1", warmup)) == found


@pytest.mark.parametrize("mode", ["replace", "delay", "multiply"])
@pytest.mark.parametrize("kind", ["linear", "cosine", "exponential"])
def test_warmups_of_ours_do_not_jump(tmp_path, kind, mode):
    warmup = linear(0.01, 10, kind).replace("warmup_steps", f"mode: {mode}, warmup_steps")
    assert codes(tmp_path, rate("cosine", "initial_learning_rate: 1", warmup)) == []


@pytest.mark.parametrize(("reached", "found"), [(1.0, []), (0.995, []), (0.98, ["warmup-jump"])])
def test_a_warmup_of_ones_own_that_misses_the_rate(tmp_path, monkeypatch, reached, found):
    monkeypatch.setattr(WARMUP_CLS, "_entries", dict(WARMUP_CLS._entries))

    @optimization.register_warmup("sine")
    def sine(step, target, *, warmup_steps: int, xp):
        return reached * target * xp.sin(math.pi / 2 * step / warmup_steps)

    text = rate("constant", "learning_rate: 1", "{type: sine, sine: {warmup_steps: 100}}")
    assert codes(tmp_path, text) == found


@pytest.mark.parametrize("kind", ["linear", "polynomial"])
@pytest.mark.parametrize(("end", "found"), [(0.1, []), (0.2, ["lowest-above-peak"])])
def test_an_end_above_the_start(tmp_path, kind, end, found):
    fields = f"initial_learning_rate: 0.1, decay_steps: 1000, end_learning_rate: {end}"
    text = rate(kind, fields)
    assert [code for code in codes(tmp_path, text) if code != "rate-rises-at-end"] == found


@pytest.mark.parametrize(("start", "found"), [(1.0, []), (1.1, ["lowest-above-peak"])])
def test_a_warmup_that_falls(tmp_path, start, found):
    assert codes(tmp_path, rate("constant", "learning_rate: 1", linear(start))) == found


def test_the_rate_of_a_group_is_looked_at(tmp_path):
    own = "learning_rate: {type: constant, constant: {learning_rate: 1}}"
    group = f"param_groups: [{{match: x, {own}, warmup: {linear(2)}}}]"
    text = rate("constant", "learning_rate: 1").replace("    warmup:", f"    {group}\n    warmup:")
    ((_, path, _),) = told(tmp_path, text, "lowest-above-peak")
    assert path.startswith("trainer.optimizer_config.param_groups[0].warmup")


def test_a_cosine_that_rises_is_told_of_a_rate_and_not_of_another_number(tmp_path):
    rises = "initial_learning_rate: 0.04, alpha: 5"
    ((_, path, message),) = told(tmp_path, rate("cosine", rises), "lowest-above-peak")
    assert path.endswith("cosine.alpha")
    assert message == "is 5: the rate rises, from 0.04 to 0.2"
    schedule = f"schedules: {{weight_decay: {{type: cosine, cosine: {{{rises}}}}}}}"
    adamw = "optimizer: {type: adamw, adamw: {weight_decay_rate: 0.04}}"
    constant = "learning_rate: {type: constant, constant: {learning_rate: 1}}"
    assert codes(tmp_path, experiment(1000, f"{adamw}\n{constant}\n{schedule}")) == []
