"""The oracle of all sides: the optimizers, transcribed from their papers and sources.

`UPDATES` has for a type of optimizer a function of its section and of `rate(t)`. That returns
`update(path, w, g, t, slots) -> w`, in float64 NumPy, with t = 1, 2, ...
"""

from tests.references import modifiers, updates
from tests.references.adafactor import adafactor, adafactor_keras
from tests.references.soap import soap

UPDATES = {
    "sgd": updates.sgd,
    "sgd_experimental": updates.sgd,
    "sgd_torch": updates.sgd_torch,
    "rmsprop": updates.rmsprop,
    "adagrad": updates.adagrad,
    "adadelta": updates.adadelta,
    "ftrl": updates.ftrl,
    "adam": updates.adam,
    "adam_experimental": updates.adam,
    "adamw": updates.adamw,
    "adamw_experimental": updates.adam,
    "adamax": updates.adamax,
    "nadam": updates.nadam,
    "lamb": updates.lamb,
    "lars": updates.lars,
    "ademamix": updates.ademamix,
    "radam": updates.radam,
    "adopt": updates.adopt,
    "stable_adamw": updates.stable_adamw,
    "prodigy": updates.prodigy,
    "soap": soap,
    "lion": updates.lion,
    "muon": updates.muon,
    "schedule_free_adamw": updates.schedule_free,
    "schedule_free_sgd": updates.schedule_free,
    "adafactor": adafactor,
    "adafactor_keras": adafactor_keras,
}


def update_of(kind, section, rate):
    """Returns the transcription of a type, with what modifies it."""
    if modifiers.is_modified(section):
        return modifiers.modified(kind, section, rate, UPDATES)
    return UPDATES[kind](section, rate)


def weights_of(update, initial, gradients):
    """Returns the weights after an update with each set of gradients."""
    weights = {path: value.astype("float64") for path, value in initial.items()}
    slots = {path: {} for path in initial}
    for t, gradient in enumerate(gradients, start=1):
        for path in weights:
            g = gradient[path].astype("float64")
            weights[path] = update(path, weights[path], g, t, slots[path])
    return weights
