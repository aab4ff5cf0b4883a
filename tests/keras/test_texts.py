import keras
import pytest

import optimization
import optimization.optimizers
from optimization.optimizers import LARS, ParamGroup, PipelineOptimizer
from optimization.schedules.followers import Greedy
from optimization.transformers import WarmUp

SCHEDULES = keras.optimizers.schedules


@pytest.mark.filterwarnings("ignore::optimization.ConfigWarning")  # not what it is about
@pytest.mark.parametrize("type_", list(optimization.OPTIMIZERS_CLS))
def test_every_optimizer_prints_short_and_without_addresses(type_):
    config = optimization.OptimizationConfig(
        optimizer={"type": type_, type_: {"adaptive_clip_factor": 0.5, "global_clipnorm": None}},
        learning_rate={"type": "stepwise", "stepwise": {"boundaries": [9], "values": [0.5, 0.25]}},
        warmup={"type": "constant", "constant": {"warmup_learning_rate": 0.5}},
    )
    config.warmup.constant.warmup_steps = 4
    factory = optimization.OptimizerFactory(config)
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    rate = (
        "ConstantWarmup(PiecewiseConstantDecay(boundaries=(9,), values=(0.5, 0.25)), "
        "warmup_steps=4, warmup_learning_rate=0.5)"
    )
    assert repr(factory.build_learning_rate()) == rate
    cls = optimization.OPTIMIZERS_CLS[type_].__name__
    assert repr(optimizer).startswith(f"PipelineOptimizer({cls}(learning_rate={rate}")
    assert "adaptive_clip_factor=0.5" in repr(optimizer)
    for printed in (factory, optimizer, optimizer.optimizer):
        own = not type(printed).__module__.startswith("keras.")
        assert not own or (len(repr(printed)) <= 300 and " at 0x" not in repr(printed))


def test_what_the_pipeline_does_besides():
    optimizer = PipelineOptimizer(
        LARS(SCHEDULES.CosineDecay(0.5, 100), weight_decay_rate=0.01),
        gradient_clip_norm=1.0,
        ema={"average_decay": 0.9},
        gradient_transformers=[lambda pairs: pairs],
        gradient_accumulation_steps=4,
        param_groups=[ParamGroup(match="bias$", freeze=True)],
    )
    text = repr(optimizer)
    for part in (
        "LARS(learning_rate=CosineDecay(initial_learning_rate=0.5, decay_steps=100), ",
        "weight_decay_rate=0.01",
        "gradient_clip_norm=1.0",
        "gradient_accumulation_steps=4",
        "ema=WeightAverage(average_decay=0.9)",
        "param_groups=('bias$',)",
    ):
        assert part in text
    assert "0x" not in text


@pytest.mark.parametrize(
    ("printed", "text"),
    [
        (
            ParamGroup(match="a", optimizer=keras.optimizers.Adagrad(0.25)),
            "ParamGroup(match='a', optimizer=Adagrad(learning_rate=0.25))",
        ),
        (
            ParamGroup(ndim=1, learning_rate=SCHEDULES.ExponentialDecay(0.5, 10, 0.25)),
            "ParamGroup(ndim=(1,), learning_rate=ExponentialDecay("
            "initial_learning_rate=0.5, decay_steps=10, decay_rate=0.25))",
        ),
        (
            WarmUp(0.5, SCHEDULES.CosineDecay(0.5, 10), 4),
            "WarmUp(initial_learning_rate=0.5, decay_schedule_fn=CosineDecay("
            "initial_learning_rate=0.5, decay_steps=10), warmup_steps=4)",
        ),
        (Greedy([0.5], patience=3), "Greedy(rates=[0.5], patience=3)"),
        (optimization.EvaluateAverages(), "EvaluateAverages()"),
        (
            optimization.MetricLearningRate(
                optimization.LrConfig(
                    type="hf_greedy", hf_greedy={"initial_learning_rate": 0.5}
                ).get()
            ),
            "MetricLearningRate(HfGreedyLrConfig(initial_learning_rate=0.5))",
        ),
    ],
)
def test_text(printed, text):
    assert repr(printed) == text
