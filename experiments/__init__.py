"""Experiments on real data that comes inside Python packages."""
