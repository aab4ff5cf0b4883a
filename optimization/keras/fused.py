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
from collections.abc import Mapping, Sequence
from typing import Any

import keras

from optimization.keras.compiling import by_device, copies_of, unconverted
from optimization.keras.gradients import Scaled, shaped
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
    ) -> list[tuple[Any, Any]]:
        """Updates variables, and their averages.

        Those are updated that are Keras' and are trained once in an update, with dense gradients,
        where all that belongs to one lies on the device of the optimizer's count of updates. It is
        all or none for a rule that shares state, which would be moved twice.

        Args:
            part: What belongs to the variables, built.
            pairs: (gradient, variable) pairs.
            scheduled: Values of numbers that follow a schedule, scalars.
            averages: Averages that follow the variables, by `id` of the variable.
            share: By how much they follow, a scalar; see `ema.move`.

        Returns:
            The pairs of the variables that are not updated.
        """
        here, others = self._parted(part, pairs, averages)
        if not here or (others and part.shared):
            return list(pairs)
        counted = part.counted(part.learning_rate, scheduled)
        part.prepare(counted)
        scalars = {**counted, "learning_rate": tf.convert_to_tensor(counted["learning_rate"])}
        if share is not None:
            scalars["share"] = share
        runs = [
            _Run(copies[0].device, dict(zip(part.shared, copies[1:], strict=True)))
            for copies in by_device([part.optimizer._iterations, *part.shared.values()])
        ]
        factors = _Factors()
        for gradient, variable in here:
            slots, average = part.state_of(variable), averages.get(id(variable))
            variables = [variable, *slots.values(), *([] if average is None else [average])]
            settings = part.settings_of(variable)
            known = (type(part.optimizer), *((n, _hashable(v)) for n, v in vars(settings).items()))
            key = (known, _kind(variables, gradient), average is None)
            if key not in self._updates:
                kind = Kind(part.rule, settings, tuple(slots), average is not None)
                self._updates[key] = update_of(kind, variables)
            rate = part.rate_of(variable, scalars["learning_rate"])
            factor = factors.of(gradient)
            for device, (run, copies) in enumerate(zip(runs, by_device(variables), strict=True)):
                values = shaped(gradient.on(device), variable.shape)
                row = Row(copies, values, factor, gradient.divisor)
                run.take(self._updates[key], row, {**scalars, "learning_rate": rate})
        for run in runs:
            run.complete()
        return others

    @staticmethod
    def _parted(
        part: RulePart,
        pairs: Pairs,
        averages: Mapping[int, Any],
    ) -> tuple[list[tuple[Scaled, Any]], list[tuple[Any, Any]]]:
        """Returns the pairs that can be updated here, and the others."""
        counts = collections.Counter(id(variable) for _, variable in pairs)
        devices = _devices(part.optimizer._iterations)
        if any(_devices(variable) != devices for variable in part.shared.values()):
            return [], list(pairs)

        def fits_in(gradient: Any, variable: Any) -> bool:
            if not isinstance(gradient, Scaled) or not isinstance(variable, keras.Variable):
                return False
            slots = part.state_of(variable).values()
            average = averages.get(id(variable), variable)
            own = [variable, *slots, average]
            return counts[id(variable)] == 1 and all(_devices(v) == devices for v in own)

        here: list[tuple[Any, Any]] = []
        others: list[tuple[Any, Any]] = []
        for pair in pairs:
            (here if fits_in(*pair) else others).append(pair)
        return here, others


class _Run:
    """One update of all variables on one device."""

    def __init__(self, device: str, shared: Mapping[str, Any]):
        self._device = device
        self._shared = dict(shared)
        self._waiting: dict[StackedUpdate, tuple[list[Row], Scalars]] = {}

    def take(self, update: Update, row: Row, scalars: Scalars) -> None:
        """Updates a variable now, or in the end together with the others of its kind."""
        scalars = {**scalars, "shared": self._shared}
        if isinstance(update, StackedUpdate):
            self._waiting.setdefault(update, ([], scalars))[0].append(row)
            return
        with tf.device(self._device):
            update.run(row, scalars)

    def complete(self) -> None:
        """Updates those that wait."""
        with tf.device(self._device):
            for update, (rows, scalars) in self._waiting.items():
                update.run_all(rows, scalars)


def _hashable(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _kind(variables: Sequence[Any], gradient: Scaled) -> tuple:
    return (
        tuple((tuple(v.shape), v.dtype, v.trainable) for v in variables),
        gradient.dtype,
        getattr(gradient.values, "trainable", None),  # it may be a variable
        (gradient.factor is None, gradient.divisor is None),
    )


def _devices(variable: Any) -> list[str]:
    return [copy.device for copy in copies_of(variable)]


class _Factors:
    """Makes one tensor of each factor, however many gradients have it."""

    def __init__(self) -> None:
        self._tensors: dict[tuple, Any] = {}

    def of(self, gradient: Scaled) -> Any:
        """Returns the factor of a gradient; None for 1."""
        factor = gradient.factor
        if not isinstance(factor, float):
            return factor
        key = (factor, gradient.dtype)
        if key not in self._tensors:
            self._tensors[key] = tf.constant(factor, gradient.dtype)
        return self._tensors[key]
