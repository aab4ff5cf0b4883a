"""Classes that users derive from those of rules, and rules of their own, on Keras."""

from typing import ClassVar

import keras
import numpy as np
import pytest

from optimization.configs.base import config_dataclass
from optimization.configs.types import Share
from optimization.keras.rule_optimizer import keras_class
from optimization.optimizers import SGD, Adam, ParamGroup, PipelineOptimizer
from optimization.rules.rule import Rule, Slot
from tests.keras.common import BACKEND

if BACKEND == "tensorflow":
    import tensorflow as tf

MODES = [False, "auto", True] if BACKEND == "tensorflow" else ["auto"]
GRADIENT = np.array([1.0, -3.0], "float32")


class Signs(Adam):
    """Another algorithm, which leaves Adam's alone."""

    def update_step(self, gradient, variable, learning_rate):
        self.assign_sub(variable, learning_rate * keras.ops.sign(gradient))


class Scaled(SGD):
    """The rule, at a multiple of the rate."""

    def __init__(self, learning_rate=0.1, scale=1.0, **kwargs):
        super().__init__(learning_rate, **kwargs)
        self.scale = scale

    def update_step(self, gradient, variable, learning_rate):
        super().update_step(gradient, variable, learning_rate * self.scale)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def trained(optimizer, steps=2):
    """Returns two weights that started as [1, 2] after steps along the same gradient."""
    first, second = (keras.Variable([1.0, 2.0], name=name) for name in ("first", "second"))
    optimizer.build([first, second])

    def step():
        optimizer.apply([keras.ops.convert_to_tensor(GRADIENT)] * 2)

    step = tf.function(step) if BACKEND == "tensorflow" else step
    for _ in range(steps):
        step()
    return [keras.ops.convert_to_numpy(variable) for variable in (first, second)]


def close(actual, expected):
    np.testing.assert_allclose(actual, expected, rtol=1e-6)


def test_a_users_step_takes_a_rate_as_keras_has_it():
    close(trained(Signs(0.1))[0], [0.8, 2.2])
    close(trained(Scaled(0.1, scale=0.5))[0], [0.9, 2.3])


@pytest.mark.parametrize("jit_compile", MODES)
def test_a_users_step_is_what_trains(jit_compile):
    close(trained(PipelineOptimizer(Signs(0.1), jit_compile=jit_compile))[0], [0.8, 2.2])
    group = ParamGroup(match="second", optimizer=Signs(0.1))
    by_groups = PipelineOptimizer(SGD(0.1), param_groups=[group], jit_compile=jit_compile)
    close(trained(by_groups), [[0.8, 2.6], [0.8, 2.2]])


@pytest.mark.parametrize("jit_compile", MODES)
def test_groups_and_schedules_act_on_a_users_class(jit_compile):
    def weights(cls, **arguments):
        group = ParamGroup(match="second", hyperparameters={"momentum": 0.25})
        return trained(
            PipelineOptimizer(
                cls(0.1, momentum=0.5, **arguments),
                param_groups=[group],
                schedules={"momentum": lambda step: 0.5 + 0.1 * keras.ops.cast(step, "float32")},
                jit_compile=jit_compile,
            ),
            steps=3,
        )

    close(weights(Scaled), weights(SGD))
    # The momentum of the steps is 0.5, 0.6, 0.7.
    close(weights(Scaled)[0], [1, 2] - 0.1 * GRADIENT * (1 + 1.6 + 2.12))


@config_dataclass
class Fading(Rule):
    """A rule that keeps nothing of a variable, and one number for all."""

    class_name: ClassVar[str] = "Fading"
    elementwise: ClassVar[bool] = True
    shared: ClassVar = (Slot("share", "", "share", 1.0),)

    beta: Share = 0.5

    def prepare(self, c, h, xp):
        c.share = c.share * h.beta

    def step(self, g, w, s, h, xp):
        return h.lr * h.share * g


@pytest.mark.parametrize("jit_compile", MODES)
def test_a_rule_may_share_a_number_and_keep_nothing_else(jit_compile):
    optimizer = PipelineOptimizer(keras_class(Fading)(0.1), jit_compile=jit_compile)
    close(trained(optimizer)[0], [1 - 0.1 * 0.75, 2 + 0.3 * 0.75])


