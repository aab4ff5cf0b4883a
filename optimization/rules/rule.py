"""`Rule`: an optimizer's section that holds its formula, from which every framework trains.

A rule says in one file what an optimizer is: its fields, what it keeps of each variable, and how a
step is computed. The class of Keras, what TensorFlow compiles, the class of PyTorch and the
function of JAX are made of it.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from typing import Any, ClassVar

from optimization.configs.errors import (
    ConfigError,
    Problem,
    describe,
    did_you_mean,
    wrong_signature,
)
from optimization.configs.types import Patterns
from optimization.matching.patterns import matches_any
from optimization.rules.base import OPTIMIZERS_CLS, takes
from optimization.rules.modifiers import MODIFIERS, ModifierFields
from optimization.rules.numbers import Numbers, given
from optimization.rules.slot import MODIFIER_SLOTS as MODIFIER_SLOTS
from optimization.rules.slot import Slot as Slot


class Rule(ModifierFields):
    """An optimizer: its fields, what it keeps, and its formula.

    A subclass is a section (see `BaseOptimizerConfig`) that is registered by its name, and has the
    method `step`, which `modifiers` may change. Where norms or means scale the step it is a
    `LayerwiseRule`.

    Formulas get the gradient g, the weight w, the state s, the numbers h and the functions xp.
    Arrays are NumPy's, JAX's or TensorFlow's, or lists of PyTorch's tensors: a formula computes
    with operators and with functions of xp alone, and has no `if` on what an array holds. The state
    is read and set as attributes, `s.momentum`, or moved in place by `s.lerp`, `s.lerp_square` and
    `s.scale_add`. A value that is used twice, or that was read of a slot before this moves, passes
    through `xp.keep`: PyTorch reuses the memory of others.
    """

    class_name: ClassVar[str] = ""  # the name of the classes that are made of the rule
    native_name: ClassVar[str | None] = None  # of PyTorch's, where another; "" for none of its own
    usual_rate: ClassVar[float] = 0.001  # of these classes, where none is given
    slots: ClassVar[tuple[Slot, ...]] = ()  # two of one name are for different variables
    # What is kept once, scalars: `prepare` moves them, or `conclude`.
    shared: ClassVar[tuple[Slot, ...]] = ()
    summed: ClassVar[tuple[str, ...]] = ()  # slots, of one number, of which `conclude` has the sum
    estimate: ClassVar[str] = ""  # what of `shared` is the step size as the rule estimates it
    elementwise: ClassVar[bool] = False  # whether a step of each entry depends on that entry alone
    # Slots that move after the step: it is of their values before, which XLA would copy.
    moves_last: ClassVar[tuple[str, ...]] = ()
    branches: ClassVar[bool] = False  # whether the formula has `xp.when`
    formula_parts: ClassVar[tuple[str, ...]] = ("step",)  # the methods that are the formula
    goes_by_model: ClassVar[bool] = False  # whether `all_settings` needs all variables, in order
    argument_order: ClassVar[tuple[str, ...]] = ()  # of the first, where it is not the fields'
    later_arguments: ClassVar[tuple[str, ...]] = ()  # come after those that a class had before
    latest_arguments: ClassVar[tuple[str, ...]] = ()  # come after modifiers, which classes had too
    section_only: ClassVar[tuple[str, ...]] = ()  # fields that are no arguments of the classes
    # What variables may have of their own, with what is usual.
    variable_settings: ClassVar[Mapping[str, Any]] = {}
    # The arguments of Keras' class that are rates, by the `kind` of the variables they are for.
    own_rates: ClassVar[Mapping[str, str]] = {}
    # The fields, and `lr`, of which PyTorch's class has another default, as torch's own class has.
    native_usual: ClassVar[Mapping[str, Any]] = {}
    # What PyTorch's class calls a field; those in `NATIVE` need no mention.
    native_arguments: ClassVar[Mapping[str, str]] = {}
    not_native: ClassVar[tuple[str, ...]] = ()  # fields that PyTorch's class has not; no patterns
    torch_class: ClassVar[str] = ""  # the class of `torch.optim` that has a fused kernel of it
    torch_lacks: ClassVar[tuple[str, ...]] = ()  # fields that it has not so: they may not act
    torch_note: ClassVar[str] = ""  # for the docs: when it is that
    torch_kernel: ClassVar[str] = ""  # "adamw": torch's fused kernel of it has the step
    native_note: ClassVar[str] = ""  # for the docs: what is particular of this library's class

    @classmethod
    def origin(cls) -> "type[Rule]":
        """Returns the rule that names the classes: it, or the one that it is derived from."""
        return next(base for base in cls.__mro__ if "class_name" in vars(base))

    @classmethod
    def misdeclared(cls) -> Iterator[str]:
        yield from super().misdeclared()
        origin, changed = cls.origin(), cls._differing()
        if not origin.class_name.isidentifier():
            yield "it needs a `class_name`, the name of the classes that are made of it"
        elif changed:
            of = f"`{changed[0]}` of {origin.__name__}"
            yield f"it changes {of}, and needs a `class_name` of its own"
        native = native_name(origin)
        for name, entry in OPTIMIZERS_CLS.entries():
            other: Any = entry.config_class
            if other is origin or "class_name" not in vars(other):
                continue
            if other.class_name == origin.class_name:
                yield f"its `class_name` {origin.class_name!r} is that of the type {name!r}"
            elif native and native == native_name(other):
                yield f"its `native_name` {native!r} is that of the type {name!r}"
        taken = sorted(_RESERVED & cls.__dataclass_fields__.keys() - {*cls.section_only})
        if taken:
            yield f"it cannot have a field `{taken[0]}`: classes and formulas have another of it"
        yield from cls._wrong_formula()
        yield from cls._wrong_slots()

    @classmethod
    def _differing(cls) -> list[str]:
        """Returns what differs from the rule of which the classes are made."""
        origin = cls.origin()
        if origin is cls:
            return []
        changed = sorted(set(cls.argument_names()) - set(origin.argument_names()))
        spared = {*(field.name for field in dataclasses.fields(cls)), "check", "impossible"}
        for each in cls.__mro__[: cls.__mro__.index(origin)]:
            own = {n for n in vars(each) if not n.startswith("_")} - spared
            changed += sorted(n for n in own if hasattr(Rule, n))
        return changed

    @classmethod
    def _wrong_formula(cls) -> Iterator[str]:
        base = next(base for base in cls.__mro__ if "formula_parts" in vars(base))
        if "step" not in cls.formula_parts and cls.step is not getattr(base, "step", None):
            yield f"it cannot have a `step`: {base.__name__} makes it of parts"
        for name in cls.formula_parts:
            written = getattr(cls, name)
            if written is getattr(base, name):
                yield f"it has no formula: define `{name}`"
            elif wrong := wrong_signature(f"`{name}`", written, FORMULAS[name]):
                yield wrong

    @classmethod
    def _wrong_slots(cls) -> Iterator[str]:
        for attribute in ("slots", "shared"):
            slots = getattr(cls, attribute)
            if not isinstance(slots, tuple) or not all(isinstance(s, Slot) for s in slots):
                yield f"`{attribute}` must be a tuple of `Slot`, got {describe(slots)}"
                continue
            names = [slot.name for slot in slots if slots.count(slot) > 1]
            taken = {slot.name for slot in slots} & {slot.name for slot in MODIFIER_SLOTS}
            if taken:
                yield f"it cannot have a slot {min(taken)!r}: a modifier has one of that name"
            if names:
                yield f"`{attribute}` has the slot {names[0]!r} twice"
            for slot in slots:
                if isinstance(slot.start, str) and slot.start not in cls.__dataclass_fields__:
                    near = did_you_mean(slot.start, cls.__dataclass_fields__)
                    yield f"the slot {slot.name!r} starts from {slot.start!r}, no field{near}"
        known = [slot.name for slot in cls.slots]
        for name in (name for name in cls.summed if name not in known):
            yield f"`summed` has {name!r}, no slot{did_you_mean(name, known)}"
        known = [slot.name for slot in cls.shared]
        if cls.estimate and cls.estimate not in known:
            near = did_you_mean(cls.estimate, known)
            yield f"`estimate` is {cls.estimate!r}, no slot of `shared`{near}"

    @classmethod
    def all_slots(cls) -> tuple[Slot, ...]:
        """Returns the slots that it may have, and those of modifiers."""
        return (*cls.slots, *MODIFIER_SLOTS)

    def kept_slots(self) -> list[Slot]:
        """Returns the slots that variables may have with these fields, and modifiers' of them."""
        h = Numbers(**{name: getattr(self, name) for name in self.argument_names()})

        def may_be(slot: Slot) -> bool:
            try:
                return slot.when(h)
            except AttributeError:  # it goes by the variable
                return True

        return [slot for slot in self.all_slots() if may_be(slot)]

    @classmethod
    def formula(cls) -> Any:
        """Returns the class that has the formula; None where none has."""
        bases = (base for base in cls.__mro__ if "formula_parts" not in vars(base))
        return next((base for base in bases if _STEPS & vars(base).keys()), None)

    @classmethod
    def declared(cls, name: str) -> Any:
        """Returns what a class declares of its step; nothing that a base declares of another."""
        declaring = next(base for base in cls.__mro__ if name in vars(base))
        formula = cls.formula() or declaring
        return getattr(declaring if issubclass(declaring, formula) else Rule, name)

    @classmethod
    def argument_names(cls) -> list[str]:
        """Returns the fields that are arguments of the classes."""
        others = {*cls.pipeline_fields(), *cls.section_only, "name"}
        return [f.name for f in dataclasses.fields(cls) if f.name not in others]

    def arguments(self) -> dict[str, Any]:
        return {k: v for k, v in super().arguments().items() if k not in self.section_only}

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
        return [name for name in names if takes(cls._spec_of(name).annotation, Patterns)]

    def patterns(self) -> dict[str, Sequence[str] | None]:
        """Returns the expressions of which one must match, by field; the usual ones need not."""
        usual = type(self)()
        names = self.pattern_fields()
        return {n: getattr(self, n) for n in names if getattr(self, n) != getattr(usual, n)}

    def decays(self, path: str) -> bool:
        """Says whether the weight of a path decays, if any does: by the lists that are fields."""
        include = getattr(self, "include_in_weight_decay", None)
        exclude = getattr(self, "exclude_from_weight_decay", None)
        spared = matches_any(path, exclude) if exclude else bool(include)
        return matches_any(path, include) or not spared

    def decay_before(self, h: Numbers) -> Any:
        """Returns the rate at which weights decay before the step, times the learning rate."""
        return h.weight_decay

    def settings(self, path: str, shape: Sequence[int]) -> dict[str, Any]:
        """Returns what a variable has of its own, of `variable_settings`."""
        return {}

    def all_settings(
        self, paths: Sequence[str], shapes: Mapping[str, Sequence[int]]
    ) -> list[dict[str, Any]]:
        """Returns what each of `paths` has of its own, given the shapes of the whole model.

        A rule of which this is more than `settings` of each declares it, by `goes_by_model`.
        """
        return [self.settings(path, shapes[path]) for path in paths]

    def shape_settings(self, shape: Sequence[int], group: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what a parameter of PyTorch's has of its own, beside what its group has."""
        return {}

    @classmethod
    def knows_shapes(cls) -> bool:
        """Says whether `shape_settings` returns anything."""
        return cls.shape_settings is not Rule.shape_settings

    def moves_by_gradient_alone(self, h: Numbers) -> bool:
        """Says whether a step is linear in the gradient: rows that were not looked up stay then."""
        return False

    def is_elementwise(self, h: Numbers) -> bool:
        """Says of a variable's numbers whether `step` computes each of its entries by itself."""
        return self.declared("elementwise")

    def compiles(self, h: Numbers) -> bool:
        """Says of a variable's numbers whether XLA compiles its update on TensorFlow in time."""
        return True

    def updates_by_entry(self, h: Numbers) -> bool:
        """Says of a variable's numbers whether its entries are updated each by itself."""
        return self.is_elementwise(h) and not self.mixes_entries(h)

    def decay_rates(self, h: Numbers) -> list[Any]:
        """Returns the rates at which a variable decays."""
        return [getattr(h, name) for name in self.decay_arguments]

    def curves(self) -> dict[str, Callable[[Any, Any], Any]]:
        """Returns the numbers that change by themselves, as functions of `done` and xp."""
        return {}

    def drawn_curves(self) -> dict[str, Callable[[Any, Any], Any]]:
        """Returns those of `own_schedules`: `curves`, or what the formula computes by itself."""
        return self.curves()

    def is_torchs(self, changing: Set[str]) -> bool:
        """Says whether the fields have `torch_class` in the form that torch has."""
        return True

    def native_equivalent(self, changing: Set[str]) -> str:
        """Returns the class of `torch.optim` that is the same while these numbers change."""
        modified = any(given(getattr(self, name)) or name in changing for name in MODIFIERS)
        lacks = modified or any(getattr(self, n) or n in changing for n in self.torch_lacks)
        return "" if lacks or not self.is_torchs(changing) else self.declared("torch_class")

    def kernel_arguments(self, h: Numbers, xp: Any) -> dict[str, Any] | None:
        """Returns with which numbers `torch_kernel` is the step; None where it is not.

        "step" is the count of updates of which the kernel corrects the bias, infinite for none.
        """
        return None

    def prepare(self, c: Any, h: Numbers, xp: Any) -> None:
        """Moves what is shared, once in an update."""

    def conclude(self, c: Any, h: Numbers, xp: Any) -> None:
        """Moves what is shared, after all variables; h has fields, and the sums of `summed`."""

    def step(self, g: Any, w: Any, s: Any, h: Numbers, xp: Any) -> Any:
        """Returns what is subtracted from a weight, and moves its state."""
        raise NotImplementedError(f"{type(self).__name__} has no formula: define `step`")


FORMULAS = {
    "step": "self, g, w, s, h, xp",
    "direction": "self, g, w, s, h, xp",
    "finish": "self, u, w, s, norms, h, xp",
}


# What a formula is made of, and what it finds in `h` that is no field.
_STEPS = {"step", "move", "direction", "finish"}
_RESERVED = {*Numbers.__annotations__, "modified", "learning_rate", "params", "foreach", "maximize"}

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
