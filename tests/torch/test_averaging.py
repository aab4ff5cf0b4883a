import numpy as np
import pytest

from optimization.torch import average_weights
from tests.torch.common import torch


def states(count=3):
    random = np.random.default_rng(0)
    return [
        {
            "w": torch.tensor(random.normal(size=(2, 3)), dtype=torch.float32),
            "low": torch.tensor(random.normal(size=4), dtype=torch.bfloat16),
            "batches": torch.tensor(number),
        }
        for number in range(count)
    ]


def expected(saved, name):
    return np.mean([state[name].double().numpy() for state in saved], axis=0)


@pytest.mark.parametrize("nested", [False, True])
def test_files_are_averaged_in_float64(nested, tmp_path):
    saved, paths = states(), []
    for number, state in enumerate(saved):
        paths.append(tmp_path / f"{number}.pt")
        torch.save({"model": state, "step": number} if nested else state, paths[-1])
    found = average_weights(paths, "model" if nested else None)
    np.testing.assert_array_equal(found["w"], np.float32(expected(saved, "w")))
    assert torch.equal(found["low"], torch.tensor(expected(saved, "low")).bfloat16())
    assert found["batches"] == 2
    assert {name: value.dtype for name, value in found.items()} == {
        "w": torch.float32,
        "low": torch.bfloat16,
        "batches": torch.int64,
    }


def test_mappings_are_left_as_they_are_and_the_result_loads():
    models = [torch.nn.Linear(2, 1) for _ in range(2)]
    before = [model.weight.detach().clone() for model in models]
    result = average_weights([model.state_dict() for model in models])
    for model, weight in zip(models, before, strict=True):
        assert torch.equal(model.weight, weight)
    models[0].load_state_dict(result)
    torch.testing.assert_close(models[0].weight.detach(), (before[0] + before[1]) / 2)


@pytest.mark.parametrize(
    ("checkpoints", "key", "message"),
    [
        ([], None, "must be a list of checkpoints"),
        ("a.pt", None, "must be a list of checkpoints"),
        ([{"w": torch.zeros(1)}, {"v": torch.zeros(1)}], None, "number 1 differs .* in v, w"),
        ([{"w": torch.zeros(1)}, {"w": torch.zeros(2)}], None, "differs from the first in w"),
        ([{"model": {"w": torch.zeros(1)}, "step": 3}], None, "write `key`, one of 'model'"),
        ([{"model": {"w": torch.zeros(1)}}], "modle", "has no 'modle'; it has 'model'"),
        ([{"model": 3}], "model", "does not hold tensors by name"),
    ],
)
def test_what_cannot_be_averaged_is_told(checkpoints, key, message):
    with pytest.raises(ValueError, match=message):
        average_weights(checkpoints, key)
