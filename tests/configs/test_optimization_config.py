import dataclasses

import pytest

from optimization import OptimizerFactory
from optimization.configs.errors import ConfigError, ConfigWarning
from optimization.configs.optimization_config import (
    OptimizationConfig,
    load_optimization_config,
    optimization_section,
    resolved,
)

PARAMS = {
    "optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}},
    "learning_rate": {
        "type": "stepwise",
        "stepwise": {"boundaries": [10000, 20000], "values": [0.1, 0.01, 0.001]},
    },
    "warmup": {"type": "linear", "linear": {"warmup_steps": 500, "warmup_learning_rate": 0.01}},
}


def test_the_form_that_users_know():
    config = OptimizationConfig(PARAMS)
    assert config.validate() == []
    assert config.optimizer.sgd.momentum == 0.9
    assert config.learning_rate.get().values == (0.1, 0.01, 0.001)
    exported = config.as_dict()
    assert list(exported["optimizer"]) == ["type", "sgd"]
    assert exported["ema"] is None
    assert OptimizationConfig(exported) == config
    assert OptimizationConfig.from_json(config.to_json()) == config


def test_types_are_required():
    with pytest.raises(ConfigError) as error:
        OptimizationConfig().validate()
    assert [problem.path for problem in error.value.problems] == [
        "learning_rate.type",
        "optimizer.type",
    ]


def test_warmup_may_be_absent():
    config = OptimizationConfig({**PARAMS, "warmup": {"type": None}})
    assert config.validate() == []
    assert config.warmup.get() is None


def test_values_without_a_type_are_an_error(tmp_path):
    base = OptimizationConfig({**PARAMS, "warmup": {}})
    config = base.replace(warmup={"linear": {"warmup_steps": 3}})
    message = "warmup.type: a type is required for `linear.warmup_steps`, none was given; write"
    for reject in (config.validate, lambda: OptimizerFactory(config)):
        with pytest.raises(ConfigError, match=message):
            reject()
    file = tmp_path / "experiment.yaml"
    file.write_text("trainer: {optimizer_config: {warmup: {linear: {warmup_steps: 3}}}}\n")
    with pytest.raises(ConfigError, match=f"{file}:1: trainer.optimizer_config.{message}"):
        load_optimization_config(file, base=base)
    untyped = config.replace(optimizer={"type": None}, ema=None)
    untyped.warmup.cosine.warmup_steps = 4
    with pytest.raises(ConfigError) as error:
        untyped.validate()
    text = str(error.value)
    assert "`linear.warmup_steps`, `cosine.warmup_steps`, none was given; write `type: linear` or"
    assert "optimizer.type: a type is required, none was given; the types are ada" in text


def test_a_factor_on_a_rate_of_zero_is_a_contradiction():
    config = OptimizationConfig(PARAMS)
    config.override(
        {
            "learning_rate": {"type": "constant", "constant": {"learning_rate": 0}},
            "warmup": {"linear": {"mode": "multiply"}},
        }
    )
    with pytest.raises(ConfigError, match="warmup.linear.mode: cannot be .?multiply"):
        config.validate()


def test_ftrl_must_not_start_with_a_rate_of_zero():
    config = OptimizationConfig({**PARAMS, "optimizer": {"type": "ftrl"}})
    assert config.validate() == []
    config.warmup.linear.warmup_learning_rate = 0
    with pytest.raises(ConfigError, match="warmup.type: `ftrl` divides by the learning rate"):
        config.validate()
    config.warmup.linear.warmup_steps = "5%"  # known later, and checked then
    assert config.validate() == []


def test_one_error_lists_everything():
    with pytest.raises(ConfigError) as error:
        OptimizationConfig(
            {
                "optimizer": {"type": "sgdd", "sgd": {"momentmu": 0.9}},
                "learnin_rate": {},
                "warmup": {"linear": {"warmup_steps": "500", "warmup_learning_rate": True}},
                "ema": {"average_decay": 2},
            }
        )
    assert str(error.value).splitlines() == [
        "optimizer.type: unknown type 'sgdd'; did you mean 'sgd'?",
        "optimizer.sgd.momentmu: unknown key; did you mean 'momentum'?",
        "learnin_rate: unknown key; did you mean 'learning_rate'?",
        "warmup.linear.warmup_steps: expected an integer, got '500' (text); "
        "write it without quotes",
        "warmup.linear.warmup_learning_rate: expected a number, got true",
        "ema.average_decay: must be < 1, got 2",
    ]


