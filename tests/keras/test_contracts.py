"""What must hold for every registered rule with Keras, beside `tests/rules/test_contracts.py`.

Updates by Keras' backend are NumPy's, and the compiled ones of TensorFlow are the plain ones, in
each form of a rule. `test_sparse.py` tests sparse gradients, and
`test_distribution.py` and `tests/distribution` test several devices.
"""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from optimization.configs.optimizer_config import OPTIMIZERS_CLS
from optimization.keras.rule_optimizer import keras_class
from optimization.keras.rule_part import rule_arguments
from optimization.optimizers import PipelineOptimizer
from optimization.rules.rule import Numbers, origins
from optimization.schedules import LrConfig
from optimization.schedules.keras_schedules import build_schedule
from tests.golden_cases import make_variables
from tests.keras.common import (
    TableSchedule,
    final_weights,
    problem,
    relative_error,
    tensorflow_only,
)
from tests.keras.saved import build_model, state, take_steps
from tests.rules import contracts
from tests.saved_goldens import STEPS, assert_same

pytestmark = pytest.mark.slow

# By twos, of which one is small and one is large.
SHAPES = {
    "embedding/embeddings": (4, 3),
    "head/kernel": (4, 3),
    "conv/kernel": (3, 2, 4, 5),
    "dense/kernel": (6, 5),
    "dense/bias": (26,),
    "norm/beta": (5,),
    "norm/gamma": (5,),
}
SMALL = 25
PIPELINES = (
    {"global_clipnorm": 0.5, "ema": {}, "loss_scale_factor": 8.0},
    {"gradient_accumulation_steps": 2, "clipnorm": 0.3, "on_nonfinite": "skip", "ema": {}},
)
# FTRL makes each weight anew of its sums, whose rounding is that of larger numbers.
# Muon's second moment divides small entries of its matrices by small roots.
# SOAP takes signs of small entries, in bases of eigenvectors that may be near to each other.
TOLERANCE = {"ftrl": 6e-6, "muon": 5e-6, "soap": 1e-3}


def pipeline_of(kind, fields, *pipelines):
    """Returns one of them for a case, by turns, without an average where the rule has its own."""
    arguments = dict(pipelines[contracts.cases(kind).index(fields) % len(pipelines)])
    if contracts.section_of(kind, fields).schedule_free:
        arguments.pop("ema", None)
    return arguments


def maker(kind, fields, rate=0.01):
    """Returns a function that makes the optimizer of a case."""
    section = contracts.section_of(kind, fields)
    if section.own_learning_rate() is not None:
        rate = None
    return lambda: OPTIMIZERS_CLS[kind](rate, **section.arguments())


@contracts.every_case(contracts.forms)
def test_keras_is_numpy(kind, fields):
    initial, gradients = contracts.problem(steps=3)
    optimizer = maker(kind, fields, build_schedule(LrConfig(contracts.RATE).get()))()
    single = [{path: np.float32(g) for path, g in step.items()} for step in gradients]
    start = {path: np.float32(w) for path, w in initial.items()}
    found = final_weights(optimizer, start, single)
    section = contracts.section_of(kind, fields)
    expected = contracts.numpy_weights(section, initial, gradients, contracts.stepped)
    assert contracts.difference(found, expected) < contracts.float32_limit(kind)


@tensorflow_only
@contracts.every_case(contracts.extremes, once_a_class=True)
def test_compiled_is_plain(kind, fields, monkeypatch):
    from optimization.keras import compiling, norms
    from optimization.keras.stages.update import Update
    from tests.keras.test_updates import Training, error

    # So that some are stacked and some compiled, of which axes are summed in parts.
    monkeypatch.setattr(compiling, "_SMALL", SMALL)
    monkeypatch.setattr(norms, "_FOLDS", 2)
    arguments = pipeline_of(kind, fields, *PIPELINES)
    make = maker(kind, fields)
    plain = Training(make, shapes=SHAPES, jit_compile=False, **arguments).run(range(4))
    actual = Training(make, shapes=SHAPES, **arguments).run(range(4))
    # The same float32 operations, in another order; factors on the gradient are multiplied first.
    assert error(actual, plain) < TOLERANCE.get(kind, 1e-6)
    assert plain.functions == 0
    section = contracts.as_class(contracts.section_of(kind, fields))
    values = {name: getattr(section, name) for name in section.argument_names()}
    own = contracts.settings_of(section, SHAPES)
    compiled = {s for p, s in SHAPES.items() if section.compiles(Numbers(**values, **own[p]))}
    assert actual.functions >= len(compiled)
    for update in actual.optimizer.stage(Update).updates.fused.values():
        for part, copies in update._compiled.values():
            # What passes from one to the next is smaller than the variable.
            sizes = [output.shape.num_elements() for output in part.outputs]
            assert all(size < copies[0].shape.num_elements() for size in sizes)


@pytest.mark.parametrize("rule", origins(), ids=lambda rule: rule.class_name)
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("learning_rate", -1.0),
        ("learning_rate", float("nan")),
        ("clipnorm", -1.0),
        ("ema_momentum", 1.5),
        ("gradient_accumulation_steps", 0),
        ("loss_scale_factor", -1.0),
        ("ema_overwrite_frequency", 0),
    ],
)
def test_arguments_of_all_classes_are_checked_as_in_sections(rule, name, value):
    more = {"use_ema": True} if name.startswith("ema") else {}
    with pytest.raises(ValueError, match=f"{name}.*must be"):
        keras_class(rule)(**{name: value}, **more)


