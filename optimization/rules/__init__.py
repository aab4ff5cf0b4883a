"""The sections of the optimizers, one file for each family."""
