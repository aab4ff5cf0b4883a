"""One config, the same training everywhere: the cases, and how one of the five sides runs them.

`python -m tests.agreement SIDE FILE` trains every case on a side, `native_torch`, `native_jax` or
the backend that KERAS_BACKEND names, and writes weights and learning rates; `tools/agreement.py`
runs all five, each in a process of its own. Behind FILE names of optimizers and of learning rates
restrict it to these. What FILE has already is kept; it is written after each row, so that a run
that was stopped goes on.
"""

import itertools
import json
import os
import sys
import warnings
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import numpy as np

from optimization import LR_CLS, OPTIMIZERS_CLS, ConfigError, ConfigWarning, OptimizationConfig
from tests.rules import contracts

STEPS = 50
SHAPES = {
    "embedding.weight": (7, 4),
    "conv.weight": (3, 2, 4, 5),
    "attention.weight": (2, 3, 4),
    "dense.weight": (6, 5),
    "dense.bias": (5,),
    "norm.weight": (5,),
}
EXCLUDED = {"exclude_from_weight_decay": ["bias", "norm"]}
CORRECTED = {"epsilon_placement": "corrected"}
FACTORED = {"min_dim_size_to_factor": 3}

# The rows of types that are chosen by hand; `optimizers` adds those of all other types.
CHOSEN: list[tuple[str, dict[str, Any]]] = [
    ("sgd", {}),
    ("sgd", {"momentum": 0.9, "weight_decay": 0.1}),
    ("sgd", {"momentum": 0.9, "nesterov": True, "decay": 0.1}),
    ("sgd_experimental", {"momentum": 0.9, "weight_decay": 0.1}),
    ("sgd_torch", {"weight_decay": 0.1}),
    ("sgd_torch", {"nesterov": True, "warmup_steps": 5}),
    ("rmsprop", {"momentum": 0.9, "centered": True}),
    ("rmsprop", {"momentum": 0.9, "epsilon_in_sqrt": False, "classic_momentum": False}),
    ("adagrad", {"weight_decay": 0.1}),
    ("adagrad", {"epsilon_in_sqrt": False}),
    ("adadelta", {"weight_decay": 0.1}),
    ("ftrl", {"l2_regularization_strength": 0.1}),
    ("adam", {"weight_decay": 0.1}),
    ("adam", {"amsgrad": True, **CORRECTED}),
    ("adam", {"correct_bias": False}),
    ("adam", {"weight_decay": 0.1, "decoupled_weight_decay": False}),
    ("adam", {"nesterov": True, **CORRECTED}),
    ("adam_experimental", {"weight_decay": 0.1}),
    ("adamw", {"weight_decay_rate": 0.1, **EXCLUDED}),
    ("adamw", {"weight_decay_rate": 0.1, **EXCLUDED, **CORRECTED}),
    ("adamw", {"weight_decay_rate": 0.1, "weight_decay_order": "after"}),
    ("adamw", {"weight_decay_rate": 0.1, "nesterov": True, "nesterov_correction": "same"}),
    ("adamw", {"weight_decay_rate": 0.1, "cautious": True, "cautious_weight_decay": True}),
    ("adamw", {"mars": True, "lookahead": True, "max_update_rms": 0.5}),
    ("adamw_experimental", {"weight_decay": 0.1}),
    ("adamax", {"weight_decay": 0.1}),
    ("adamax", {"epsilon_in_norm": True}),
    ("nadam", {"weight_decay": 0.1}),
    ("nadam", {"momentum_decay": 0.004}),
    ("lamb", {"weight_decay_rate": 0.1, **EXCLUDED}),
    ("lamb", {"weight_decay": 0.1, **EXCLUDED}),
    ("lars", {"weight_decay_rate": 0.1, **EXCLUDED}),
    ("lars", {"weight_decay_rate": 0.1, "classic_momentum": False, "nesterov": True}),
    ("adafactor", {}),
    ("adafactor", {"beta1": 0.9, "weight_decay": 0.01, **FACTORED}),
    ("adafactor", {"variant": "paper", "beta1": 0.9}),
    ("adafactor", {"variant": "hf", "weight_decay": 0.1}),
    ("adafactor", {"variant": "torch", "weight_decay": 0.1}),
    ("adafactor", {"variant": "keras", "weight_decay": 0.1}),
    ("adafactor", {"variant": "optax", **FACTORED}),
    ("adafactor", {"variant": "timm", "weight_decay": 0.1, "min_dim_size_to_factor": 1}),
    ("adafactor", {"variant": "big_vision", "weight_decay": 0.1, **FACTORED}),
    ("adafactor_keras", {"weight_decay": 0.1}),
    ("lion", {"weight_decay": 0.1}),
    ("muon", {"adam_weight_decay": 0.1}),
    ("muon", {"rms_rate": None, "nesterov": False}),
    ("muon", {"variant": "normuon"}),
    ("muon", {"variant": "adamuon"}),
    ("muon", {"variant": "polar_express"}),
    ("muon", {"variant": "optax", "auxiliary": {"type": "lion"}}),
    ("prodigy", {"d0": 0.1, "weight_decay": 0.1}),
    ("prodigy", {"d0": 0.1, "use_bias_correction": True, "safeguard_warmup": True}),
    ("soap", {}),
    ("soap", {"precondition_frequency": 3, "normalize_gradients": True}),
    ("soap", {"kl": True, "shampoo_beta": 0.9, "correct_bias": False}),
    ("schedule_free_adamw", {"weight_decay": 0.1, "r": 1.0}),
    ("schedule_free_sgd", {"weight_decay": 0.1}),
]