@pytest.mark.parametrize("shape", [(0, 3), (0,), ()])
def test_variables_of_any_size_are_updated_plainly(shape):
    optimizer = Adam(0.1)
    variable = keras.Variable(np.ones(shape, "float32"))
    optimizer.apply([keras.ops.ones(shape)], [variable])
    close(keras.ops.convert_to_numpy(variable), np.full(shape, 0.9))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"clipnorm": -1.0}, "clipnorm: must be > 0"),
        ({"use_ema": "x"}, "use_ema: expected true or false"),
        ({"ema_momentum": 7.0, "use_ema": True}, "ema_momentum: must be < 1"),
        ({"gradient_accumulation_steps": 0, "beta_1": 7.0}, "beta_1: must be < 1(.|\n)*steps"),
        *[({"learning_rate": rate}, "learning_rate") for rate in (-1.0, 1e39, float("nan"))],
    ],
)
def test_values_out_of_range_are_refused(arguments, message):
    with pytest.raises(ValueError, match=message):
        Adam(**arguments)


@pytest.mark.parametrize("rate", [1, np.float32(0.5), 0.25])
def test_a_rate_may_be_any_number(rate):
    close(trained(SGD(rate), steps=1)[0], [1 - rate, 2 + 3 * rate])


def test_a_field_that_hides_what_keras_has_is_refused():
    @config_dataclass
    class Hiding(Rule):
        """Has a field that an optimizer of Keras has otherwise."""

        class_name: ClassVar[str] = "Hiding"
        variables: float = 0.5

    with pytest.raises(TypeError, match="cannot have a field `variables`"):
        keras_class(Hiding)


def test_a_class_that_there_is_not():
    import optimization.optimizers

    for name, near in (("Adamm", "Adam"), ("lamb", "LAMB"), ("ParamGruop", "ParamGroup")):
        with pytest.raises(AttributeError, match=f"did you mean '{near}'"):
            getattr(optimization.optimizers, name)


def test_a_peak_is_the_rate_of_a_class_that_has_one():
    from optimization.optimizers import Lion

    assert Lion(0.5, corrected_weight_decay=True).peak_learning_rate == 0.5
    schedule = keras.optimizers.schedules.CosineDecay(0.5, 10)
    with pytest.raises(ValueError, match="`peak_learning_rate` is needed by `corrected_weight_"):
        Lion(schedule, corrected_weight_decay=True)
    optimizer = Lion(schedule, corrected_weight_decay=True, peak_learning_rate=0.5)
    assert Lion.from_config(optimizer.get_config()).peak_learning_rate == 0.5


def test_the_peak_of_a_group_is_before_its_multiplier():
    weights = [keras.Variable([1.0], name=name) for name in ("whole", "half")]
    schedule = keras.optimizers.schedules.PiecewiseConstantDecay([0], [0.5, 0.25])
    inner = SGD(schedule, weight_decay=0.1, corrected_weight_decay=True, peak_learning_rate=0.5)
    groups = [ParamGroup("half", learning_rate_multiplier=0.5)]
    optimizer = PipelineOptimizer(inner, param_groups=groups)
    changes = []
    for _ in range(2):
        before = [float(w.numpy()[0]) for w in weights]
        optimizer.apply([keras.ops.zeros(1)] * 2, weights)
        changes.append([1 - float(w.numpy()[0]) / b for w, b in zip(weights, before, strict=True)])
    np.testing.assert_allclose(changes, [[0.05, 0.025], [0.0125, 0.00625]], rtol=1e-4)


def test_what_modifiers_keep_is_saved_with_the_rest():
    from optimization.optimizers import Lion

    def training():
        weight = keras.Variable([1.0, -2.0], name="w")
        optimizer = Lion(0.25, mars=True, mars_gamma=0.5, lookahead=True, lookahead_steps=3)
        optimizer.build([weight])
        return weight, optimizer

    def train(weight, optimizer, gradients):
        for g in gradients:
            optimizer.apply([keras.ops.convert_to_tensor(np.float32(g))], [weight])

    gradients = [[0.5, 0.25], [-0.25, 0.125], [0.5, -0.5], [0.125, 0.25]]
    weight, optimizer = training()
    train(weight, optimizer, gradients)
    stopped, first = training()
    train(stopped, first, gradients[:2])
    names = [variable.name for variable in first.variables]
    assert sum(name.endswith(("_last_gradient", "_lead")) for name in names) == 2
    resumed, second = training()
    resumed.assign(stopped)
    for to, variable in zip(second.variables, first.variables, strict=True):
        to.assign(variable)
    train(resumed, second, gradients[2:])
    assert resumed.numpy().tolist() == weight.numpy().tolist()
    plain = Lion(0.25)
    plain.build([weight])
    assert len(plain.variables) == len(first.variables) - 2
