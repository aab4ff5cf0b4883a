"""A picture's points as text: all of them as CSV, or those at telling steps for readers."""

import csv
import io

from optimization.plots.picture import Picture
from optimization.plots.ticks import number

_PARTS = 8  # of the steps of a picture, at whose ends its values are listed
_MOST_MARKS = 16


def csv_text(picture: Picture) -> str:
    """Returns a row for each step: the step, and each curve's value, exact; empty past its end."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *(curve.name for curve in picture.curves)])
    values = zip(*(curve.values for curve in picture.curves), strict=True)
    for step, row in zip(picture.steps, values, strict=True):
        writer.writerow([step, *("" if value is None else repr(value) for value in row)])
    return text.getvalue()


def listed(picture: Picture) -> str:
    """Returns the values at the ends, at every eighth and at marks; and what the picture says.

    >>> from optimization import OptimizationConfig
    >>> rate = {"type": "linear", "linear": {"initial_learning_rate": 1.0, "decay_steps": 20}}
    >>> from optimization.plots.drawing import picture_of
    >>> config = OptimizationConfig({"learning_rate": rate})
    >>> print(listed(picture_of({"mine": config}, steps=(10, 18))))
    learning rate
    step  mine
      10  0.5
      11  0.45
      12  0.4
      13  0.35
      14  0.3
      15  0.25
      16  0.2
      17  0.15
      18  0.1
    <BLANKLINE>
    mine: 0.5 at step 10, 0.1 at step 18
    """
    first, last = picture.steps[0], picture.steps[-1]
    steps = {first + (last - first) * part // _PARTS for part in range(_PARTS + 1)}
    marks = {mark.step for curve in picture.curves for mark in curve.marks}
    if len(marks) <= _MOST_MARKS:
        steps |= {step + side for step in marks for side in (-1, 0)}
    rows = [["step", *(curve.name for curve in picture.curves)]]
    for place, step in enumerate(picture.steps):
        if step in steps:
            values = [curve.values[place] for curve in picture.curves]
            rows.append([f"{step:,}", *("" if v is None else number(v) for v in values)])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join([row[0].rjust(widths[0]), *map(str.ljust, row[1:], widths[1:])]).rstrip()
        for row in rows
    ]
    return "\n".join([picture.title, *lines, "", picture.summary()])
