"""Fused updates are the plain ones, whatever the pipeline does around them."""

from typing import ClassVar

import keras
import numpy as np
import pytest

from optimization.configs.base import config_dataclass
from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.keras.rule_optimizer import keras_class
from optimization.keras.stages.update import Update
from optimization.keras.updates import _settings
from optimization.optimizers import (
    LAMB,
    LARS,
    Adam,
    AdamWeightDecay,
    Nadam,
    ParamGroup,
    PipelineOptimizer,
    SGDTorch,
)
from optimization.rules.lamb import LAMBConfig
from optimization.rules.rule import Rule
from tests.golden_cases import make_variable
from tests.keras.common import TableSchedule, problem
from tests.keras.test_contracts import maker

BACKEND = keras.backend.backend()
pytestmark = [
    pytest.mark.skipif(BACKEND != "tensorflow", reason="only TensorFlow needs them"),
    pytest.mark.slow,
]
if BACKEND == "tensorflow":
    import tensorflow as tf

    from optimization.keras import compiling

SGD = OPTIMIZERS_CLS["sgd"]
STEPS = 6
EXCLUDED = {"weight_decay_rate": 0.1, "exclude_from_weight_decay": ["bias", "norm"]}
SOME = {
    "adamw": maker("adamw", EXCLUDED),
    "lamb": maker("lamb", EXCLUDED),
    "lars": maker("lars", EXCLUDED, 1.0),
    "nadam": maker("nadam", {"momentum_decay": 0.004}),
    "schedule_free_adamw": maker("schedule_free_adamw", {"weight_decay": 0.1}),
    "adafactor": maker("adafactor", {"beta1": 0.9, "min_dim_size_to_factor": 4}),
    "adafactor torch": maker("adafactor", {"variant": "torch"}),
    "adafactor per parameter": maker(
        "adafactor", {"variant": "torch", "step_count": "per_parameter"}
    ),
}


def adamw(lr=0.01, **arguments):
    return AdamWeightDecay(
        lr, weight_decay_rate=0.1, exclude_from_weight_decay=["bias", "norm"], **arguments
    )


class Training:
    """An optimizer with its variables, and a step: compiled unless its updates are plain."""

    def __init__(self, make, dtype="float32", constraint=None, shapes=None, **arguments):
        initial, self.gradients = problem(shapes, steps=STEPS)
        self.optimizer = PipelineOptimizer(make(), **arguments)
        self.in_graph = arguments.get("jit_compile") is not False
        self.variables = [make_variable(p, value, dtype=dtype) for p, value in initial.items()]
        if constraint is not None:
            self.variables[2].constraint = constraint
        self.retrace()

    def retrace(self):
        """Has the next step be traced anew; plain ones are taken eagerly, which takes less time."""

        def step(grads):
            self.optimizer.apply(grads, self.variables)

        self.step = tf.function(step, autograph=False) if self.in_graph else step

    def run(self, steps=range(STEPS), spoiled=None):
        if not self.optimizer.built:  # a step that makes variables is traced twice
            self.optimizer.build(self.variables)
        for step in steps:
            grads = [tf.constant(self.gradients[step][v.path], v.dtype) for v in self.variables]
            self.step([g * np.inf for g in grads] if step == spoiled else grads)
        return self

    @property
    def functions(self):
        """How many kinds of update there are."""
        return len(self.optimizer.stage(Update).updates.fused)

    def state(self):
        named = self.optimizer.variables_by_path()
        named.update((f"weights/{v.path}", v) for v in self.variables)
        return {path: np.float64(variable.numpy()) for path, variable in named.items()}


def error(actual, expected):
    """Largest difference of any variable, relative to the largest entry of all of its sort."""
    actual, expected = actual.state(), expected.state()
    assert list(actual) == list(expected)
    largest = {}
    for path, value in expected.items():
        largest[_sort(path)] = max(largest.get(_sort(path), 1e-30), np.abs(value).max())
    return max(
        np.abs(actual[path] - value).max() / largest[_sort(path)]
        for path, value in expected.items()
    )


