"""Updates on TensorFlow in few passes over each tensor: functions that XLA compiles once per kind.

A plain update runs operation by operation, and each reads and writes whole tensors. Here one
function takes a variable's weight, gradient, state and average as arguments and does all that is
elementwise: factors on the gradient (of a clip, a loss scale, a mean), weight decay, the
optimizer's own `update_step`, and the average. XLA makes one loop of it for each tensor that
changes. It is traced and compiled once for each kind of variable: same optimizer, shape,
dtypes and settings. BERT-base's 199 variables are of 8 kinds. Small ones of a kind are updated
together; see `stacked`.

Norms are left to TensorFlow, which computes them in parallel; see `stages`.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np

from optimization.optimizers import distribution, state
from optimization.optimizers.fused_kinds import (
    Applied,
    Row,
    Scalars,
    StagedUpdate,
    Update,
    compiled,
)
from optimization.optimizers.gradients import Scaled
from optimization.optimizers.stacked import StackedUpdate, stacks
from optimization.optimizers.stages import Staged

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    from tensorflow.python.ops import control_flow_util  # the public API has no such question

# Classes whose updates read nothing but what a function is given. One of a user's may read more.
_KNOWN = ("keras.src.optimizers.", "optimization.optimizers.")
_PLAIN = (bool, int, float, str, tuple, type(None), np.generic)
_SMALL = 2**14  # Fewer entries are copied in less time than a call takes.


def _unconverted(function: Callable[..., Any]) -> Callable[..., Any]:
    """Spares a function the translation of `tf.function`, which takes its time."""
    if keras.backend.backend() != "tensorflow":
        return function
    return tf.autograph.experimental.do_not_convert(function)


class FusedUpdates:
    """Runs the updates that it can; what it can't is for the caller.

    Args:
        applied: Has the optimizers use given values of scheduled hyperparameters, in a context.
    """

    def __init__(self, applied: Applied):
        self._applied = applied
        self._updates: dict[tuple, Update] = {}

    @_unconverted
    def update(
        self,
        optimizer: keras.optimizers.Optimizer,
        family: str,
        pairs: Sequence[tuple[Any, Any]],
        hyperparameters: Mapping[str, Any],
        averages: Mapping[int, Any],
        share: Any,
    ) -> list[tuple[Any, Any]]:
        """Updates variables, and their averages.

        Those are updated that are Keras' and are trained once in an update, with dense gradients,
        where all that belongs to one lies on the device of the optimizer's count of updates. It is
        all or none for an optimizer that does something once in a step, which the caller would
        have it do again.

        Args:
            optimizer: One that `fits`, built.
            family: Name of all optimizers that differ from it in the learning rate only.
            pairs: (gradient, variable) pairs.
            hyperparameters: Scheduled values, scalars.
            averages: Averages that follow the variables, by `id` of the variable.
            share: By how much they follow, a scalar; see `ema.move`.

        Returns:
            The pairs of the variables that are not updated.
        """
        states = _states(optimizer)
        shared = _shared(optimizer, states)
        here, others = self._parted(optimizer, pairs, averages, states, shared)
        if not here or (others and _prepares(optimizer)):
            return list(pairs)
        rate = optimizer.learning_rate
        # What an optimizer does once in a step, such as Nadam's product of momentums.
        with self._applied(hyperparameters):
            optimizer._backend_update_step([], [], rate)
        scalars = {
            "learning_rate": tf.convert_to_tensor(rate),
            "iterations": tf.convert_to_tensor(optimizer._iterations),
            "hyperparameters": dict(hyperparameters),
        }
        if share is not None:
            scalars["share"] = share
        runs = [
            _Run(copies[0].device, scalars | {"shared": copies[1:]})
            for copies in _by_device([optimizer._iterations, *shared])
        ]
        alike = (family, settings(optimizer))
        factors = _Factors()
        for gradient, variable in here:
            slots, facts = states[optimizer._get_variable_index(variable)]
            average = averages.get(id(variable))
            variables = [variable, *slots, *([] if average is None else [average])]
            decays = bool(optimizer.weight_decay) and optimizer._use_weight_decay(variable)
            key = (*alike, facts, _kind(variables, gradient), decays, average is None)
            if key not in self._updates:
                about = (optimizer, variables, shared, decays, average is not None)
                self._updates[key] = self._kind_of(*about[:2])(*about, self._applied)
            factor = factors.of(gradient)
            for device, (run, copies) in enumerate(zip(runs, _by_device(variables), strict=True)):
                values = _with_shape(gradient.on(device), variable.shape)
                run.take(self._updates[key], Row(copies, values, factor, gradient.divisor))
        for run in runs:
            run.complete()
        return others

    @staticmethod
    def _parted(
        optimizer: keras.optimizers.Optimizer,
        pairs: Sequence[tuple[Any, Any]],
        averages: Mapping[int, Any],
        states: Sequence[tuple[list[Any], tuple]],
        shared: Sequence[Any],
    ) -> tuple[list[tuple[Scaled, Any]], list[tuple[Any, Any]]]:
        """Returns the pairs that can be updated here, and the others."""
        counts = collections.Counter(id(variable) for _, variable in pairs)
        devices = _devices(optimizer._iterations)
        if any(_devices(variable) != devices for variable in shared):
            return [], list(pairs)

        def fits_in(gradient: Any, variable: Any) -> bool:
            if not isinstance(gradient, Scaled) or not isinstance(variable, keras.Variable):
                return False
            slots, _ = states[optimizer._get_variable_index(variable)]
            average = averages.get(id(variable), variable)
            own = [variable, *slots, average]
            return counts[id(variable)] == 1 and all(_devices(v) == devices for v in own)

        here, others = [], []
        for pair in pairs:
            (here if fits_in(*pair) else others).append(pair)
        return here, others

    @staticmethod
    def _kind_of(optimizer: keras.optimizers.Optimizer, variables: Sequence[Any]) -> type[Update]:
        if _is_small(variables[0]):
            return StackedUpdate if stacks(optimizer, variables) else Update
        return StagedUpdate if isinstance(optimizer, Staged) else Update


def _is_small(variable: Any) -> bool:
    return (variable.shape.num_elements() or 0) < _SMALL


def _kind(variables: Sequence[Any], gradient: Scaled) -> tuple:
    return (
        tuple((tuple(v.shape), v.dtype, v.trainable) for v in variables),
        gradient.dtype,
        getattr(gradient.values, "trainable", None),  # it may be a variable
        (gradient.factor is None, gradient.divisor is None),
    )


def _by_device(variables: Sequence[Any]) -> list[list[Any]]:
    """Returns the copies of variables on each device of this process."""
    return [list(copies) for copies in zip(*map(copies_of, variables), strict=True)]


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


def _with_shape(values: Any, shape: Any) -> Any:
    # A function is traced once, for gradients whose shapes are known when a graph is made.
    return values if values.shape.is_fully_defined() else tf.ensure_shape(values, shape)


class _Run:
    """One update of all variables on one device.

    Args:
        device: Its name.
        scalars: What is the same for all variables.
    """

    def __init__(self, device: str, scalars: Scalars):
        self._device = device
        self._scalars = scalars
        self._waiting: dict[StackedUpdate, list[Row]] = {}

    def take(self, update: Update, row: Row) -> None:
        """Updates a variable now, or in the end together with the others of its kind."""
        if isinstance(update, StackedUpdate):
            self._waiting.setdefault(update, []).append(row)
            return
        with tf.device(self._device):
            update.run(row, self._scalars)

    def complete(self) -> None:
        """Updates those that wait."""
        with tf.device(self._device):
            for update, rows in self._waiting.items():
                update.run_all(rows, self._scalars)


def fits(optimizer: keras.optimizers.Optimizer) -> bool:
    """Says whether an optimizer's updates can be fused.

    By rule: it must be one of Keras' or of this package, not derived from these, decay as they do,
    and keep nothing for a variable but slots and plain values. (Muon's updates are not
    elementwise.)
    """
    cls = type(optimizer)
    if not cls.__module__.startswith(_KNOWN) or cls.__name__ == "Muon":
        return False
    if cls._apply_weight_decay is not keras.optimizers.Optimizer._apply_weight_decay:
        return False
    return all(isinstance(fact, _PLAIN) for _, facts in _states(optimizer) for fact in facts)


def _prepares(optimizer: keras.optimizers.Optimizer) -> bool:
    """Says whether an optimizer does something once in a step, for all its variables together."""
    base = keras.optimizers.Optimizer._backend_update_step
    return type(optimizer)._backend_update_step is not base


def settings(optimizer: keras.optimizers.Optimizer) -> tuple:
    """Returns all plain values and functions that an optimizer has, apart from the learning rate.

    Functions are compared by what they are, and stay alive with whoever keeps the settings.
    """
    known = {k: v for k, v in vars(optimizer).items() if k not in ("name", "_learning_rate")}
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


def acts(setting: bool | str) -> bool:
    """Says whether updates are to be fused here and now.

    Args:
        setting: `jit_compile`: "auto" is for graphs, where tracing is paid once. A graph that XLA
            compiles as a whole needs no functions inside.
    """
    if not setting or keras.backend.backend() != "tensorflow" or distribution.in_replica():
        return False
    if tf.executing_eagerly():
        return setting is True
    graph = tf.compat.v1.get_default_graph()
    return not control_flow_util.GraphOrParentsInXlaContext(graph)


class Clearing:
    """Sets variables to 0 in place, where `assign` would make another tensor first."""

    def __init__(self) -> None:
        # With one variable of each kind: a function is bound to the life of that it was traced by.
        self._functions: dict[tuple, tuple[Any, Any]] = {}

    @_unconverted
    def __call__(self, variables: Sequence[keras.Variable]) -> None:
        """Clears variables."""
        for variable in variables:
            for copy in copies_of(variable):
                with tf.device(copy.device):
                    self._clear(copy)

    def _clear(self, copy: Any) -> None:
        if _is_small(copy):
            _clear(copy)
            return
        key = (tuple(copy.shape), copy.dtype, copy.trainable)
        if key not in self._functions:
            self._functions[key] = (compiled(_clear, copy), copy)
        self._functions[key][0](copy)


def _clear(variable: Any) -> None:
    variable.assign(tf.zeros_like(variable))


def copies_of(variable: keras.Variable) -> tuple[Any, ...]:
    """Returns the `tf.Variable` of each device of this process."""
    copies = distribution.local_copies(variable)
    return tuple(getattr(copy, "_value", copy) for copy in copies)


def _states(optimizer: keras.optimizers.Optimizer) -> list[tuple[list[Any], tuple]]:
    """Returns for each variable of an optimizer its slots, and what else is noted about it."""
    count = len(optimizer._trainable_variables)
    states: list[tuple[list[Any], tuple]] = [([], ()) for _ in range(count)]
    for values in state.lists_by_variable(optimizer, count).values():
        if all(isinstance(value, str) for value in values):
            continue  # names, of which there are by chance as many as variables
        for index, value in enumerate(values):
            slots, facts = states[index]
            if isinstance(value, keras.Variable):
                slots.append(value)
            else:
                states[index] = (slots, (*facts, value))
    return states


def _shared(optimizer: keras.optimizers.Optimizer, states: list[Any]) -> list[Any]:
    """Returns an optimizer's variables that belong to no single one of the model's."""
    others = {id(slot) for slots, _ in states for slot in slots}
    others |= {id(optimizer._iterations), id(optimizer._learning_rate)}
    return [variable for variable in optimizer.variables if id(variable) not in others]
