"""Computes `tests/golden/adafactor.json` with the Adafactors of timm and of PyTorch themselves.

It runs in an environment of its own:

    python3 -m venv timm
    timm/bin/pip install timm==1.0.31 torch==2.13.0
    timm/bin/python tools/adafactor_goldens.py          # compares, changes nothing
    timm/bin/python tools/adafactor_goldens.py --write  # rewrites the figures

The cases and their inputs are those of `tests/adafactor_cases.py`; the figures are some entries of
each tensor after 25 updates. Exits 1 if one differs by more than float32 rounding.
"""

import argparse
import json
import pathlib
import sys

import numpy as np
import timm
import timm.optim
import torch

ROOT = pathlib.Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from tests import adafactor_cases as cases  # noqa: E402  found on the path that was just set

GOLDEN = ROOT / "tests" / "golden" / "adafactor.json"
CLASSES = {
    "torch": torch.optim.Adafactor,
    "timm": timm.optim.Adafactor,
    "big_vision": timm.optim.AdafactorBigVision,
}


def figures(peer, arguments):
    """Returns the sampled weights after all updates."""
    if peer == "big_vision":
        arguments = {**arguments, "momentum_dtype": "float32"}
    relative = "lr" in arguments
    initial, gradients = cases.inputs()
    parameters = {path: torch.nn.Parameter(torch.tensor(w)) for path, w in initial.items()}
    optimizer = CLASSES[peer](parameters.values(), **{"lr": 0.1, **arguments})
    for rate, step in zip(cases.RATES, gradients, strict=True):
        for path, parameter in parameters.items():
            parameter.grad = torch.tensor(step[path])
        if not relative:
            optimizer.param_groups[0]["lr"] = rate
        optimizer.step()
    weights = {path: p.detach().numpy() for path, p in parameters.items()}
    return {path: [float(f"{x:.9g}") for x in w] for path, w in cases.sample(weights).items()}


def computed():
    """Returns what the golden file holds."""
    return {
        "timm": timm.__version__,
        "torch": torch.__version__.split("+")[0],
        "weights": {
            name: figures(peer, arguments)
            for name, (peer, arguments, _) in cases.PEER_CASES.items()
        },
    }


def as_text(golden):
    """Returns JSON with a line for each tensor."""
    lines = [f' "timm": "{golden["timm"]}",', f' "torch": "{golden["torch"]}",', ' "weights": {']
    for name, weights in golden["weights"].items():
        rows = ",\n".join(f'   "{path}": {json.dumps(row)}' for path, row in weights.items())
        lines.append(f'  "{name}": {{\n{rows}\n  }},')
    lines[-1] = lines[-1].removesuffix(",")
    return "\n".join(["{", *lines, " }", "}", ""])


def differing(golden, stored):
    """Returns the cases whose figures differ."""
    return [
        name
        for name, weights in golden["weights"].items()
        if name not in stored["weights"]
        or any(
            # 25 float32 steps on weights of order 1, by another processor's instructions.
            not np.allclose(row, stored["weights"][name].get(path, []), rtol=0, atol=2e-6)
            for path, row in weights.items()
        )
    ]


def main():
    """Compares or writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--write", action="store_true", help="rewrite the figures")
    golden = computed()
    if parser.parse_args().write:
        GOLDEN.write_text(as_text(golden))
        return
    wrong = differing(golden, json.loads(GOLDEN.read_text()))
    if wrong:
        sys.exit(f"{GOLDEN.name} differs in {', '.join(wrong)}")


if __name__ == "__main__":
    main()
