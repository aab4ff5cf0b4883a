"""What modifiers do to any rule; the contracts try them with one rule of each kind."""

import numpy as np
import pytest

from optimization.configs.errors import ConfigError
from optimization.rules.arrays import State
from optimization.rules.modifiers import MODIFIERS
from optimization.rules.rule import Numbers
from tests.rules import contracts
from tests.rules.contracts import XP, section_of


def step_of(kind, g, w, slots=None, lr=1.0, **fields):
    """Returns the step of a rule in NumPy, and its state."""
    rule = section_of(kind, fields)
    values = {name: getattr(rule, name) for name in rule.argument_names()}
    h = Numbers(**{**values, **rule.variable_settings}, lr=lr, t=2.0, done=1)
    state = State({name: np.array(value) for name, value in (slots or {}).items()})
    return rule.modified_step(np.array(g), np.array(w), state, h, XP)


def test_a_cautious_step_keeps_what_goes_down_and_makes_up_for_the_rest():
    cautious = step_of(
        *("sgd_torch", [1.0, -1.0, 0.5, 0.0], [1.0] * 4, {"momentum": [0, 4, 1, 1]}),
        **{"momentum": 0.5, "cautious": True},
    )
    np.testing.assert_allclose(cautious, [1.0 * 2, 0, 1.0 * 2, 0])


def test_of_a_step_that_is_left_out_as_a_whole_nothing_is_divided_by_0():
    slots = {"momentum": np.ones(4)}
    assert not step_of("sgd_torch", -0.1 * np.ones(4), np.ones(4), slots, cautious=True).any()
    # As large as 1000 times, no more.
    g = np.where(np.arange(2000) == 0, 1.0, -0.1)
    slots = {"momentum": np.ones(2000)}
    step = step_of("sgd_torch", g, g, slots, momentum=0.5, cautious=True)
    assert step[0] == 1.5 * 1000


def test_what_is_not_finite_stays_and_what_is_small_counts():
    slots = {"momentum": np.zeros(3)}
    step = step_of("sgd_torch", [np.nan, 1e-200, 1.0], np.ones(3), slots, cautious=True)
    assert np.isnan(step[0])
    np.testing.assert_allclose(step[1:], [1e-200 * 1.5, 1.5])


@pytest.mark.parametrize("kind", ["schedule_free_adamw", "schedule_free_sgd", "ftrl"])
def test_a_rule_whose_weights_are_no_sum_of_steps_refuses(kind):
    section = section_of(kind, {"cautious": True})
    assert [name for name, _ in section.check()] == ["cautious"]
    text = "whatever the step"
    assert text in dict(section.check())["cautious"]


@pytest.mark.parametrize("kind", contracts.rules())
def test_every_rule_has_modifiers_or_says_why_not(kind):
    rule = type(section_of(kind, {}))
    needs = {"mars": {"mars_beta": 0.9}}
    for name in MODIFIERS:
        fields = {name: 0.1 if name == "max_update_rms" else True, **needs.get(name, {})}
        refused = fields.keys() & rule.unmodifiable.keys()
        assert bool(contracts.problems(rule, fields)) == bool(refused)


@pytest.mark.parametrize(
    ("inputs", "expected"),
    [((0,), [[-1, -1], [1, 1]]), ((1,), [[-0.5, 0.5], [-0.5, 0.5]]), ((), [[1, 2], [3, 4]])],
)
def test_centralized_gradients_have_no_mean_over_the_inputs(inputs, expected):
    rule = section_of("sgd", {"centralize_gradients": True})
    g, h = np.array([[1.0, 2.0], [3.0, 4.0]]), Numbers(**vars(rule), lr=0.5, inputs=inputs)
    h = Numbers(**{**vars(h), **rule.variable_settings})
    step = rule.modified_step(g, np.ones((2, 2)), State({}), h, XP)
    np.testing.assert_array_equal(step, 0.5 * np.array(expected))


def test_a_cautious_step_agrees_with_the_centralized_gradient():
    """Of the gradient as it came every entry would agree, and none be left out."""
    rule = section_of("lion", {"centralize_gradients": True, "cautious": True})
    shapes = {"dense/kernel": (2, 1)}
    own = rule.own_numbers(list(shapes), shapes)[0]
    h = Numbers(**{n: getattr(rule, n) for n in rule.argument_names()}, **own, lr=1.0)
    momentum = State({"momentum": np.full((2, 1), 10.0)})
    g = np.array([[1.0], [3.0]])
    step = rule.modified_step(g, np.ones((2, 1)), momentum, h, XP)
    np.testing.assert_array_equal(step, [[0.0], [2.0]])


