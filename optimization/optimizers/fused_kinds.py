"""The functions that `fused` runs: the update of one kind of variable, compiled by XLA."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import keras

from optimization.optimizers.ema import move
from optimization.optimizers.norms import Norm, norm, root_of_squares, sum_of_squares, times
from optimization.optimizers.stages import Length, SquareSum

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

Scalars = dict[str, Any]
Applied = Callable[[Mapping[str, Any]], contextlib.AbstractContextManager[None]]
Source = tuple[tuple[str, int], SquareSum | Length]

_FOLDS = 16


class Row(NamedTuple):
    """What differs between the variables of a kind, on one device.

    Attributes:
        copies: The weight, its state, and its average if any.
        values: The gradient, still to be scaled.
        factor: That of the gradient; None for 1.
        divisor: What the gradient is divided by before that; None for 1.
    """

    copies: list[Any]
    values: Any
    factor: Any
    divisor: Any


class Input:
    """What an update gets for a tensor that stands for another one in each function."""

    def __init__(self) -> None:
        self.tensor: Any = None

    @property
    def dtype(self) -> Any:
        return self.tensor.dtype

    @property
    def shape(self) -> Any:
        return self.tensor.shape

    def __tf_tensor__(self, dtype: Any = None, name: str | None = None) -> Any:
        return self.tensor if dtype is None else tf.cast(self.tensor, dtype)


class Update:
    """The update of one kind of variable.

    Args:
        optimizer: Its optimizer.
        variables: Those of one of the kind, for the trace; see `Row.copies`.
        shared: The optimizer's own variables; those of a device are among the scalars.
        decays: Whether Keras' own weight decay acts.
        averages: Whether there is an average.
        applied: As `FusedUpdates` has it.
    """

    def __init__(
        self,
        optimizer: keras.optimizers.Optimizer,
        variables: Sequence[Any],
        shared: Sequence[Any],
        decays: bool,
        averages: bool,
        applied: Applied,
    ):
        self.optimizer = optimizer
        self.variables = list(variables)
        self._shared = list(shared)
        self._decays = decays
        self._averages = averages
        self._applied = applied
        self.gradient, self.learning_rate = Input(), Input()
        # With the variables it was traced by, to whose life a function is bound.
        self._function: tuple[Any, list[Any]] | None = None

    def run(self, row: Row, scalars: Scalars) -> None:
        """Updates a variable of this kind on one device.

        Args:
            row: The variable.
            scalars: What is the same for all variables.
        """
        if self._function is None:
            self._function = compiled(self.whole, row, scalars), row.copies
        self._function[0](row, scalars)

    def whole(self, row: Row, scalars: Scalars) -> None:
        """The update: what `run` compiles."""
        with self.standing_in(row, scalars):
            self.decay()
            self.take_step()
            self.move_average(scalars)

    @contextlib.contextmanager
    def standing_in(self, row: Row, scalars: Scalars) -> Iterator[None]:
        """Has the exemplar's variables be the arguments of a function, inside a `with` block."""
        copies, gradient, factor, divisor = row
        if divisor is not None:
            # XLA keeps the two factors apart, and multiplies faster than it divides.
            gradient = gradient * tf.cast(1.0 / divisor, gradient.dtype)
        if factor is not None:
            gradient = gradient * tf.cast(factor, gradient.dtype)
        self.gradient.tensor = gradient
        self.learning_rate.tensor = scalars["learning_rate"]
        iterations = self.optimizer._iterations
        variables = [*self.variables, *self._shared, iterations]
        values = [*copies, *scalars["shared"], scalars["iterations"]]
        places = list(zip(variables, values, strict=True))
        own = [variable._value for variable, _ in places]
        try:
            for variable, value in places:
                variable._value = value
            with self._applied(scalars["hyperparameters"]):
                yield
        finally:
            for (variable, _), value in zip(places, own, strict=True):
                variable._value = value

    def decay(self) -> None:
        """Decays the weight as Keras does, before the update."""
        if self._decays:
            weight = self.variables[0].value
            lr = tf.cast(self.learning_rate.tensor, weight.dtype)
            share = lr * tf.cast(self.optimizer.weight_decay, weight.dtype)
            weight.assign_sub(tf.convert_to_tensor(weight) * share)

    def take_step(self) -> None:
        """Has the optimizer update the weight and its state."""
        gradient, rate = self.gradient.tensor, self.learning_rate.tensor
        self.optimizer.update_step(gradient, self.variables[0], rate)

    def move_average(self, scalars: Scalars) -> None:
        """Moves the average towards the weight, after the update."""
        if self._averages:
            move(self.variables[-1].value, self.variables[0].value, scalars["share"])


@dataclasses.dataclass
class _Part:
    """What is between two requests of an update in stages, compiled.

    Attributes:
        function: Takes the arguments of `StagedUpdate._part`.
        sums: Where each of the sums that it asks for comes from, (kind, number), and the sum.
        is_last: Whether it completes the update.
        is_empty: Whether it does nothing but ask.
    """

    function: Any
    sums: list[Source]
    is_last: bool
    is_empty: bool


