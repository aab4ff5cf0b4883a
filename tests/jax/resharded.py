"""A state from one mesh to others by Orbax; `python -m tests.jax.resharded FILE` with four devices.

It is saved on two devices, restored onto one, saved there, and restored onto two again and onto
four, on explicit axes. What is wrong goes into the file, a JSON list of texts.
"""

import json
import pathlib
import sys

import jax
import numpy as np
import optax
import orbax.checkpoint as checkpoint
from jax.sharding import NamedSharding

from optimization.jax import abstract_state
from tests.jax import sharded


def tree_on(mesh, host):
    """Returns what parameters are on a mesh, without data."""

    def abstract(path, x):
        sharding = NamedSharding(mesh, sharded.LAYOUTS[path][1])
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    return {path: abstract(path, x) for path, x in host.items()}


def problems(folder):
    """Yields what is not as it was saved, or not where it belongs."""
    host = sharded.arrays(0, 0.3, "bfloat16")
    grads = sharded.arrays(1, 0.5, "bfloat16")
    settings = {"gradient_accumulation_steps": 2, "global_clipnorm": 1.0, "average": True}
    tx = sharded.built("adafactor", settings, host)
    meshes = [sharded.mesh_of(name) for name in ("auto, 1 x 2", "explicit, 2 x 2")]
    two, four = meshes
    one = jax.make_mesh((1, 1), ("data", "model"), devices=jax.devices()[3:4])

    @jax.jit
    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    saved = sharded.on_mesh(host, two)
    saved = saved, tx.init(saved)
    for _ in range(3):  # to the middle of an accumulation
        saved = step(*saved, sharded.on_mesh(grads, two))
    with checkpoint.StandardCheckpointer() as checkpointer:
        now = saved
        for number, mesh in enumerate((one, two, four)):
            path = folder / str(number)
            checkpointer.save(path, now)
            checkpointer.wait_until_finished()
            like = tree_on(mesh, host)
            now = checkpointer.restore(path, (like, abstract_state(tx, like)))
            yield from sharded.misplaced(now, mesh)
            if jax.tree.structure(now) != jax.tree.structure(saved):
                yield f"it has another structure: {jax.tree.structure(now)}"
            for a, b in zip(jax.tree.leaves(now), jax.tree.leaves(saved), strict=True):
                if a.dtype != b.dtype or np.asarray(a).tobytes() != np.asarray(b).tobytes():
                    yield f"it has other bits: {a}, not {b}"
            step(*now, sharded.on_mesh(grads, mesh))  # it goes on there


def main(path):
    path = pathlib.Path(path)
    found = [*problems(path.parent.resolve())]
    path.write_text(json.dumps({"problems": found}))


if __name__ == "__main__":
    main(*sys.argv[1:])