def _sort(path):
    return tuple(path.split("/")[: 2 if path.startswith("optimizer") else 1])


@pytest.fixture(params=["stacked", "compiled"])
def of_small(request, monkeypatch):
    """How the updates are done, which depends on the variables' sizes."""
    if request.param == "compiled":
        monkeypatch.setattr(compiling, "_SMALL", 1)
    return request.param


SETTINGS = {
    "both norms": {"gradient_clip_norm": 1.0, "global_clipnorm": 0.5},
    "bfloat16": {"dtype": "bfloat16", "ema": {}},
    "float64": {"dtype": "float64", "ema": {}, "global_clipnorm": 0.5},
    "clip by value": {"clipvalue": 0.1, "loss_scale_factor": 4.0},
    "adaptive clip": {"adaptive_clip_factor": 0.1, "ema": {}},
    "constraint": {"constraint": lambda w: tf.clip_by_value(w, -0.1, 0.1), "ema": {}},
    "average into weights": {"ema": {"overwrite_frequency": 2}},
    "late average": {"ema": {"start_step": 3}},
    "hyperparameters": {"schedules": {"beta_1": TableSchedule([0.9, 0.5, 0.7])}},
    "decay on a schedule": {"schedules": {"weight_decay": TableSchedule([0.1, 0.2, 0.3])}},
    "transformer": {"gradient_transformers": [lambda pairs: [(2 * g, v) for g, v in pairs]]},
}


@pytest.mark.parametrize("setting", SETTINGS)
def test_it_equals_the_plain_update_with_every_setting(setting, of_small):
    arguments = SETTINGS[setting]

    def make():
        return Adam(0.01, weight_decay=0.1)

    plain = Training(make, jit_compile=False, **arguments).run()
    actual = Training(make, **arguments).run()
    # bfloat16 weights are float32 copies rounded: a copy that differs in its last bit may round to
    # the next number, 2^-8 away.
    assert error(actual, plain) < (2**-8 if setting == "bfloat16" else 1e-6)
    assert actual.functions >= 4


def test_groups_have_functions_of_their_own(of_small):
    def arguments():
        return {
            "param_groups": [
                ParamGroup(match="bias$", freeze=True),
                ParamGroup(match="norm", learning_rate_multiplier=0.5),
                ParamGroup(match="conv", optimizer=LARS(0.1), learning_rate=0.2),
                ParamGroup(match="dense", optimizer=keras.optimizers.Muon(0.01)),
            ],
            "schedules": {"beta_1": TableSchedule([0.9, 0.5])},
            "global_clipnorm": 0.5,
        }

    def make():
        return Adam(0.01, weight_decay=0.1)

    plain = Training(make, jit_compile=False, **arguments()).run()
    actual = Training(make, **arguments()).run()
    assert error(actual, plain) < 1e-6  # rounding of float32, as above
    assert actual.functions == 3  # embedding, norm, conv; not Muon's


def test_a_step_that_is_not_finite_changes_nothing():
    arguments = {"on_nonfinite": "skip", "ema": {}, "global_clipnorm": 0.5}
    training = Training(adamw, **arguments).run(range(3))
    before = training.state()
    training.run([3], spoiled=3)
    after = training.state()
    counters = ("nonfinite_steps", "consecutive_nonfinite")
    changed = [path for path in before if not np.array_equal(before[path], after[path])]
    assert sorted(changed) == sorted(counters)


def test_after_an_error_the_training_goes_on():
    """With the same: what was accumulated up to the error is forgotten."""

    def trained(jit_compile):
        arguments = {"on_nonfinite": "raise", "gradient_accumulation_steps": 2}
        training = Training(adamw, jit_compile=jit_compile, **arguments)
        training.in_graph = True  # the error is another one eagerly
        training.retrace()
        with pytest.raises(tf.errors.InvalidArgumentError, match="not finite"):
            training.run(range(2), spoiled=0)
        return training.run(range(2, STEPS))

    actual = trained("auto")
    assert int(actual.optimizer.iterations) == 2
    assert error(actual, trained(False)) < 1e-6  # rounding of float32, as above