class StagedUpdate(Update):
    """The update of one kind of variable by an optimizer that is `Staged`."""

    def __init__(self, *args: Any):
        super().__init__(*args)
        self._stages: Any = None
        self._parts: list[_Part] = []
        self._sums: list[Source] = []

    def run(self, row: Row, scalars: Scalars) -> None:
        """Updates one variable of this kind on one device; see `Update`."""
        carried: Any = ()
        sums: list[Any] = []
        number = 0
        while True:
            arguments = (row, scalars, carried, sums)
            if number == len(self._parts):
                self._parts.append(self._traced(arguments))
            part = self._parts[number]
            folded: Any = ()
            if part.is_last:
                part.function(*arguments)
                return
            if not part.is_empty:
                carried, folded = part.function(*arguments)
            sums = self._evaluated(part, row, folded)
            number += 1

    def _traced(self, arguments: tuple) -> _Part:
        try:
            function = compiled(self._part, *arguments)
        except BaseException:  # The parts hang together: begin anew the next time.
            self._stages, self._parts, self._sums = None, [], []
            raise
        sums, self._sums = self._sums, []
        kinds = {operation.type for operation in function.graph.get_operations()}
        is_empty = kinds <= {"Placeholder", "Const", "NoOp"}
        return _Part(function, sums, self._stages is None, is_empty)

    def _part(self, row: Row, scalars: Scalars, carried: Any, sums: list[Any]) -> Any:
        with self.standing_in(row, scalars):
            try:
                if self._stages is None:
                    self.decay()
                    self._stages = self.optimizer.update_stages(
                        self.gradient, self.variables[0], self.learning_rate
                    )
                    carried, wanted = next(self._stages)
                else:
                    carried, wanted = self._stages.send((carried, sums))
            except StopIteration:
                self._stages = None
                self.move_average(scalars)
                return ()
            return carried, self._noted(wanted)

    def _noted(self, wanted: Sequence[SquareSum | Length]) -> list[Any]:
        """Notes where the sums come from; returns what must be passed on for them."""
        inputs = {id(self.gradient): ("gradient", 0)}
        inputs.update((id(v), ("variable", i)) for i, v in enumerate(self.variables))
        folded: list[Any] = []
        for each in wanted:
            place = inputs.get(id(each.of))
            last = len(each.of.shape) - 1
            if place is None or each.axis not in (None, last):
                place = ("folded", len(folded))
                x = tf.convert_to_tensor(each.of)
                # In float64 no square is infinite or 0.
                x = tf.cast(x, tf.float64) if isinstance(each, Length) else x
                folded.append(_folded(x, each.axis))
            self._sums.append((place, each))
        return folded

    @staticmethod
    def _evaluated(part: _Part, row: Row, folded: Sequence[Any]) -> list[Any]:
        places = {"gradient": [row.values], "variable": row.copies}
        sums = []
        for (kind, number), wanted in part.sums:
            is_norm = isinstance(wanted, Length)
            if kind == "folded":
                total = tf.reduce_sum(folded[number], axis=wanted.axis)
                sums.append(tf.cast(tf.sqrt(total), row.values.dtype) if is_norm else total)
                continue
            of = tf.convert_to_tensor(places[kind][number])
            factor, divisor = (row.factor, row.divisor) if kind == "gradient" else (None, None)
            if is_norm or divisor is not None:  # It is clipped, and may be large before.
                found = norm(of) if wanted.axis is None else _axis_norm(of, wanted.axis)
                # The norm itself may be infinite where that of what it is divided by is not.
                unit = found.unit if divisor is None else found.unit / divisor
                length = found.root * unit
                length = length if factor is None else length * tf.cast(factor, length.dtype)
                sums.append(length if is_norm else tf.square(length))
                continue
            total = _square_sum(of, wanted.axis)
            if factor is not None:
                total = total * tf.cast(tf.square(factor), total.dtype)
            sums.append(total)
        return sums


def _square_sum(x: Any, axis: int | None) -> Any:
    """Returns sum(x^2) over all or the last axis, in parallel, without a tensor of all squares."""
    if axis is None:
        return sum_of_squares(x)
    return tf.square(tf.raw_ops.EuclideanNorm(input=x, axis=[axis]))


def _axis_norm(x: Any, axis: int) -> Norm:
    """Returns the norms along the last axis."""

    def squares(tensors: Sequence[Any], factor: Any) -> Any:
        factor = None if factor is None else factor[..., None]
        return _square_sum(times(tensors[0], factor), axis)

    return root_of_squares(squares, [x], large_only=True)


def _folded(x: Any, axis: int | None) -> Any:
    """Returns sums of squares with 1/16 of the entries of x along an axis, or along any for None.

    The rest of the sum is a small one. XLA's own sums, and TensorFlow's over any axis but the last,
    take three times as long as these 16 additions in one pass.
    """
    if axis is None:  # Not the last, if possible, along which entries are loaded together.
        axis = next((i for i, size in enumerate(x.shape) if size >= 2 * _FOLDS), 0)
    size, shape = x.shape[axis], list(x.shape)
    if size < 2 * _FOLDS:
        return tf.square(x)
    length = size // _FOLDS
    shape[axis : axis + 1] = [_FOLDS, length]
    first, rest = tf.split(x, [_FOLDS * length, size % _FOLDS], axis=axis)
    total = tf.reduce_sum(tf.square(tf.reshape(first, shape)), axis=axis)
    return tf.concat([total, tf.square(rest)], axis=axis) if size % _FOLDS else total


def compiled(function: Callable[..., Any], *arguments: Any) -> Any:
    """Returns a function for XLA, traced outside of all graphs and for any device."""

    def specification(value: Any) -> Any:
        if value is None or isinstance(value, tf.Variable):
            return value
        return tf.TensorSpec(value.shape, value.dtype)

    specifications = tf.nest.map_structure(specification, arguments)
    with tf.init_scope(), tf.device(None):
        jitted = tf.function(function, jit_compile=True, autograph=False)
        return jitted.get_concrete_function(*specifications)
