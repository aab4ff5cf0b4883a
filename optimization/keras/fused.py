"""Updates on TensorFlow in few passes over each tensor: functions that XLA compiles once per kind.

A plain update runs operation by operation, and each reads and writes whole tensors. Here one
function takes a variable's weight, gradient, state and average as arguments and does all that is
elementwise: factors on the gradient (of a clip, a loss scale, a mean), weight decay, the rule, and
the average. XLA makes one loop of it for each tensor that changes. It is traced and compiled once
for each kind of variable: same rule, numbers, shape and dtypes. BERT-base's 199 variables are of 8
kinds. Small ones of a kind are updated together.

Norms are left to TensorFlow, which computes them in parallel.
"""

import collections
import functools
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from optimization.keras.compiling import by_device, copies_of, unconverted
from optimization.keras.gradients import Postponed, shaped
from optimization.keras.kernels import Kind, Row, Scalars, StackedUpdate, Update, update_of
from optimization.keras.rule_part import RulePart

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

Pairs = Sequence[tuple[Any, Any]]


class FusedUpdates:
    """Updates all variables that it can by compiled functions, and returns the others."""

    def __init__(self) -> None:
        self._updates: dict[tuple, Update] = {}

    @unconverted
    def update(
        self,
        part: RulePart,
        pairs: Pairs,
        scheduled: Mapping[str, Any],
        averages: Mapping[int, Any],
        share: Any,
    ) -> Pairs:
        """Updates variables, and their averages; returns the pairs of those that it can't update.

        Those are updated that are Keras' and are trained once in an update, with dense gradients,
        where all that belongs to one lies on the device of the optimizer's count of updates. It is
        all or none for a rule that shares state, which would be moved twice.

        Args:
            part: What belongs to the variables, built.
            pairs: (gradient, variable) pairs.
            scheduled: Values of numbers that follow a schedule, scalars.
            averages: Averages that follow the variables, by `id` of the variable.
            share: By how much they follow, a scalar; see `ema.move`.
        """
        here, others = _parted(part, pairs, averages)
        if not here or (others and part.shared):
            return pairs
        counted = part.counted(part.learning_rate, scheduled)
        part.prepare(counted)
        # Read once; a variable would be read by each call.
        once_read = {
            name: tf.convert_to_tensor(counted[name]) for name in ("learning_rate", "done")
        }
        scalars = {**counted, **once_read}
        if share is not None:
            scalars["share"] = share
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
                values = gradient.copies[place] if gradient.copies else gradient.values
                row = Row(copies, shaped(values, variable.shape), factor, gradient.divisor)
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
            tuple((name, tuple(n) if isinstance(n, list) else n) for name, n in numbers),
            tuple((tuple(v.shape), v.dtype, v.trainable) for v in variables),
            gradient.dtype,
            getattr(gradient.values, "trainable", None),  # it may be a variable
            (gradient.factor is None, gradient.divisor is None),
        )
        if key not in self._updates:
            self._updates[key] = update_of(kind, variables)
        return self._updates[key]


def _parted(part: RulePart, pairs: Pairs, averages: Mapping[int, Any]) -> tuple[Pairs, Pairs]:
    """Returns the pairs that can be updated here, and the others."""
    counts = collections.Counter(id(variable) for _, variable in pairs)
    devices = _devices(part.optimizer._iterations)
    if any(_devices(variable) != devices for variable in part.shared.values()):
        return [], pairs

    def fits_in(gradient: Any, variable: Any) -> bool:
        if not isinstance(gradient, Postponed) or not isinstance(variable, keras.Variable):
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