def test_variables_of_tensorflow_are_updated_plainly():
    def trained(jit_compile):
        variables = [tf.Variable([1.0, 2.0]), tf.Variable([[3.0]])]
        optimizer = PipelineOptimizer(Adam(0.1), jit_compile=jit_compile)
        step = tf.function(
            lambda: optimizer.apply([v * 0.5 for v in variables], variables), autograph=False
        )
        for _ in range(3):
            step()
        return [v.numpy() for v in variables]

    for actual, expected in zip(trained("auto"), trained(False), strict=True):
        np.testing.assert_array_equal(actual, expected)


def test_a_variable_that_comes_twice_is_updated_twice(of_small):
    def trained(jit_compile):
        training = Training(adamw, jit_compile=jit_compile, ema={})
        training.step = tf.function(
            lambda grads: training.optimizer.apply(
                [*grads, 2 * grads[0]], [*training.variables, training.variables[0]]
            ),
            autograph=False,
        )
        return training.run()

    assert error(trained("auto"), trained(False)) < 1e-6  # rounding of float32, as above


@pytest.mark.parametrize("name", ["lars", "lamb", "adafactor", "adamw"])
def test_gradients_of_lower_precision_than_their_weights(name, of_small):
    def trained(jit_compile):
        training = Training(SOME[name], jit_compile=jit_compile, global_clipnorm=0.5)
        step = training.step
        training.step = lambda grads: step([tf.cast(g, "float16") for g in grads])
        return training.run()

    # Plainly, the gradient times the clip's factor is rounded to float16 again, by up to 2^-11;
    # means of squares differ by twice that and more.
    assert error(trained("auto"), trained(False)) < 2**-9


@pytest.mark.parametrize("kind", [float, np.float32, np.float64])
def test_settings_of_any_kind_of_number_are_not_stale(kind, of_small):
    def trained(jit_compile):
        training = Training(lambda: SGD(0.1, momentum=0.9), jit_compile=jit_compile)
        training.run(range(3))
        training.optimizer.optimizer.momentum = kind(0.1)
        training.retrace()
        return training.run(range(3, STEPS))

    assert error(trained("auto"), trained(False)) < 1e-6  # rounding of float32, as above


def test_functions_among_the_settings_are_not_taken_for_each_other():
    """Even if one is made where another was, with the same address."""
    settings = set()
    optimizer = PipelineOptimizer(SGDTorch(0.1, momentum=0.9))
    (member,) = optimizer.stage(Update).members.members
    for step in range(8):
        optimizer.optimizer.bias_learning_rate = TableSchedule([0.1 * step])
        settings.add(_settings(member))
    assert len(settings) == 8


def test_optimizers_that_differ_in_their_rates_share_functions(of_small):
    shapes = {f"block_{i}/{kind}": (6, 5) for i in range(4) for kind in ("kernel", "other")}
    arguments = {"layer_decay": {"rate": 0.5, "depth": r"block_(\d+)/"}}
    plain = Training(adam_for_layers, shapes=shapes, jit_compile=False, **arguments).run()
    actual = Training(adam_for_layers, shapes=shapes, **arguments).run()
    assert len(actual.optimizer.learning_rates()) == 4
    assert error(actual, plain) < 1e-6  # rounding of float32, as above
    assert actual.functions == 1


def adam_for_layers():
    return Nadam(0.01)


def test_a_factor_keeps_the_precision_of_the_gradient():
    training = [
        Training(adamw, dtype="float64", loss_scale_factor=3.0, jit_compile=jit_compile).run()
        for jit_compile in (False, "auto")
    ]
    assert error(*training) < 1e-13  # rounding of float64


