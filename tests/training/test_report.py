import io

from rich.console import Console

from optimization import OptimizationConfig
from optimization.training import run_experiment
from optimization.training.report import describe_optimization, describe_settings
from tests.training.tiny import tiny


def test_the_optimization_in_words():
    config = OptimizationConfig(
        optimizer={"type": "adamw", "adamw": {"weight_decay_rate": 0.01}},
        learning_rate={"type": "constant", "constant": {"learning_rate": 0.1}},
        ema={"average_decay": 0.9},
    )
    rows = describe_optimization(config)
    assert rows["optimizer"] == "adamw (weight_decay_rate 0.01)"
    assert rows["learning rate"] == "constant (learning_rate 0.1)"
    assert "warmup" not in rows
    assert "average_decay 0.9" in rows["weight average"]


def test_what_is_not_scaled_with_the_batch_is_told():
    config = OptimizationConfig(
        lr_scaling={"base_batch_size": 256, "global_batch_size": 1024, "scales": ["peak"]}
    )
    said = "learning rate x 4: batch 1024 / 256, linear"
    assert describe_settings(config, None) == [f"{said}; floor and warmup_start as written"]
    config.lr_scaling.scales = ["peak", "floor", "warmup_start"]
    assert describe_settings(config, None) == [said]


def test_what_is_told_before_a_run_and_at_its_end(tmp_path):
    out = io.StringIO()
    best = "trainer.best_checkpoint_export_subdir=best,trainer.best_checkpoint_eval_metric=mae"
    results = run_experiment(
        tiny(best), "train_and_eval", tmp_path, console=Console(file=out, width=80)
    )
    plan, _, rest = out.getvalue().partition("step ")
    facts = {
        name: text.strip()
        for line in [*plan.splitlines(), *rest.split("(best)\n")[-1].splitlines()]
        for name, text in [line.strip().split("  ", 1)]
    }
    assert facts["task"] == "TinyTask"
    assert facts["model"] == "tiny, 4 parameters"
    assert facts["optimizer"] == "sgd (momentum 0.9)"
    assert facts["learning rate"].startswith("cosine (initial_learning_rate 0.05, decay_steps 12")
    assert facts["warmup"].startswith("linear (warmup_steps 5")
    assert facts["steps"] == "12 of 12"
    assert facts["validation loss"] == f"{results['validation loss']:.5g}"
    assert facts["best weights"] == str(tmp_path / "best")
    assert facts["configuration"] == str(tmp_path / "params.yaml")
    assert facts["summaries"] == f"tensorboard --logdir {tmp_path}"


def test_a_learning_rate_of_the_optimizers_own():
    config = OptimizationConfig(optimizer={"type": "adafactor", "adafactor": {"variant": "hf"}})
    assert describe_optimization(config)["learning rate"] == "RelativeStep, the optimizer's own"