DECAY = {"type": "linear", "linear": {"initial_learning_rate": 0.9, "end_learning_rate": 1.0}}


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"ema": {"dynamic_decay": "cosine"}}, "rise_steps: is needed with `dynamic_decay: cos"),
        ({"ema": {"rise_steps": 5}}, "rise_steps: needs `dynamic_decay: cosine`, which is True"),
        ({"ema": {"dynamic_decay": "power", "time_constant": 9}}, "time_constant: needs `dynamic"),
        ({"ema": {"dynamic_decay": "sine"}}, "did you mean 'cosine'"),
        ({"ema": {"dynamic_decay": "power", "gamma": 1e-60}}, "gamma: must be > 0 in float32"),
        ({"ema": {"dynamic_decay": "power", "power": 1e60}}, "power: must be finite in float32"),
        ({"schedules": {"average_decay": DECAY}}, "average_decay: .* it needs an `ema` section"),
        ({"ema": {}, "schedules": {"ema_momentum": DECAY}}, "it needs `use_ema: true`"),
        ({"ema": {}, "schedules": {"average_decay": {}}}, "average_decay.type: a type is required"),
        (
            {
                "ema": {},
                "schedules": {
                    "average_decay": {"type": "constant", "constant": {"learning_rate": 1.5}}
                },
            },
            "`average_decay` must be <= 1, got 1.5, at step 0",
        ),
        (
            {
                "ema": {"dynamic_decay": "cosine", "rise_steps": 5},
                "schedules": {"average_decay": DECAY},
            },
            "and `dynamic_decay: cosine` of `ema` is one: leave out one",
        ),
    ],
)
def test_what_the_decay_of_an_average_cannot_be(sections, message):
    with pytest.raises(ConfigError, match=message):
        resolved(OptimizationConfig({**PARAMS, "ema": None, **sections}), train_steps=500)


def test_a_subclass_can_add_fields_and_change_defaults():
    @dataclasses.dataclass
    class Mine(OptimizationConfig):
        note: str = "none"

    config = Mine(PARAMS, note="x")
    assert config.note == "x"
    assert config.optimizer.type == "sgd"


GARDEN_FILE = """\
task:
  model: {backbone: {type: resnet, resnet: {model_id: 50}}}
  whatever: !!python/tuple [1, 2]
runtime: {distribution_strategy: tpu, tpu_setting: 1}
trainer:
  train_tf_while_loop: true
  train_steps: 90000
  optimizer_config:
    optimizer:
      type: sgd
      sgd: {momentum: 0.9}
    learning_rate:
      type: stepwise
      stepwise:
        boundaries: !!python/tuple [30, 60]
        values: [1.6e-1, .5e-1, 1e-2]
    warmup: {type: linear, linear: {warmup_steps: 5}}
"""


def test_a_model_garden_file_can_be_pointed_at(tmp_path):
    path = tmp_path / "garden.yaml"
    path.write_text(GARDEN_FILE)
    config = load_optimization_config(path)
    assert config.learning_rate.get().boundaries == (30, 60)
    assert config.learning_rate.get().values == (0.16, 0.05, 0.01)
    assert str(config.origin_of("optimizer.sgd.momentum")) == f"{path}:11"


def test_mistakes_in_a_file_have_line_and_full_path(tmp_path):
    path = tmp_path / "garden.yaml"
    path.write_text(GARDEN_FILE.replace("momentum: 0.9", "momentum: '0.9'"))
    other = tmp_path / "section.yaml"
    other.write_text("warmup:\n  linear: {warmup_stps: 3}\n")
    with pytest.raises(ConfigError) as error:
        load_optimization_config(path, other)
    lines = str(error.value).splitlines()
    place = "trainer.optimizer_config.optimizer.sgd.momentum"
    assert lines[0].startswith(f"{path}:11: {place}: expected")
    assert lines[1].startswith(f"{other}:2: warmup.linear.warmup_stps: unknown key; did you mean")
    assert len(lines) == 2


def test_files_are_layered_on_each_other_and_on_a_base(tmp_path):
    path = tmp_path / "over.yaml"
    path.write_text("optimizer: {sgd: {nesterov: true}}\n")
    config = load_optimization_config(path, base=OptimizationConfig(PARAMS))
    assert config.optimizer.sgd.nesterov is True
    assert config.optimizer.sgd.momentum == 0.9


def test_a_branch_set_in_vain_is_a_warning(tmp_path):
    path = tmp_path / "over.yaml"
    path.write_text("optimizer:\n  adam: {beta_1: 0.8}\n")
    with pytest.warns(ConfigWarning, match=r"over.yaml:2: optimizer.adam: is set, but `type`"):
        load_optimization_config(path, base=OptimizationConfig(PARAMS))


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"trainer": {}}, "trainer.optimizer_config: is not there"),
        ({"task": {}}, "trainer: is not there"),
        ({"trainer": None}, "trainer: is empty"),
        ({"trainer": 3}, "trainer: expected a mapping, got 3"),
        ({"trainer": {"optimizer_config": [1]}}, "optimizer_config: expected a mapping"),
    ],
)
def test_an_experiment_without_optimization_section(params, message):
    with pytest.raises(ConfigError, match=message):
        optimization_section(params, "x.yaml")


