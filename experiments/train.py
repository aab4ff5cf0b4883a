"""Trains and evaluates the experiments of this directory."""

import os
import sys

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

import experiments.digits
import experiments.digits_custom_optimizer
import experiments.language_model
import experiments.tabular  # noqa: F401
from optimization import training

if __name__ == "__main__":
    training.main()
