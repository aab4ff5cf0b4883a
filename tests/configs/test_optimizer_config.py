import inspect

import pytest

from optimization.configs.errors import ConfigError
from optimization.configs.optimizer_config import OPTIMIZERS_CLS, EMAConfig, OptimizerConfig

TYPES = [
    "sgd",
    "adam",
    "adamw",
    "lamb",
    "lars",
    "rmsprop",
    "adagrad",
    "adafactor",
    "adafactor_keras",
    "adadelta",
    "adamax",
    "nadam",
    "ftrl",
    "lion",
    "muon",
    "sgd_experimental",
    "adam_experimental",
    "adamw_experimental",
    "sgd_torch",
    "schedule_free_adamw",
    "schedule_free_sgd",
]

# Read from the config dataclasses of tf-models-official 2.20.
GARDEN_DEFAULTS = {
    "sgd": {"name": "SGD", "decay": 0.0, "nesterov": False, "momentum": 0.0},
    "rmsprop": {
        "name": "RMSprop",
        "rho": 0.9,
        "momentum": 0.0,
        "epsilon": 1e-7,
        "centered": False,
    },
    "adagrad": {"name": "Adagrad", "initial_accumulator_value": 0.1, "epsilon": 1e-7},
    "adam": {"name": "Adam", "beta_1": 0.9, "beta_2": 0.999, "epsilon": 1e-7, "amsgrad": False},
    "adamw": {
        "name": "AdamWeightDecay",
        "beta_1": 0.9,
        "beta_2": 0.999,
        "epsilon": 1e-7,
        "amsgrad": False,
        "weight_decay_rate": 0.0,
        "include_in_weight_decay": None,
        "exclude_from_weight_decay": None,
        "gradient_clip_norm": 1.0,
    },
    "adamw_experimental": {
        "name": "AdamWeightDecayExperimental",
        "weight_decay": 0.0,
        "global_clipnorm": 1.0,
        "jit_compile": False,
    },
    "lamb": {
        "name": "LAMB",
        "epsilon": 1e-6,
        "weight_decay_rate": 0.0,
        "exclude_from_weight_decay": None,
        "exclude_from_layer_adaptation": None,
    },
    "lars": {
        "name": "LARS",
        "momentum": 0.9,
        "eeta": 0.001,
        "weight_decay_rate": 0.0,
        "nesterov": False,
        "classic_momentum": True,
        "exclude_from_weight_decay": None,
        "exclude_from_layer_adaptation": None,
    },
    "adafactor": {
        "name": "Adafactor",
        "factored": True,
        "multiply_by_parameter_scale": True,
        "beta1": None,
        "decay_rate": 0.8,
        "step_offset": 0,
        "clipping_threshold": 1.0,
        "min_dim_size_to_factor": 128,
        "epsilon1": 1e-30,
        "epsilon2": 1e-3,
        "weight_decay": None,
        "include_in_weight_decay": None,
    },
    "adafactor_keras": {
        "name": "Adafactor",
        "learning_rate": 0.001,
        "beta_2_decay": -0.8,
        "epsilon_1": 1e-30,
        "epsilon_2": 1e-3,
        "clip_threshold": 1.0,
        "relative_step": True,
    },
    "sgd_torch": {
        "name": "SGD",
        "decay": 0.0,
        "nesterov": False,
        "momentum_start": 0.0,
        "momentum": 0.9,
        "warmup_steps": 0,
        "weight_decay": 0.0,
        "weight_keys": ["kernel", "weight"],
        "bias_keys": ["bias", "beta"],
    },
}


def test_every_type_of_the_catalog_is_registered():
    """Those of the first releases; one that is added later is one file, and no line here."""
    assert set(OPTIMIZERS_CLS) >= set(TYPES)


@pytest.mark.parametrize("name", GARDEN_DEFAULTS)
def test_names_and_defaults_are_model_gardens(name):
    values = OPTIMIZERS_CLS.config_class(name)().as_dict()
    for key, value in GARDEN_DEFAULTS[name].items():
        assert values[key] == value
    for clip in ("clipnorm", "clipvalue", "global_clipnorm"):
        assert values[clip] == GARDEN_DEFAULTS[name].get(clip)


@pytest.mark.parametrize("name", TYPES)
def test_the_class_takes_every_argument(name):
    parameters = inspect.signature(OPTIMIZERS_CLS[name].__init__).parameters
    section = OPTIMIZERS_CLS.config_class(name)()
    open_ended = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
    unknown = {key for key in section.arguments() if key not in parameters}
    assert unknown <= ({"name"} if open_ended else set())


