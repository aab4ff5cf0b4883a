import pytest

from optimization import OptimizationConfig, OptimizerFactory
from optimization.configs.durations import TrainingLength

STEPS = [0, 39, 40, 41, 46, 99, 100]


def test_a_start_shifts_the_rate_its_warmup_and_its_decay_in_each_framework():
    keras = pytest.importorskip("keras")
    config, _ = OptimizationConfig(
        {
            "optimizer": {"type": "sgd", "sgd": {"decay": 0.01}},
            "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}},
            "warmup": {"type": "linear", "linear": {"warmup_steps": "10%"}},
        }
    ).sized(TrainingLength(100, None, start=40))
    curve = OptimizerFactory(config).learning_rate_curve(STEPS)
    unshifted, _ = config.sized(TrainingLength(60))
    unshifted.__dict__["_schedule_start"] = 0
    done = [max(step - 40, 0) for step in STEPS]
    assert curve.tolist() == OptimizerFactory(unshifted).learning_rate_curve(done).tolist()
    rate = OptimizerFactory(config).build_learning_rate()
    saved = keras.saving.serialize_keras_object(rate)
    for each in (rate, keras.saving.deserialize_keras_object(saved)):
        assert [float(each(step)) for step in STEPS] == pytest.approx(curve, rel=1e-6)
    for name in ("torch", "jax"):
        pytest.importorskip(name)
    from optimization.jax.rates import rate_of
    from optimization.torch import OptimizerFactory as TorchFactory

    of_jax = rate_of(config, None, config.optimizer.get())
    assert [float(of_jax(step)) for step in STEPS] == pytest.approx(curve, rel=1e-6)
    of_torch = TorchFactory(config)._rates()["default"]
    assert [of_torch(step) for step in STEPS] == pytest.approx(curve, rel=1e-12)
