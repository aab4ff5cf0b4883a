"""A stage that the library does not have, in one class: everything else follows from the tuple."""

import inspect
import re
from pathlib import Path

import keras
import numpy as np
import pytest

from optimization.keras import gradients
from optimization.keras.pipeline import STAGES
from optimization.keras.stages.clip import Clip
from optimization.keras.stages.stage import Stage, argument
from optimization.optimizers import PipelineOptimizer
from tests.golden_cases import make_variables
from tests.keras.common import data, tensorflow_only

DOCS = Path(__file__).parents[3] / "docs" / "pipeline.md"


class Damp(Stage):
    """Multiplies gradients, and adds up how far."""

    title, sees, set_by = "damp", "the gradient of an update", "`damping`"
    shows = ("damped",)

    damping: float = argument(1.0, "Factor on every gradient.")

    def __post_init__(self):
        self.require_positive("damping")
        self._total = None

    def build(self, variables):
        self._total = self.pipeline.add_variable((), name="damped")

    def variables_by_path(self):
        return {} if self._total is None else {"damped": self._total}

    @property
    def damped(self):
        """How far gradients were damped so far."""
        return self._total

    def __call__(self, batch, rest):
        self._total.assign_add(1 - self.damping)
        rest(batch.mapped(lambda gradient, variable: gradients.scale(gradient, self.damping)))


@keras.saving.register_keras_serializable(package="optimization_tests")
class Damped(PipelineOptimizer):
    """Takes damped steps.

    Args:
        {arguments}
    """

    stage_types = (*STAGES[: STAGES.index(Clip)], Damp, *STAGES[STAGES.index(Clip) :])


def damped(**arguments):
    return Damped(keras.optimizers.SGD(1.0), **arguments)


@pytest.mark.parametrize("more", [{}, {"gradient_accumulation_steps": 2, "on_nonfinite": "skip"}])
def test_it_takes_its_part_of_a_step(more):
    (variable,) = make_variables({"w": np.float32([8.0, 8.0])})
    optimizer = damped(damping=0.25, clipvalue=1.5, **more)
    for gradient in ([4.0, 8.0], [4.0, 8.0]):
        optimizer.apply([keras.ops.convert_to_tensor(np.float32(gradient))], [variable])
    updates = 1 if more else 2
    # Damped to (1, 2), and only then clipped.
    np.testing.assert_array_equal(variable.numpy(), [8 - updates, 8 - 1.5 * updates])
    assert float(optimizer.damped) == 0.75 * updates


def test_config_text_and_signature_have_its_field():
    optimizer = damped(damping=0.25, ema={})
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is Damped
    assert again.get_config() == optimizer.get_config()
    assert again.damping == optimizer.get_config()["damping"] == 0.25
    assert repr(optimizer).startswith("Damped(SGD(learning_rate=1.0), damping=0.25, ema=")
    assert inspect.signature(Damped).parameters["damping"].default == 1.0
    assert "damping: Factor on every gradient." in Damped.__doc__
    assert "damping" not in inspect.signature(PipelineOptimizer).parameters


def trained(model, optimizer):
    model.compile(optimizer, loss="mse")
    model.fit(*data(), batch_size=32, shuffle=False, verbose=0)
    return model


def small_model():
    return keras.Sequential([keras.layers.Input((4,)), keras.layers.Dense(1)])


def test_its_state_is_saved(tmp_path):
    model = trained(small_model(), damped(damping=0.25))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras").optimizer
    assert float(loaded.damped) == float(model.optimizer.damped) == 0.75 * 2
    assert loaded.variables_by_path()["damped"] is loaded.damped
    assert any(variable is loaded.damped for variable in loaded.variables)


@tensorflow_only
def test_its_state_is_in_checkpoints(tmp_path):
    import tensorflow as tf

    saved = damped(damping=0.25)
    variables = make_variables({"w": np.zeros(2, "float32")})
    saved.apply([tf.ones(2)], variables)
    path = tf.train.Checkpoint(optimizer=saved).write(str(tmp_path / "checkpoint"))
    again = damped(damping=0.25)
    again.build(variables)
    tf.train.Checkpoint(optimizer=again).read(path).assert_consumed()
    assert float(again.damped) == 0.75


def test_its_field_is_checked_and_can_be_set():
    with pytest.raises(ValueError, match="`damping` must be > 0"):
        damped(damping=0.0)
    with pytest.raises(TypeError, match="no argument 'dampin'; did you mean 'damping'?"):
        damped(dampin=0.5)
    optimizer = damped(damping=0.5)
    optimizer.damping = 0.25
    assert optimizer.get_config()["damping"] == 0.25
    with pytest.raises(ValueError, match="`damping` must be > 0"):
        optimizer.damping = -1.0
    assert optimizer.damping == 0.25


