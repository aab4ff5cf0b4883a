"""What a rule may not be: it is told where it is registered, or where its formula first runs."""

from typing import Any, ClassVar

import keras
import numpy as np
import pytest

from optimization.configs.base import config_dataclass
from optimization.configs.types import Share
from optimization.keras.rule_optimizer import keras_class
from optimization.rules.adam import AdamConfig
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.layerwise import LayerwiseRule
from optimization.rules.rule import Numbers, Rule, Slot

MOMENTUM = Slot("momentum", "momentums", "exp_avg")


@pytest.fixture(autouse=True)
def registry(monkeypatch):
    monkeypatch.setattr(OPTIMIZERS_CLS, "_entries", dict(OPTIMIZERS_CLS._entries))
    monkeypatch.setattr(OPTIMIZERS_CLS, "_subscribers", [])  # Keras is told of none


def signed(self, g, w, s, h, xp):
    return h.lr * xp.sign(s.lerp("momentum", g, 1 - h.momentum))


def rule(base: type = Rule, **members: Any) -> type:
    """Returns a rule of one slot and one field; a member that is None is left out."""
    usual = {
        "__annotations__": {"momentum": Share},
        "class_name": "Toy",
        "slots": (MOMENTUM,),
        "momentum": 0.9,
        "step": signed,
    }
    kept = {name: value for name, value in {**usual, **members}.items() if value is not None}
    return config_dataclass(type(base)("ToyConfig", (base,), kept))


def derived(**members: Any) -> type:
    return config_dataclass(type(AdamConfig)("MyAdamConfig", (AdamConfig,), members))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"class_name": None}, "it needs a `class_name`"),
        ({"class_name": "Adam"}, "its `class_name` 'Adam' is that of the type 'adam'"),
        ({"step": None}, "it has no formula: define `step`"),
        ({"step": lambda self, g: g}, r"`step` must take \(self, g, w, s, h, xp\), it takes"),
        ({"slots": MOMENTUM}, "`slots` must be a tuple of `Slot`, got Slot"),
        ({"slots": ("momentum",)}, "`slots` must be a tuple of `Slot`, got"),
        ({"slots": (MOMENTUM, MOMENTUM)}, "`slots` has the slot 'momentum' twice"),
        (
            {"slots": (MOMENTUM,), "summed": ("momentun",)},
            "`summed` has 'momentun', no slot; did you mean 'momentum'",
        ),
        (
            {"shared": (Slot("size", "sizes", "d"),), "estimate": "sizes"},
            "`estimate` is 'sizes', no slot of `shared`; did you mean 'size'",
        ),
        (
            {"slots": (Slot("momentum", "momentums", "exp_avg", start="momentun"),)},
            "starts from 'momentun', no field; did you mean 'momentum'",
        ),
        (
            {"__annotations__": {"arguments": float}, "arguments": 1.0},
            "its field `arguments` has the name of a method of Rule",
        ),
        ({"base": LayerwiseRule, "step": None}, "it has no formula: define `direction`"),
        (
            {"base": LayerwiseRule, "direction": signed, "finish": signed},
            "it cannot have a `step`: LayerwiseRule makes it of parts",
        ),
        ({"__annotations__": {"t": float}, "t": 0.5}, "it cannot have a field `t`"),
        (
            {"base": AdamConfig, "__annotations__": {}, "beta_1": 0.5},
            "`beta_1` is a field and needs its type",
        ),
        ({"native_name": "LAMB"}, "its `native_name` 'LAMB' is that of the type 'lamb'"),
    ],
)
def test_what_cannot_be_registered(wrong, message):
    with pytest.raises(TypeError, match=f"the optimizer 'toy' cannot be registered: .*{message}"):
        OPTIMIZERS_CLS.register("toy")(rule(**wrong))
    assert "toy" not in OPTIMIZERS_CLS


def test_what_is_registered_is_a_dataclass():
    members = {"__annotations__": {"momentum": Share}, "class_name": "Toy", "step": signed}
    bare = type(Rule)("ToyConfig", (Rule,), {**members, "momentum": 0.5})
    assert OPTIMIZERS_CLS.register("toy")(bare) is bare
    assert "momentum" in bare.argument_names()
    assert config_dataclass(bare)().momentum == 0.5


