"""What the tests of this folder share: a conversion, and training by what was converted."""

import warnings

import numpy as np

from optimization import ConfigWarning, OptimizationConfig
from optimization.bridges import bridges, files
from optimization.bridges.draft import DIFFERS, LOST, NOTE, UNKNOWN
from optimization.bridges.writing import written
from optimization.configs import yaml_file
from optimization.configs.optimization_config import optimization_section

SHAPES = {
    "blocks.0.attn.weight": (4, 3),
    "blocks.0.attn.bias": (4,),
    "blocks.0.norm.weight": (4,),
    "blocks.1.mlp.weight": (3, 4),
    "norm.weight": (3,),
    "head.weight": (2, 3),
    "head.bias": (2,),
}


def convert(tmp_path, name, text, exact=False, ending="yaml"):
    """Returns the draft of a source's text, after it was written and read back."""
    path = tmp_path / f"source.{ending}"
    path.write_text(text)
    mapping = files.read(str(path))
    assert bridges.guess(mapping, str(path)) == name
    draft = bridges.convert(name, mapping, str(path), exact)
    again, problems = yaml_file.read(written(draft, "title"), "converted")
    assert problems == []
    assert again == draft.values
    return draft


def config_of(draft):
    """Returns the config of a draft, which is right."""
    section, _ = optimization_section(draft.values)
    config = OptimizationConfig(section)
    config.validate()
    return config


def kinds(draft, *wanted):
    """Returns the paths of findings of some kinds; of all that are no notes by default."""
    wanted = wanted or (LOST, DIFFERS, UNKNOWN)
    return [finding.path for finding in draft.findings if finding.kind in wanted]


def notes(draft):
    return kinds(draft, NOTE)


def around(*boundaries, end, beyond=True):
    """Returns the steps before, at and after each boundary and the end, 0, and far beyond."""
    steps = {0, 1, end - 1, end, *((end + 1, 3 * end) if beyond else ())}
    for boundary in boundaries:
        steps |= {boundary - 1, boundary, boundary + 1}
    return sorted(step for step in steps if step >= 0)


def curve(draft, steps, **lengths):
    """Returns our rate at steps; what is doubtful about a source is its own matter."""
    from optimization import OptimizerFactory

    warnings.simplefilter("ignore", ConfigWarning)
    return OptimizerFactory(config_of(draft), **lengths).learning_rate_curve(steps)


def problem(updates=20, seed=5, shapes=SHAPES):
    """Returns initial weights and the gradients of each update, by name."""
    random = np.random.default_rng(seed)
    weights = {name: random.normal(0, 0.5, shape) for name, shape in shapes.items()}
    steps = [
        {name: random.normal(0, 0.3 if n % 3 else 2.0, shape) for name, shape in shapes.items()}
        for n in range(updates)
    ]
    return weights, steps


def named_parameters(weights):
    """Returns torch's parameters by name, in float64."""
    import torch

    return {
        name: torch.nn.Parameter(torch.tensor(value, dtype=torch.float64))
        for name, value in weights.items()
    }


def train(optimizer, params, gradients, rates=None, clip=None):
    """Takes a step with each set of gradients, at the rates; returns the weights."""
    import torch

    for index, grads in enumerate(gradients):
        for name, parameter in params.items():
            parameter.grad = torch.tensor(grads[name], dtype=torch.float64)
        if clip is not None:
            clip(params.values())
        if rates is not None:
            for group in optimizer.param_groups:
                group["lr"] = float(rates[index]) * group.get("lr_scale", 1.0)
        optimizer.step()
    return {name: parameter.detach().numpy().copy() for name, parameter in params.items()}


def our_weights(draft, weights, gradients, drop=("gradient_accumulation_steps",), **lengths):
    """Returns the weights after training by what the config of a draft builds for PyTorch."""
    from optimization.torch import OptimizerFactory

    section, _ = optimization_section(draft.values)
    kind = section["optimizer"]["type"]
    own = {k: v for k, v in section["optimizer"].get(kind, {}).items() if k not in drop}
    section = {**section, "optimizer": {"type": kind, kind: own}}
    warnings.simplefilter("ignore", ConfigWarning)  # of this test alone, as pytest has it
    factory = OptimizerFactory(OptimizationConfig(section), **lengths)
    params = named_parameters(weights)
    optimizer = factory.build_optimizer(params.items())
    scheduler = factory.build_scheduler(optimizer)
    import torch

    for grads in gradients:
        for name, parameter in params.items():
            parameter.grad = torch.tensor(grads[name], dtype=torch.float64)
        optimizer.step()
        scheduler.step()
    return {name: parameter.detach().numpy().copy() for name, parameter in params.items()}


def assert_same(ours, theirs, tolerance=1e-9):
    """Asserts that weights are the same but for rounding, in float64."""
    for name, value in theirs.items():
        np.testing.assert_allclose(ours[name], value, rtol=tolerance, atol=tolerance, err_msg=name)