def test_a_skipped_update_clears_what_was_accumulated():
    arguments = {"on_nonfinite": "skip", "gradient_accumulation_steps": 2}
    training = Training(adamw, **arguments).run(range(2), spoiled=1)
    state = training.state()
    assert state["nonfinite_steps"] == 1
    sums = [value for path, value in state.items() if path.startswith("accumulator/")]
    assert len(sums) == 6
    assert not any(value.any() for value in sums)


@pytest.mark.parametrize("name", ["adamw", "lamb", "adafactor"])
def test_a_run_that_is_resumed_is_the_same_to_the_last_bit(name, tmp_path):
    arguments = {"ema": {}, "global_clipnorm": 0.5, "gradient_accumulation_steps": 2}
    whole = Training(SOME[name], **arguments).run()
    first = Training(SOME[name], **arguments).run(range(3))  # in the middle of an update
    second = Training(SOME[name], **arguments)
    second.optimizer.build(second.variables)
    store = {}
    first.optimizer.save_own_variables(_Store(store))
    second.optimizer.load_own_variables(_Store(store))
    for variable, other in zip(second.variables, first.variables, strict=True):
        variable.assign(other)
    second.run(range(3, STEPS))
    expected = whole.state()
    for path, value in second.state().items():
        np.testing.assert_array_equal(value, expected[path], err_msg=path)


class _Store(dict):
    """A store of Keras' saving, which keeps what it was given."""

    def __init__(self, entries):
        super().__init__(entries)
        self._entries = entries

    def __setitem__(self, key, value):
        super().__setitem__(key, value)
        self._entries[key] = value


def test_swapped_weights_are_refused():
    training = Training(adamw, ema={}).run(range(2))
    training.optimizer.swap()
    before = training.state()
    with pytest.raises(tf.errors.InvalidArgumentError, match="swapped"):
        training.run([2])
    after = training.state()
    assert all(np.array_equal(before[path], after[path]) for path in before)


def test_settings_that_are_set_later_act_in_the_next_trace():
    def changed(jit_compile):
        training = Training(lambda: SGD(0.1, momentum=0.9), jit_compile=jit_compile)
        training.run(range(3))
        training.optimizer.momentum = 0.5
        training.optimizer.learning_rate = 0.01
        training.retrace()
        return training.run(range(3, STEPS))

    assert error(changed("auto"), changed(False)) < 1e-6  # rounding of float32, as above


def test_it_is_for_graphs_unless_it_is_asked_for():
    def eagerly(jit_compile):
        training = Training(adamw, jit_compile=jit_compile)
        training.step = lambda grads: training.optimizer.apply(grads, training.variables)
        return training.run()

    automatic, asked = eagerly("auto"), eagerly(True)
    assert (automatic.functions, asked.functions) == (0, 4)
    assert error(asked, automatic) < 1e-6  # rounding of float32, as above


def test_a_function_that_xla_compiles_needs_none_inside():
    training = Training(adamw, global_clipnorm=0.5)
    training.step = tf.function(
        lambda grads: training.optimizer.apply(grads, training.variables), jit_compile=True
    )
    training.run()
    assert training.functions == 0
    assert error(training, Training(adamw, global_clipnorm=0.5).run()) < 1e-6  # rounding, as above


def test_sparse_gradients_stay_sparse():
    def trained(jit_compile):
        training = Training(lambda: SGD(0.1), jit_compile=jit_compile)

        def step(grads):
            rows = tf.IndexedSlices(grads[0][:3], tf.constant([1, 4, 1]), tf.constant([7, 4]))
            training.optimizer.apply([rows, *grads[1:]], training.variables)

        training.step = tf.function(step, autograph=False)
        return training.run()

    actual = trained("auto")
    assert error(actual, trained(False)) < 1e-6  # rounding of float32, as above
    assert actual.functions == 3  # not for the embedding
    assert trained(True).functions == 4
    assert {"ResourceScatterSub", "ResourceScatterAdd"} & set(_types(actual))


