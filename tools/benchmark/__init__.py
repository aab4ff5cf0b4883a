"""Measures the updates of this project beside those of its peers, in turns, on one machine.

    python -m tools.benchmark --quick                      # small lists, a few minutes
    python -m tools.benchmark --lists bert_base --only ours,keras-jit,torch-fused
    python -m tools.benchmark.config                       # configs: import, parse, curves
    python -m tools.benchmark.trainer                      # the trainer beside a bare loop

Every contestant is a process of its own, which holds its weights, gradients and state, waits, and
updates when it is its turn. So contestants share neither threads nor memory, a slow minute of the
machine meets all of them alike, and one may run in another interpreter (`--python NAME=PATH`).
Beside each turn, before and after, `a += b` over as many float32 numbers is timed: the memory's
own speed at that moment, which times are given as multiples of.

See docs/performance.md.
"""
