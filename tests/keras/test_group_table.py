import keras
import numpy as np
import pytest

import optimization
from optimization.optimizers import ParamGroup, PipelineOptimizer, format_group_table
from optimization.schedules.keras_schedules import build_schedule
from optimization.schedules.scaled import scaled
from tests.golden_cases import make_variables
from tests.keras.common import TableSchedule, problem

GROUPS = [
    ParamGroup(match="norm", freeze=True),
    ParamGroup(match="embeddings", optimizer=keras.optimizers.Adagrad(0.3), name="tables"),
    ParamGroup(match="bias$", learning_rate_multiplier=0.5, hyperparameters={"weight_decay": 0.0}),
]


@pytest.fixture
def optimizer():
    inner = keras.optimizers.AdamW(TableSchedule([0.1, 0.2]), weight_decay=0.1)
    optimizer = PipelineOptimizer(inner, param_groups=GROUPS, ema={})
    optimizer.build(make_variables(problem(steps=1)[0]))
    return optimizer


def test_rows(optimizer):
    rows = {row.path: row for row in optimizer.group_table()}
    assert list(rows) == list(problem(steps=1)[0])
    table = rows["embedding/embeddings"]
    assert (table.group, table.rule) == ("tables", "match='embeddings'")
    assert (table.optimizer, table.learning_rate) == ("Adagrad", pytest.approx(0.3))
    assert (table.decayed, table.frozen, table.averaged) == (False, False, True)
    bias = rows["block/dense/bias"]
    assert (bias.group, bias.optimizer, bias.multiplier) == ("bias$", "AdamW", 0.5)
    assert (bias.learning_rate, bias.decayed) == (pytest.approx(0.05), False)
    kernel = rows["block/conv/kernel"]
    assert (kernel.group, kernel.rule, kernel.multiplier) == ("default", "", 1.0)
    assert (kernel.decayed, kernel.parameters) == (True, 3 * 2 * 4 * 5)
    norm = rows["block/norm/beta"]
    assert (norm.group, norm.optimizer, norm.learning_rate) == ("norm", "", 0.0)
    assert (norm.decayed, norm.frozen, norm.averaged) == (False, True, False)


def test_the_learning_rate_is_that_of_now(optimizer):
    variables = optimizer._trainable_variables
    optimizer.apply([keras.ops.zeros(v.shape) for v in variables], variables)
    rates = {row.group: row.learning_rate for row in optimizer.group_table()}
    assert rates["default"] == pytest.approx(0.2)


def test_text_of_groups(optimizer):
    lines = optimizer.format_group_table().splitlines()
    assert len(lines) == 1 + 4
    (default,) = [line for line in lines if "default" in line]
    assert " ".join(default.split()) == "2 variables default AdamW 1 0.1 now decayed, averaged 150"
    (frozen,) = [line for line in lines if "frozen" in line]
    assert " ".join(frozen.split()) == "2 variables norm (match='norm') - 0 0 frozen 10"


def test_the_highest_rate_of_a_schedule():
    warmed = optimization.LrConfig(type="linear", linear={"initial_learning_rate": 0.5}).get()
    warmed.decay_steps = 100
    warmup = optimization.WarmupConfig(type="linear", linear={"warmup_steps": 20}).get()
    groups = [
        ParamGroup(match="bias$", learning_rate_multiplier=2.0),
        ParamGroup(match="norm", learning_rate=keras.optimizers.schedules.CosineDecay(0.25, 9)),
        ParamGroup(match="conv", learning_rate=lambda step: 0.125),
        ParamGroup(match="embeddings", learning_rate=0.5),
    ]
    rate = build_schedule(warmed, warmup)
    optimizer = PipelineOptimizer(keras.optimizers.SGD(scaled(rate, 0.5)), param_groups=groups)
    optimizer.build(make_variables(problem(steps=1)[0]))
    rows = {row.group: row for row in optimizer.group_table()}
    assert {name: row.rate_text for name, row in rows.items()} == {
        "default": "0 now, up to 0.2",
        "bias$": "0 now, up to 0.4",
        "norm": "0.25",
        "conv": "0.125 now",
        "embeddings": "0.5",
    }
    assert rows["default"].learning_rate == 0.0
    assert rows["default"].highest_rate == pytest.approx(0.2)


def test_text_of_variables(optimizer):
    text = format_group_table(optimizer.group_table(), variables=True)
    assert len(text.splitlines()) == 1 + 4 + 6
    positions = [
        text.index(word) for word in ("default", "block/conv/kernel", "block/dense/kernel")
    ]
    assert positions == sorted(positions)


def test_without_groups_all_are_in_the_default_group():
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1))
    optimizer.build(make_variables({"a": np.zeros(2, "float32")}))
    (row,) = optimizer.group_table()
    assert (row.group, row.optimizer, row.learning_rate) == ("default", "SGD", pytest.approx(0.1))
    assert not row.decayed
    assert not row.averaged


def test_before_it_is_built_there_is_no_table():
    with pytest.raises(ValueError, match="not built"):
        PipelineOptimizer(keras.optimizers.SGD(0.1)).group_table()
