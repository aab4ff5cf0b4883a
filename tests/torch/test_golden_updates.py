"""The stored updates of Model Garden, from the configs that made them, natively on PyTorch."""

import numpy as np
import pytest

from optimization import OptimizationConfig
from tests.torch.common import (
    OptimizerFactory,
    parameters,
    set_gradients,
    skip_beside_tensorflow,
    torch,
    weights_of,
)

skip_beside_tensorflow()

from tests import golden_cases  # noqa: E402


@pytest.mark.parametrize("case", golden_cases.load_cases(), ids=golden_cases.case_id)
def test_updates_equal_model_gardens(case):
    initial, gradients = golden_cases.inputs()
    params = parameters(initial, torch.float32)
    factory = OptimizerFactory(OptimizationConfig(case["config"]))
    optimizer = factory.build_optimizer(params.items())
    scheduler = factory.build_scheduler(optimizer)
    for step, grads in enumerate(gradients, start=1):
        set_gradients(params, grads)
        optimizer.step()
        scheduler.step()
        for name, stored in case["weights"].get(step, {}).items():
            error = np.abs(weights_of(params)[name] - stored).max() / np.abs(stored).max()
            assert error <= case["tolerance"]