@pytest.mark.parametrize(
    ("params", "message"),
    [
        ({"optimizer": "adam"}, "expected a mapping, got 'adam' (text); write {type: adam}"),
        ({"optimizer": "Adam"}, "write {type: ...}; did you mean 'adam'?"),
        ({"warmup": "linear"}, "write {type: linear}"),
        ({"learning_rate": 0.1}, "write {type: constant, constant: {learning_rate: 0.1}}"),
        ({"warmup": 100}, "write {type: linear, linear: {warmup_steps: 100}}"),
        ({"ema": 0.999}, "ema: expected a mapping, got 0.999; write {average_decay: 0.999}"),
        ({"layer_decay": 0.75}, "layer_decay: expected a mapping, got 0.75; write {rate: 0.75}"),
        ({"param_groups": {"match": "b"}}, "(a mapping); write [{...}], a list of one"),
        ({"ema": True}, "ema: expected a mapping, got true; write {} for the defaults"),
        ("bert.yaml", "got 'bert.yaml' (text); a file is read by `load_optimization_config`"),
    ],
)
def test_what_to_write_where_a_section_is_meant(params, message):
    with pytest.raises(ConfigError) as error:
        OptimizationConfig(params)
    assert message in str(error.value)


def test_a_section_that_is_none_lacks_nothing(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("optimizer: adam\nlearning_rate: 0.1\n")
    with pytest.raises(ConfigError) as error:
        load_optimization_config(path)
    assert [problem.path for problem in error.value.problems] == ["optimizer", "learning_rate"]


LINEAR = {"type": "linear", "linear": {"initial_learning_rate": 0.5, "decay_steps": 100}}
WARMUP = {"type": "linear", "linear": {"warmup_steps": 20}}
CORRECTED = {"type": "lion", "lion": {"weight_decay": 0.1, "corrected_weight_decay": True}}


def test_the_peak_by_which_a_decay_is_corrected_is_that_of_the_schedule():
    values = {"optimizer": CORRECTED, "learning_rate": LINEAR}
    found = resolved(OptimizationConfig(values)).optimizer.lion
    assert found.peak_learning_rate == 0.5
    # Warmed up into the decay: it is at its highest after 20 of 100 steps.
    found = resolved(OptimizationConfig({**values, "warmup": WARMUP})).optimizer.lion
    assert found.peak_learning_rate == pytest.approx(0.4)
    written = {**CORRECTED, "lion": {**CORRECTED["lion"], "peak_learning_rate": 0.3}}
    found = resolved(OptimizationConfig({**values, "optimizer": written})).optimizer.lion
    assert found.peak_learning_rate == 0.3


def test_groups_have_peaks_of_their_own():
    constant = {"type": "constant", "constant": {"learning_rate": 0.125}}
    group = {"match": "bias", "learning_rate": constant}
    values = {"optimizer": CORRECTED, "learning_rate": LINEAR}
    with pytest.raises(ConfigError, match="has a peak of its own: give the group an `optimizer`"):
        resolved(OptimizationConfig({**values, "param_groups": [group]}))
    groups = [{**group, "optimizer": CORRECTED}, {"match": "norm", "optimizer": CORRECTED}]
    config = resolved(OptimizationConfig({**values, "param_groups": groups}))
    peaks = [each.optimizer.lion.peak_learning_rate for each in config.param_groups]
    assert peaks == [0.125, 0.5]


def test_a_peak_that_is_not_known_before_must_be_written():
    kind = "hf_reduce_lr_on_plateau"
    plateau = {"type": kind, kind: {"initial_learning_rate": 0.1}}
    values = {"optimizer": CORRECTED, "learning_rate": plateau}
    with pytest.raises(ConfigError, match="peak_learning_rate: is needed by .*`hf_reduce"):
        resolved(OptimizationConfig(values))
    lone = {"optimizer": {"type": "lion", "lion": {"peak_learning_rate": 0.1}}}
    with pytest.raises(ConfigError, match="peak_learning_rate: needs `corrected_weight_decay: t"):
        resolved(OptimizationConfig({**lone, "learning_rate": LINEAR}))
    own = {"variant": "hf", "weight_decay": 0.1, "corrected_weight_decay": True}
    values = {"optimizer": {"type": "adafactor", "adafactor": own}}
    with pytest.raises(ConfigError, match="corrected_weight_decay: needs a learning rate"):
        resolved(OptimizationConfig(values))


def test_a_sequence_has_the_peak_of_its_highest_phase():
    up = {"type": "linear", "linear": {"initial_learning_rate": 0.0, "end_learning_rate": 0.7}}
    up["linear"]["decay_steps"] = 30
    phases = [{"until": 30, **up}, {"type": "constant", "constant": {"learning_rate": 0.25}}]
    rate = {"type": "sequence", "sequence": {"phases": phases}}
    values = {"optimizer": CORRECTED, "learning_rate": rate}
    found = resolved(OptimizationConfig(values)).optimizer.lion.peak_learning_rate
    assert found == pytest.approx(0.7 * 29 / 30, rel=0.04)
