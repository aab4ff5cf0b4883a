"""Writes a picture as one HTML file, with hover and zoom, that needs nothing beside it."""

import json
from html import escape
from importlib import resources

from optimization.plots.picture import Picture
from optimization.plots.svg import COLORS, DASHES


def page(picture: Picture) -> str:
    """Returns a picture as an HTML page."""
    data = {
        "title": picture.title,
        "steps": picture.steps,
        "curves": [
            {
                "name": curve.name,
                "values": [None if v is None else float(f"{v:.9g}") for v in curve.values],
                "marks": [{"step": mark.step, "text": mark.text} for mark in curve.marks],
            }
            for curve in picture.curves
        ],
        "log": picture.log,
        "notes": picture.notes,
        "colors": COLORS,
        "dashes": DASHES,
    }
    template = resources.files("optimization.plots").joinpath("page.html").read_text("utf-8")
    # A name might close the script's element.
    text = json.dumps(data, allow_nan=False, separators=(",", ":")).replace("<", "\\u003c")
    return template.replace("{{title}}", escape(picture.title)).replace("{{data}}", text)