@pytest.mark.parametrize("name", TYPES)
def test_only_one_kind_of_clip_may_be_set(name):
    section = OPTIMIZERS_CLS.config_class(name)(clipnorm=1.0, global_clipnorm=0.5)
    with pytest.raises(ConfigError, match=r"global_clipnorm: at most one kind of clip"):
        section.validate()
    for clip in ("clipnorm", "clipvalue", "global_clipnorm"):
        with pytest.raises(ConfigError, match=f"{clip}: must be > 0, got 0"):
            section.override({clip: 0})


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("sgd", {"momentum": 1.0}, "momentum: must be < 1"),
        ("sgd", {"momentum": -0.1}, "momentum: must be >= 0"),
        ("sgd", {"decay": -1}, "decay: must be >= 0"),
        ("sgd", {"nesterov": True}, "nesterov: needs `momentum` > 0"),
        ("sgd_experimental", {"nesterov": True}, "nesterov: needs `momentum` > 0"),
        ("lars", {"nesterov": True, "momentum": 0}, "nesterov: needs `momentum` > 0"),
        ("adam", {"beta_1": 1}, "beta_1: must be < 1"),
        ("adam", {"beta_2": -0.5}, "beta_2: must be >= 0"),
        ("adam", {"epsilon": 0}, "epsilon: must be > 0"),
        ("adamw", {"weight_decay_rate": -1}, "weight_decay_rate: must be >= 0"),
        ("adamw", {"exclude_from_weight_decay": ["(bias"]}, "not a regular expression"),
        ("adamw", {"exclude_from_weight_decay": "bias"}, "expected a list"),
        ("adamw", {"gradient_clip_norm": -1}, "gradient_clip_norm: must be >= 0"),
        ("lamb", {"weight_decays": 0.1}, "did you mean 'weight_decay'"),
        (
            "lamb",
            {"weight_decay": 0.1, "weight_decay_rate": 0.1},
            "weight_decay: at most one of it and `weight_decay_rate` may be set",
        ),
        (
            "adamw",
            {"weight_decay": 0.1, "weight_decay_rate": 0.1},
            "weight_decay: at most one of it and `weight_decay_rate` may be set",
        ),
        ("sgd", {"weight_decay": -0.1}, "weight_decay: must be >= 0"),
        ("sgd", {"ema_momentum": 0.9}, "ema_momentum: needs `use_ema: true`"),
        ("sgd", {"ema_overwrite_frequency": 2}, "ema_overwrite_frequency: needs `use_ema: true`"),
        ("sgd", {"use_ema": True, "ema_momentum": 1.0}, "ema_momentum: must be < 1"),
        ("sgd", {"use_ema": True, "ema_overwrite_frequency": 0}, "must be > 0"),
        ("sgd", {"loss_scale_factor": 0.0}, "loss_scale_factor: must be > 0"),
        ("lars", {"eta": 0.1}, "eta: unknown key; did you mean 'eeta'"),
        ("adafactor_keras", {"beta_2_decay": 0.8}, "beta_2_decay: must be < 0"),
        ("adafactor_keras", {"learning_rate": 0.1}, "the rate is set by the `learning_rate`"),
        ("adafactor", {"include_in_weight_decay": "k"}, "needs `weight_decay` > 0"),
        ("adafactor", {"include_in_weight_decay": "("}, "not a regular expression"),
        ("lion", {"beta_1": 0}, "beta_1: must be > 0"),
        ("muon", {"ns_steps": 0}, "ns_steps: must be > 0"),
        ("ftrl", {"learning_rate_power": 0.5}, "learning_rate_power: must be < 0"),
    ],
)
def test_impossible_values(name, values, message):
    with pytest.raises(ConfigError, match=message.replace("(", r"\(").replace(")", r"\)")):
        OPTIMIZERS_CLS.config_class(name)(values).validate()


def test_slide_says_that_it_was_never_released():
    for params in ({"type": "slide"}, {"slide": {}}):
        with pytest.raises(ConfigError, match="never released by its authors"):
            OptimizerConfig(params)
    with pytest.raises(KeyError, match="never released"):
        OPTIMIZERS_CLS["slide"]


def test_ema_defaults_are_model_gardens():
    assert EMAConfig().as_dict() == {
        "name": "ExponentialMovingAverage",
        "trainable_weights_only": True,
        "average_decay": 0.99,
        "start_step": 0,
        "dynamic_decay": True,
        "clipnorm": None,
        "clipvalue": None,
        "global_clipnorm": None,
    }
    with pytest.raises(ConfigError, match=r"clipnorm: expected null, got 1.0"):
        EMAConfig(clipnorm=1.0)
    with pytest.raises(ConfigError, match="average_decay: must be < 1"):
        EMAConfig(average_decay=1.0)
    with pytest.raises(ConfigError, match="start_step: must be >= 0"):
        EMAConfig(start_step=-1)


@pytest.mark.parametrize(
    ("name", "written"),
    [
        (
            "vit_adamw",
            "Garden's MAE project; write `adamw`, and its layer-wise rates as a",
        ),
        ("detr_adamw", "write `adamw`, and its rate of the backbone as `param_groups: ["),
        ("sgd_dymow", "write `sgd_torch`"),
        ("sgd_accum", "write `sgd` with `gradient_accumulation_steps`"),
    ],
)
def test_types_of_model_gardens_projects_say_what_to_write(name, written):
    with pytest.raises(ConfigError) as error:
        OptimizerConfig({"type": name, name: {"x": 1}, "adamw": {"weight_decay_rate": 1e-5}})
    assert len(error.value.problems) == 1
    assert str(error.value).startswith(f"type: `{name}` is a type of Model Garden's ")
    assert written in str(error.value)


KERAS_NAMES = {"AdamW": "adamw_experimental", "Adafactor": "adafactor_keras"} | {
    "ScheduleFreeAdamW": "schedule_free_adamw"
}


def test_what_keras_writes_of_each_of_its_optimizers_is_read():
    import keras

    read = 0
    for name, keras_class in vars(keras.optimizers).items():
        section = KERAS_NAMES.get(name, name.lower())
        if section not in OPTIMIZERS_CLS or not isinstance(keras_class, type):
            continue
        settings = keras_class().get_config()
        del settings["learning_rate"]  # it has a section of its own
        config = OptimizerConfig({"type": section, section: settings})
        config.validate()
        assert config.get().gradient_accumulation_steps == 1
        assert (config.get().weight_decay or None) == settings["weight_decay"]
        assert "gradient_accumulation_steps" not in config.get()._origins
        read += 1
    assert read >= 11
