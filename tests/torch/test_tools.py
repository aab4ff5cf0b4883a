"""tools.compare_optimizers and tools.state_precision, whose models of Keras train on PyTorch."""

import keras
import numpy as np
import pytest

from tools import compare_optimizers, state_precision

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "torch", reason="the tools train on PyTorch here"
)


@pytest.mark.parametrize("kind", ["muon", "schedule_free_adamw"])
def test_a_training_is_recorded(kind):
    plan = compare_optimizers.Plan(types=(kind,), steps=2, points=1)
    record = compare_optimizers.train(plan, kind, 0.01, 1)
    assert {**record, "losses": 0, "processor_seconds": 0, "facts": 0} == {
        **{"type": kind, "rate": 0.01, "seed": 1, "losses": 0, "processor_seconds": 0, "facts": 0},
        "digest": compare_optimizers.digest(plan, kind),
    }
    (first, before), (last, after) = record["losses"]
    assert (first, last) == (0, 2)
    assert after < before < 7


def test_types_take_turns_and_start_alike():
    plan = compare_optimizers.Plan(types=("adamw", "muon"), steps=2, points=1)
    adamw, muon = compare_optimizers.measure(plan, rounds=1, steps=1)
    assert adamw["to_base"] == 1.0
    assert adamw["weights"] == muon["weights"]
    assert 2 <= adamw["state"] / adamw["weights"] < 2.01
    assert 1 <= muon["state"] / muon["weights"] < 2
    trainings = [compare_optimizers.Training(plan, kind, 0.01, 3) for kind in plan.types]
    assert trainings[0].held_out_loss() == trainings[1].held_out_loss()
    tokens = [next(training.batches)[0] for training in trainings]
    assert np.array_equal(*tokens)


def test_kernels_of_an_attention_are_matrices():
    plan = compare_optimizers.Plan(steps=2, points=1)
    training = compare_optimizers.Training(plan, "muon", 0.01, 0)
    assert {p.ndim for p in training.parameters.values()} == {1, 2}
    groups = {g["group_name"]: g for g in training.optimizer.param_groups}
    orthogonal = groups.pop("default/muon")
    assert "block_0_attention/query/kernel" in orthogonal["param_names"]
    assert "block_0_attention/attention_output/kernel" in orthogonal["param_names"]
    decays = {name: g["weight_decay"] for g in groups.values() for name in g["param_names"]}
    assert {n: d for n, d in decays.items() if d} == {
        "token_embedding/embeddings": 0.1,
        "position_embedding/embeddings": 0.1,
        "logits/kernel": 0.1,
    }


def test_state_in_bfloat16_is_compared_with_float32():
    arguments = state_precision.parse(["--steps=20", "--batch=4", "--length=16", "--width=8"])
    policy = keras.config.dtype_policy()
    ways = [way for way in state_precision.WAYS if way.name.startswith(("float32", "both"))]
    try:
        rows = state_precision.table(arguments, ways)[2:]
    finally:
        keras.config.set_dtype_policy(policy)
    cells = {row.split("|")[1].strip(): row.split("|")[2:5] for row in rows}
    assert list(cells) == [way.name for way in ways]
    distance = {name: float(found[1]) for name, found in cells.items()}
    assert distance["float32"] == 0
    assert distance["float32, other batches"] > 0.1
    assert 0 < distance["both bfloat16, stochastic"] < 0.5
    bytes_of = [int(found[2]) for found in cells.values()]
    assert bytes_of[:2] == [12, 12]
    assert 6 <= bytes_of[2] < 8  # the output layer stays in float32
