"""How the inner optimizers of `PipelineOptimizer` update: fused, as a whole, or plainly.

Those that are made of rules are fused. Others may read what no function is given, and what their
updates do is not known: they are updated as Keras does.

A plain update runs operation by operation, and each reads and writes whole tensors. Fused, on
TensorFlow, one function takes a variable's weight, gradient, state and average as arguments and
does all that is elementwise: factors on the gradient (of a clip, a loss scale, a mean), weight
decay, the rule, and the average. XLA makes one loop of it for each tensor that changes. It is
traced and compiled once for each kind of variable: same rule, numbers, shape and dtypes.
BERT-base's 199 variables are of 8 kinds. Small ones of a kind are updated together. Norms are left
to TensorFlow, which computes them in parallel.
"""

import collections
import functools
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from optimization.keras.compiling import by_device, copies_of, in_xla, unconverted
from optimization.keras.control import in_replica, tf
from optimization.keras.gradients import Postponed, bare, densify, is_overwritten, is_sparse, shaped
from optimization.keras.hyperparameters import HyperparameterSchedules
from optimization.keras.kernels import Kind, Row, Scalars, StackedUpdate, Update, update_of
from optimization.keras.members import Member, Members, Pairs
from optimization.keras.rule_part import RulePart

_PLAIN = (bool, int, float, str, tuple, type(None), np.generic)


class Updates:
    """Runs the updates of the inner optimizers.

    With `jit_compile` on TensorFlow those are fused that can be; the rest is compiled as a whole if
    True, and plain if "auto".
    """

    def __init__(
        self, members: Members, schedules: HyperparameterSchedules, jit_compile: bool | str
    ):
        self._members = members
        self._schedules = schedules
        self.jit_compile = jit_compile
        self.fused: dict[tuple, Update] = {}  # by what the variables of a kind have in common
        self.compiled: dict[tuple, Any] = {}  # as a whole, by settings and the variables' `id`

    @property
    def are_fused(self) -> bool:
        """Whether updates are fused here and now; otherwise gradients can't be `Postponed`.

        "auto" is for graphs, where tracing is paid once. A graph that XLA compiles as a whole needs
        no functions inside.
        """
        if not self.jit_compile or tf is None or in_replica():
            return False
        if self._members.precision is not None:  # which rounds what each update stores
            return False
        return self.jit_compile is True if tf.executing_eagerly() else not in_xla()

    def postponed(self, pairs: Pairs) -> Pairs:
        """Returns (gradient, variable) pairs whose factors may wait for the update.

        Where updates are not fused, and for what is no gradient but a new value, as they are.
        """
        if not self.are_fused:
            return pairs
        return [(self._postponed(gradient, variable), variable) for gradient, variable in pairs]

    def _postponed(self, gradient: Any, variable: Any) -> Any:
        stays_sparse = is_sparse(gradient) and self.jit_compile is not True
        if isinstance(gradient, Postponed) or is_overwritten(variable) or stays_sparse:
            return gradient
        return Postponed(densify(gradient))

    def take(
        self,
        grads: Sequence[Any],
        variables: Sequence[Any],
        targets: Sequence[Any],
        steps: Any,
        average: Any,
    ) -> Collection[int]:
        """Updates variables, by way of what is trained in their place, after `steps` updates.

        Returns the `id` of each variable whose average, a `WeightAverage`, `IterateAverage` or
        None, has moved already.
        """
        left = self.postponed(list(zip(grads, targets, strict=True)))
        following, share = {}, None
        if self.are_fused:
            if average is not None:
                following, share = average.following(variables, targets, steps + 1)
            values = self._schedules.values(steps)
            parts, left = self._members.split(left), []
            for member, own in parts:
                if member.part is not None:
                    own = self._fuse(member.part, own, values, following, share)
                left += own
        if left:
            self._take_others([(bare(gradient), target) for gradient, target in left], steps)
        for member in self._members.members:
            if member.part is not None:
                member.part.conclude()
        return following.keys() - {id(target) for _, target in left}

    @unconverted
    def _fuse(
        self,
        part: RulePart,
        pairs: Pairs,
        values: Mapping[str, Any],
        averages: Mapping[int, Any],
        share: Any,
    ) -> Pairs:
        """Updates variables, and averages by a share; returns the pairs that it can't update.

        Those are updated that are Keras' and are trained once in an update, with dense gradients,
        where all that belongs to one lies on the device of the optimizer's count of updates. It is
        all or none for a rule that shares state, which would be moved twice. Averages are by the
        `id` of the variable.
        """
        here, others = _parted(part, pairs, averages)
        if not here or (others and part.shared):
            return pairs
        counted = part.counted(part.learning_rate, values)
        part.prepare(counted)
        # Read once; a variable would be read by each call.
        once_read = {
            name: tf.convert_to_tensor(counted[name]) for name in ("learning_rate", "done")
        }
        scalars = {**counted, **once_read, "share": share}
        once = by_device([part.optimizer._iterations, *part.shared.values()])
        shared = [dict(zip(part.shared, copies[1:], strict=True)) for copies in once]
        devices = [copies[0].device for copies in once]
        # One tensor of each factor, however many gradients have it
        constant = functools.cache(tf.constant)
        # Small variables are updated in the end, together with the others of their kind.
        waiting: dict[tuple[int, StackedUpdate], tuple[list[Row], Scalars]] = {}
        for gradient, variable in here:
            slots, average = part.state_of(variable), averages.get(id(variable))
            variables = [variable, *slots.values(), *([] if average is None else [average])]
            kind = Kind(part.rule, part.settings_of(variable), tuple(slots), average is not None)
            update = self._update_of(kind, variables, gradient)
            rate, factor = part.rate_of(variable, scalars["learning_rate"]), gradient.factor
            if isinstance(factor, float):
                factor = constant(factor, gradient.dtype)
            for place, copies in enumerate(by_device(variables)):
                dense = gradient.copies[place] if gradient.copies else gradient.values
                row = Row(copies, shaped(dense, variable.shape), factor, gradient.divisor)
                now = {**scalars, "learning_rate": rate, "shared": shared[place]}
                if isinstance(update, StackedUpdate):
                    waiting.setdefault((place, update), ([], now))[0].append(row)
                    continue
                with tf.device(devices[place]):
                    update.run(row, now)
        for (place, stacked), (rows, numbers) in waiting.items():
            with tf.device(devices[place]):
                stacked.run_all(rows, numbers)
        return others

    def _update_of(self, kind: Kind, variables: Sequence[Any], gradient: Postponed) -> Update:
        numbers = vars(kind.settings).items()
        key = (
            *(type(kind.rule), kind.averages),
            tuple((name, _hashable(value)) for name, value in numbers),
            tuple((tuple(v.shape), v.dtype, v.trainable) for v in variables),
            gradient.dtype,
            getattr(gradient.values, "trainable", None),  # it may be a variable
            (gradient.factor is None, gradient.divisor is None),
        )
        if key not in self.fused:
            self.fused[key] = update_of(kind, variables)
        return self.fused[key]

    def _take_others(self, pairs: Pairs, steps: Any) -> None:
        # On JAX the caller's jit compiles this along with everything else.
        if self.jit_compile is not True or tf is None:
            self._take_plainly(pairs, steps)
            return
        split = [(m, pair) for m, own in self._members.split(pairs) for pair in own]
        plain = [pair for member, pair in split if not member.compiles(pair[1])]
        if plain:
            self._take_plainly(plain, steps)
            pairs = [pair for member, pair in split if member.compiles(pair[1])]
        if not pairs:
            return
        variables = [variable for _, variable in pairs]
        settings = tuple(_settings(member) for member in self._members.members)
        key = (settings, *map(id, variables))
        if key not in self.compiled:
            self.compiled[key] = tf.function(
                lambda dense: self._take_plainly(list(zip(dense, variables, strict=True)), steps),
                jit_compile=True,
            )
        self.compiled[key]([densify(gradient) for gradient, _ in pairs])

    def _take_plainly(self, pairs: Pairs, steps: Any) -> None:
        values = self._schedules.values(steps)
        with self._schedules.applied(values):
            for member, own in self._members.split(pairs):
                grads, variables = map(list, zip(*own, strict=True))
                if member.part is not None:
                    member.part.update(grads, variables, values)
                    continue
                optimizer, rate = member.optimizer, member.learning_rate
                optimizer._apply_weight_decay(variables)  # before the update, as in Keras
                optimizer._backend_update_step(grads, variables, rate)


