import os
import pathlib
import subprocess
import sys

import pytest

import optimization

START = """\
import optimization
import optimization.torch
from optimization import OptimizationConfig, OptimizerFactory
from optimization.configs.base import config_dataclass
from optimization.optimizers import LAMB
from optimization.rules.adamw import AdamWeightDecayConfig
from optimization.schedules.base import BaseLrConfig
from optimization.schedules.cosine import CosineLrConfig
from optimization.schedules.warmups import LinearWarmupConfig

config = OptimizationConfig({"optimizer": {"type": "sgd"}})
factory = OptimizerFactory(config)
"""

RIGHT = """\
OptimizationConfig(
    optimizer={"type": "sgd", "sgd": {"momentum": 0.9}},
    learning_rate=optimization.LrConfig(type="cosine", cosine=CosineLrConfig(decay_steps="50%")),
    warmup=optimization.WarmupConfig(type="linear", linear={"warmup_steps": 3}),
    ema=optimization.EMAConfig(start_step="1 epoch"),
    param_groups=[{"match": "bias"}],
    schedules={"weight_decay": {"type": "constant"}},
)
config.optimizer.sgd.momentum = 1
config.optimizer = {"type": "sgd"}
config.learning_rate.cosine.decay_steps = "remaining"
config.learning_rate.registered_later.anything = 3
steps: int = config.learning_rate.cosine.decay_steps
names: list[str | None] = [group.name for group in config.param_groups]
twin: OptimizationConfig = config.replace(ema=None)

@optimization.register_learning_rate("mine")
class MineConfig(BaseLrConfig):
    rate: float = 0.1

MineConfig(rate=0.2).rate.hex()

@optimization.register_learning_rate("formula")
def formula(step: float, *, rate: float) -> float:
    return rate

formula(1.0, rate=0.1).hex()

optimizer = factory.build_optimizer(factory.build_learning_rate())
table: str = optimizer.format_group_table()
count: int = factory.build_optimizer(0.1, postprocessor=lambda made: 3)

def average(lamb: LAMB, native: optimization.torch.ScheduleFreeSGD) -> float:
    native.eval()
    optimization.torch.LAMB([], betas=(0.9, 0.99)).step()
    return lamb.rule_class.usual_rate
"""

WRONG = {
    "AdamWeightDecayConfig(weight_decay_rat=0.1)": 'Unexpected keyword argument "weight_decay_rat"',
    'AdamWeightDecayConfig(weight_decay_rate="a")': 'incompatible type "str"; expected "float"',
    "config.optimizer.sgd.momentmu = 3": '"SGDConfig" has no attribute "momentmu"',
    "config.optimzer": '"OptimizationConfig" has no attribute "optimzer"',
    'config.optimizer = "sgd"': 'expression has type "str", variable has type "OptimizerConfig',
    "OptimizationConfig(optimizr={})": 'Unexpected keyword argument "optimizr"',
    "optimization.OptimizerConfig(sgdd={})": 'Unexpected keyword argument "sgdd"',
    "LinearWarmupConfig(warmup_steps=[3])": 'expected "int | str"',
    "config.learning_rate.cosine.decay_step = 3": '"CosineLrConfig" has no attribute "decay_step"',
    "config.ema.start_step": 'Item "None" of "EMAConfig | None" has no attribute "start_step"',
    "optimization.torch.LAMB([], foreach=3)": 'incompatible type "int"; expected "bool | None"',
    "LAMB().rule_class.usual_rat": '"type[Rule]" has no attribute "usual_rat"',
    # Not a mistake: a class that derives from an untyped one, as Keras' are, passes for anything.
    "reveal_type(factory.build_optimizer(0.1))": '.PipelineOptimizer"',
}


def mypy(tmp_path, text):
    path = tmp_path / "snippet.py"
    path.write_text(text)
    command = [sys.executable, "-m", "mypy", "--ignore-missing-imports", "--config-file="]
    command += ["--cache-dir", str(tmp_path / "cache"), "--follow-imports", "silent", str(path)]
    environment = {**os.environ, "MYPYPATH": str(pathlib.Path(optimization.__file__).parents[1])}
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    return result.stdout.splitlines()


@pytest.mark.slow
def test_mypy_finds_a_users_mistakes_and_nothing_else(tmp_path):
    pytest.importorskip("mypy")
    text = START + RIGHT
    first = len(text.splitlines()) + 1
    output = mypy(tmp_path, text + "\n".join(WRONG) + "\n")
    expected = [
        (f"snippet.py:{first + number}: ", message) for number, message in enumerate(WRONG.values())
    ]
    errors = [line for line in output if "error: " in line or "Revealed type" in line]
    assert len(errors) == len(expected), "\n".join(errors)
    for line, (place, message) in zip(errors, expected, strict=True):
        assert place in line
        assert message in line
