"""A mistake in a formula is told in words, as on the other side."""

import pytest

from optimization.configs.base import config_dataclass
from optimization.configs.types import Share
from optimization.rules.arrays import function_names
from optimization.rules.rule import Rule, Slot
from tests.torch.common import torch

from optimization.torch.derived import native_class  # isort: skip
from optimization.torch.functions import Lists  # isort: skip


def optimizer(step, **members):
    members = {
        "__annotations__": {"momentum": Share},
        "class_name": "Toy",
        "slots": (Slot("momentum", "momentums", "exp_avg"),),
        "momentum": 0.9,
        "step": step,
        **members,
    }
    rule = config_dataclass(type(Rule)("ToyConfig", (Rule,), members))
    parameter = torch.nn.Parameter(torch.ones(3, 4))
    parameter.grad = torch.ones_like(parameter)
    return native_class(rule)([parameter], lr=0.1)


@pytest.mark.parametrize(
    ("step", "got"),
    [
        (lambda self, g, w, s, h, xp: None, "None .NoneType."),
        (lambda self, g, w, s, h, xp: h.lr, "0.1 .float."),
        (lambda self, g, w, s, h, xp: xp.mean(h.lr * g, 0), r"the shape \(4,\)"),
        (lambda self, g, w, s, h, xp: h.lr * xp.mean(g, 0) / xp.mean(g, 0), r"the shape \(4,\)"),
    ],
)
def test_a_formula_must_return_the_step(step, got):
    message = rf"formula of ToyConfig must return what .* an array of its shape \(3, 4\); got {got}"
    with pytest.raises(TypeError, match=message):
        optimizer(step).step()


def test_a_quotient_has_the_shape_of_its_parts_together():
    def step(self, g, w, s, h, xp):
        g = xp.keep(g)
        return xp.expand_dims(xp.mean(g, 1), 1) / g

    optimizer(step).step()


@pytest.mark.parametrize(
    ("step", "error", "message"),
    [
        (
            lambda self, g, w, s, h, xp: h.momentmu * g,
            AttributeError,
            "no number 'momentmu'; did you mean 'momentum'",
        ),
        (
            lambda self, g, w, s, h, xp: s.momentun,
            AttributeError,
            "no slot 'momentun'; did you mean 'momentum'",
        ),
        (
            lambda self, g, w, s, h, xp: xp.sgn(g),
            AttributeError,
            "no function 'sgn'; did you mean 'sign'",
        ),
        (lambda self, g, w, s, h, xp: g if g > 0 else -g, TypeError, "no `if` on what arrays hold"),
    ],
)
def test_a_wrong_name_in_a_formula_says_the_nearest(step, error, message):
    with pytest.raises(error, match=message):
        optimizer(step).step()


def test_a_slot_needs_lengths_as_its_shape():
    slots = (Slot("momentum", "momentums", "exp_avg", shape=lambda of, h: None),)
    with pytest.raises(TypeError, match="must return a list of integers for a variable of the"):
        optimizer(lambda self, g, w, s, h, xp: g, slots=slots).step()


def test_lists_have_the_functions_of_arrays():
    inherited = {"one_minus_power", "sum_along"}
    own = {name for name in vars(Lists) if not name.startswith("_")}
    assert own | inherited == {*function_names()}