def _hashable(value: Any) -> Any:
    """Returns what tells a setting from others, lists and mappings too."""
    if isinstance(value, dict):
        return tuple(value.items())
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _settings(member: Member) -> tuple:
    """Returns all plain values and functions that an optimizer has, but its learning rate.

    Functions are compared by what they are, and stay alive with whoever keeps the settings.
    """
    part = member.part
    if part is not None:
        rates = part.rule.own_rates.values()
        return repr(part.rule), *(_Same(part.own_rate(rate)) for rate in rates)
    known = {k: v for k, v in vars(member.optimizer).items() if k not in ("name", "_learning_rate")}
    plain = {k: repr(v) for k, v in known.items() if isinstance(v, _PLAIN)}
    functions = {k: _Same(v) for k, v in known.items() if callable(v)}
    return tuple({**plain, **functions}.items())


class _Same:
    """Equal to another of the very same object, which it keeps alive."""

    def __init__(self, value: Any):
        self._value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Same) and other._value is self._value

    def __hash__(self) -> int:
        return id(self._value)


def _parted(part: RulePart, pairs: Pairs, averages: Mapping[int, Any]) -> tuple[Pairs, Pairs]:
    """Returns the pairs that can be updated here, and the others."""
    counts = collections.Counter(id(variable) for _, variable in pairs)
    devices = _devices(part.optimizer._iterations)
    if any(_devices(variable) != devices for variable in part.shared.values()):
        return [], pairs

    def fits_in(gradient: Any, variable: Any) -> bool:
        if not isinstance(gradient, Postponed) or not isinstance(variable, keras.Variable):
            return False
        if not part.compiles(variable):
            return False
        own = [variable, *part.state_of(variable).values(), averages.get(id(variable), variable)]
        return counts[id(variable)] == 1 and all(_devices(v) == devices for v in own)

    here: list[tuple[Any, Any]] = []
    others: list[tuple[Any, Any]] = []
    for pair in pairs:
        (here if fits_in(*pair) else others).append(pair)
    return here, others


def _devices(variable: Any) -> list[str]:
    return [copy.device for copy in copies_of(variable)]
