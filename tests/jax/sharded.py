"""Every rule over the devices of a mesh; `python -m tests.jax.sharded FILE` with four of them.

Each type has one of the meshes and one of the settings, by turns; those whose state or products
have other shapes have both kinds of axes. What is wrong goes into the file, a JSON list of texts,
and how many cases there were. Of every case:

- the state that `init` returns is laid out as its parameters, and so is that of `abstract_state`;
- after three updates in one compiled function, with donated buffers, it still is;
- the weights are those of one device, within 1e-6 of the largest;
- of a spike there is as much as on one device, for the settings that look at the norm;
- what is compiled calls nothing on the host, and gathers no array, but for Muon's products.
"""

import itertools
import re
import sys
import warnings

import jax
import numpy as np
import optax
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

from optimization import ConfigWarning
from optimization.jax import OptimizerFactory, abstract_state, gradients
from tests.jax.common import config
from tests.reports import report
from tests.rules import contracts

# Arrays of four entries are summed as those of a million are.
gradients._ROWS = 2

AUTO, EXPLICIT = AxisType.Auto, AxisType.Explicit
MESHES = {
    "auto, 2 x 2": ((2, 2), AUTO),
    "explicit, 2 x 2": ((2, 2), EXPLICIT),
    "auto, 1 x 2": ((1, 2), AUTO),
    "explicit, 2 x 1": ((2, 1), EXPLICIT),
}
LAYOUTS = {
    "layer_0/kernel": ((4, 8), P("data", "model")),
    "layer_0/bias": ((8,), P(("data", "model"))),
    "layer_1/kernel": ((3, 4, 8), P(None, "model")),
    "layer_1/scale": ((5,), P()),  # no number of devices divides it
    "head/kernel": ((4, 8), P(None, "model")),
}
# Row means have lost the last axis, column means that before it.
FACTORED = {
    "layer_0/kernel": {"row": P("data"), "column": P("model"), "row_velocity": P("model")},
    "layer_1/kernel": {"row": P(None, "model"), "column": P(None, None)},
    "head/kernel": {"row": P(None), "column": P("model")},
}
OF_AXES = ("statistic_", "basis_")  # matrices, on all devices
AVERAGE = {"ema": {"average_decay": 0.5, "dynamic_decay": False}}
SETTINGS = [
    {},
    {"global_clipnorm": 0.5, "gradient_accumulation_steps": 2, "average": True},
    {"clipnorm": 0.2, "on_nonfinite": "skip"},
    {"adaptive_clip_factor": 0.05, "average": True},
    {"clipvalue": 0.3, "dtype": "bfloat16", "average": True},
]
SPIKES = {  # the settings, and how many spikes a state has counted
    "zclip": ({"warmup_steps": 2, "decay": 0.9}, lambda state: state.zclip[3]),
    "skip_spikes": ({"quantile": 1.0, "window": 2}, lambda state: state.skipped_spikes),
}
TYPES = {
    "adafactor": {"min_dim_size_to_factor": 4},
    "muon": {"exclude_layers": ["head"], "second_moment": "row"},
    "prodigy": {"d0": 0.1},
}
BOTH = dict.fromkeys(("adafactor", "muon"), ("auto, 2 x 2", "explicit, 2 x 2"))
STEPS = 3


def cases():
    """Yields types, meshes and settings."""
    turns = itertools.cycle(MESHES), itertools.cycle(SETTINGS)
    for name in contracts.classes():
        settings = next(turns[1])
        for mesh in BOTH.get(name, [next(turns[0])]):
            yield name, mesh, settings
            settings = next(turns[1])
    for name, mesh in zip(SPIKES, BOTH["muon"], strict=True):
        yield "sgd", mesh, {"momentum": 0.9, "about": name}


def mesh_of(name):
    shape, kind = MESHES[name]
    devices = jax.devices()[: shape[0] * shape[1]]
    return jax.make_mesh(shape, ("data", "model"), axis_types=(kind, kind), devices=devices)


def arrays(seed, scale, dtype):
    random = np.random.default_rng(seed)
    return {
        path: random.normal(0, scale, shape).astype(dtype) for path, (shape, _) in LAYOUTS.items()
    }


def on_mesh(tree, mesh):
    return {
        path: jax.device_put(x, NamedSharding(mesh, LAYOUTS[path][1])) for path, x in tree.items()
    }


