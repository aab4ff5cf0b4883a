import numpy as np
import pytest

from optimization.schedules.keras_schedules import build_schedule
from tests.schedules.common import RTOL, keras_values, lr_config, rate


def test_a_hundredth_then_the_inverse_square_root():
    config = lr_config("relative_step")
    steps = [0, 1, 9998, 9999, 10000, 39999, 10**8 - 1]
    expected = [1e-2, 1e-2, 1e-2, 1e-2, 10001**-0.5, 5e-3, 1e-4]
    np.testing.assert_allclose(rate(config, steps), expected, rtol=1e-12)


def test_with_warmup_init_a_ramp_then_the_inverse_square_root():
    config = lr_config("relative_step", warmup_init=True)
    steps = [0, 1, 99, 9998, 9999, 10000, 39999]
    expected = [1e-6, 2e-6, 1e-4, 9.999e-3, 1e-2, 10001**-0.5, 5e-3]
    np.testing.assert_allclose(rate(config, steps), expected, rtol=1e-12)


@pytest.mark.parametrize("warmup_init", [False, True])
def test_the_schedule_of_transformers(warmup_init):
    pytest.importorskip("torch", reason="transformers' Adafactor needs PyTorch")
    transformers = pytest.importorskip("transformers.optimization", reason="is not installed")
    group = {
        "lr": None,
        "relative_step": True,
        "warmup_init": warmup_init,
        "scale_parameter": False,
    }
    steps = [0, 1, 500, 9998, 9999, 10000, 123456]
    theirs = [transformers.Adafactor._get_lr(group, {"step": step + 1}) for step in steps]
    config = lr_config("relative_step", warmup_init=warmup_init)
    np.testing.assert_allclose(rate(config, steps), theirs, rtol=1e-12)


def test_keras_and_numpy_agree():
    config = lr_config("relative_step", warmup_init=True)
    steps = [0, 1, 33, 9998, 9999, 10000, 10**6]
    schedule = build_schedule(config)
    np.testing.assert_allclose(keras_values(schedule, steps), rate(config, steps), rtol=RTOL)