def test_what_nadam_does_once_in_a_step_it_does_once():
    def trained(jit_compile):
        training = Training(lambda: Nadam(0.01), jit_compile=jit_compile)

        def step(grads):
            rows = tf.IndexedSlices(grads[0][:3], tf.constant([1, 4, 2]), tf.constant([7, 4]))
            training.optimizer.apply([rows, *grads[1:]], training.variables)

        training.step = tf.function(step, autograph=False)
        return training.run()

    assert error(trained("auto"), trained(False)) == 0  # one sparse gradient: all is plain


def _graph(training):
    grads = [tf.TensorSpec(v.shape, v.dtype) for v in training.variables]
    return training.step.get_concrete_function(grads).graph


def _types(training):
    return [operation.type for operation in _graph(training).get_operations()]


def test_gradients_whose_shapes_are_not_known_in_the_graph():
    def trained(jit_compile):
        training = Training(adamw, jit_compile=jit_compile)
        signature = [[tf.TensorSpec(None) for _ in training.variables]]
        known, training.step = (
            training.step,
            tf.function(
                lambda grads: training.optimizer.apply(grads, training.variables),
                input_signature=signature,
                autograph=False,
            ),
        )
        training.run(range(3))
        training.step = known
        return training.run(range(3, STEPS))

    actual = trained("auto")
    assert error(actual, trained(False)) < 1e-6  # rounding of float32, as above
    assert actual.functions == 4


def test_a_trace_that_fails_can_be_repeated(monkeypatch):
    monkeypatch.setattr(compiling, "_SMALL", 1)
    training = Training(SOME["lamb"])

    def failing(*arguments):
        raise RuntimeError("halfway")

    with monkeypatch.context() as patched:
        patched.setattr(LAMBConfig, "finish", failing)
        with pytest.raises(RuntimeError, match="halfway"):
            training.run()
    plain = Training(SOME["lamb"], jit_compile=False)
    training.retrace()
    assert error(training.run(), plain.run()) < 1e-6  # rounding of float32, as above


@config_dataclass
class NormalizedConfig(Rule):
    """Steps of the length of the learning rate, which no entry has by itself."""

    class_name: ClassVar[str] = "TestNormalized"

    def step(self, g, w, s, h, xp):
        return h.lr * g / xp.norm(g)


class Normalized(keras.optimizers.Optimizer):
    """The same, as a class of Keras."""

    def update_step(self, gradient, variable, learning_rate):
        length = keras.ops.sqrt(keras.ops.sum(keras.ops.square(gradient)))
        self.assign_sub(variable, learning_rate * gradient / length)


@pytest.mark.parametrize("how", ["eager", "graph", "compiled", "as a whole"])
@pytest.mark.parametrize("make", [keras_class(NormalizedConfig), Normalized], ids=["rule", "class"])
def test_a_user_s_optimizer_that_is_not_elementwise(make, how):
    """Four equal variables move by the same, however they are updated."""
    gradient = np.float32([1, 2, 2])
    optimizer = PipelineOptimizer(make(0.3), jit_compile=how == "compiled" or "auto")
    variables = [keras.Variable(np.zeros(3, "float32")) for _ in range(4)]

    def step():
        optimizer.apply([tf.constant(gradient)] * 4, variables)

    if how in ("graph", "as a whole"):
        step = tf.function(step, jit_compile=how == "as a whole", autograph=False)
    for _ in range(2):
        step()
    for variable in variables:
        np.testing.assert_allclose(variable.numpy(), -0.2 * gradient, rtol=1e-6)


def test_a_class_of_the_users_is_updated_plainly():
    class Doubled(keras.optimizers.SGD):
        def update_step(self, gradient, variable, learning_rate):
            super().update_step(2 * gradient, variable, learning_rate)

    actual = Training(lambda: Doubled(0.1), global_clipnorm=0.5).run()
    assert actual.functions == 0
    plain = Training(lambda: Doubled(0.1), global_clipnorm=0.5, jit_compile=False).run()
    assert error(actual, plain) < 1e-6  # rounding of float32, as above


