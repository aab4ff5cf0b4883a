import re

import keras
import pytest

from optimization import OptimizationConfig
from optimization.configs.durations import TrainingLength
from optimization.optimizers import PipelineOptimizer
from optimization.training import binary, dry_run
from optimization.training.flags import RunFlags
from tests.training.tiny import run_binary, tiny

COSINE = {"type": "cosine", "cosine": {"initial_learning_rate": 0.5, "decay_steps": 100}}


def test_each_setting_has_the_place_where_it_was_written(tmp_path):
    file = tmp_path / "tiny.yaml"
    file.write_text(
        "task: {hidden: 4}\n"
        "trainer:\n"
        "  optimizer_config:\n"
        "    param_groups: [{match: bias, learning_rate_multiplier: 2}]\n"
        "    schedules:\n"
        "      momentum: {type: constant, constant: {learning_rate: 0.5}}\n"
    )
    config = binary.resolve_flags("tiny", [file], ["trainer.max_to_keep=2"])
    found = dict(re.findall(r"^ *-? *(\w+: \S+) +# (.*)$", dry_run.annotated(config), re.MULTILINE))
    assert found["hidden: 4"] == f"{file}:1"
    assert found["match: bias"] == f"{file}:4"
    assert found["learning_rate_multiplier: 2.0"] == f"{file}:4"
    assert found["learning_rate: 0.5"] == f"{file}:6"
    assert found["max_to_keep: 2"] == "--params_override 'trainer.max_to_keep=2'"
    assert found["train_steps: 12"] == "experiment tiny"
    assert "steps_per_loop: 1000" not in found


def test_what_is_shown_is_a_file_of_the_same_settings(tmp_path):
    config = tiny("task.hidden=3", "trainer.optimizer_config.ema.average_decay=0.5")
    file = tmp_path / "shown.yaml"
    file.write_text(dry_run.annotated(config))
    assert binary.resolve_flags("tiny", [file]) == config


def test_the_curve_is_that_of_the_config():
    config = OptimizationConfig(
        {
            "optimizer": {"type": "sgd"},
            "learning_rate": COSINE,
            "warmup": {"type": "linear", "linear": {"warmup_steps": 10}},
            "param_groups": [{"match": "head", "name": "head", "learning_rate": COSINE}],
        }
    )
    text = dry_run.curve_text(config.sized(TrainingLength(100))[0])
    assert "optimizer steps\n" in text
    # 0.5 (1 + cos(pi/10)) / 2
    assert "\n1 default: 0 at step 0, 0.4878 at step 10, 0 at step 100; warmup ends" in text
    assert "\n2 head: 0.5 at step 0, 0 at step 100; training ends at step 100" in text


def test_an_optimizers_own_rate_is_a_curve_too():
    config = OptimizationConfig(
        {"optimizer": {"type": "adafactor", "adafactor": {"step_size": "relative"}}}
    )
    assert "learning rate: always 0.01; training ends" in dry_run.curve_text(
        config.sized(TrainingLength(1000))[0]
    )


def test_a_curve_that_cannot_be_drawn_is_told():
    config = OptimizationConfig({"optimizer": {"type": "sgd"}})
    text = dry_run.curve_text(config)
    assert text.startswith("learning rate: not drawn: learning_rate.type: is not set")


def test_the_memory_is_counted_by_what_it_is_for():
    model = keras.Sequential([keras.Input((7,)), keras.layers.Dense(3, name="head")])
    optimizer = PipelineOptimizer(
        keras.optimizers.Adam(0.1), ema={"average_decay": 0.9}, gradient_accumulation_steps=2
    )
    optimizer.set_model(model)
    kinds = dry_run.memory(model, optimizer)
    weights = 4 * (7 * 3 + 3)
    assert kinds["weights"] == kinds["gradients"] == weights
    assert 0 <= kinds["averages"] - weights <= 1  # and whether they are swapped
    assert 0 <= kinds["accumulated gradients"] - weights <= 8  # and the count of batches
    assert 0 <= kinds["optimizer state"] - 2 * weights <= 32  # and counts, and the rate
    assert sum(kinds.values()) == sum(
        v.value.dtype.size * int(keras.ops.size(v))
        for v in [*model.variables, *model.trainable_variables, *optimizer.variables]
    )


@pytest.mark.parametrize(
    ("dtype", "bits"), [("bfloat16", 16), ("float8_e4m3fn", 8), ("bool", 8), ("int64", 64)]
)
def test_the_size_of_numbers(dtype, bits):
    assert dry_run._bits(dtype) == bits


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"mode": "eval"}, "--dry_run is for training, the mode is 'eval'"),
        ({"sweep": "x.yaml"}, "--sweep can't be combined with --dry_run"),
        ({"checkpoint": "best"}, "--checkpoint can't be combined with --dry_run"),
    ],
)
def test_what_does_not_go_with_it_is_told(others, message, capsys):
    flags = RunFlags(experiment="tiny", dry_run=True, **others)
    assert binary.reporting(lambda: binary.run_flags(flags)) == 1
    assert capsys.readouterr().err == f"error: {message}\n"


@pytest.mark.slow
def test_it_shows_all_and_writes_nothing(tmp_path):
    directory = tmp_path / "run"
    rule = "trainer.optimizer_config.param_groups=[{match: bias, freeze: true}]"
    status, out, err = run_binary(
        "--experiment=tiny",
        f"--model_dir={directory}",
        "--dry_run",
        f"--params_override={rule}",
    )
    assert (status, err) == (0, "")
    assert "train_steps: 12" in out
    assert "\nlearning rate: 0 at step 0, " in out
    assert re.search(r"^1 variable +bias \(match='bias'\) +- .* frozen", out, re.MULTILINE)
    assert re.search(r"^  weights +16.0 B$", out, re.MULTILINE)
    assert re.search(r"^  gradients +12.0 B$", out, re.MULTILINE)
    assert out.endswith("dry run: nothing was trained or written\n")
    assert not directory.exists()
