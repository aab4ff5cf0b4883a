"""What must hold for every rule: functions that raise, and cases that are derived from fields.

A rule that is registered is tested as it stands: its fields say by their types and ranges what
else they may be. `CONTRACTS_OF="lamb lars" pytest ...` tests these types alone.
"""

import doctest
import functools
import itertools
import os
import typing

import ml_dtypes  # noqa: F401  by which NumPy has bfloat16
import numpy as np
import pytest

from optimization.configs import optimizer_config  # noqa: F401  registers the rules
from optimization.rules.arrays import Arrays, State
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.modifiers import MODIFIER_FIELDS, MODIFIERS
from optimization.rules.rule import Numbers, Rule, given
from optimization.schedules import LrConfig, curve
from tests.references import UPDATES, update_of, weights_of

XP = Arrays(np)

ONE_OF_EACH_KIND = ("adamw", "lamb", "muon", "adafactor", "nadam", "schedule_free_adamw")
"""Elementwise, by norms, by the model, factored, with shared state, with an average of its own.

What goes on around rules, not in them, is tried with these.
"""
STEPS = 25
SHAPES = {
    "embedding/embeddings": (7, 4),
    "conv/kernel": (3, 2, 4, 5),
    "dense/kernel": (6, 5),
    "dense/bias": (5,),
    "head/kernel": (5, 3),
}
NATIVE = {
    "embedding.weight": (7, 4),
    "conv.weight": (5, 4, 3, 2),
    "dense.weight": (5, 6),
    "dense.bias": (5,),
    "head.weight": (3, 5),
}
# Changing, since forms of momentum differ by it alone; multiples of 2**-6, the same in float32.
RATE = {"type": "stepwise", "stepwise": {"boundaries": [2, 12, 18], "values": [0.0625, 0.125] * 2}}
# What numbers are tried with, as far as they are in range.
FLOATS, INTEGERS, PATTERNS = (0.1, 0.5, 2.0, -0.3), (2, 3), (("dense",), ("bias",), ("head",))
COUNTS = ({"dense": 5},)  # of what a pattern finds


def rules():
    """Returns the types that are rules, or those of them that the environment names."""
    found = [k for k, entry in OPTIMIZERS_CLS.entries() if issubclass(entry.config_class, Rule)]
    only = os.environ.get("CONTRACTS_OF", "").split()
    return [kind for kind in found if not only or kind in only]


def classes():
    """Returns the types, of those that are the same class the first."""
    origins = {kind: section_of(kind, {}).origin() for kind in rules()}
    first = {origin: kind for kind, origin in reversed(origins.items())}
    return [kind for kind, origin in origins.items() if first[origin] == kind]


def problem(shapes=None, steps=STEPS, goes_somewhere=False):
    """Returns initial values and the gradients of each step, float64.

    Args:
        shapes: Those of the weights.
        steps: How many gradients there are.
        goes_somewhere: Whether gradients have a direction in common, for what measures how far.
    """
    random, mean = np.random.default_rng(3), 2 if goes_somewhere else 0
    shapes = shapes or SHAPES
    initial = {name: random.normal(0.1, 0.3, shape) for name, shape in shapes.items()}
    gradients = [
        {
            name: random.normal(mean, 0.5 if step % 4 else 3.0, shape)
            for name, shape in shapes.items()
        }
        for step in range(steps)
    ]
    return initial, gradients


# Cases


def problems(rule, fields):
    """Returns what is wrong with a section of a rule that has these fields."""
    found = [p.message for p in rule.problems_of(fields)]
    return found or [message for _, message in rule(fields).check()]


def _kinds(annotation):
    """Returns the types that an annotation allows, and the choices of its literals."""
    if typing.get_origin(annotation) is typing.Literal:
        return {str}, set(typing.get_args(annotation))
    found = [_kinds(a) for a in typing.get_args(annotation)]
    types = {annotation} if isinstance(annotation, type) else set()
    return types.union(*(t for t, _ in found)), set().union(*(c for _, c in found))


def field_names(rule):
    """Returns the fields that say what the algorithm is, without modifiers: see `modified`."""
    names = (*rule.argument_names(), *rule.section_only)
    return [n for n in names if n not in ("name", *MODIFIER_FIELDS)]


ROUNDING = ("ns_dtype",)
"""Fields by which nothing is within the limits here; they have tests of their own."""


