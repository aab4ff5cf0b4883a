"""The update as a function: what `init` and `update` of a gradient transformation do."""

import functools
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax import lax

from optimization.jax import precise
from optimization.jax.formula import updated
from optimization.jax.gradients import are_within
from optimization.jax.plan import Leaf, Part, Plan, of_other_shapes, wide
from optimization.jax.settings import Settings
from optimization.jax.sharding import laid_out_as, on_mesh_of
from optimization.jax.state import OptimizerState, Tree, counted
from optimization.matching.rules import DEFAULT
from optimization.rules.arrays import State
from optimization.rules.base import bound_before
from optimization.rules.rule import Numbers
from optimization.rules.schedule_free import ScheduleFreeFields

_NOTHING = optax.MaskedNode()


class Transformation:
    """Makes the state of an optimizer, and updates from gradients.

    Args:
        plan: How each parameter is updated.
        settings: What is the same for all.
    """

    def __init__(self, plan: Plan, settings: Settings):
        self._plan = plan
        self._settings = settings

    # State

    def init(self, params: Tree) -> OptimizerState:
        """Returns the state before the first update."""
        leaves = self._plan.leaves(params)
        arrays = _arrays(params)
        structure: Any = jax.tree.structure(params)
        settings, count = self._settings, jnp.zeros([], jnp.int32)
        counter = functools.partial(jnp.zeros, [], jnp.int32)

        def tree(value: Callable[[Leaf, jax.Array], Any]) -> Tree:
            pairs = zip(leaves, arrays, strict=True)
            found = [_NOTHING if leaf.part is None else value(leaf, x) for leaf, x in pairs]
            return _tree(structure, found)

        def slot(name: str) -> Tree:
            def initial(leaf: Leaf, x: jax.Array) -> Any:
                slots = [slot for slot in leaf.slots() if slot.name == name]
                return precise.initial(settings.state, leaf, slots[0], x) if slots else _NOTHING

            return tree(initial)

        def zeros(leaf: Leaf, x: jax.Array) -> jax.Array:
            return jnp.zeros_like(x, wide(x.dtype))

        accumulates, grows = settings.accumulates, bool(settings.ramp.boundaries)
        state = OptimizerState(
            step=count,
            hyperparameters={
                **self._plan.reported(self._plan.numbers(count)),
                **settings.reported(count),
            },
            slots={name: slot(name) for name in self._plan.slot_names()},
            shared={
                label: part.initial()
                for label, part in self._plan.parts.items()
                if part.rule.shared
            },
            masters=tree(
                lambda leaf, x: _copied(x) if precise.has_copy(settings.state, x) else _NOTHING
            ),
            average=None if settings.average is None else tree(lambda leaf, x: _copied(x)),
            gradient_sums=tree(zeros) if accumulates else None,
            micro_step=counter() if accumulates else None,
            due_updates=counter() if grows else None,
            nonfinite_steps=counter() if settings.skips else None,
            consecutive_nonfinite=counter() if settings.skips else None,
            gradient_norm=jnp.zeros([]) if settings.clips.act else None,
            clipped_steps=counter() if settings.clips.act else None,
            **settings.spikes.initial(),
        )
        return on_mesh_of(arrays, state)

    # Updates

    def update(
        self, grads: Tree, state: OptimizerState, params: Tree | None = None, **extra: Any
    ) -> tuple[Tree, OptimizerState]:
        """Returns what is added to the parameters, and the next state.

        Args:
            grads: The gradients, a tree as that of the parameters.
            state: The state.
            params: The parameters.
            **extra: `value`, the loss, where `skip_spikes` looks at it; what else other
                transformations of an `optax.chain` need is not used.

        Raises:
            TypeError: If the state is not what `init` returned.
            ValueError: If there are no parameters, gradients of another structure or shape, a
                state that has other slots, or no loss where it is needed.
        """
        if not isinstance(state, OptimizerState):
            message = "must be the OptimizerState that `init` returned"
            raise TypeError(f"Argument `state` {message}, received: {type(state).__name__}")
        saved, here = sorted(state.slots), sorted(self._plan.slot_names())
        if saved != here:
            message = f"is of another `optimizer`: its slots are {saved}, and here {here}"
            raise ValueError(f"Argument `state` {message}. Set that one, or `init` anew")
        if params is None:
            raise ValueError("Argument `params` is needed: `update(grads, state, params)`")
        structure: Any = jax.tree.structure(params)
        if jax.tree.structure(grads) != structure:
            raise ValueError(
                "Argument `grads` must have the structure of `params`, "
                f"received: {jax.tree.structure(grads)}, not {structure}"
            )
        if others := of_other_shapes(grads, params):
            raise ValueError(f"Argument `grads` must have the shapes of `params`, got {others}")
        begins = True if state.micro_step is None else state.micro_step == 0
        state = self._settings.spikes.with_loss(state, extra.get("value"), begins)
        return laid_out_as((params, state), self._updated, grads, state, params)

    def _updated(self, grads: Tree, state: OptimizerState, params: Tree) -> Any:
        structure: Any = jax.tree.structure(params)
        work = _Work(self._plan, self._settings, structure, params)
        found, state = work.run(jax.tree.leaves(grads), state)
        return structure.unflatten(work.all_leaves(found)), state

    def averaged(self, state: OptimizerState, params: Tree) -> Tree:
        """Returns the averaged weights in the dtypes of the parameters.

        Raises:
            ValueError: If there is no average.
        """
        structure: Any = jax.tree.structure(params)
        work = _Work(self._plan, self._settings, structure, params)
        return structure.unflatten(work.averaged(state))


