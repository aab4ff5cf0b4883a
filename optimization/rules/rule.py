"""`Rule`: an optimizer's section that holds its formula, from which every framework trains.

A rule says in one file what an optimizer is: its fields, what it keeps of each variable, and how a
step is computed. The class of Keras, what TensorFlow compiles, the class of PyTorch and the
function of JAX are made of it.
"""

import dataclasses
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, ClassVar

from optimization.configs.base import config_dataclass
from optimization.configs.errors import ConfigError, Problem
from optimization.configs.types import Patterns
from optimization.matching.patterns import matches_any
from optimization.rules.base import OPTIMIZERS_CLS, BaseOptimizerConfig


class Numbers:
    """What a formula calls `h`: numbers by name.

    These are the fields of the rule, the settings of the variable (`Rule.settings`), what the rule
    shares (`Rule.shared`), and

    lr: The learning rate.
    done: The updates before this one, an integer.
    t: The updates, this one included, a float.

    Where a rule asks for them, also

    means: Those of the gradient's squares; see `Rule.averaged_axes`.
    multiplier: That of a group, which is in `lr`; where `Rule.own_learning_rate` makes the rate.
    constant_rate: Whether the rate is a constant; see `Rule.asks_if_constant`.
    """

    lr: Any
    done: Any
    t: Any
    means: Any
    multiplier: Any
    constant_rate: Any

    def __init__(self, **values: Any):
        for name, value in values.items():
            setattr(self, name, value)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"there is no number {name!r}")


def _always(h: Numbers) -> bool:
    del h
    return True


def _are_patterns(annotation: Any) -> bool:
    return annotation == Patterns or any(map(_are_patterns, typing.get_args(annotation)))


def given(number: Any) -> bool:
    """Says whether a number acts: 0 and None do not, one that follows a schedule does."""
    return number is not None and not (isinstance(number, int | float) and number == 0)


@dataclasses.dataclass(frozen=True)
class Slot:
    """What an optimizer keeps of each variable, such as a momentum.

    Attributes:
        name: What the formula calls it, and what the name of Keras' variable ends with.
        plural: Its name in `variables_by_path()`.
        native: Its key in the state of a `torch.optim.Optimizer`; "" for none there.
        start: The number that it starts from, or the name of the field that says it.
        when: Says of a variable's numbers whether there is such a slot.
        shape: Returns its shape from that of the variable and its numbers; None: the same.
        dtype: None: that of the variable, float32 at least.
        negative: Whether Keras keeps it with the other sign.
        of_weight: Whether it starts as a copy of the variable, at its first gradient; natively.
    """

    name: str
    plural: str
    native: str
    start: float | str = 0.0
    when: Callable[[Numbers], bool] = _always
    shape: Callable[[Sequence[int], Numbers], Sequence[int]] | None = None
    dtype: str | None = None
    negative: bool = False
    of_weight: bool = False

    def first(self, h: Numbers) -> float:
        """Returns the number that it starts from."""
        return getattr(h, self.start) if isinstance(self.start, str) else self.start


Slots = tuple[tuple[Slot, ...], ...]
"""Slots in the order in which they are made; see `Rule.slots`."""