@functools.cache
def other_values(rule, name):
    """Returns what else a field may be, alone or with other fields."""
    usual = getattr(rule(), name)
    types, choices = _kinds(rule._find_spec(name).annotation)
    if name in rule.pattern_fields():
        candidates = PATTERNS
    elif isinstance(usual, dict):
        candidates = COUNTS
    elif choices:
        candidates = sorted(choices)
    elif bool in types:
        candidates = [not usual]
    else:
        candidates = FLOATS if float in types else INTEGERS
    found = []
    for value in candidates:
        out_of_range = any("must" in message for message in problems(rule, {name: value}))
        if value != usual and not out_of_range:
            found.append(value)
    return found


def is_switch(rule, name):
    """Says whether a field selects a form: a choice, or a number that is 0 or None by default."""
    types, choices = _kinds(rule._find_spec(name).annotation)
    return bool(choices) or bool in types or not given(getattr(rule(), name))


@functools.cache
def single_changes(rule):
    """Returns every other value of every field, one at a time."""
    return [{name: value} for name in field_names(rule) for value in other_values(rule, name)]


def completed(rule, change):
    """Yields a change with nothing or one other change beside it, where the rule accepts that."""
    for other in ({}, *single_changes(rule)):
        if not other.keys() & change.keys() and not problems(rule, {**other, **change}):
            yield {**other, **change}


@functools.cache
def cases(kind):
    """Returns the fields of sections of a type, by which it is tested.

    These are `few`, and each switch in each of its positions. Of a number that is 0 or None by
    default the first value stands for all.
    """
    rule, found = OPTIMIZERS_CLS.config_class(kind), few(kind)
    switched = _positions(rule, lambda name: is_switch(rule, name))
    return _distinct([*found, *switched, *modified(kind)])


def switched(kind):
    """Returns `cases` but for variants, which set switches alone, and these have their own."""
    return [fields for fields in cases(kind) if "variant" not in fields]


@functools.cache
def forms(kind):
    """Returns `least_and_most`, and each choice of a word but a variant."""
    rule, found = OPTIMIZERS_CLS.config_class(kind), least_and_most(kind)
    names = [name for name in field_names(rule) if _choices(rule, name) and name != "variant"]
    chosen = _positions(rule, lambda name: name in names)
    return _distinct([*found, *chosen, *modified(kind)])


def extremes(kind):
    """Returns `least_and_most`, and modifiers."""
    return _distinct([*least_and_most(kind), *modified(kind)])


def modified(kind):
    """Returns modifiers beside a decay, for a type that is the one of its kind.

    They are all at once, and each by itself for the first of these types.
    """
    if kind not in ONE_OF_EACH_KIND:
        return []
    rule = OPTIMIZERS_CLS.config_class(kind)
    decay = {rule.decay_arguments[0]: 0.1}
    acting = [name for name in MODIFIERS if name not in rule.unmodifiable]
    beta = {"mars_beta": 0.8} if problems(rule, {"mars": True}) else {}
    needs = {
        "corrected_weight_decay": {"peak_learning_rate": 0.25},
        "mars": beta,
        "lookahead": {"lookahead_steps": 2},
    }
    values = {"max_update_rms": 0.1}
    single = [{**decay, name: values.get(name, True), **needs.get(name, {})} for name in acting]
    every = {name: value for fields in single for name, value in fields.items()}
    return [*(single if kind == ONE_OF_EACH_KIND[0] else []), every] if acting else []


def _positions(rule, is_meant):
    """Yields a change for each position of the switches that are meant, with what it needs."""
    for name in filter(is_meant, [n for n in field_names(rule) if n not in ROUNDING]):
        values = other_values(rule, name)
        for value in values if _choices(rule, name) else values[:1]:
            yield from itertools.islice(completed(rule, {name: value}), 1)


def _choices(rule, name):
    return _kinds(rule._find_spec(name).annotation)[1]


def _distinct(found):
    return [fields for i, fields in enumerate(found) if fields not in found[:i]]


@functools.cache
def few(kind):
    """Returns `least_and_most`, and other numbers."""
    numbers = _at_once(OPTIMIZERS_CLS.config_class(kind), False)
    return _distinct([*least_and_most(kind), numbers])


def least_and_most(kind):
    """Returns the usual fields, and all switches that can act together."""
    return _distinct([{}, busiest(kind)])


@functools.cache
def busiest(kind):
    """Returns fields of a type by which all switches act that can act together."""
    return _at_once(OPTIMIZERS_CLS.config_class(kind), True)


