"""Run in a process of its own: float16 on two devices, of which only one overflows.

Prints, as JSON, for static and dynamic loss scale and updates of one and of two batches, what
became of the third update, whose gradient overflows on the second device alone.
"""

import json
import sys
import tempfile

import numpy as np
import tensorflow as tf
from rich.console import Console

from optimization.training import NonFiniteGradientsError, Trainer, array_batches
from tests.training.tiny import BATCH, TinyTask, arrays, tiny

SECTION = "trainer.optimizer_config.optimizer.sgd"


class OverflowTask(TinyTask):
    """The last example of the third batch of 8 has a gradient that float16 cannot hold."""

    def build_inputs(self, params, input_context=None):
        features, labels = arrays(params.is_training)
        if params.is_training:
            labels[3 * BATCH - 1] = 1e10
        return array_batches((features, labels), params, input_context)


class Watched(Trainer):
    """Notes what there is before the third update."""

    def _run_loop(self, *arguments):
        if self.step == 2:
            self.before = copies(self)
        return super()._run_loop(*arguments)


def trained(scale, accumulation, on_nonfinite="skip"):
    config = tiny(
        "runtime.mixed_precision_dtype=float16,task.hidden=4,task.train_data.shuffle=false",
        f"runtime.loss_scale={scale}",
        f"task.train_data.global_batch_size={BATCH // accumulation}",
        f"{SECTION}.gradient_accumulation_steps={accumulation}",
        f"{SECTION}.on_nonfinite={on_nonfinite}",
        "trainer.optimizer_config={ema: {average_decay: 0.9}, warmup: {type: null}}",
        "trainer.optimizer_config.learning_rate={type: constant, constant: {learning_rate: 0.05}}",
        "trainer.train_steps=3,trainer.steps_per_loop=2",
    )
    task = OverflowTask(config.task)
    one = Watched(config, tempfile.mkdtemp(), console=Console(quiet=True), task=task)
    if scale == "dynamic":
        one.optimizer.dynamic_scale.assign(64.0)  # Keras' 2^15 overflows in every batch.
    one.train()
    return one


def copies(trainer):
    """What both devices hold of every weight, momentum and average."""
    inner = getattr(trainer.optimizer, "inner_optimizer", trainer.optimizer)
    states = {v.path: v for v in trainer.model.trainable_variables}
    states |= {
        name: variable
        for name, variable in inner.variables_by_path().items()
        if name.startswith(("optimizer/", "average/", "iteration"))
    }
    local = trainer.strategy.experimental_local_results
    return {name: [copy.numpy() for copy in local(v.value)] for name, v in states.items()}


def report(scale, accumulation):
    after = trained(scale, accumulation)
    expected, found = after.before, copies(after)
    inner = getattr(after.optimizer, "inner_optimizer", after.optimizer)
    return {
        "replicas": after.strategy.num_replicas_in_sync,
        "copies": sorted({len(each) for each in found.values()}),
        "states": len(found),
        "changed": [
            name
            for name, each in found.items()
            if not all(np.array_equal(copy, expected[name][0]) for copy in each)
        ],
        "updates": int(inner.iterations.numpy()),
        "skipped": int(inner.nonfinite_steps.numpy()),
        "steps": after.step,
        "scale": float(after.optimizer.scale_loss(tf.constant(1.0))),
    }


def error_of_raise():
    try:
        trained("64.0", 1, on_nonfinite="raise")
    except NonFiniteGradientsError as error:
        return str(error)
    return None


def main():
    cpu = tf.config.list_physical_devices("CPU")[0]
    tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
    # Loops run for three updates each: to optimize their graphs takes longer than that.
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": True})
    result = {
        f"{scale} {accumulation}": report(scale, accumulation)
        for scale in ("dynamic", "64.0")
        for accumulation in (1, 2)
    }
    result["raise"] = error_of_raise()
    json.dump(result, sys.stdout)


if __name__ == "__main__":
    main()
