"""The schedules of `golden/saved`, as files of Keras have them, and their values."""

import json
from typing import Any

import keras
import numpy as np

from optimization.schedules.keras_schedules import build_schedule
from optimization.schedules.scaled import ScaledLearningRate
from tests.saved_goldens import FOLDER
from tests.schedules.common import keras_values, lr_config, lr_examples, warmup_examples

FILE = FOLDER / "schedules.json"
STEPS = (0, 1, 50, 99, 100, 101, 399, 400, 401, 999, 1000, 1001, 5000)


def schedules() -> dict[str, Any]:
    """Returns a schedule of each type, by name, in each of the settings of the contracts."""
    cosine = lr_config("cosine")
    built = {name: build_schedule(config) for name, config in lr_examples()}
    built |= {f"warmup {name}": build_schedule(cosine, c) for name, c in warmup_examples()}
    built["scaled"] = ScaledLearningRate(build_schedule(cosine), factor=2.0, decay=0.01)
    return {name: schedule for name, schedule in built.items() if callable(schedule)}


def serialized(schedule: Any) -> Any:
    """Returns a schedule as Keras' files have it."""
    return json.loads(json.dumps(keras.saving.serialize_keras_object(schedule)))


def told(schedule: Any) -> dict[str, Any]:
    """Returns what the file says of a schedule."""
    values = keras_values(schedule, np.array(STEPS)).tolist()
    return {"schedule": serialized(schedule), "values": values}