@pytest.mark.parametrize("rule", origins(), ids=lambda rule: rule.class_name)
def test_importing_the_package_registers_it(rule):
    cls = keras_class(rule)
    assert keras.saving.get_registered_object(f"optimization>{rule.class_name}") is cls


@pytest.mark.parametrize("rule", origins(), ids=lambda rule: rule.class_name)
def test_the_help_has_the_arguments_and_an_example_that_runs(rule):
    cls = keras_class(rule)
    contracts.check_example(cls, keras=keras)
    told = re.findall(r"^    (\w+) \(", inspect.getdoc(cls), re.M)
    assert sorted(told) == sorted([*rule_arguments(rule), "name"])


@contracts.every_case(contracts.few, once_a_class=True)
def test_serialization_keeps_everything(kind, fields):
    optimizer = maker(kind, fields, TableSchedule([0.1, 0.2]))()
    for serialize, deserialize in (
        (keras.saving.serialize_keras_object, keras.saving.deserialize_keras_object),
        (keras.optimizers.serialize, keras.optimizers.deserialize),
    ):
        again = deserialize(serialize(optimizer))
        assert type(again) is type(optimizer)
        assert again.get_config() == optimizer.get_config()


@contracts.every_case(lambda kind: [contracts.busiest(kind)], once_a_class=True)
def test_moments_are_float32_and_low_precision_weights_learn(kind, fields):
    make = maker(kind, fields)
    turn = contracts.rules().index(kind) % 2
    dtype, digits = ("bfloat16", 8) if turn else ("float16", 11)
    optimizer = make()
    initial, gradients = problem()
    # Small gradients: their squares, or 1 - beta_2, vanish in low precision.
    gradients = [{path: np.abs(g) * 1e-4 for path, g in step.items()} for step in gradients]
    weights = final_weights(optimizer, initial, gradients, dtype=dtype)
    slots = [v for v in optimizer.variables if len(v.shape) > 0]
    assert {v.dtype for v in slots} <= {"float32"}
    expected = final_weights(make(), initial, gradients)
    moved = {path: expected[path] - initial[path] for path in expected}
    actual = {path: weights[path].astype("float32") - initial[path] for path in weights}
    # A weight is rounded at each of 10 steps; steps that are smaller than that are all lost.
    rounding = 10 * 2.0**-digits
    scale = max(np.abs(value).max() for value in initial.values())
    for path in moved:
        assert np.isfinite(actual[path]).all()
        assert np.abs(actual[path] - moved[path]).max() < rounding * scale


@contracts.every_case(contracts.few, once_a_class=True)
def test_state_has_unique_names_and_nothing_else(kind, fields):
    check_names(maker(kind, fields))


def check_names(make):
    """Raises unless the state of an optimizer has the same names again, each once."""
    optimizer = PipelineOptimizer(make())
    initial, _ = problem(steps=1)
    optimizer.build(make_variables(initial))
    named = optimizer.variables_by_path()
    assert {id(v) for v in named.values()} == {id(v) for v in optimizer.variables}
    assert len(optimizer.variables) == len(named)
    # The same names in the same process, after other optimizers: none is counted up.
    again = PipelineOptimizer(make())
    with keras.name_scope("another_scope"):
        again.build(make_variables(initial))
    assert list(again.variables_by_path()) == [
        name.replace("/" + path, "/another_scope/" + path)
        for name in named
        for path in [next((p for p in initial if name.endswith("/" + p)), "?")]
    ]


@contracts.every_kind
def test_the_pipeline_adds_nothing_to_the_inner_optimizer(kind, fields):
    check_pipeline(maker(kind, fields))


def check_pipeline(make):
    """Raises unless an optimizer moves weights as it does within an empty pipeline."""
    initial, gradients = problem(steps=4)
    expected = final_weights(make(), initial, gradients)
    actual = final_weights(PipelineOptimizer(make()), initial, gradients)
    assert relative_error(actual, expected) == 0


ROOT = Path(__file__).parents[2]


def test_a_fresh_process_trains_on_from_what_is_saved(tmp_path):
    """One process for all, since each takes seconds to start.

    With all switches; the defaults of each type are among the goldens, which load as well.
    """
    expected = {}
    for kind in contracts.ONE_OF_EACH_KIND:
        fields = contracts.busiest(kind)
        model = build_model()
        model.compile(PipelineOptimizer(maker(kind, fields)()))
        take_steps(model, model.optimizer, {}, 0)
        name = re.sub(r"\W+", "_", f"{kind} {list(fields)}")
        model.save(tmp_path / f"{name}.keras")
        take_steps(model, model.optimizer, {}, STEPS)
        expected[name] = state(model, model.optimizer)
    run = [sys.executable, "-m", "tests.keras.saved", str(tmp_path)]
    done = subprocess.run(run, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for name, values in expected.items():
        with np.load(tmp_path / f"{name}.npz") as found:
            assert_same(
                {f"{name}: {path}": found[path] for path in found},
                {f"{name}: {path}": value for path, value in values.items()},
            )
