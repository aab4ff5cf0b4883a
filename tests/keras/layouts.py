"""Every rule under `keras.distribution`; `python -m tests.keras.layouts FILE` with two devices.

Each type is trained by `model.fit` on one device and under `ModelParallel` or `DataParallel`, by
turns, with one of the settings. What is wrong goes into the file, a JSON list of texts, and how
many cases there were. Of every case:

- state is laid out as its weights, after it was built and after training;
- the weights are those of one device, within 1e-6 of the largest.
"""

import itertools
import sys
import warnings

import keras
import numpy as np
from jax.sharding import PartitionSpec as P
from keras import distribution

from optimization import ConfigWarning, OptimizationConfig, OptimizerFactory
from tests.reports import report
from tests.rules import contracts

FEATURES, BATCH, UPDATES = 4, 8, 2
AVERAGE = {"ema": {"average_decay": 0.5, "dynamic_decay": False}}
SETTINGS = [
    {"global_clipnorm": 0.1, "gradient_accumulation_steps": 2, "average": True},
    {"clipnorm": 0.1, "on_nonfinite": "skip"},
    {"adaptive_clip_factor": 0.05, "average": True},
]
TYPES = {"adafactor": {"min_dim_size_to_factor": 4}, "muon": {"exclude_layers": ["head"]}}
RATES = {"adadelta": 10.0, "lars": 2.0}
# Of the means that Adafactor keeps of a kernel, rows have its first axis, and columns its last.
FACTORED = {
    ("rows", "hidden/kernel"): P(None),
    ("columns", "hidden/kernel"): P("model"),
    ("rows", "head/kernel"): P("model"),
    ("columns", "head/kernel"): P(None),
}


def model():
    keras.utils.set_random_seed(0)
    layers = [
        keras.Input((FEATURES,)),
        keras.layers.Dense(8, activation="tanh", name="hidden"),
        keras.layers.Dense(8, use_bias=False, name="head"),
    ]
    return keras.Sequential(layers, name="model")


def data():
    random = np.random.RandomState(0)
    features = random.randn(UPDATES * BATCH, FEATURES).astype("float32")
    # Targets far from what the model says: no gradient comes near 0, where rounding would decide.
    return features, np.tanh(features @ random.randn(FEATURES, 8)).astype("float32") + 3.0


def parallel(kind):
    devices = distribution.list_devices()[:2]
    if kind == "data":
        return distribution.DataParallel(devices=devices)
    mesh = distribution.DeviceMesh((1, 2), ("batch", "model"), devices)
    layouts = distribution.LayoutMap(mesh)
    # It matches the variables of optimizers too, whatever axes these have.
    layouts[".*hidden.*kernel.*"] = (None, "model")
    layouts[".*hidden.*bias"] = ("model",)
    layouts[".*head/kernel"] = ("model", None)
    return distribution.ModelParallel(layout_map=layouts, batch_dim_name="batch")


def config(name, settings):
    section = contracts.section_of(name, {})
    fields = {n: v for n, v in settings.items() if n != "average"}
    if getattr(section, "gradient_clip_norm", None):
        fields["gradient_clip_norm"] = 0.0
    averages = settings.get("average") and not section.schedule_free
    rate = {"type": "constant", "constant": {"learning_rate": RATES.get(name, 0.1)}}
    return OptimizationConfig(
        {
            "optimizer": {"type": name, name: {**TYPES.get(name, {}), **fields}},
            "learning_rate": rate,
            **(AVERAGE if averages else {}),
        }
    )


def misplaced(trained, optimizer):
    """Yields what of an optimizer's state is not where its weight is."""
    weights = {weight.path: weight for weight in trained.trainable_variables}
    for name, kept in optimizer.variables_by_path().items():
        path = next((path for path in weights if name.endswith(f"/{path}")), None)
        if path is None or not kept.shape:
            continue
        weight, sharding = weights[path], kept.value.sharding
        wanted = weight.value.sharding
        if tuple(kept.shape) != tuple(weight.shape):
            slot = name.removesuffix(f"/{path}").rpartition("/")[2]
            split = "model" in weight.value.sharding.spec
            spec = FACTORED[slot, path.removeprefix("model/")] if split else P(None)
            wanted = type(sharding)(sharding.mesh, spec)
        if not sharding.is_equivalent_to(wanted, len(kept.shape)):
            yield f"{name} is laid out as {sharding}, not {wanted}"


def trained(name, settings, parallelism=None):
    """Returns the weights after `fit`, and what was laid out otherwise."""
    distribution.set_distribution(parallelism)
    try:
        made, factory = model(), OptimizerFactory(config(name, settings), train_steps=UPDATES)
        optimizer = factory.build_optimizer(factory.build_learning_rate())
        optimizer.build(made.trainable_variables)
        wrong = [] if parallelism is None else [*misplaced(made, optimizer)]
        if isinstance(parallelism, distribution.ModelParallel):
            weights = made.trainable_variables
            wrong += [f"{w.path} is whole" for w in weights if "model" not in w.value.sharding.spec]
        made.compile(optimizer, loss="mse")
        size = BATCH // settings.get("gradient_accumulation_steps", 1)
        made.fit(*data(), batch_size=size, shuffle=False, verbose=0)
        wrong += [] if parallelism is None else misplaced(made, optimizer)
        return made.get_weights(), wrong
    finally:
        distribution.set_distribution(None)


def problems(name, kinds, settings):
    """Yields what is wrong with a type."""
    expected, _ = trained(name, settings)
    for kind in kinds:
        found, wrong = trained(name, settings, parallel(kind))
        yield from (f"{kind}: {text}" for text in wrong)
        largest = max(np.abs(x).max() for x in expected)
        error = max(np.abs(a - b).max() for a, b in zip(found, expected, strict=True)) / largest
        if not error <= 1e-6:
            yield f"{kind}: it is {error:.1e} from one device"


def cases():
    """Yields types, kinds of parallelism and settings."""
    kinds, settings = itertools.cycle(("model", "data")), itertools.cycle(SETTINGS)
    for name in contracts.ONE_OF_EACH_KIND:
        one = ("model", "data") if name == "adafactor" else (next(kinds),)
        yield name, one, next(settings)


def main(path):
    warnings.simplefilter("ignore", ConfigWarning)
    report(path, cases(), problems)


if __name__ == "__main__":
    main(*sys.argv[1:])