def corrected(*gradients, **fields):
    """Returns what `sgd` subtracts with a rate of 1 and MARS, for each of some gradients."""
    rule = section_of("sgd", {"mars": True, **fields})
    values = {**{n: getattr(rule, n) for n in rule.argument_names()}, **rule.variable_settings}
    state, found = State({"last_gradient": np.zeros(len(gradients[0]))}), []
    for t, g in enumerate(gradients, start=1):
        h = Numbers(**values, lr=1.0, t=float(t), done=t - 1)
        found.append(rule.modified_step(np.array(g), np.ones(len(g)), state, h, XP).tolist())
    return found


def test_mars_adds_a_part_of_the_change_of_the_gradient():
    fields = {"mars_gamma": 0.5, "mars_beta": 0.75}  # 1.5 times the change
    found = corrected([0.25, 0.0], [0.5, 0.0], [0.5, 0.25], **fields)
    assert found == [[0.25, 0.0], [0.5 + 1.5 * 0.25, 0.0], [0.5, 0.25 + 1.5 * 0.25]]


def test_mars_clips_what_is_corrected_to_a_norm_of_1():
    found = corrected([3.0, 4.0], [3.0, 4.0], [3e200, 4e200], mars_beta=0.5)
    np.testing.assert_allclose(found, [[0.6, 0.8]] * 3)
    assert np.isnan(corrected([np.nan, 1.0], mars_beta=0.5)).any()


@pytest.mark.parametrize(
    ("kind", "fields", "expected"),
    [
        ("adamw", {"beta_1": 0.5}, 0.5),
        ("sgd", {"momentum": 0.25}, 0.25),
        ("adafactor", {"beta1": 0.75}, 0.75),
        ("lion", {"beta_1": 0.5, "mars_beta": 0.875}, 0.5),  # `mars_beta` comes before it
    ],
)
def test_mars_goes_by_the_decay_of_the_mean_of_gradients(kind, fields, expected):
    rule = section_of(kind, {"mars": True, **fields})
    assert not list(rule.check())
    assert rule.decay_of_mean(rule) == expected


def test_muons_matrices_have_a_mean_of_their_own():
    rule = section_of("muon", {"mars": True, "momentum": 0.5, "adam_beta_1": 0.25})
    decays = [rule.decay_of_mean(Numbers(**vars(rule), orthogonalized=x)) for x in (True, False)]
    assert decays == [0.5, 0.25]


@pytest.mark.parametrize(
    ("kind", "fields", "name", "message"),
    [
        ("sgd", {"mars": True}, "mars", "needs `mars_beta`"),
        ("adagrad", {"mars": True}, "mars", "needs `mars_beta`"),
        ("adafactor", {"mars": True}, "mars", "needs `mars_beta`"),
        ("adamw", {"mars_gamma": 0.5}, "mars_gamma", "needs `mars: true`"),
        ("adamw", {"mars_beta": 0.5}, "mars_beta", "needs `mars: true`"),
    ],
)
def test_what_mars_needs(kind, fields, name, message):
    assert message in dict(section_of(kind, fields).check())[name]
    assert "mars_gamma" not in section_of(kind, {}).numbers()
    assert "mars_gamma" in section_of(kind, {"mars": True, "mars_beta": 0.5}).numbers()


@pytest.mark.parametrize("decay", [{}, {"weight_decay": 0.5}])
def test_lookahead_goes_a_part_of_the_way(decay):
    """Decay counts, also that which comes before the step."""
    initial, gradients = {"w": np.array([1.0, -2.0])}, [{"w": np.array([t, 1.0])} for t in range(4)]

    def weights(start, gradients, **fields):
        section = section_of("sgd", {**decay, **fields})
        return contracts.numpy_weights(section, start, gradients, lambda t: 0.25)

    fields = {"lookahead": True, "lookahead_steps": 2, "lookahead_share": 0.75}
    expected = initial
    for pair in (gradients[:2], gradients[2:]):
        fast = weights(expected, pair)
        expected = {"w": expected["w"] + 0.75 * (fast["w"] - expected["w"])}
    np.testing.assert_allclose(weights(initial, gradients, **fields)["w"], expected["w"])
    np.testing.assert_allclose(
        weights(initial, gradients[:1], **fields)["w"], weights(initial, gradients[:1])["w"]
    )


