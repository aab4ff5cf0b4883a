import subprocess
import sys

import numpy as np
import pytest

from optimization.transformers import GradientAccumulator
from tests.keras.common import tensorflow_only

pytestmark = tensorflow_only


def test_sums_until_reset():
    import tensorflow as tf

    accumulator = GradientAccumulator()
    assert int(accumulator.step) == 0
    with pytest.raises(ValueError, match="call it"):
        _ = accumulator.gradients
    accumulator.reset()  # with nothing to reset
    for step in (1, 2, 3):
        sparse = tf.IndexedSlices(tf.constant([[1.0], [2.0]]), tf.constant([1, 1]), (3, 1))
        accumulator([tf.constant([1.0, 2.0]), None, sparse])
        assert int(accumulator.step) == step
    dense, nothing, table = accumulator.gradients
    np.testing.assert_array_equal(dense, [3, 6])
    np.testing.assert_array_equal(table, [[0], [9], [0]])
    assert nothing is None
    with pytest.raises(ValueError, match="expected 3 gradients, received 1"):
        accumulator([tf.constant([1.0, 2.0])])
    accumulator([tf.constant([np.inf, 0.0]), None, table])
    accumulator.reset()
    assert int(accumulator.step) == 0
    np.testing.assert_array_equal(accumulator.gradients[0], [0, 0])


REPLICAS = """
import tensorflow as tf
device = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(device, [tf.config.LogicalDeviceConfiguration()] * 2)
from optimization.transformers import GradientAccumulator

strategy = tf.distribute.MirroredStrategy(["/cpu:0", "/cpu:1"])
accumulator = GradientAccumulator()
with strategy.scope():
    variable = tf.Variable([10.0, 10.0], aggregation=tf.VariableAggregation.SUM)

def add(gradient):
    accumulator([gradient])

@tf.function
def accumulate(gradients):
    strategy.run(add, args=(gradients,))

@tf.function
def update():
    def replica():
        variable.assign_sub(accumulator.gradients[0])
        accumulator.reset()
    strategy.run(replica)

def per_replica(first, second):
    values = [tf.constant([first, first]), tf.constant([second, second])]
    return strategy.experimental_distribute_values_from_function(
        lambda context: values[context.replica_id_in_sync_group])

def sums():
    values = strategy.run(lambda: accumulator.gradients[0])
    return [float(v[0]) for v in strategy.experimental_local_results(values)]

accumulate(per_replica(1.0, 2.0))
accumulate(per_replica(3.0, 5.0))
print(int(accumulator.step), *sums())
update()
print(int(accumulator.step), *sums(), *variable.numpy())
"""


def test_each_replica_has_its_own_sums():
    # In a process of its own, since logical devices are set before TensorFlow starts.
    result = subprocess.run([sys.executable, "-c", REPLICAS], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    first, second = result.stdout.strip().splitlines()
    assert first.split() == ["2", "4.0", "7.0"]
    # The variable brings both together: 10 - (4 + 7).
    assert second.split() == ["0", "0.0", "0.0", "-1.0", "-1.0"]
