import keras
import pytest
import tensorflow as tf

from optimization import RuntimeConfig
from optimization.training import TrainingError
from optimization.training.building import build_strategy, dtype_policy, is_chief


@pytest.mark.parametrize("name", ["one_device", "mirrored"])
def test_with_one_device_the_strategy_is_tensorflows_default(name):
    if len(tf.config.list_logical_devices("GPU") or tf.config.list_logical_devices("CPU")) > 1:
        pytest.skip("there are several devices here")
    assert build_strategy(RuntimeConfig(distribution_strategy=name)) is tf.distribute.get_strategy()


def test_a_single_process_is_chief():
    assert is_chief(tf.distribute.get_strategy())


@pytest.mark.parametrize(
    ("task_type", "task_id", "jobs", "chief"),
    [
        ("worker", 0, {"worker": 2}, True),
        ("worker", 1, {"worker": 2}, False),
        ("chief", 0, {"chief": 1, "worker": 1}, True),
        ("worker", 0, {"chief": 1, "worker": 1}, False),
    ],
)
def test_one_of_several_workers_is_chief(task_type, task_id, jobs, chief):
    class Strategy:
        cluster_resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
            tf.train.ClusterSpec(
                {job: [f"localhost:{i}" for i in range(n)] for job, n in jobs.items()}
            ),
            task_type=task_type,
            task_id=task_id,
        )

    assert is_chief(Strategy()) == chief


@pytest.mark.parametrize(
    ("dtype", "policy"),
    [("float16", "mixed_float16"), ("bfloat16", "mixed_bfloat16"), ("float32", "float32")],
)
def test_the_dtype_policy_holds_inside_only(dtype, policy):
    before = keras.config.dtype_policy().name
    with dtype_policy(RuntimeConfig(mixed_precision_dtype=dtype)):
        assert keras.config.dtype_policy().name == policy
    assert keras.config.dtype_policy().name == before


def test_without_a_dtype_the_policy_stays():
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        with dtype_policy(RuntimeConfig()):
            assert keras.config.dtype_policy().name == "mixed_bfloat16"
    finally:
        keras.config.set_dtype_policy("float32")


def test_the_policy_comes_back_after_an_error():
    with (
        pytest.raises(RuntimeError, match="inside"),
        dtype_policy(RuntimeConfig(mixed_precision_dtype="float16")),
    ):
        raise RuntimeError("inside")
    assert keras.config.dtype_policy().name == "float32"


def test_a_broken_cluster_description_is_told(monkeypatch):
    monkeypatch.setenv("TF_CONFIG", "{bad")
    with pytest.raises(TrainingError, match="TF_CONFIG cannot be used"):
        build_strategy(RuntimeConfig(distribution_strategy="multi_worker_mirrored"))


def test_workers_that_cannot_connect_are_told(monkeypatch):
    def taken():
        raise tf.errors.UnknownError(None, None, "Could not start gRPC server")

    monkeypatch.setattr(tf.distribute, "MultiWorkerMirroredStrategy", taken)
    with pytest.raises(TrainingError, match="cannot connect: UnknownError: Could not start gRPC"):
        build_strategy(RuntimeConfig(distribution_strategy="multi_worker_mirrored"))
