"""No setting of a section is accepted and ignored."""

import typing

import pytest

from optimization import OPTIMIZERS_CLS, ConfigError
from tests.torch.common import OptimizerFactory, config_of, parameters, problem

from optimization.torch.recipes import REFUSED, is_native  # isort: skip
from optimization.torch.gradients import GradientRules  # isort: skip

NATIVE = list(filter(is_native, OPTIMIZERS_CLS))
# What belongs to the class and is not its name, or is refused by the config itself.
NAMES = {"name", "learning_rate", "variant"}
# What a setting acts on.
PARTNERS = {
    "nesterov": {"momentum": 0.9},
    "classic_momentum": {"momentum": 0.9},
    "warmup_init": {"variant": "hf"},
    "momentum_start": {"warmup_steps": 3},
    "momentum_of": {"beta1": 0.9},
    "epsilon1_mode": {"epsilon1": 1e-3},
    "weight_decay_kind": {"weight_decay": 0.1},
    "weight_decay_first": {"weight_decay": 0.1},
    "weight_decay_order": {"weight_decay_rate": 0.1},
    "include_in_weight_decay": {"weight_decay_rate": 0.1, "weight_decay": 0.1},
    "exclude_from_weight_decay": {"weight_decay_rate": 0.1, "weight_decay": 0.1},
    "weight_keys": {"weight_decay": 0.1},
    "peak_learning_rate": {"corrected_weight_decay": True},
    "mars_gamma": {"mars": True, "mars_beta": 0.5},
    "mars_beta": {"mars": True, "mars_beta": 0.5},
    "lookahead_steps": {"lookahead": True},
    "lookahead_share": {"lookahead": True},
    "nesterov_correction": {"nesterov": True},
    "second_moment_beta": {"second_moment": "row"},
    "update_norm": {"second_moment": "row"},
}
# What it needs of some types.
NEEDS = {"mars": {"mars_beta": 0.5}}
PATTERNS = {
    "include_in_weight_decay": ["bias"],
    "exclude_from_weight_decay": ["bias"],
    "exclude_from_layer_adaptation": ["bias"],
    "exclude_layers": ["dense"],
    "weight_keys": ["dense"],
    "bias_keys": ["scale"],
    "include_layers": ["embedding"],
}
# Right values of what is no choice, number or switch.
VALUES = {
    "coefficients": "quintic",
    "split": {"dense": 2},
    "safety_factor": 1.01,
    "growth_rate": 1.02,
    "auxiliary": {"type": "sgd"},
}


def other_value(section, name):
    """Returns a value of a field that is right and not its default."""
    value = getattr(section, name)
    choices = typing.get_args(section._find_spec(name).annotation)
    if name in {**PATTERNS, **VALUES}:
        return {**PATTERNS, **VALUES}[name]
    if isinstance(value, bool):
        return not value
    if isinstance(value, str):
        return next(choice for choice in choices if choice != value)
    if isinstance(value, int):
        return value + 2
    if value is None:
        return 0.25
    return value * 0.5 if value else 0.25


def described(kind, section):
    """Returns all that the factory makes of a section."""
    relative = section.get("step_size") == "relative" or section.get("variant") == "hf"
    factory = OptimizerFactory(config_of(kind, {} if relative else 0.01, **section))
    params = parameters(problem()[0])
    names = {id(parameter): name for name, parameter in params.items()}
    optimizer = factory.build_optimizer(params.items())
    scheduler = factory.build_scheduler(optimizer)
    steps = []
    for _ in range(4):
        steps.append(
            [
                {**group, "params": [names[id(parameter)] for parameter in group["params"]]}
                for group in optimizer.param_groups
            ]
        )
        optimizer.step()
        scheduler.step()
    return type(optimizer).__name__, steps


def of_the_class(kind):
    """Returns the fields of a type that are its class', without those that it refuses to have."""
    cls = OPTIMIZERS_CLS.config_class(kind)
    others = {*NAMES, *cls.pipeline_fields(), *cls.unmodifiable}
    if "corrected_weight_decay" in cls.unmodifiable:
        others.add("peak_learning_rate")
    if "lookahead" in cls.unmodifiable:
        others |= {"lookahead_steps", "lookahead_share"}
    return [name for name in cls.field_names() if name not in others]


CASES = [(kind, name) for kind in NATIVE for name in of_the_class(kind)]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_setting_of_a_class_reaches_it(kind, name):
    section = OPTIMIZERS_CLS.config_class(kind)()
    partners = {k: v for k, v in PARTNERS.get(name, {}).items() if hasattr(section, k)}
    if "weight_decay_rate" in partners:
        partners.pop("weight_decay", None)
    plain = {**partners}
    if kind == "sgd_torch" and name == "momentum_start":
        plain["momentum"] = 0.5
    changed = {**plain, name: other_value(section, name), **NEEDS.get(name, {})}
    assert described(kind, changed) != described(kind, plain)


@pytest.mark.parametrize("kind", NATIVE)
def test_every_setting_of_the_step_is_carried_out_or_refused(kind):
    known = {*GradientRules.__dataclass_fields__, *REFUSED, "decay", "use_ema", "ema_momentum"}
    known.add("state")
    assert set(OPTIMIZERS_CLS.config_class(kind).pipeline_fields()) <= known


def test_refusals_name_the_setting():
    with pytest.raises(ConfigError, match=r"optimizer\.adam\.gradient_accumulation_steps"):
        OptimizerFactory(config_of("adam", gradient_accumulation_steps=2))