class _Work:
    """One call of `update`.

    Lists have an element for each parameter that is trained.
    """

    def __init__(self, plan: Plan, settings: Settings, structure: Any, params: Tree):
        self._plan, self._settings, self._structure = plan, settings, structure
        self._everything = _arrays(params)
        leaves = plan.leaves(params)
        self._places = [i for i, leaf in enumerate(leaves) if leaf.part is not None]
        self._leaves = [leaves[i] for i in self._places]
        self._params = [self._everything[i] for i in self._places]

    def all_leaves(self, values: Sequence[jax.Array]) -> list[jax.Array]:
        """Returns updates of all parameters, 0 for those that are not trained."""
        found = dict(zip(self._places, values, strict=True))
        zeros = jnp.zeros_like
        return [found[i] if i in found else zeros(x) for i, x in enumerate(self._everything)]

    def averaged(self, state: OptimizerState) -> list[jax.Array]:
        """Returns the averages of all parameters; what has none is its own."""
        rules = [typing.cast(Part, leaf.part).rule for leaf in self._leaves]
        if self._settings.average is not None:
            averages = self._of(state.average)
        elif any(rule.schedule_free for rule in rules):
            averages = self._weights(state)
            slots = {name: self._of(tree) for name, tree in state.slots.items()}
            for place, (leaf, rule) in enumerate(zip(self._leaves, rules, strict=True)):
                if isinstance(rule, ScheduleFreeFields):
                    kept = State({name: values[place] for name, values in slots.items()})
                    h = Numbers(**leaf.settings)
                    averages[place] = rule.to_evaluate(averages[place], kept, h)
        else:
            raise ValueError("There is no average: the config has neither `ema` nor `use_ema`.")
        found = dict(zip(self._places, averages, strict=True))
        return [
            found[i].astype(x.dtype) if i in found else x for i, x in enumerate(self._everything)
        ]

    def _of(self, tree: Tree) -> list[Any]:
        if tree is None:
            return [_NOTHING] * len(self._places)
        leaves = self._structure.flatten_up_to(tree)
        return [leaves[i] for i in self._places]

    def _tree(self, values: Sequence[Any]) -> Tree:
        found = dict(zip(self._places, values, strict=True))
        count = self._structure.num_leaves
        return _tree(self._structure, [found.get(i, _NOTHING) for i in range(count)])

    def run(
        self, grads: Sequence[jax.Array], state: OptimizerState
    ) -> tuple[list[jax.Array], OptimizerState]:
        """Returns the updates and the next state."""
        settings, grads = self._settings, [grads[i] for i in self._places]
        grads = [jnp.asarray(g, wide(x.dtype)) for g, x in zip(grads, self._params, strict=True)]
        if settings.loss_scale is not None:
            grads = [g / settings.loss_scale for g in grads]
        if not settings.accumulates:
            return self._checked(grads, state)
        sums = [total + g for total, g in zip(self._of(state.gradient_sums), grads, strict=True)]
        steps: Any = settings.ramp.counts[0]
        if settings.ramp.boundaries:
            steps = settings.ramp.at(state.due_updates, jnp)
        micro_step = (state.micro_step + 1) % steps
        state = state._replace(micro_step=micro_step)

        def update(sums: list[jax.Array], state: OptimizerState) -> Any:
            means = [total / steps for total in sums]
            if settings.ramp.boundaries:
                state = state._replace(due_updates=counted(state.due_updates))
            updates, state = self._checked(means, state)
            zeros = [jnp.zeros_like(total) for total in sums]
            return updates, state._replace(gradient_sums=self._tree(zeros))

        def wait(sums: list[jax.Array], state: OptimizerState) -> Any:
            return self._no_updates(), state._replace(gradient_sums=self._tree(sums))

        return lax.cond(micro_step == 0, update, wait, sums, state)

    def _no_updates(self) -> list[jax.Array]:
        return [jnp.zeros_like(x, wide(x.dtype)) for x in self._params]

    def _checked(self, grads: list[jax.Array], state: OptimizerState) -> Any:
        """Updates, unless a gradient is not finite and such updates are to be skipped."""
        parts = [typing.cast(Part, leaf.part) for leaf in self._leaves]
        pairs = zip(parts, grads, strict=True)
        grads = [part.held(state.step, jnp.zeros_like(g), g) for part, g in pairs]
        if not self._settings.skips:
            return self._judged(grads, state)

        def update(grads: list[jax.Array], state: OptimizerState) -> Any:
            updates, state = self._judged(grads, state)
            return updates, state._replace(consecutive_nonfinite=jnp.zeros([], jnp.int32))

        def skip(grads: list[jax.Array], state: OptimizerState) -> Any:
            return self._no_updates(), state._replace(
                nonfinite_steps=counted(state.nonfinite_steps),
                consecutive_nonfinite=counted(state.consecutive_nonfinite),
            )

        return lax.cond(are_within(grads, self._largest()), update, skip, grads, state)

    def _judged(self, grads: list[jax.Array], state: OptimizerState) -> Any:
        """Updates, unless that is a spike and such updates are to be skipped."""
        settings = self._settings
        if settings.spikes.skip is None:
            return self._updated(grads, state)

        def skip(grads: list[jax.Array], state: OptimizerState) -> Any:
            skipped = counted(state.skipped_spikes)
            return self._no_updates(), state._replace(skipped_spikes=skipped)

        is_spike, state = settings.spikes.judged(grads, state)
        return lax.cond(is_spike, skip, self._updated, grads, state)

    def _largest(self) -> list[float]:
        """Returns the largest gradient that each parameter may have, before clips."""
        found = []
        for leaf in self._leaves:
            part = typing.cast(Part, leaf.part)
            most = part.rule.largest_gradient_of(Numbers(**leaf.settings))
            found.append(bound_before(self._settings.clips.of_group(part.label).most, most))
        return found

    def _updated(self, grads: Sequence[jax.Array], state: OptimizerState) -> Any:
        settings, weights = self._settings, self._weights(state)
        now, shared = self._plan.numbers(state.step), {}
        if settings.clips.act:
            labels = [typing.cast(Part, leaf.part).label for leaf in self._leaves]
            clip, kept = settings.clips.clipped(
                grads, weights, labels, now[DEFAULT], settings.spikes.zclip, state.zclip
            )
            clipped_steps = counted(state.clipped_steps, clip.exceeded)
            norm = clip.norm.astype(state.gradient_norm.dtype)  # float64 where JAX has that
            state = state._replace(gradient_norm=norm, clipped_steps=clipped_steps, zclip=kept)
            grads = clip.grads
        for label, values in state.shared.items():
            part = self._plan.parts[label]
            shared[label] = part.held(state.step, values, part.prepared(values, now[label]))
        slots = {name: self._of(tree) for name, tree in state.slots.items()}
        updates = []
        for place, (leaf, g, w) in enumerate(zip(self._leaves, grads, weights, strict=True)):
            part = typing.cast(Part, leaf.part)
            own = {n: values[place] for n, values in slots.items() if _exists(values[place])}
            kept = {name: precise.widened(value) for name, value in own.items()}
            h = leaf.numbers({**now[part.label], **shared.get(part.label, {})}, w.dtype)
            update, moved = updated(part.rule, g, w, kept, h)
            updates.append(part.held(state.step, jnp.zeros_like(update), update))
            for name, value in moved.items():
                to = (own[name].dtype, leaf.path, name, state.step)
                after = precise.stored(settings.state, value, *to)
                slots[name][place] = part.held(state.step, own[name], after)
        for label, values in shared.items():
            shared[label] = self._concluded(label, values, slots)
        count = counted(state.step)
        reported = {**self._plan.reported(now), **settings.reported(state.step)}
        # jit would leave out those before, of which nothing is made: then each number of the state
        # would be written over the next one, and be copied for that.
        reported, _ = lax.optimization_barrier((reported, state.hyperparameters))
        state = state._replace(
            step=count,
            hyperparameters=reported,
            slots={name: self._tree(values) for name, values in slots.items()},
            shared=shared,
        )
        new = [w + u for w, u in zip(weights, updates, strict=True)]
        if settings.average is not None:
            averages = self._of(state.average)
            share = settings.average.share(count)
            averages = [a + (w - a) * share for a, w in zip(averages, new, strict=True)]
            state = state._replace(average=self._tree(averages))
            if settings.average.overwrite_frequency is not None:
                due = count % settings.average.overwrite_frequency == 0
                new = [jnp.where(due, a, w) for a, w in zip(averages, new, strict=True)]
                updates = [after - w for after, w in zip(new, weights, strict=True)]
        updates = self._rounded(updates, new, state.step)
        return updates, state._replace(masters=self._masters(new))

    def _concluded(
        self, label: str, shared: dict[str, Any], slots: Mapping[str, Sequence[Any]]
    ) -> dict[str, Any]:
        """Returns what a group shares after all updates, also with those of the same optimizer."""
        part, sums = self._plan.parts[label], {}
        for name in part.rule.summed:
            rows = zip(self._leaves, slots[name], strict=True)
            sums[name] = sum(x for leaf, x in rows if _exists(x) and part.shares_with(leaf.part))
        return part.concluded(shared, sums) if sums else shared

    def _weights(self, state: OptimizerState) -> list[jax.Array]:
        """Returns what is trained: the parameters, or their float32 copies.

        A parameter of which its copy is not the copy any more, since it was assigned, counts.
        """

        def weight(x: jax.Array, master: Any) -> jax.Array:
            if not _exists(master):
                return x.astype(wide(x.dtype))
            return jnp.where(master.astype(x.dtype) == x, master, x.astype(master.dtype))

        masters = self._of(state.masters)
        return [weight(x, master) for x, master in zip(self._params, masters, strict=True)]

    def _masters(self, moved: Sequence[jax.Array]) -> Tree:
        pairs = zip(self._params, moved, strict=True)
        state = self._settings.state
        return self._tree([new if precise.has_copy(state, x) else _NOTHING for x, new in pairs])

    def _rounded(
        self, updates: Sequence[jax.Array], moved: Sequence[jax.Array], step: jax.Array
    ) -> list[jax.Array]:
        """Returns updates by which parameters in low precision become what moved, rounded."""

        def update(leaf: Leaf, x: jax.Array, u: jax.Array, new: jax.Array) -> jax.Array:
            if not _is_low(x):
                return u
            to = (x.dtype, leaf.path, "weight", step)
            return precise.stored(self._settings.state, new, *to).astype(new.dtype) - x

        rows = zip(self._leaves, self._params, updates, moved, strict=True)
        return [update(*each) for each in rows]


def _tree(structure: Any, values: Sequence[Any]) -> Tree:
    """Returns a tree of values; None, which is less to pass on, where there are only none."""
    return structure.unflatten(values) if not values or any(map(_exists, values)) else None


def _exists(value: Any) -> bool:
    return not isinstance(value, optax.MaskedNode)


def _is_low(x: jax.Array) -> bool:
    return bool(wide(x.dtype) != x.dtype)


def _arrays(params: Tree) -> list[jax.Array]:
    """Returns the leaves of a tree, numbers of Python as arrays."""
    leaves = jax.tree.leaves(params)
    return [x if hasattr(x, "dtype") else jnp.asarray(x, jnp.result_type(x)) for x in leaves]


def _copied(x: jax.Array) -> jax.Array:
    return jnp.array(x, wide(x.dtype), copy=True)
