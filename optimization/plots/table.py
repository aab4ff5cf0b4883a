"""A picture's points as CSV."""

import csv
import io

from optimization.plots.picture import Picture


def csv_text(picture: Picture) -> str:
    """Returns a row for each step: the step, and each curve's value, exact; empty past its end."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["step", *(curve.name for curve in picture.curves)])
    values = zip(*(curve.values for curve in picture.curves), strict=True)
    for step, row in zip(picture.steps, values, strict=True):
        writer.writerow([step, *("" if value is None else repr(value) for value in row)])
    return text.getvalue()