@pytest.mark.parametrize(
    ("fields", "name", "message"),
    [
        ({"lookahead_steps": 2}, "lookahead_steps", "needs `lookahead: true`"),
        ({"lookahead_share": 0.25}, "lookahead_share", "needs `lookahead: true`"),
    ],
)
def test_what_lookahead_needs(fields, name, message):
    assert message in dict(section_of("adamw", fields).check())[name]


@pytest.mark.parametrize("alpha", [0.0, 1.0])  # of which one never moves, and one is none
def test_lookahead_stays_between(alpha):
    with pytest.raises(ConfigError, match="lookahead_share"):
        section_of("adamw", {"lookahead": True, "lookahead_share": alpha})


def test_modifiers_are_checked():
    with pytest.raises(ConfigError, match="cautious"):
        section_of("adamw", {"cautious": "yes"})


def test_what_sums_over_a_variable_is_not_by_entry():
    rule = section_of("adamw", {})
    plain, cautious = Numbers(cautious=False), Numbers(cautious=True)
    assert rule.updates_by_entry(plain)
    assert not rule.updates_by_entry(cautious)
    assert rule.is_elementwise(cautious)
    assert section_of("adamw", {"epsilon_placement": "corrected"}).native_equivalent(set())
    modified = {"epsilon_placement": "corrected", "cautious": True}
    assert not section_of("adamw", modified).native_equivalent(set())


@pytest.mark.parametrize(
    ("kind", "fields"),
    [
        ("sgd", {"weight_decay": 0.5}),
        ("lion", {"weight_decay": 0.5}),
        ("adamw", {"weight_decay_rate": 0.5}),
        ("adopt", {"weight_decay": 0.5}),
        ("stable_adamw", {"weight_decay": 0.5}),
        ("ademamix", {"weight_decay": 0.5}),
        ("adafactor", {"weight_decay": 0.5, "multiply_by_parameter_scale": False}),
        ("adafactor_keras", {"weight_decay": 0.5, "epsilon_2": 10.0}),  # and so one scale
    ],
)
def test_a_cautious_decay_acts_where_the_step_makes_weights_smaller(kind, fields):
    steps = 2 if kind == "adopt" else 1  # whose first update moves nothing
    initial, gradients = contracts.problem(steps=steps)

    def change(**more):
        section = section_of(kind, {**fields, **more})
        return contracts.numpy_weights(section, initial, gradients, lambda t: 0.1)

    none = change(**dict.fromkeys(fields.keys() & {"weight_decay", "weight_decay_rate"}, 0.0))
    all_decay, some = change(), change(cautious_weight_decay=True)
    decayed = 0
    for path, w in initial.items():
        along = (w - none[path]) * w >= 0
        expected = np.where(along, all_decay[path], none[path])
        np.testing.assert_allclose(some[path], expected, rtol=1e-12)
        decayed += along.mean() / len(initial)
    assert 0.2 < decayed < 0.8


@pytest.mark.parametrize(
    ("kind", "fields", "message"),
    [
        ("lars", {}, "a part of the gradient"),
        ("sgd_torch", {}, "a part of the gradient"),
        ("adam", {"decoupled_weight_decay": False}, "needs `decoupled_weight_decay: true`"),
    ],
)
def test_modifiers_of_a_decay_need_one_that_is_decoupled(kind, fields, message):
    section = section_of(kind, {**fields, "cautious_weight_decay": True})
    assert message in dict(section.check())["cautious_weight_decay"]


def test_a_step_is_clipped_to_its_largest_root_mean_square():
    g, w = np.array([3.0, -4.0]), np.ones(2)
    for rate, most, expected in ((0.5, 0.1, 0.1), (0.5, 10.0, np.sqrt(12.5)), (0.0, 0.1, 0.0)):
        step = step_of("sgd", g, w, lr=rate, max_update_rms=most)
        np.testing.assert_allclose(np.sqrt(np.mean(step**2)), expected * rate)
        np.testing.assert_allclose(step * g[1], step[1] * g)  # in the same direction
    large = step_of("sgd", 1e200 * g, w, lr=0.5, max_update_rms=2.0)
    np.testing.assert_allclose(np.sqrt(np.mean(large**2)), 1.0)
    assert np.isnan(step_of("sgd", [np.nan, 1.0], w, max_update_rms=0.1)).any()
