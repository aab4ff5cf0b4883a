import keras
import pytest

from optimization.optimizers import LAMB, LARS, AdafactorKeras, AdamWeightDecay, PipelineOptimizer
from tests import golden_cases
from tests.keras.common import TableSchedule

CLASSES = {
    "sgd": keras.optimizers.SGD,
    "adam": keras.optimizers.Adam,
    "adam_experimental": keras.optimizers.Adam,
    "adamw": AdamWeightDecay,
    "lamb": LAMB,
    "lars": LARS,
    "rmsprop": keras.optimizers.RMSprop,
    "adagrad": keras.optimizers.Adagrad,
    "adafactor_keras": AdafactorKeras,
}
CLIPS = ("clipnorm", "clipvalue", "global_clipnorm", "gradient_clip_norm")


def build(case):
    kind = case["config"]["optimizer"]["type"]
    arguments = dict(case["config"]["optimizer"][kind])
    clips = {name: arguments.pop(name) for name in CLIPS if name in arguments}
    if kind == "adamw":
        clips.setdefault("gradient_clip_norm", 1.0)
    return PipelineOptimizer(
        CLASSES[kind](learning_rate=TableSchedule(case["lr"]), **arguments), **clips
    )


@pytest.mark.parametrize("case", golden_cases.load_cases(), ids=golden_cases.case_id)
def test_updates_equal_model_gardens(case):
    golden_cases.run_case(case, build)