UPDATES_LIMIT = 1e-5
"""Of the largest weight, after all steps."""

RATES_LIMIT = 1e-6
"""Of the largest rate: Keras computes rates in float32, native PyTorch in float64."""

FOLLOWING_A_METRIC = ("hf_reduce_lr_on_plateau", "hf_greedy")
"""Learning rates that are constants until an evaluation changes them."""

# What the types need beside a first rate of 0.02 and a training of 50 steps.
RATES: dict[str, dict[str, Any]] = {
    "constant": {"learning_rate": 0.02},
    "stepwise": {"boundaries": [10, 30], "values": [0.02, 0.005, 0.01]},
    "step_cosine_with_offset": {"boundaries": [0, 20, 50], "values": [0.02, 0.01, 0.001]},
    "cosine": {"alpha": 0.1},
    "cosine_restarts": {"first_decay_steps": 10, "m_mul": 0.8},
    "exponential": {"decay_rate": 0.5, "decay_steps": 10},
    "inverse_time": {"decay_rate": 0.5, "decay_steps": 10, "staircase": True},
    "warmup_stable_decay": {"stable_steps": 20, "decay_steps": 20, "decay_type": "1-sqrt"},
    # FTRL's weights are quotients of sums over learning rates. Where the last rate is but a
    # millionth of the others, which is the default here, they collapse, and rounding with them.
    "one_cycle": {"max_learning_rate": 0.02, "final_div_factor": 100.0},
    "polynomial": {"power": 2.0},
    "linear": {},
    "power": {},
    "power_linear": {},
    "power_with_offset": {"offset": 5, "pre_offset_learning_rate": 0.01},
    "power_law": {"max_learning_rate": 0.02, "batch_size": 1, "tokens_per_step": 10000},
    "sequence": {
        "phases": [
            {"type": "constant", "constant": {"learning_rate": 0.02}, "until": 20},
            {"type": "linear", "join": True, "linear": {"decay_steps": 30}},
        ]
    },
    "inverse_sqrt": {"timescale": 10.0},
    "relative_step": {},
    "hf_constant": {},
    "hf_constant_with_warmup": {"num_warmup_steps": 8},
    "hf_linear": {"num_warmup_steps": 8},
    "hf_cosine": {"num_warmup_steps": 8},
    "hf_cosine_with_restarts": {"num_warmup_steps": 8, "num_cycles": 3},
    "hf_polynomial": {"num_warmup_steps": 8, "power": 2.0},
    "hf_inverse_sqrt": {"num_warmup_steps": 8},
    "hf_cosine_with_min_lr": {"num_warmup_steps": 8, "min_lr": 0.001},
    "hf_cosine_warmup_with_min_lr": {
        "num_warmup_steps": 8,
        "min_lr_rate": 0.1,
        "warmup_lr_rate": 0.2,
    },
    "hf_warmup_stable_decay": {"num_warmup_steps": 8, "num_decay_steps": 20},
}
WARMUP = {"type": "linear", "linear": {"warmup_steps": 8, "warmup_learning_rate": 0.001}}
WITH_WARMUP = "cosine, linear warmup"
ITS_OWN = "its own"


def label(kind: str, switches: dict[str, Any]) -> str:
    """Returns the name of a row."""
    return " ".join([kind, *(f"{k}={json.dumps(v)}" for k, v in switches.items())])


