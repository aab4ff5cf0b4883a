"""Writes what optimizers do to the rows of a table that a batch does not look up.

    python -m tools.sparse_rows

Run it on TensorFlow after a type of optimizer was added; a test says so if you forget. It measures
each type, for the table in docs/pipeline.md.
"""

import functools
import pathlib
import re

import keras
import numpy as np

from optimization import OPTIMIZERS_CLS, OptimizationConfig, OptimizerFactory

PAGE = pathlib.Path(__file__).parents[1] / "docs" / "pipeline.md"
ROWS = 11
LOOKED_UP = [1, 4, 1]
_TABLE = r"(?<=\| computes on \|\n\|---\|---\|---\|---\|\n)(\|.*\n)+"


def page(path: pathlib.Path) -> str:
    """Returns a page's text, with the table as it is measured now."""
    rows: dict[tuple[str, str, str], list[str]] = {}
    for kind in OPTIMIZERS_CLS:
        # A user's, which is registered too, is not on the page.
        if OPTIMIZERS_CLS[kind].__module__.startswith(("keras.", "optimization.")):
            rows.setdefault(measured(kind), []).append(f"`{kind}`")
    # What moves least comes first.
    lines = [
        f"| {' '.join(rows[cells])} | {' | '.join(cells)} |\n"
        for cells in sorted(rows, reverse=True)
    ]
    return re.sub(_TABLE, lambda match: "".join(lines), path.read_text(encoding="utf-8"), count=1)


@functools.cache
def measured(kind: str) -> tuple[str, str, str]:
    """Returns whether the weights and the state of such rows change, and what is computed."""
    import tensorflow as tf

    config = {
        "optimizer": {"type": kind},
        "learning_rate": {"type": "constant", "constant": {"learning_rate": 0.01}},
    }
    optimizer = OptimizerFactory(OptimizationConfig(config)).build_optimizer(0.01)
    random = np.random.default_rng(0)

    def draw(*shape: int) -> np.ndarray:
        return random.normal(size=shape).astype("float32")

    table = keras.Variable(draw(ROWS, 3), name="embeddings")
    for _ in range(2):  # the state of all rows is more than its start
        optimizer.apply([tf.constant(draw(ROWS, 3))], [table])

    @tf.function
    def step(values, indices):
        slices = tf.IndexedSlices(values, indices, tf.constant([ROWS, 3]))
        optimizer.apply([slices], [table])

    others = [row for row in range(ROWS) if row not in LOOKED_UP]

    def state() -> dict[str, np.ndarray]:
        slots = {p: v for p, v in optimizer.variables_by_path().items() if len(v.shape)}
        return {p: v.numpy()[others] for p, v in slots.items() if v.shape[0] == ROWS}

    weights, slots = table.numpy()[others], state()
    values, indices = tf.constant(draw(3, 3)), tf.constant(LOOKED_UP)
    step(values, indices)
    # FTRL computes each weight anew, rounded; what moves here moves by 1e-4 and more.
    moved = not np.allclose(table.numpy()[others], weights, rtol=0, atol=1e-6)
    changed = any(not np.array_equal(now, slots[path]) for path, now in state().items())
    graph = step.get_concrete_function(values, indices).graph
    computed = [
        op.type
        for op in graph.get_operations()
        for output in op.outputs
        if op.type != "ReadVariableOp" and output.shape.rank and output.shape[0] == ROWS
    ]
    return (
        "move" if moved else "stay",
        "changes" if changed else "stays",
        "all rows" if computed else "rows looked up",
    )


if __name__ == "__main__":
    PAGE.write_text(page(PAGE), encoding="utf-8")
