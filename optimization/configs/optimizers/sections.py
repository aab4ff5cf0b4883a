"""Importing this registers every optimizer section, in the order in which they are listed."""

# isort: off
from optimization.configs.optimizers import sgd, adaptive, adam, layerwise, adafactor, lion, muon
from optimization.configs.optimizers import schedule_free

__all__ = ["adafactor", "adam", "adaptive", "layerwise", "lion", "muon", "schedule_free", "sgd"]