@pytest.mark.parametrize(
    ("name", "slots"), [("adamw", 2), ("lamb", 2), ("nadam", 2), ("schedule_free_adamw", 2)]
)
def test_small_variables_of_a_kind_are_updated_together(name, slots):
    shapes = {f"layer_{i}/bias": (3,) for i in range(11)}
    shapes |= {"layer_norm/gamma": (3,), "layer_0/kernel": (4, 3)}
    plain = Training(SOME[name], shapes=shapes, jit_compile=False).run()
    actual = Training(SOME[name], shapes=shapes).run()
    assert error(actual, plain) < 1e-6  # rounding of float32, as above
    # The 12 vectors and the kernel: gradients, weights and slots of each kind.
    assert _types(actual).count("Pack") == 2 * (2 + slots)


def test_norms_of_stacked_variables_are_those_of_each():
    """Of different scale: the norm of all would be that of the largest."""
    initial, gradients = problem({f"layer_{i}/bias": (5,) for i in range(4)}, steps=STEPS)
    trainings = []
    for jit_compile in (False, "auto"):
        training = Training(lambda: LAMB(0.01), jit_compile=jit_compile, clipnorm=0.1)
        scaled = [(path, 10.0**-i * value) for i, (path, value) in enumerate(initial.items())]
        training.variables = [make_variable(path, value) for path, value in scaled]
        training.gradients = [
            {path: 10.0**-i * g for i, (path, g) in enumerate(step.items())} for step in gradients
        ]
        trainings.append(training.run())
    plain, actual = (training.state() for training in trainings)
    for path, value in plain.items():
        bound = 1e-6 * np.abs(value).max()  # rounding of float32, of each variable by itself
        np.testing.assert_allclose(actual[path], value, rtol=0, atol=bound, err_msg=path)


@pytest.mark.parametrize(
    ("make", "stacks"),
    [
        (lambda: SGD(0.1), True),
        (SOME["adafactor torch"], True),
        (SOME["adafactor per parameter"], True),
        (lambda: keras_class(NormalizedConfig)(0.1), False),  # it is not elementwise
    ],
)
def test_what_can_not_be_stacked_is_compiled(make, stacks):
    shapes = {"a/bias": (3,), "b/bias": (3,)}
    actual = Training(make, shapes=shapes).run()
    assert error(actual, Training(make, shapes=shapes, jit_compile=False).run()) < 1e-6
    assert ("Pack" in _types(actual)) is stacks
    assert actual.functions == 1


def test_norms_are_left_to_tensorflow(monkeypatch):
    monkeypatch.setattr(compiling, "_SMALL", 1)
    training = Training(lambda: LAMB(0.01, weight_decay_rate=0.1), global_clipnorm=0.5)
    training.run(range(1))
    # For the clip of all gradients, small ones of a shape together; and of each weight, for its
    # ratio to its step.
    shapes = {tuple(variable.shape) for variable in training.variables}
    assert _types(training).count("L2Loss") == len(shapes) + len(training.variables)
    for update in training.optimizer.stage(Update).updates.fused.values():
        for part, _ in update._compiled.values():
            types = {operation.type for operation in part.graph.get_operations()}
            assert not {"L2Loss", "Mean"} & types


def test_a_variable_is_cleared_in_place(of_small):
    variables = [keras.Variable(np.ones((3, 2), "float32")) for _ in range(2)]
    clear = compiling.Clearing()
    tf.function(lambda: clear(variables), autograph=False)()
    assert [float(np.abs(v.numpy()).max()) for v in variables] == [0, 0]
    assert len(clear._functions) == (1 if of_small == "compiled" else 0)


@pytest.mark.parametrize("wrong", ["always", None, 2, 1, 0.0])
def test_jit_compile_must_be_known(wrong):
    with pytest.raises(ValueError, match="`jit_compile`"):
        PipelineOptimizer(SGD(0.1), jit_compile=wrong)
