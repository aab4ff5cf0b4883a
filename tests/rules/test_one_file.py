"""An optimizer and a schedule are one file each: in a copy of the library nothing else changes."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
ROOT = Path(__file__).parents[2]

RULE = '''"""An optimizer of a test."""

from optimization.configs.types import Share
from optimization.rules.base import OPTIMIZERS_CLS
from optimization.rules.rule import Rule, Slot


@OPTIMIZERS_CLS.register("toy")
class ToyConfig(Rule):
    """Steps along the mean of the gradient, and along its sign.

        m <- beta m + (1 - beta) g;  w <- w - lr (m + sign(g))

    Source: a test.

    Attributes:
        beta: The toy's share of the mean that stays.
    """

    class_name = "Toy"
    elementwise = True
    slots = (Slot("momentum", "momentums", "exp_avg"),)

    name: str | None = "Toy"
    beta: Share = 0.9

    def step(self, g, w, s, h, xp):
        """Returns the step."""
        sign = xp.keep(xp.sign(g))
        return h.lr * (s.lerp("momentum", g, 1 - h.beta) + sign)
'''
SCHEDULE = '''"""A learning rate of a test."""

from optimization.configs.base import config_dataclass
from optimization.configs.types import NonNegativeFloat, PositiveInt
from optimization.schedules.base import BaseLrConfig
from optimization.schedules.registry import LR_CLS


@LR_CLS.register("toy")
@config_dataclass
class ToyLrConfig(BaseLrConfig):
    """Falls from one half to another.

        lr(s) = initial_learning_rate / (1 + s / half_life)

    Source: a test.

    Attributes:
        initial_learning_rate: The rate at step 0.
        half_life: Steps to half of it.
    """

    initial_learning_rate: NonNegativeFloat = 0.1
    half_life: PositiveInt = 100

    def value(self, step, xp):
        """Returns the learning rate."""
        return self.initial_learning_rate / (1 + step / self.half_life)
'''
YAML = """
optimizer: {type: toy, toy: {beta: 0.5}}
learning_rate: {type: toy, toy: {half_life: 10}}
"""
KERAS = """
import keras, numpy as np
from optimization import OPTIMIZERS_CLS, OptimizationConfig, OptimizerFactory
from optimization.optimizers import Toy
assert Toy is OPTIMIZERS_CLS["toy"]
factory = OptimizerFactory(OptimizationConfig.from_yaml("toy.yaml"))
variable = keras.Variable(np.ones(3, "float32"), name="w")
optimizer = factory.build_optimizer(factory.build_learning_rate())
for _ in range(2):
    optimizer.apply([variable * 1.0], [variable])
# 1 - 0.1 (0.5 + 1) = 0.85, then 0.85 - 0.1 / 1.1 * (0.675 + 1).
np.testing.assert_allclose(variable.numpy(), 0.85 - 0.1 / 1.1 * 1.675, rtol=1e-6)
again = keras.optimizers.deserialize(keras.optimizers.serialize(Toy(0.1, beta=0.25)))
assert (type(again), again.beta) == (Toy, 0.25)
assert "The toy's share of the mean" in Toy.__doc__
from optimization.configs.documentation import complete
assert "Steps to half of it." in complete(__import__("optimization").LR_CLS.config_class("toy"))
"""
TORCH = """
import torch, optimization.torch as ours
parameter = torch.nn.Parameter(torch.ones(3, dtype=torch.float64))
optimizer = ours.Toy([parameter], lr=0.1, beta=0.5)
parameter.grad = torch.ones_like(parameter)
optimizer.step()
torch.testing.assert_close(parameter.detach(), torch.full((3,), 0.85, dtype=torch.float64))
"""


@pytest.fixture(scope="module")
def copied(tmp_path_factory):
    """A copy of the library and its tests, with two files more."""
    folder = tmp_path_factory.mktemp("copied")
    unneeded = shutil.ignore_patterns("__pycache__", "golden")
    for name in ("configs", "docs", "optimization", "tests", "tools"):
        shutil.copytree(ROOT / name, folder / name, ignore=unneeded)
    for name in ("pyproject.toml", "CONTRIBUTING.md", "README.md"):
        shutil.copy(ROOT / name, folder)
    (folder / "optimization/rules/toy.py").write_text(RULE)
    (folder / "optimization/schedules/toy.py").write_text(SCHEDULE)
    (folder / "toy.yaml").write_text(YAML)
    run(folder, "-m", "tools.branches")
    return folder


def run(folder, *arguments, **environment):
    environment = {**os.environ, "PYTHONPATH": str(folder), **environment}
    result = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=environment, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def contracts(folder, *files, **environment):
    options = ("-q", "-p", "no:cacheprovider", "-m", "slow or not slow", "-k", "toy or fresh")
    out = run(folder, "-m", "pytest", *options, *files, CONTRACTS_OF="toy", **environment)
    assert " passed" in out


def test_both_meet_the_contracts(copied):
    files = ["tests/rules/test_contracts.py", "tests/schedules/test_contract.py"]
    contracts(copied, *files, "tests/keras/test_contracts.py", "tests/keras/test_sparse.py")


def test_keras_has_both(copied):
    run(copied, "-c", KERAS)


DOCS = """
import pytest, sys
from tools import sparse_rows
sparse_rows.PAGE.write_text(sparse_rows.page(sparse_rows.PAGE))
sys.exit(pytest.main(["-q", "tests/configs/test_branches.py", "tests/test_docs_facts.py"]))
"""


def test_the_docs_have_it(copied):
    """One process writes the table and tests it, so that each type is measured once."""
    run(copied, "-c", DOCS)
    for page in ("README.md", "docs/pipeline.md", "docs/torch.md"):
        assert "`toy`" in (copied / page).read_text()


@pytest.mark.skipif(not importlib.util.find_spec("torch"), reason="PyTorch is an extra")
def test_torch_has_both(copied):
    run(copied, "-c", TORCH)
    files = ("tests/torch/test_contracts.py", "tests/torch/test_base.py")
    contracts(copied, *files, KERAS_BACKEND="torch")


def test_the_command_line_has_both(copied):
    out = run(copied, "-m", "optimization", "validate", "toy.yaml")
    assert "toy" in out
    (copied / "wrong.yaml").write_text(YAML.replace("beta", "betta"))
    with pytest.raises(AssertionError, match="did you mean 'beta'"):
        run(copied, "-m", "optimization", "validate", "wrong.yaml")