def test_a_name_stands_for_one_thing():
    class Again(Damp):
        title = "damp again"

    with pytest.raises(TypeError, match="'damping'"):
        type("Twice", (PipelineOptimizer,), {"stage_types": (Damp, Again)})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("gradient_accumulation_steps", 4),
        ("on_nonfinite", "skip"),
        ("jit_compile", True),
        ("ema", {}),
        ("nonfinite_steps", 1),
    ],
)
def test_what_state_depends_on_is_not_set_later(name, value):
    optimizer = damped()
    with pytest.raises(AttributeError, match=name):
        setattr(optimizer, name, value)
    assert getattr(optimizer, name) != value


def test_a_clip_can_be_set_later():
    (variable,) = make_variables({"w": np.float32([0.0])})
    optimizer = PipelineOptimizer(keras.optimizers.SGD(1.0))
    optimizer.build([variable])
    optimizer.clipvalue = 0.5
    optimizer.apply([keras.ops.ones(1)], [variable])
    np.testing.assert_array_equal(variable.numpy(), [-0.5])
    with pytest.raises(ValueError, match="Only one of"):
        optimizer.clipnorm = 1.0


def test_the_table_of_the_docs_is_the_tuple():
    table = re.search(r"\| \| stage .*\n\|---.*\n((?:\|.*\n)+)", DOCS.read_text())[1]
    rows = [
        re.sub(" +", " ", f"| {number} | {stage.title} | {stage.sees} | {stage.set_by} |")
        for number, stage in enumerate(STAGES, start=1)
    ]
    assert table.splitlines() == rows


def test_the_docstring_has_every_argument():
    parameters = inspect.signature(PipelineOptimizer).parameters
    for name in parameters:
        assert re.search(rf"^\s+{name}: \S", PipelineOptimizer.__doc__, re.MULTILINE), name
    with pytest.raises(TypeError, match="no argument 'clipnrom'; did you mean 'clipnorm'?"):
        PipelineOptimizer(keras.optimizers.SGD(1.0), clipnrom=1.0)


def made(stage):
    """Returns a class of optimizers that has a stage before the clips."""
    before = STAGES.index(Clip)
    types = (*STAGES[:before], stage, *STAGES[before:])
    return type("Mine", (PipelineOptimizer,), {"stage_types": types})


class NoCall(Stage):
    title = "no call"


class WrongCall(Stage):
    title = "wrong call"

    def __call__(self, batch):
        return batch


class Bare(Stage):
    title = "bare"

    damping: float = 1.0

    def __call__(self, batch, rest):
        rest(batch)


class NoDefault(Stage):
    title = "no default"

    damping: float

    def __call__(self, batch, rest):
        rest(batch)


class Taken(Stage):
    title = "taken"

    name: str = argument("mine", "What the optimizer has.")

    def __call__(self, batch, rest):
        rest(batch)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (NoCall, "NoCall has no part in a step: define `__call__.self, batch, rest.`"),
        (WrongCall, r"must take \(self, batch, rest\), it takes \(self, batch\)"),
        (Bare, "the field `damping` of Bare needs a default and a text"),
        (NoDefault, "the field `damping` of NoDefault needs a default and a text"),
        (Taken, "Taken: there is a 'name' of Mine already"),
        (Clip, "Clip: there is a 'clipnorm' of Mine already"),
        (dict, "must hold classes that derive from Stage, got <class 'dict'>"),
        (Damp(), "must hold classes that derive from Stage, got <"),
    ],
)
def test_what_is_no_stage(stage, message):
    with pytest.raises(TypeError, match=message):
        made(stage)


class Returns(Stage):
    title = "returns"

    def __call__(self, batch, rest):
        return batch


class Passes(Stage):
    title = "passes"

    def __call__(self, batch, rest):
        rest(batch.grads)


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        (Returns, r"Returns must call `rest` .* return nothing; it returned Batch\("),
        (Passes, r"Passes must call `rest` with a Batch, received: \["),
    ],
)
def test_a_stage_passes_a_batch_on(stage, message):
    """Otherwise nothing would be trained, without a word."""
    variable = keras.Variable(np.ones(2, "float32"), name="weight")
    optimizer = made(stage)(keras.optimizers.SGD(0.1))
    with pytest.raises(TypeError, match=message):
        optimizer.apply([keras.ops.ones(2)], [variable])
