"""What a stage of `PipelineOptimizer` is, and the batch that travels through the stages.

A stage is a class in a file of its own: its fields are arguments of the optimizer, `__call__` is
its part of a step, and the other methods, which do nothing unless it has its own, say what it keeps
and saves. It acts once it is in the tuple `pipeline.STAGES`; docs/pipeline.md has an example.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Collection, Mapping, Sequence
from types import MappingProxyType
from typing import Any, ClassVar, dataclass_transform

import keras

from optimization.keras.gradients import is_overwritten
from optimization.keras.norms import Norm
from optimization.keras.updates import Updates

GradsAndVars = list[tuple[Any, Any]]


@dataclasses.dataclass(frozen=True)
class Batch:
    """The gradients of a step and their variables, on their way through the stages.

    Attributes:
        grads: The gradients: dense, sparse, or `Postponed` where updates are fused.
        variables: The model's variables, one for each gradient.
        updates: What takes the update, and says which factors may wait for it.
        translation: Whether `tf.function` translates a user's functions; see `compiling`.
        norms: Norms over gradients, once they are known for clips: that over those of each group
            with a clip of its own, by its label, and that over all others, under "".
        exceeded: Whether the bounds of clips so far were exceeded.
        targets: What was updated in the variables' place, after the update.
        moved: The `id` of each variable whose average has moved in the update.
    """

    grads: Sequence[Any]
    variables: Sequence[Any]
    updates: Updates
    translation: Any = None
    norms: Mapping[str, Norm] = dataclasses.field(default_factory=dict)
    exceeded: tuple[Any, ...] = ()
    targets: Sequence[Any] = ()
    moved: Collection[int] = ()

    @property
    def pairs(self) -> GradsAndVars:
        return list(zip(self.grads, self.variables, strict=True))

    def with_grads(self, grads: Sequence[Any]) -> "Batch":
        """Returns the batch with other gradients of the same variables."""
        return dataclasses.replace(self, grads=list(grads))

    def with_pairs(self, pairs: Sequence[tuple[Any, Any]]) -> "Batch":
        """Returns the batch with other (gradient, variable) pairs."""
        grads, variables = [gradient for gradient, _ in pairs], [variable for _, variable in pairs]
        return dataclasses.replace(self, grads=grads, variables=variables)

    def mapped(self, function: Callable[[Any, Any], Any]) -> "Batch":
        """Returns the batch with `function(gradient, variable)` in place of each gradient.

        What is no gradient but a new value (see `is_overwritten`) stays as it is.
        """
        return self.with_grads([g if is_overwritten(v) else function(g, v) for g, v in self.pairs])


Rest = Callable[[Batch], None]


def argument(default: Any, doc: str, **forms: Callable[[Any], Any]) -> Any:
    """Declares a field of a stage: an argument of the optimizer.

    Args:
        default: Its default.
        doc: What it is, for the docstring of the optimizer.
        **forms: Functions of its value, where that has another form: `save` returns what JSON can
            hold, for the config, `load` the argument of which `save` made that, and `text` what it
            prints as.
    """
    return dataclasses.field(default=default, metadata={"doc": doc, **forms})


def in_form(field: Any, form: str, value: Any) -> Any:
    """Returns the value of a field in one of the forms of `argument`."""
    return field.metadata.get(form, lambda same: same)(value)


@dataclass_transform(kw_only_default=True, eq_default=False, field_specifiers=(argument,))
class Stage:
    """A part of a step; a subclass becomes a dataclass of its fields.

    Attributes:
        title: What it does, for the table of the docs.
        sees: What it is given, for the table of the docs.
        set_by: What sets it, for the table of the docs.
        shows: Names of attributes and methods that the optimizer has too, beside the fields.
        remembers: Keys of its config that are no arguments.
        settable: Whether its fields can be set later, as attributes of the optimizer.
        may_raise: Whether it may end an update with an error.
        weights: Weights of the model that it assigns, beside those that the optimizer trains.
        kept_under: How the names begin of what it saves beside variables, or None for nothing.
        loads_later: How names of variables begin that may be loaded before they exist, or None.
        pipeline: The optimizer that it is a stage of.
        made: The scalars that `make` has made, by name.
    """

    title: ClassVar[str]
    sees: ClassVar[str] = ""
    set_by: ClassVar[str] = ""
    shows: ClassVar[tuple[str, ...]] = ()
    remembers: ClassVar[tuple[str, ...]] = ()
    settable: ClassVar[bool] = True
    may_raise: Any = False
    weights: Any = ()
    kept_under: ClassVar[str | None] = None
    loads_later: Any = None
    pipeline: Any = None
    made: Any = MappingProxyType({})

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        dataclasses.dataclass(cls, kw_only=True, eq=False, repr=False)

    # Its part of a step

    def __call__(self, batch: Batch, rest: Rest) -> None:
        """Acts, and calls `rest` with the batch that the following stages are to have.

        A stage that decides whether the step goes on calls `rest` in a branch of `conditionally`.
        """
        raise NotImplementedError(f"{type(self).__name__} has no part in a step: no `__call__`")

    def guard(self) -> contextlib.AbstractContextManager[Any]:
        """Returns a context for a whole step, which may raise where none must be taken."""
        return contextlib.nullcontext()

    def finalize(self) -> None:
        """Ends a training."""

    # What it is made for

    def attach(self, pipeline: Any) -> None:
        """Takes the optimizer; checks what depends on the fields of other stages.

        The stages before it are attached already.
        """
        self.pipeline, self.made = pipeline, {}

    def make(self, name: str, dtype: str) -> None:
        """Makes a scalar, which it keeps in `made` under its name."""
        self.made[name] = self.pipeline.add_variable((), dtype=dtype, name=name)

    def set_model(self, model: keras.Model) -> None:
        """Takes from a built model what it needs to know."""

    def check(self, variables: Sequence[Any]) -> None:
        """Raises if it can't act on the variables, before anything is built."""

    def build(self, variables: Sequence[Any]) -> None:
        """Creates its state, by `pipeline.add_variable`, for the variables that are not frozen."""

    # What it keeps

    def variables_by_path(self) -> dict[str, keras.Variable]:
        """Returns its variables by unique names that are the same in every process."""
        return dict(self.made)

    def inner_variables(self) -> list[keras.Variable]:
        """Returns variables that `pipeline.add_variable` did not make."""
        return []

    def kept(self) -> dict[str, Any]:
        """Returns arrays that are saved beside the variables, by names under `kept_under`."""
        return {}

    def keep(self, values: Mapping[str, Any]) -> None:
        """Takes what `kept` returned, perhaps in another process."""

    def load_later(self, values: dict[str, Any]) -> None:
        """Takes loaded values of variables that do not exist yet."""

    # Its config

    def get_config(self) -> dict[str, Any]:
        """Returns its fields, and what it remembers, in a form that JSON can hold."""
        return {f.name: in_form(f, "save", getattr(self, f.name)) for f in fields(self)}

    def remember(self, saved: Mapping[str, Any]) -> None:
        """Takes what it `remembers` from a config; None where that is not there."""

    def set(self, name: str, value: Any) -> None:
        """Changes a field, by the rules of the constructor."""
        if not self.settable or name not in {field.name for field in fields(self)}:
            raise AttributeError(f"`{name}` can't be set: it is an argument of the constructor.")
        this: Any = self  # a subclass is a dataclass
        changed = dataclasses.replace(this, **{name: value})
        setattr(self, name, getattr(changed, name))

    def require_positive(self, *names: str) -> None:
        """Raises a `ValueError` for a field that is neither None nor > 0."""
        for name in names:
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ValueError(f"Argument `{name}` must be > 0, received: {name}={value}")


# Of a stage, or of its class, which mypy takes for no dataclass.
fields: Callable[[Any], tuple[Any, ...]] = dataclasses.fields
