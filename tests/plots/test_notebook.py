import pytest

from optimization import (
    ExperimentConfig,
    LrConfig,
    OptimizationConfig,
    OptimizerConfig,
    OptimizerFactory,
    WarmupConfig,
)

RATE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}}
CONFIG = {
    "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
    "learning_rate": RATE,
    "warmup": {"type": "linear", "linear": {"warmup_steps": 10}},
}


def html(shown):
    text = shown._repr_html_()
    assert text.count("<div>") == text.count("</div>")
    return text


def test_a_config_shows_its_curve_and_its_settings(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(
        "optimizer: {type: sgd, sgd: {momentum: 0.9}}\n"
        "learning_rate: {type: constant, constant: {learning_rate: 0.5}}\n"
    )
    text = html(OptimizationConfig.from_yaml(path))
    assert "<polyline" in text
    table, folded = text.split("<details>")
    assert f"optimizer.sgd.momentum</td><td{CELL}>0.9</td><td{CELL}>{path}:1" in table
    assert "optimizer.sgd.nesterov" not in table
    assert "optimizer.sgd.nesterov" in folded


CELL = ' style="text-align:left;padding:1px 12px 1px 0;font-family:monospace"'


def test_a_factory_shows_the_whole_training():
    text = html(OptimizerFactory(OptimizationConfig(CONFIG), train_steps=500))
    assert "training ends at step 500" in text
    assert f"decay_steps</td><td{CELL}>500</td>" in text


def test_what_keeps_a_curve_from_being_drawn_is_said_in_its_place():
    text = html(OptimizationConfig(CONFIG))
    message = "No curve: learning_rate.cosine.decay_steps: &#x27;remaining&#x27; takes"
    assert message in text
    assert "<polyline" not in text
    text = html(OptimizationConfig())
    assert "No curve: learning_rate.type: is not set" in text
    text = html(LrConfig({"type": "cosine"}))
    assert "required, not set" in text


def test_groups_are_all_shown():
    groups = [{"match": "bias$", "learning_rate_multiplier": 2.0}]
    config = OptimizationConfig({**CONFIG, "param_groups": groups})
    text = html(OptimizerFactory(config, train_steps=100))
    assert text.count("<polyline") == 2
    assert "param_groups[0].learning_rate_multiplier" in text


def test_what_is_shown_is_no_markup():
    bad = "<script>alert('&')</script>"
    groups = [{"match": "bias$", "name": bad}]
    config = OptimizationConfig({**CONFIG, "param_groups": groups})
    for shown in (config, OptimizerFactory(config, train_steps=100), config.param_groups[0]):
        text = html(shown)
        assert "<script" not in text
        assert "&lt;script&gt;" in text


def test_schedules():
    rate = {"type": "cosine", "cosine": {"initial_learning_rate": 0.1, "decay_steps": 70}}
    assert "<polyline" in html(LrConfig(rate))
    assert "<polyline" in html(LrConfig(rate).get())
    warmup = WarmupConfig({"type": "linear", "linear": {"warmup_steps": 10}})
    for shown in (warmup, warmup.get()):
        assert "warmup to a learning rate of 1" in html(shown)
    assert "<svg" not in html(OptimizerConfig(CONFIG["optimizer"]))


def test_an_experiment():
    config = ExperimentConfig(trainer={"train_steps": 300, "optimizer_config": CONFIG})
    assert "training ends at step 300" in html(config)
    assert "No curve" in html(ExperimentConfig())


@pytest.mark.parametrize("decay", [0.0, 0.01])
def test_keras_schedules(decay):
    keras = pytest.importorskip("keras")
    sgd = {"type": "sgd", "sgd": {"decay": decay}}
    config = OptimizationConfig({**CONFIG, "optimizer": sgd})
    schedule = OptimizerFactory(config, train_steps=500).build_learning_rate()
    text = html(schedule)
    assert "<polyline" in text
    assert "warmup ends at step 10" in text
    assert "decay ends at step 500" in text
    from optimization.schedules.keras_schedules import schedule_class

    cls = schedule_class(type(config.warmup.get()))
    cosine = keras.optimizers.schedules.CosineDecay(0.1, 100)
    assert cls(after_warmup_lr_sched=cosine, warmup_steps=5)._repr_html_().startswith("<pre>")


def test_schedulers_of_torch():
    torch = pytest.importorskip("torch")
    from optimization.torch import OptimizerFactory as TorchFactory
    from optimization.torch.schedule import ConfiguredScheduler

    factory = TorchFactory(OptimizationConfig(CONFIG), train_steps=500)
    model = torch.nn.Linear(2, 1)
    scheduler = factory.build_scheduler(factory.build_optimizer(model))
    assert scheduler._repr_html_() == factory._repr_html_()
    plain = ConfiguredScheduler(
        torch.optim.SGD(model.parameters()), {"default": lambda step: 0.5}, []
    )
    assert plain._repr_html_().startswith("<pre>")
