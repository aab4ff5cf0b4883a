"""Optimizers of PyTorch that are made of rules."""

import functools
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from optimization.configs.errors import did_you_mean
from optimization.rules.rule import MODIFIER_SLOTS, Numbers, Rule, Slot, native_argument
from optimization.torch import precise
from optimization.torch.arguments import check_rate, one_number, several
from optimization.torch.by_name import load_in_our_words
from optimization.torch.functions import FUNCTIONS, Lists
from optimization.torch.lists import Batch, batches, for_each, number, together
from optimization.torch.masters import LOW_PRECISION, MASTER, ExactState, brought_up_to_date
from optimization.torch.reach import within_reach, zeros_of_axes
from optimization.torch.shards import has_gradients, is_split, starts_idle
from optimization.torch.texts import optimizer_text
from optimization.torch.updates import counted, start_counts, update

_USUAL = (torch.float32, torch.float64)  # dtypes of parameters that are updated as they are
_OF_MODIFIERS = {slot.native for slot in MODIFIER_SLOTS}
_KINDS = {bool: "True or False", int: "an integer", str: "text"}
_MISSPELLED = 0.8  # how alike a name of the user's own and that of a setting may not be


class RuleOptimizer(ExactState):
    """An optimizer of PyTorch that takes its arguments, its state and its step from a rule.

    It updates lists of tensors by `torch._foreach_*` operations: all parameters of one device,
    dtype and count of updates, or, with `foreach=False`, one by one: the same numbers.

    State is float32 for parameters in float16 and bfloat16, and has a float32 copy of each, which
    is what is updated: see `ExactState`. Without copies, `master_weights = False`, they are updated
    in float32 and rounded after each step. `state_dict` of parameters that were given with names
    can be loaded in another order: see `load_by_name`.

    Args:
        params: Parameters, (name, parameter) pairs, or groups of either.
        lr: The learning rate; each class has its own usual one.
        foreach: Whether all parameters are updated at once; None for yes.
        maximize: Whether the loss is maximized.
        **arguments: The fields of the rule, by their names or by those that PyTorch has for them.

    Raises:
        TypeError: For an argument that there is not.
        ValueError: For a value that the rule's section does not take either.
    """

    rule: ClassVar[Rule]  # one with the usual fields, which has the formula
    # The fields, with the key that each has in groups, and its place if that holds several.
    places: ClassVar[list[tuple[str, str, int | None]]]
    slots: ClassVar[list[Slot]]  # what parameters may have as state
    usual: ClassVar[dict[str, Any]]  # what groups have where nothing else is said
    _before_loading = staticmethod(load_in_our_words)
    gradient_divisor: Tensor | None = None  # by which the next step divides the gradients

    def __init__(
        self,
        params: Any,
        lr: float | Tensor | None = Rule.usual_rate,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        **arguments: Any,
    ):
        given_ones = self._in_native_words(arguments, self.usual)
        for name in given_ones.keys() - self.usual.keys():
            raise TypeError(self._unknown(name)[0])
        defaults = {"lr": lr, **self.usual, **given_ones, **self.counts}
        self.check_group(defaults)
        super().__init__(params, {**defaults, "foreach": foreach, "maximize": maximize})
        self.install_hooks()

    @classmethod
    def arguments_of(cls, section: Rule) -> dict[str, Any]:
        """Returns the arguments that a section means, as groups have them."""
        values, decays = section.arguments(), section.decay_arguments
        found: dict[str, Any] = {}
        for name, key, place in cls.places:
            value = values.get(name, getattr(section, name))
            value = 0.0 if value is None and name in decays else value
            found[key] = value if place is None else (*found.get(key, ()), value)
        return found

    @classmethod
    def _in_native_words(
        cls, arguments: Mapping[str, Any], usual: Mapping[str, Any]
    ) -> dict[str, Any]:
        """Returns arguments by the names that groups have for them, and others as they are.

        What is given of a pair leaves the other to `usual`.
        """
        named = dict[str, Any]()
        fields = {name: (key, place) for name, key, place in cls.places}
        for name, value in arguments.items():
            key, place = (name, None) if name in cls.usual else fields.get(name, (name, None))
            if key in arguments and key != name:
                raise TypeError(f"{cls.__name__} got both {name!r} and {key!r}, which are the same")
            if place is not None:
                pair = list(named.get(key, usual[key]))
                pair[place] = value
                value = tuple(pair)
            named[key] = value
        return named

    @classmethod
    def _unknown(cls, name: str, cutoff: float = 0.6) -> tuple[str, str]:
        """Returns that there is no such argument, and which one may be meant."""
        known = [*cls.usual, *(field for field, _, _ in cls.places)]
        near = did_you_mean(name, known, cutoff)
        return f"{cls.__name__} has no argument {name!r}{near}", near

    @property
    def divides_gradients(self) -> bool:
        """Whether steps divide by `gradient_divisor`."""
        return not torch.compiler.is_compiling()

    @property
    def counts(self) -> dict[str, Any]:
        """What groups count, beside their settings, at the start."""
        return {}

    @property
    def shared(self) -> tuple[Slot, ...]:
        """What the rule shares, which parameters have each for itself: some may miss steps."""
        return self.rule.shared

    __repr__ = optimizer_text

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds a group, as torch does, after `check_group`.

        Its settings have either name, as the arguments have. What is no setting is the user's own,
        unless it is nearly the name of one.
        """
        if isinstance(param_group, dict):  # else torch says so
            own = self._in_native_words(param_group, self.defaults)
            for name in own.keys() - self.defaults.keys() - {"params"}:
                message, near = self._unknown(name, _MISSPELLED)
                if near:
                    raise TypeError(message)
            param_group.clear()
            param_group.update(own)
            group = {**self.defaults, **own}
            if group.get("corrected_weight_decay") and group["peak_learning_rate"] is None:
                factor = group.get("lr_multiplier", 1.0)
                peak = one_number("lr", group["lr"]) / factor
                group["peak_learning_rate"] = param_group["peak_learning_rate"] = peak
            self.check_group({k: v for k, v in group.items() if k != "params"})
        super().add_param_group(param_group)

    def check_group(self, group: Mapping[str, Any]) -> None:
        """Raises a `ValueError` for all that the rule's section would not take of a group."""
        if not (group["lr"] is None and self._makes_rate(group)):
            check_rate(group["lr"], self.rule.divides_by_rate)
        fields, usual = {}, self.usual
        for name, key, place in self.places:
            value = group[key]
            if place is not None:
                value = several(key, value, len(usual[key]))[place]
            fields[name] = one_number(key, value)
            decays = name in self.rule.decay_arguments  # 0 for none
            may_be_none = self.rule._spec_of(name).optional and not decays
            if value is None and usual[key] is not None and not may_be_none:
                raise ValueError(f"Argument `{key}` must be a number, received: {key}=None")
        for name, usual_value in self.rule.variable_settings.items():
            if not isinstance(group[name], type(usual_value)):
                kind = _KINDS[type(usual_value)]
                message = f"Argument `{name}` must be {kind}"
                raise ValueError(f"{message}, received: {name}={group[name]!r}")
        texts = []
        for problem in self.rule.problems_of(fields):
            key = native_argument(type(self.rule), problem.path).partition(".")[0]
            between = " " if problem.message.startswith("must") else ": "
            texts.append(f"Argument `{key}`{between}{problem.message}")
        if texts:
            raise ValueError("; ".join(texts))

    def _makes_rate(self, group: Mapping[str, Any]) -> bool:
        """Says whether a group needs no learning rate, since it makes its own."""
        return False

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            for name, value in self.usual.items():  # of which old groups may lack some
                group.setdefault(name, value)
        for saved in self.state.values():
            # A number in old versions of torch, and in the AdamW of transformers.
            if saved:  # torch's own counts are float32, which has no 2**24 + 1
                saved["step"] = torch.as_tensor(saved.get("step", 0), dtype=torch.float64)
        self.install_hooks()

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Takes one step; `closure` computes the loss, which is returned, and its gradients."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        divisor = self.gradient_divisor
        if divisor is not None:  # torch.compile takes no change before it has the parameters
            self.gradient_divisor = None
        if self.average is not None and not torch.compiler.is_compiling():
            average = self.average()
            if average is not None:
                average.start()
        idle = starts_idle(self)
        for group in self.param_groups:
            lists: list[list[Any]] = [[] for _ in range(4 + len(self.slots) + len(self.shared))]
            if not (idle or torch.compiler.is_compiling() or has_gradients(group)):
                continue  # what a group counts stays too
            if idle:
                self._init_group(group, *lists)
                continue
            self._prepare(group)
            kinds = self._init_group(group, *lists)
            for *batch, (kind, *_) in batches([*lists, kinds], kinds, group["foreach"]):
                at_hand = functools.partial(self.numbers, group, dict(kind[1]))
                some = [batch] if self.precision is None else precise.some_at_once(batch)
                for part in some:
                    for own, xp in within_reach(self.rule, at_hand, part):
                        self._step_batch(group, kind, own, divisor, xp)
        return loss

    def keeps_float32(self, parameter: Tensor) -> bool:
        return parameter.dtype in LOW_PRECISION

    def low_state(self) -> list[str]:
        low = () if self.precision is None else filter(self.precision.keeps_low, self.slots)
        return [slot.native for slot in low]

    # torch.compile runs a method of this name as it is, with lists, and returns constants.
    def _init_group(self, group: dict[str, Any], *lists: list[Any]) -> tuple[Any, ...]:
        """Fills lists with the parameters that have gradients, and returns the kind of each.

        The lists are of parameters, weights (copies, or the parameters themselves), gradients,
        counts, and the state of each slot, None where there is none. A kind is the keys of the
        slots that there are, and what `kind_of` returned.
        """
        # List by list: there may be many thousands of parameters.
        params = [p for p in group["params"] if p.grad is not None]
        grads, states = [p.grad for p in params], [self.state[p] for p in params]
        start_counts(states)
        is_one_kind = type(self).kind_of is RuleOptimizer.kind_of and not self.rule.knows_shapes()
        own = [()] * len(params) if is_one_kind else [self.kind_of(p, group) for p in params]
        found = {each: tuple(s.native for s in self.slots_of(group, each)) for each in {*own}}
        if any(
            len(state) <= len(found[each]) or gradient.is_sparse or p.dtype not in _USUAL
            for state, gradient, p, each in zip(states, grads, params, own, strict=True)
        ):
            states = [self._state_to_update(p, group) for p in params]
        for key in {key for keys in found.values() for key in keys} & _OF_MODIFIERS:
            for p, state in zip(params, states, strict=True):
                if key not in state:  # it was saved without
                    state[key] = self.initial_state(p, group)[key]
        has_masters = self.master_weights and any(MASTER in state for state in states)
        pairs = zip(params, states, strict=True) if has_masters else ()
        weights = [s[MASTER] if self.has_master(p) else p for p, s in pairs] or params
        columns: list[list[Any]] = [params, weights, grads, [state["step"] for state in states]]
        for key in [slot.native for slot in self.slots]:
            if all(key in keys for keys in found.values()):
                columns.append([state[key] for state in states])
            else:
                rows = zip(states, own, strict=True)
                columns.append([state[key] if key in found[each] else None for state, each in rows])
        columns += [[state[slot.native] for state in states] for slot in self.shared]
        for filled, column in zip(lists, columns, strict=True):
            filled.extend(column)
        kinds = {each: (keys, each) for each, keys in found.items()}
        return tuple(map(kinds.get, own))

    def _state_to_update(self, parameter: Tensor, group: dict[str, Any]) -> dict[str, Tensor]:
        """Returns the state of a parameter; makes it at the first update."""
        is_sparse = parameter.grad is not None and parameter.grad.is_sparse
        if is_sparse or parameter.is_complex():
            what = "sparse gradients" if is_sparse else "complex parameters"
            raise RuntimeError(f"{type(self).__name__} does not support {what}")
        state = self.state[parameter]
        if state.keys() == {"step"}:
            state.update(self.initial_state(parameter, group))
        if self.has_master(parameter) and MASTER not in state:
            state[MASTER] = parameter.detach().float()
        return state

    def _step_batch(
        self,
        group: dict[str, Any],
        kind: Any,
        columns: list[list[Any]],
        divisor: Tensor | None,
        xp: Lists,
    ) -> None:
        keys, own = kind
        params, weights, grads, steps, *states = columns
        if params[0].dtype in LOW_PRECISION:
            weights = [
                weight.float() if weight is parameter else brought_up_to_date(weight, parameter)
                for weight, parameter in zip(weights, params, strict=True)
            ]
            grads = [gradient.float() for gradient in grads]
        counts = counted(steps)
        h = self.numbers(group, dict(own))
        h.t = self.count(group, counts)
        h.done = h.t - 1
        self._share(h, states[len(self.slots) :])
        if isinstance(h.lr, Tensor):  # which torch.compile has not times lists
            h.lr = together([h.lr] * len(params))
        # Not by `zip`, of which torch.compile of PyTorch 2.6 and 2.8 makes an error.
        slots = {s.name: states[i] for i, s in enumerate(self.slots) if s.native in keys}
        average = None if self.average is None else self.average()
        if params[0].dtype in LOW_PRECISION and not self.has_master(params[0]):
            average = None  # of what is rounded
        averages, share = ([], 0.0) if average is None else average.take(params)
        moved = slots if self.precision is None else precise.widened(slots, weights[0].dtype)
        batch = Batch(weights, grads, moved, averages, share, group["maximize"], divisor)
        update(self.rule, batch, h, xp)
        if self.precision is not None:
            precise.store(self.precision, group, params, weights, (slots, moved), h.t)
        elif params[0].dtype in LOW_PRECISION:
            torch._foreach_copy_(params, weights)

    def numbers(self, group: Mapping[str, Any], own: Mapping[str, Any]) -> Numbers:
        """Returns the numbers of a group, apart from what counts updates."""
        usual = self.rule.variable_settings
        values = {name: group.get(name, value) for name, value in usual.items()}
        for name, key, place in self.places:
            values[name] = number(group[key] if place is None else group[key][place])
        values["multiplier"] = group.get("lr_multiplier", 1.0)
        return Numbers(**{**values, **own}, lr=number(group["lr"]))

    def kind_of(self, parameter: Tensor, group: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
        """Returns what the rule makes of the parameter's shape, as pairs of name and value."""
        return tuple(self.rule.shape_settings(tuple(parameter.shape), group).items())

    def slots_of(self, group: Mapping[str, Any], own: Any = ()) -> list[Slot]:
        """Returns the slots of a parameter for which `kind_of` returned `own`."""
        h, usual = self.numbers(group, dict(own)), self.numbers(self.defaults, dict(own))
        # A number that a schedule has at 0 for now needs its slot then, too.
        return [slot for slot in self.slots if slot.when(h) or slot.when(usual)]

    def initial_state(self, parameter: Tensor, group: Mapping[str, Any]) -> dict[str, Tensor]:
        """Returns the state of a parameter before its first update, apart from `step`."""
        own = self.kind_of(parameter, group)
        h, state = self.numbers(group, dict(own)), {}
        for slot in self.slots_of(group, own):
            shape = slot.shape_of(tuple(parameter.shape), h)
            axes = slot.axes_of(tuple(parameter.shape), h) if is_split(parameter) else None
            blank, start = zeros_like(parameter, shape, axes), slot.first(h)
            if slot.of_weight:
                blank.copy_(parameter)
            blank = blank.fill_(start) if start else blank
            state[slot.native] = blank.bfloat16() if slot.native in self.low_state() else blank
        for slot in self.shared:
            state[slot.native] = torch.tensor(slot.first(h), dtype=torch.float64)
        return state

    def count(self, group: Mapping[str, Any], counts: Sequence[Any]) -> Any:
        """Returns the updates of some parameters, this one included, given the counts of each."""
        return together(counts)

    def _prepare(self, group: dict[str, Any]) -> None:
        """Moves what a group shares, once in a step."""

    def _share(self, h: Numbers, kept: Sequence[Sequence[Tensor]]) -> None:
        """Moves what some parameters share with the rule, and adds it to the numbers."""
        if not kept:
            return
        shared = types.SimpleNamespace()
        for slot, own in zip(self.shared, kept, strict=True):
            setattr(shared, slot.name, together([number(x) for x in own]))
        self.rule.prepare(shared, h, FUNCTIONS)
        for slot, own in zip(self.shared, kept, strict=True):
            moved = getattr(shared, slot.name)
            setattr(h, slot.name, moved)
            for x, value in zip(own, for_each(moved, len(own)), strict=True):
                x.fill_(value)


def zeros_like(
    parameter: Tensor, shape: Sequence[int] | None = None, axes: Sequence[int] | None = None
) -> Tensor:
    """Returns state of zeros: float32 at least, laid out as the parameter, or as axes of it."""
    dtype = torch.float32 if parameter.dtype in LOW_PRECISION else parameter.dtype
    if shape is not None and axes is not None:
        return zeros_of_axes(parameter, axes, dtype)
    if shape is not None:
        return torch.zeros(shape, dtype=dtype, device=parameter.device)
    return torch.zeros_like(parameter, dtype=dtype, memory_format=torch.preserve_format)