def ours(registry: Any) -> list[str]:
    """Returns the registered types, but for those of tests."""
    modules = {name: registry.config_class(name).__module__ for name in registry}
    return [name for name, module in modules.items() if module.startswith("optimization.")]


def optimizers(only: Collection[str] | None = None) -> list[tuple[str, dict[str, Any]]]:
    """Returns every type, with the switches that select another form.

    A type of which none is chosen has its defaults, and all switches that can act together.

    Args:
        only: Names of types; None for all.
    """
    chosen = {kind for kind, _ in CHOSEN}
    others = [kind for kind in ours(OPTIMIZERS_CLS) if kind not in chosen]
    derived = [(kind, fields) for kind in others for fields in contracts.least_and_most(kind)]
    return [row for row in (*CHOSEN, *derived) if only is None or row[0] in only]


def unlisted() -> list[str]:
    """Returns the learning rates that no case covers."""
    return [name for name in ours(LR_CLS) if name not in {*RATES, *FOLLOWING_A_METRIC}]


def learning_rates() -> dict[str, dict[str, Any]]:
    """Returns the `learning_rate` and `warmup` sections, by the name of a column."""
    sections = {}
    for kind, settings in RATES.items():
        fields = LR_CLS.config_class(kind).field_names()
        first = {"initial_learning_rate": 0.02} if "initial_learning_rate" in fields else {}
        sections[kind] = {"learning_rate": {"type": kind, kind: {**first, **settings}}}
    sections[WITH_WARMUP] = {**sections["cosine"], "warmup": WARMUP}
    return sections


def told_apart(names: Sequence[str]) -> tuple[list[str] | None, list[str] | None]:
    """Returns the learning rates and the optimizers of some names; None where there are none."""
    types = [name for name in names if name in OPTIMIZERS_CLS]
    return [name for name in names if name not in types] or None, types or None


def configs(
    rates: Sequence[str] | None = None, only: Collection[str] | None = None
) -> Iterator[tuple[str, str, OptimizationConfig]]:
    """Yields the row, the rate and the config of every combination that is a right config.

    Args:
        rates: Names of learning rates; None for all.
        only: Names of optimizers; None for all.
    """
    sections = learning_rates()
    for kind, switches in optimizers(only):
        optimizer = {"type": kind, kind: switches}
        section = OptimizationConfig({"optimizer": optimizer}).optimizer.get()
        own = section.own_learning_rate() is not None
        for rate in [ITS_OWN] if own else rates or sections:
            config = OptimizationConfig({"optimizer": optimizer, **sections.get(rate, {})})
            if not section.divides_by_rate or _starts_above_zero(config):
                yield label(kind, switches), rate, config


def _starts_above_zero(config: OptimizationConfig) -> bool:
    # FTRL divides by the rate; such a config is refused.
    from optimization import OptimizerFactory

    try:
        factory = OptimizerFactory(config, train_steps=STEPS)
    except ConfigError:
        return False
    return bool((factory.learning_rate_curve(range(STEPS)) > 0).all())


def problem() -> tuple[dict[str, np.ndarray], list[dict[str, np.ndarray]]]:
    """Returns the first weights and the gradients of each step, float32."""
    random = np.random.default_rng(11)

    def draw(mean: float, scale: float) -> dict[str, np.ndarray]:
        return {n: random.normal(mean, scale, s).astype("float32") for n, s in SHAPES.items()}

    return draw(0.1, 0.3), [draw(0.0, 0.5 if step % 4 else 3.0) for step in range(STEPS)]


def keras_weights(config: OptimizationConfig) -> np.ndarray:
    """Trains on the backend that Keras has; returns all weights, one after the other."""
    import keras

    from optimization import OptimizerFactory
    from tests.golden_cases import make_variables

    factory = OptimizerFactory(config, train_steps=STEPS)
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    initial, gradients = problem()
    variables = make_variables(initial)
    for gradient in gradients:
        grads = [keras.ops.convert_to_tensor(gradient[v.path]) for v in variables]
        optimizer.apply(grads, variables)
    return np.concatenate([np.ravel(v.numpy()) for v in variables])


def torch_weights(config: OptimizationConfig) -> np.ndarray | None:
    """Trains natively on PyTorch; None where it does not have the type."""
    import torch

    from optimization.torch import OptimizerFactory
    from optimization.torch.recipes import is_native

    if not is_native(config.optimizer.type):
        return None
    factory = OptimizerFactory(config, train_steps=STEPS)
    initial, gradients = problem()
    parameters = {name: torch.nn.Parameter(torch.tensor(w)) for name, w in initial.items()}
    optimizer = factory.build_optimizer(parameters.items())
    scheduler = factory.build_scheduler(optimizer)
    for gradient in gradients:
        for name, parameter in parameters.items():
            parameter.grad = torch.tensor(gradient[name])
        optimizer.step()
        scheduler.step()
    return np.concatenate([p.detach().numpy().ravel() for p in parameters.values()])