@config_dataclass
class Rule(BaseOptimizerConfig):
    """An optimizer: its fields, what it keeps, and its formula.

    A subclass is a section (see `BaseOptimizerConfig`) that is registered by its name. It has the
    method `step`; or, where norms or means scale the step, `is_layerwise` and the methods `move`,
    `direction` and `finish`, and says by `norms_of` and `averaged_axes` what these need.

    Formulas get the gradient g, the weight w, the state s, the numbers h and the functions xp.
    Arrays are NumPy's, JAX's or TensorFlow's, or lists of PyTorch's tensors: a formula computes
    with operators and with functions of xp alone, and has no `if` on what an array holds. The state
    is read and set as attributes, `s.momentum`, or moved in place by `s.lerp`, `s.lerp_square` and
    `s.scale_add`. A value that is used twice passes through `xp.keep`: PyTorch reuses the memory
    of others.

    Attributes:
        class_name: The name of the classes that are made of the rule.
        native_name: That of PyTorch's class, where it is another one; "" for none of its own.
        usual_rate: The learning rate of these classes, where none is given.
        slots: What is kept of each variable, in the order in which it is made: those of a tuple
            variable by variable, one tuple after the other. Two of one name are for different
            variables.
        native_slots: Those of PyTorch's class, where they are others.
        shared: What is kept once, scalars: `prepare` moves them.
        elementwise: Whether a step of each entry depends on that entry alone.
        is_layerwise: Whether `step` is means, `move`, `direction`, norms and `finish`.
        is_wide: Whether directions may be so long or short that their squares are infinite or 0.
        asks_if_constant: Whether the formula asks if the learning rate is a constant.
        argument_order: The arguments in their order, where that is not the fields'.
        section_only: Fields that are the section's alone, no arguments of the classes.
        decay_arguments: The fields that decay weights.
        variable_settings: What variables may have of their own, with what is usual.
        own_rates: The arguments of Keras' class that are rates, by the `kind` of the variables that
            they are for.
        finds_matrices: Whether the hidden matrices of a model are updated in another way.
        settings_fields: The fields that `all_settings` alone reads, and PyTorch's class has not.
        curve_fields: The fields that `curves` alone reads.
        native_usual: The fields, and `lr`, of which PyTorch's class has another default, as torch's
            own class has.
        native_arguments: What PyTorch's class calls a field; those in `NATIVE` need no mention.
    """

    class_name: ClassVar[str] = ""
    native_name: ClassVar[str | None] = None
    usual_rate: ClassVar[float] = 0.001
    slots: ClassVar[Slots] = ()
    native_slots: ClassVar[Slots | None] = None
    shared: ClassVar[tuple[Slot, ...]] = ()
    elementwise: ClassVar[bool] = False
    is_layerwise: ClassVar[bool] = False
    is_wide: ClassVar[bool] = False
    asks_if_constant: ClassVar[bool] = False
    argument_order: ClassVar[tuple[str, ...]] = ()
    section_only: ClassVar[tuple[str, ...]] = ()
    decay_arguments: ClassVar[tuple[str, ...]] = ("weight_decay",)
    variable_settings: ClassVar[Mapping[str, Any]] = {}
    own_rates: ClassVar[Mapping[str, str]] = {}
    finds_matrices: ClassVar[bool] = False
    settings_fields: ClassVar[tuple[str, ...]] = ()
    curve_fields: ClassVar[tuple[str, ...]] = ()
    native_usual: ClassVar[Mapping[str, Any]] = {}
    native_arguments: ClassVar[Mapping[str, str]] = {}

    @classmethod
    def origin(cls) -> "type[Rule]":
        """Returns the rule that names the classes: it, or the one that it is derived from."""
        return next(base for base in cls.__mro__ if "class_name" in vars(base))

    @classmethod
    def argument_names(cls) -> list[str]:
        """Returns the fields that are arguments of the classes."""
        others = (*cls.pipeline_fields(), *cls.section_only, "name")
        return [name for name in cls.field_names() if name not in others]

    def impossible(self) -> Iterator[tuple[str, str]]:
        """Yields contradictions that the classes refuse; a section may refuse more."""
        yield from self.check()

    @classmethod
    def problems_of(cls, fields: Mapping[str, Any]) -> Sequence[Problem]:
        """Returns what is wrong with arguments of the classes, by name."""
        try:
            made = cls(fields)
        except ConfigError as error:
            return error.problems
        return [made._problem("conflict", *each) for each in made.impossible()]

    @classmethod
    def pattern_fields(cls) -> list[str]:
        """Returns the arguments that are regular expressions for the paths of weights."""
        names = cls.argument_names()
        return [name for name in names if _are_patterns(cls._spec_of(name).annotation)]

    def patterns(self) -> dict[str, Sequence[str] | None]:
        """Returns the lists of regular expressions of which one must match, by their fields."""
        return {name: getattr(self, name) for name in self.pattern_fields()}

    def decays(self, path: str) -> bool:
        """Says whether the weight of a path decays, if any does."""
        return not matches_any(path, getattr(self, "exclude_from_weight_decay", None))

    def decay_before(self, h: Numbers) -> Any:
        """Returns the rate at which weights decay before the step, times the learning rate."""
        return h.weight_decay

    def settings(self, path: str, shape: Sequence[int]) -> dict[str, Any]:
        """Returns what a variable has of its own, of `variable_settings`."""
        del path, shape
        return {}

    def all_settings(
        self, paths: Sequence[str], shapes: Mapping[str, Sequence[int]]
    ) -> list[dict[str, Any]]:
        """Returns what each of some variables has of its own.

        Args:
            paths: Their paths.
            shapes: The shapes of all variables of the model, by path.
        """
        return [self.settings(path, shapes[path]) for path in paths]

    def shape_settings(self, shape: Sequence[int], group: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a parameter of PyTorch's has of its own, beside what its group has.

        Args:
            shape: Its shape.
            group: Its group, with `variable_settings`.
        """
        del shape, group
        return {}

    def moves_by_gradient_alone(self, h: Numbers) -> bool:
        """Says of a variable's numbers whether its step is linear in the gradient, and all of it.

        Rows that a sparse gradient has not looked up are not read then.
        """
        del h
        return False

    def is_elementwise(self, h: Numbers) -> bool:
        """Says of a variable's numbers whether its entries are updated each by itself."""
        del h
        return self.elementwise

    def decay_rates(self, h: Numbers) -> list[Any]:
        """Returns the rates at which a variable decays."""
        return [getattr(h, name) for name in self.decay_arguments]

    def curves(self) -> dict[str, Callable[[Any, Any], Any]]:
        """Returns the numbers that change by themselves, as functions of `done` and xp."""
        return {}

    def native_equivalent(self, changing: Set[str]) -> tuple[str, dict[str, Any]] | None:
        """Returns torch's own class that has the same algorithm, and its arguments.

        Args:
            changing: The numbers that follow a schedule, or that groups replace.

        Returns:
            The name of a class of `torch.optim`, and arguments but the learning rate; None for
            none.
        """
        del changing
        return None

    def to_evaluate(self, y: Any, s: Any, h: Numbers) -> Any:
        """Returns the weight to evaluate, given the one that trains; of a `schedule_free` rule."""
        raise NotImplementedError

    def to_train(self, x: Any, s: Any, h: Numbers) -> Any:
        """Returns the weight that trains, given the one to evaluate; of a `schedule_free` rule."""
        raise NotImplementedError

    def prepare(self, c: Any, h: Numbers, xp: Any) -> None:
        """Moves what is shared, once in an update."""

    def step(self, g: Any, w: Any, s: Any, h: Numbers, xp: Any) -> Any:
        """Returns what is subtracted from a weight, and moves its state."""
        if not self.is_layerwise:
            raise NotImplementedError
        axes = self.averaged_axes(h)
        if axes:
            h = Numbers(**{**vars(h), "means": _means_of_squares(g, axes, xp)})
        self.move(g, w, s, h, xp)
        u = self.direction(g, w, s, h, xp)  # not to be kept: norms leave it as it is
        names, norms = self.norms_of(h), {}
        if "w" in names:
            norms["w"] = xp.norm(w)
        if "u" in names:
            norms["u"] = xp.norm(u, self.is_wide)
        return self.finish(u, w, s, Numbers(**norms), h, xp)

    # In parts, where norms and means are between them

    def averaged_axes(self, h: Numbers) -> Sequence[int]:
        """Returns the axes of which `move` gets the means of the gradient's squares."""
        del h
        return ()

    def norms_of(self, h: Numbers) -> Sequence[str]:
        """Returns of what `finish` gets the norm: "w", the weight, "u", the direction, or both."""
        return ("w", "u") if h.adapt else ()

    def move(self, g: Any, w: Any, s: Any, h: Numbers, xp: Any) -> None:
        """Moves the state, before norms are taken; `h.means` are those of `averaged_axes`."""

    def direction(self, g: Any, w: Any, s: Any, h: Numbers, xp: Any) -> Any:
        """Returns the direction whose norm counts, of the state as it is."""
        raise NotImplementedError

    def finish(self, u: Any, w: Any, s: Any, norms: Any, h: Numbers, xp: Any) -> Any:
        """Returns what is subtracted from a weight.

        Args:
            u: What `direction` returned.
            w: The weight.
            s: Its state.
            norms: Those that `norms_of` asks for, as attributes.
            h: The numbers.
            xp: The functions.
        """
        raise NotImplementedError


def _means_of_squares(g: Any, axes: Sequence[int], xp: Any) -> list[Any]:
    squares = xp.keep(xp.square(g))
    return [xp.mean(squares, axis) for axis in axes]


NATIVE = {
    "beta_1": "betas.0",
    "beta_2": "betas.1",
    "epsilon": "eps",
    "weight_decay_rate": "weight_decay",
}
"""What PyTorch's classes call fields; "betas.0" is the first of a pair."""


def native_name(rule: type[Rule]) -> str:
    """Returns the name of PyTorch's class of a rule; "" for none."""
    return rule.class_name if rule.native_name is None else rule.native_name


def native_argument(rule: type[Rule], name: str) -> str:
    """Returns what PyTorch's class of a rule calls a field."""
    return rule.native_arguments.get(name, NATIVE.get(name, name))


def origins() -> list[type[Rule]]:
    """Returns the rules that name classes, of all optimizers that are registered now."""
    classes = (entry.config_class for _, entry in OPTIMIZERS_CLS.entries())
    return list(dict.fromkeys(cls.origin() for cls in classes if issubclass(cls, Rule)))