@pytest.mark.parametrize(
    "change", [{"step": signed}, {"__annotations__": {"extra": float}, "extra": 1.0}]
)
def test_another_formula_needs_another_class(change):
    """Otherwise the classes would be those of Adam, and the change would do nothing."""
    changed = next(iter(change.get("__annotations__", change)))
    message = f"it changes `{changed}` of AdamConfig, and needs a `class_name` of its own"
    with pytest.raises(TypeError, match=message):
        OPTIMIZERS_CLS.register("my_adam")(derived(**change))
    OPTIMIZERS_CLS.register("my_adam")(derived(class_name="MyAdam", **change))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"shape": "rows"}, "`shape` of the slot 'rows' must be a function of the variable's"),
        ({"when": True}, "`when` of the slot 'rows' must be a function of numbers, got true"),
        ({"dtype": "flot32"}, "got 'flot32' .text.; did you mean 'float32'"),
    ],
)
def test_what_is_no_slot(wrong, message):
    with pytest.raises(TypeError, match=message):
        Slot("rows", "rows", "row", **wrong)


@pytest.mark.parametrize("shape", [None, 3, ("three",), (2.5,)])
def test_a_slot_needs_lengths_as_its_shape(shape):
    slot = Slot("rows", "rows", "row", shape=lambda of, h: shape)
    with pytest.raises(TypeError, match=r"a list of integers for a variable of the shape \(2, 3\)"):
        slot.shape_of((2, 3), Numbers())


def test_a_slot_has_the_shape_that_it_says():
    assert MOMENTUM.shape_of((2, 3), Numbers()) is None
    rows = Slot("rows", "rows", "row", shape=lambda of, h: of[:-1])
    assert rows.shape_of((2, 3), Numbers()) == (2,)


@pytest.mark.parametrize(
    ("shape", "axes"),
    [
        (None, (0, 1)),
        (lambda of, h: of[1:], (1,)),
        (lambda of, h: (), ()),
        (lambda of, h: (1, *of), None),
        (lambda of, h: (of[0] * of[1],), None),
    ],
)
def test_the_axes_that_a_slot_keeps(shape, axes):
    assert Slot("rows", "rows", "row", shape=shape).axes_of((3, 3), Numbers()) == axes


def updates(step: Any, shape: tuple[int, ...], graph: bool) -> None:
    """Takes a step with a rule of this formula."""
    optimizer = keras_class(rule(class_name="ToyOfAFormula", step=step))(0.1)
    weight = keras.Variable(np.ones(shape, "float32"), name="weight")
    optimizer.build([weight])

    def update():
        optimizer.apply([keras.ops.ones(shape)], [weight])

    if graph:
        import tensorflow as tf

        update = tf.function(update)
    update()


# Compiled or not, the message is the same.
backend = keras.backend.backend()
GRAPHS = [False, True] if backend == "tensorflow" else [False]


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(
    ("step", "got"),
    [
        (lambda self, g, w, s, h, xp: None, "None"),
        (lambda self, g, w, s, h, xp: (h.lr * g, 1), "tuple"),
        (lambda self, g, w, s, h, xp: xp.mean(h.lr * g, 0), r"the shape \(4,\)"),
    ],
)
def test_a_formula_must_return_the_step(step, got, graph):
    message = r"formula of ToyConfig must return what .* an array of its shape \(3, 4\); got "
    with pytest.raises(TypeError, match=f"(?s){message}.*{got}"):
        updates(step, (3, 4), graph)


@pytest.mark.parametrize("graph", GRAPHS)
@pytest.mark.parametrize(
    ("step", "message"),
    [
        (
            lambda self, g, w, s, h, xp: h.momentmu * g,
            "no number 'momentmu'; did you mean 'momentum'",
        ),
        (lambda self, g, w, s, h, xp: s.momentun, "no slot 'momentun'; did you mean 'momentum'"),
        (
            lambda self, g, w, s, h, xp: setattr(s, "velocity", g),
            "no slot 'velocity'; there are momentum",
        ),
        (lambda self, g, w, s, h, xp: xp.sgn(g), "no function 'sgn'; did you mean 'sign'"),
    ],
)
def test_a_wrong_name_in_a_formula_says_the_nearest(step, message, graph):
    with pytest.raises(AttributeError, match=message):
        updates(step, (3, 4), graph)


def test_all_that_is_registered_may_be():
    for _, entry in OPTIMIZERS_CLS.entries():
        assert list(entry.config_class.misdeclared()) == []


def test_what_is_declared_of_a_step_is_not_declared_of_another():
    class Signs(AdamConfig):
        class_name: ClassVar[str] = "Signs"
        step = signed

    class Declared(Signs):
        elementwise: ClassVar[bool] = True
        torch_class: ClassVar[str] = "SGD"

    corrected = {"epsilon_placement": "corrected"}
    for each, elementwise, equivalent in (
        (AdamConfig, True, "AdamW"),
        (Signs, False, ""),
        (Declared, True, "SGD"),
    ):
        made = config_dataclass(each)(corrected)
        assert made.is_elementwise(Numbers()) is elementwise
        assert made.native_equivalent(set()) == equivalent