def jax_weights(config: OptimizationConfig) -> np.ndarray:
    """Trains natively on JAX, all steps in one compiled function."""
    import jax
    import optax

    from optimization.jax import OptimizerFactory

    initial, gradients = problem()
    tx = OptimizerFactory(config, train_steps=STEPS).build_optimizer(initial)

    def step(carry: Any, grads: Any) -> Any:
        params, state = carry
        updates, state = tx.update(grads, state, params)
        return (optax.apply_updates(params, updates), state), None

    @jax.jit
    def train(params: Any, gradients: Any) -> Any:
        return jax.lax.scan(step, (params, tx.init(params)), gradients)[0][0]

    stacked = {name: np.stack([g[name] for g in gradients]) for name in initial}
    trained = train(initial, stacked)
    return np.concatenate([np.ravel(trained[name]) for name in initial])


def _with_sgd(sections: dict[str, Any]) -> OptimizationConfig:
    return OptimizationConfig({"optimizer": {"type": "sgd"}, **sections})


def keras_rates(sections: dict[str, Any]) -> np.ndarray:
    """Returns the learning rate at each step, as Keras computes it."""
    import keras

    from optimization import OptimizerFactory

    rate = OptimizerFactory(_with_sgd(sections), train_steps=STEPS).build_learning_rate()
    if not callable(rate):
        return np.full(STEPS, rate)
    steps = range(STEPS)
    return np.array([float(keras.ops.convert_to_numpy(rate(step))) for step in steps])


def torch_rates(sections: dict[str, Any]) -> np.ndarray:
    """Returns the learning rate at each step, as the scheduler sets it."""
    import torch

    from optimization.torch import OptimizerFactory

    factory = OptimizerFactory(_with_sgd(sections), train_steps=STEPS)
    optimizer = factory.build_optimizer([("w", torch.nn.Parameter(torch.zeros(1)))])
    scheduler = factory.build_scheduler(optimizer)
    rates = []
    for _ in range(STEPS):
        rates.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return np.array(rates)


def jax_rates(sections: dict[str, Any]) -> np.ndarray:
    """Returns the learning rate at each step, as the `optax.Schedule` has it."""
    import jax

    from optimization.jax import OptimizerFactory

    schedule = OptimizerFactory(_with_sgd(sections), train_steps=STEPS).build_learning_rate()
    return np.asarray(jax.jit(schedule)(np.arange(STEPS)))


NATIVE = {"native_torch": (torch_weights, torch_rates), "native_jax": (jax_weights, jax_rates)}
"""How the sides without Keras train, and what learning rates they have."""


def figure(one: np.ndarray, other: np.ndarray) -> float:
    """Returns max |difference| / max |value|."""
    scale = max(np.abs(one).max(), np.abs(other).max())
    return float(np.abs(one.astype("float64") - other).max() / scale)


def main(side: str, file: str, *names: str) -> None:
    """Trains every case on a side, or those of some types, and writes the results."""
    warnings.simplefilter("ignore", ConfigWarning)  # schedule-free ones under falling rates
    weights_of, rates_of = NATIVE.get(side, (keras_weights, keras_rates))
    results: dict[str, np.ndarray] = {}
    if os.path.exists(file):
        with np.load(file) as kept:
            results |= dict(kept)
    rates, types = told_apart(names)
    for name, sections in learning_rates().items():
        if (rates is None or name in rates) and f"rate|{name}" not in results:
            results[f"rate|{name}"] = rates_of(sections)
    for row, of_row in itertools.groupby(configs(rates, types), key=lambda case: case[0]):
        keys = {f"{row}|{rate}": config for _, rate, config in of_row}
        found = {key: weights_of(config) for key, config in keys.items() if key not in results}
        if found:
            results |= {key: weights for key, weights in found.items() if weights is not None}
            _write(file, results)
    _write(file, results)


def _write(file: str, results: dict[str, np.ndarray]) -> None:
    """Writes a file that is there as a whole or not at all."""
    unfinished = f"{file}.tmp"
    with open(unfinished, "wb") as stream:
        np.savez_compressed(stream, **results)
    os.replace(unfinished, file)


if __name__ == "__main__":
    main(*sys.argv[1:])