def _at_once(rule, of_switches):
    """Returns other values of all fields that are switches, or are none, as far as they agree."""
    fields, patterns = {}, rule.pattern_fields()
    spared = {*patterns, *rule.section_only, *ROUNDING}
    names = [n for n in field_names(rule) if n not in spared]
    # Numbers first, which others need.
    for name in sorted(names, key=lambda n: getattr(rule(), n) is False):
        for value in other_values(rule, name)[:1]:
            fits = not problems(rule, {**fields, name: value})
            if is_switch(rule, name) == of_switches and fits:
                fields[name] = value
    return fields


def section_of(kind, fields):
    """Returns the section of a type."""
    return OPTIMIZERS_CLS.config_class(kind)(fields)


def all_cases(of_type=cases, once_a_class=False):
    """Returns types and fields, by a name.

    Args:
        of_type: Which of a type, a function: `cases`, `forms`, `few` or `least_and_most`.
        once_a_class: Whether those of two types that are the same class with the same arguments
            are one, for what has nothing to do with sections.
    """
    found, seen = {}, []
    for kind in rules():
        for fields in of_type(kind):
            section = section_of(kind, fields)
            same = (section.origin(), {**section.arguments(), "name": None})
            if not once_a_class or same not in seen:
                found[f"{kind} {fields or ''}".strip()] = (kind, fields)
            seen.append(same)
    assert found or os.environ.get("CONTRACTS_OF")
    return found


def every_case(of_type=cases, once_a_class=False):
    """Runs a test of `kind` and `fields` over cases of all types; see `all_cases`."""
    found = all_cases(of_type, once_a_class)
    return pytest.mark.parametrize(("kind", "fields"), found.values(), ids=found)


every_kind = pytest.mark.parametrize(("kind", "fields"), [(kind, {}) for kind in ONE_OF_EACH_KIND])
"""Runs a test of `kind` and `fields` over one rule of each kind."""


# Training in NumPy


def train_one(rule, path, own, w, gradients, rate, constant=False):
    """Returns a weight after an update with each gradient, and the names of what is kept of it.

    The arguments are those of `updates`, but for `gradients`, a list.
    """
    steps = updates(rule, path, own, w, lambda done, w: gradients[done], rate, constant)
    *_, (w, kept) = itertools.islice(steps, len(gradients))
    return w, list(kept)


def updates(rule, path, own, w, gradient, rate, constant=False, sums=None):
    """Yields a weight after each update, and what is kept of it, without end.

    Args:
        rule: The rule.
        path: The path of the weight.
        own: Its settings.
        w: The weight.
        gradient: A function of the updates done and of the weight.
        rate: The learning rate of update t, a function.
        constant: Whether it counts as a constant.
        sums: What `Rule.summed` have over all weights, put there before the next update; None where
            there is no other weight.
    """
    values = {name: getattr(rule, name) for name in rule.argument_names()}
    if not rule.decays(path):
        values.update(dict.fromkeys(rule.decay_arguments, 0.0))
    settings = {**values, **rule.variable_settings, **own, "constant_rate": constant}
    h = Numbers(**settings)
    slots = [slot for slot in rule.all_slots() if slot.plural and slot.when(h)]
    kept = {slot.name: _first(slot, w.shape, h) for slot in slots}
    shared = {slot.name: np.float64(slot.first(h)) for slot in rule.shared}
    own_rate = rule.own_learning_rate()
    for done in itertools.count():
        g = gradient(done, w)
        lr = rate(done + 1) if own_rate is None else own_rate.value(np.float64(done), np)
        now = {"lr": lr, "done": done, "t": np.float64(done + 1), "multiplier": 1.0}
        now |= {name: f(np.float64(done), XP) for name, f in rule.curves().items()}
        if shared:
            c = State(shared)
            rule.prepare(c, Numbers(**{**settings, **now}), XP)
            shared.update(c.moved())
        h, s = Numbers(**{**settings, **now, **shared}), State(kept)
        decay = rule.decay_ahead(h)
        w = w - w * (lr * decay) if given(decay) else w
        w = w - rule.modified_step(g, w, s, h, XP)
        kept.update(s.moved())
        yield w, kept
        if rule.summed:
            total = {name: kept[name] for name in rule.summed} if sums is None else sums
            c = State(shared)
            rule.conclude(c, Numbers(**{**settings, **total}), XP)
            shared.update(c.moved())


def _first(slot, shape, h):
    shape = shape if slot.shape is None else slot.shape(shape, h)
    return np.full(shape, slot.first(h), slot.dtype or "float64")


def as_class(section):
    """Returns a section with the arguments of its class, which has one name for each thing."""
    return type(section)(section.arguments())


def settings_of(rule, shapes):
    """Returns the settings of variables by their paths."""
    return dict(zip(shapes, rule.own_numbers(list(shapes), shapes), strict=True))


