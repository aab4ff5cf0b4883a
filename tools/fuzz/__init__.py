"""Feeds readers of this package with what nobody trusts, and checks what SECURITY.md promises.

python -m tools.fuzz                          every target, 1,000 inputs each
python -m tools.fuzz yaml --seeds 0:1000      of one target the seeds 0 to 999
python -m tools.fuzz yaml --engine atheris    steered by what code an input reaches
"""
