"""Computes the layer-wise learning rates of `tests/golden/timm_layer_decay.json` with timm itself.

It runs in an environment of its own:

    python3 -m venv timm
    timm/bin/pip install timm==1.0.31 torch==2.13.0
    timm/bin/python tools/timm_goldens.py          # compares, changes nothing
    timm/bin/python tools/timm_goldens.py --write  # rewrites the figures

For each parameter of a ViT-tiny: its name, and for each case the factor on the learning rate and
whether it decays, as `timm.optim.param_groups_layer_decay` says. Exits 1 if a figure differs.
"""

import argparse
import json
import pathlib
import sys

import timm
import torch
from timm.optim import param_groups_layer_decay

GOLDEN = pathlib.Path(__file__).parent.parent / "tests" / "golden" / "timm_layer_decay.json"
MODEL = "vit_tiny_patch16_224"
CASES = [{"rate": 0.75, "min_multiplier": 0.0}, {"rate": 0.65, "min_multiplier": 0.1}]


def figures(model, case):
    """Returns the factor on the learning rate and whether it decays, for each parameter."""
    groups = param_groups_layer_decay(
        model,
        weight_decay=0.05,
        no_weight_decay_list=model.no_weight_decay(),
        layer_decay=case["rate"],
        min_scale=case["min_multiplier"],
    )
    return {
        id(parameter): (group["lr_scale"], group["weight_decay"] > 0)
        for group in groups
        for parameter in group["params"]
    }


def computed():
    """Returns what the golden file holds."""
    model = timm.create_model(MODEL, pretrained=False)
    columns = [figures(model, case) for case in CASES]
    rows = [
        [name, parameter.ndim, columns[0][id(parameter)][1]]
        + [column[id(parameter)][0] for column in columns]
        for name, parameter in model.named_parameters()
    ]
    return {
        "timm": timm.__version__,
        "torch": torch.__version__.split("+")[0],
        "model": MODEL,
        "cases": CASES,
        "columns": ["name", "ndim", "decays", "multiplier of case 0", "multiplier of case 1"],
        "parameters": rows,
    }


def as_text(golden):
    """Returns JSON with a line for each parameter."""
    head = {key: value for key, value in golden.items() if key != "parameters"}
    lines = ",\n".join(f"  {json.dumps(row)}" for row in golden["parameters"])
    return f'{json.dumps(head, indent=1)[:-2]},\n "parameters": [\n{lines}\n ]\n}}\n'


def main():
    """Compares or writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="rewrite the figures")
    text = as_text(computed())
    if parser.parse_args().write:
        GOLDEN.write_text(text)
    elif text != GOLDEN.read_text():
        sys.exit(f"{GOLDEN.name} differs from what timm {timm.__version__} computes")


if __name__ == "__main__":
    main()