def numpy_weights(section, initial, gradients, rate, constant=False):
    """Returns the weights after training in float64 NumPy."""
    rule = as_class(section)
    own, sums = settings_of(rule, {path: w.shape for path, w in initial.items()}), {}

    def trained(path, w):
        def gradient(done, w):
            return gradients[done][path]

        return updates(rule, path, own[path], w, gradient, rate, constant, sums)

    each = {path: trained(path, w) for path, w in initial.items()}
    for _ in gradients:
        found = {path: next(steps) for path, steps in each.items()}
        sums.update({n: sum(kept[n] for _, kept in found.values()) for n in rule.summed})
    return {path: w for path, (w, _) in found.items()}


_RATES = [float(rate) for rate in curve(LrConfig(RATE).get(), None, range(STEPS))]


def stepped(t):
    """Returns the learning rate of update t."""
    return _RATES[t - 1]


def float32_limit(kind):
    """Returns how far 3 steps in float32 may be from NumPy's in float64.

    A step of `sign`, or a division by small roots, magnifies roundings; far more so do eigenvectors
    of eigenvalues that are near to each other.
    """
    return {"soap": 1e-3}.get(kind, 1e-5)


def difference(actual, expected):
    """Returns the largest difference, relative to the largest weight."""
    scale = max(np.abs(value).max() for value in expected.values())
    return max(np.abs(actual[path] - expected[path]).max() for path in expected) / scale


# The contracts


def check_reference(kind, section, shapes=None):
    """Raises unless a rule is its transcription, over 25 steps; says whether there is one."""
    if kind not in UPDATES:
        return False
    initial, gradients = problem(shapes, goes_somewhere=bool(section.summed))
    expected = weights_of(update_of(kind, section, stepped), initial, gradients)
    error = difference(numpy_weights(section, initial, gradients, stepped), expected)
    # Float64 on both sides; Muon's iteration magnifies rounding. SOAP's eigenvectors do it by as
    # much as eigenvalues are near to each other, or to 0.
    assert error < {"muon": 1e-9, "soap": 1e-5}.get(kind, 1e-12), error
    return True


def check_elementwise(section):
    """Raises where a step on a weight, declared elementwise, is not that on its parts."""
    rule = as_class(section)
    initial, gradients = problem(steps=4)
    own = settings_of(rule, SHAPES)
    values = {name: getattr(rule, name) for name in rule.argument_names()}
    for path, w in initial.items():
        if not rule.updates_by_entry(Numbers(**values, **own[path])):
            continue
        grads = [g[path] for g in gradients]
        whole, _ = train_one(rule, path, own[path], w, grads, stepped)
        for part in np.ndindex(w.shape[:1]):
            alone = [g[part] for g in grads]
            found, _ = train_one(rule, path, own[path], w[part], alone, stepped)
            np.testing.assert_array_max_ulp(found, whole[part], 4)


def check_every_field_acts(rule):
    """Raises for a field whose value nowhere changes weights, or what is kept of them.

    An exception is a field of which every other value is refused; what only sorts variables acts
    by the rates of these, which the settings show.
    """
    idle = [name for name in field_names(rule) if not _acts(rule, name)]
    assert idle == [], f"{rule.__name__}: nothing depends on {idle}"


def _acts(rule, name):
    tried = False
    for value in other_values(rule, name):
        for fields in completed(rule, {name: value}):
            others = {n: v for n, v in fields.items() if n != name}
            if problems(rule, others):
                continue
            tried = True
            rates = (False, True)  # constants or not
            if any(_outcome(rule(fields), c) != _outcome(rule(others), c) for c in rates):
                return True
    return not tried and name in rule.section_only


def check_example(cls, **names):
    """Raises unless the docstring of a class has an example, which runs as it says."""
    names[cls.__name__] = cls
    example = doctest.DocTestParser().get_doctest(cls.__doc__, names, cls.__name__, None, 0)
    assert example.examples
    assert doctest.DocTestRunner().run(example).failed == 0


def _outcome(section, constant):
    rule, found = as_class(section), []
    initial, gradients = problem(
        steps=6, goes_somewhere=bool(rule.summed)
    )  # RAdam's second moment acts from the sixth on
    own = settings_of(rule, SHAPES)
    for path, w in initial.items():
        grads = [g[path] for g in gradients]
        rate = (lambda t: 1.0) if constant else stepped
        weight, kept = train_one(rule, path, own[path], w, grads, rate, constant)
        found.append((weight.tobytes(), kept, own[path].get("kind")))
    return found
