"""Where arrays are: over several devices, state is laid out as its parameters."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from optimization.jax.state import Tree


def sharding_of(x: Any, axes: Sequence[int] | None = None) -> NamedSharding | None:
    """Returns the sharding of what has some axes of an array, or all; None where there is no mesh.

    Inside of what JAX traces, only explicit axes of a mesh are known.

    Args:
        x: An array, or what has its shape and its sharding.
        axes: The axes; None for all, in their order.
    """
    traced = isinstance(x, jax.core.Tracer)
    sharding = jax.typeof(x).sharding if traced else getattr(x, "sharding", None)
    if not isinstance(sharding, NamedSharding) or (traced and not _is_explicit(sharding)):
        return None
    if axes is None:
        return sharding
    along = [*sharding.spec, *[None] * (x.ndim - len(sharding.spec))]
    spec = PartitionSpec(*(along[axis] for axis in axes))
    return NamedSharding(sharding.mesh, spec, memory_kind=sharding.memory_kind)


def _is_explicit(sharding: Any) -> bool:
    return AxisType.Explicit in sharding.mesh.axis_types


def on_mesh_of(arrays: Sequence[Any], tree: Tree) -> Tree:
    """Returns a tree of which numbers are on all devices of the mesh that arrays are on.

    What stays on one device would be moved by the first call of a compiled function, and the
    second would compile it again.
    """
    found = [sharding_of(x, ()) for x in arrays if not isinstance(x, jax.core.Tracer)]
    everywhere = next((sharding for sharding in found if sharding is not None), None)
    if everywhere is None:
        return tree

    def placed(x: jax.Array) -> jax.Array:
        return x if sharding_of(x) is not None else jax.device_put(x, everywhere)

    return jax.tree.map(placed, tree)


def laid_out_as(like: Tree, function: Callable[..., Tree], *args: Tree) -> Tree:
    """Returns what a function returns, laid out as a tree is.

    On explicit axes of a mesh, where shardings are part of types, a formula would have to say the
    sharding of each product and each change of shape. Inside of this XLA finds them.
    """
    leaves = map(jax.typeof, jax.tree.leaves((like, args)))
    explicit = [x.sharding for x in leaves if _is_explicit(x.sharding)]
    if not explicit:
        return function(*args)

    def sharding(x: Any) -> NamedSharding:
        own = jax.typeof(x).sharding
        return own if _is_explicit(own) else NamedSharding(explicit[0].mesh, PartitionSpec())

    out_sharding = jax.tree.map(sharding, like)
    return jax.sharding.auto_axes(function, out_sharding=out_sharding)(*args)


def abstract_state(optimizer: Any, params: Tree) -> Tree:
    """Returns what `optimizer.init(params)` would, as shapes, dtypes and shardings without data.

    The sharding of whatever has the axes of a parameter is that of the parameter; numbers are on
    all devices of the mesh.

        like = abstract_state(optimizer, params)
        init = jax.jit(optimizer.init, out_shardings=jax.tree.map(lambda x: x.sharding, like))

    Args:
        optimizer: What `build_optimizer` returned, also in an `optax.chain`.
        params: The parameters: arrays, or each a `jax.ShapeDtypeStruct` with its `sharding`; all on
            one mesh, as a `NamedSharding`, or without one.

    Returns:
        A tree of `jax.ShapeDtypeStruct`, as checkpoint libraries take it to restore a state.
    """
    found = list(filter(None, map(sharding_of, jax.tree.leaves(params))))
    if not found:
        return jax.eval_shape(optimizer.init, params)
    mesh = found[0].mesh
    explicit = mesh.abstract_mesh.update(axis_types=(AxisType.Explicit,) * len(mesh.axis_names))

    def typed(x: Any) -> jax.ShapeDtypeStruct:
        own = sharding_of(x)
        spec = PartitionSpec() if own is None else own.spec
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(explicit, spec))

    def on_mesh(x: Any) -> jax.ShapeDtypeStruct:
        spec = PartitionSpec() if x.sharding is None else x.sharding.spec
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

    return jax.tree.map(on_mesh, jax.eval_shape(optimizer.init, jax.tree.map(typed, params)))