def built(name, settings, params):
    fields = {n: v for n, v in settings.items() if n not in ("average", "dtype", "about")}
    averages = settings.get("average") and not contracts.section_of(name, {}).schedule_free
    sections = dict(AVERAGE) if averages else {}
    if "about" in settings:
        sections[settings["about"]] = SPIKES[settings["about"]][0]
    made = config(name, {**TYPES.get(name, {}), **fields}, 0.05, **sections)
    return OptimizerFactory(made, train_steps=10).build_optimizer(params)


def misplaced(state, mesh):
    """Yields what of a state is not where its parameter is."""
    for keys, x in jax.tree_util.tree_leaves_with_path(state):
        names = [str(getattr(key, "key", getattr(key, "name", ""))) for key in keys]
        path = names[-1]
        shape, spec = LAYOUTS.get(path, (None, None))
        if path not in LAYOUTS or x.shape == ():
            spec = P()
        elif x.shape != shape:
            slot = names[-2]
            spec = P() if slot.startswith(OF_AXES) else FACTORED[path][slot]
        if not x.sharding.is_equivalent_to(NamedSharding(mesh, spec), x.ndim):
            yield f"{'/'.join(names)} is laid out as {x.sharding}, not {spec}"


def outline(state):
    """Returns the shapes and dtypes of a state."""
    return jax.tree.map(lambda x: (x.shape, x.dtype), state)


def problems(name, mesh_name, settings):
    """Yields what is wrong with a case."""
    mesh, dtype = mesh_of(mesh_name), settings.get("dtype", "float32")
    host = arrays(0, 0.3, dtype)
    grads = [arrays(1 + step, 0.5, dtype) for step in range(STEPS)]
    if "about" in settings:
        grads[-1] = {path: 30 * gradient for path, gradient in grads[-1].items()}
    tx = built(name, settings, host)
    params = on_mesh(host, mesh)
    state = tx.init(params)
    yield from misplaced(state, mesh)
    like = abstract_state(tx, params)
    yield from (f"abstract: {text}" for text in misplaced(like, mesh))
    if outline(like) != outline(state):
        yield f"the abstract state is {outline(like)}, not {outline(state)}"

    def step(params, state, grads):
        updates, state = tx.update(grads, state, params)
        return optax.apply_updates(params, updates), state

    placed = [on_mesh(each, mesh) for each in grads]
    # It takes no arrays that are elsewhere than those that it was compiled for.
    kept = {}
    if name == "soap":  # of whose matrices XLA would choose the layout
        kept["out_shardings"] = jax.tree.map(lambda x: x.sharding, (params, like))
    compiled = jax.jit(step, donate_argnums=(0, 1), **kept)
    compiled = compiled.lower(params, state, placed[0]).compile()
    text = compiled.as_text()
    if "callback" in text:
        yield "it calls the host"
    gathered = sorted({*re.findall(r"(\S+) (?:all-gather|all-to-all)(?:-start)?\(", text)})
    if gathered and name not in ("muon", "soap"):
        yield f"it gathers {gathered}"
    given = params["layer_0/kernel"]
    for each in placed:
        params, state = compiled(params, state, each)
    if not given.is_deleted():
        yield "buffers that were donated are not used again"
    yield from (f"after updates: {text}" for text in misplaced((params, state), mesh))
    alone, alone_state = host, tx.init(host)
    on_one = jax.jit(step)
    for each in grads:
        alone, alone_state = on_one(alone, alone_state, each)
    if "about" in settings:
        _, count = SPIKES[settings["about"]]
        if [int(count(each)) for each in (state, alone_state)] != [1, 1]:
            yield f"of one spike it counts {count(state)}, one device {count(alone_state)}"
    found, expected = ([np.float64(x) for x in jax.tree.leaves(tree)] for tree in (params, alone))
    largest = max(np.abs(x).max() for x in expected)
    error = max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) / largest
    # SOAP's eigenvectors magnify rounding.
    if not error <= (1e-4 if name == "soap" else 1e-6):
        yield f"it is {error:.1e} from one device"


def main(path):
    warnings.simplefilter("error")  # such as of donated buffers that are of no use
    warnings.simplefilter("ignore", ConfigWarning)
    report(path, cases(), problems)


if __name__ == "__main__":
    main(*sys.argv[1:])
