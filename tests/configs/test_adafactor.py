"""The section `adafactor`: variants, contradictions, and the learning rate that it may have."""

import numpy as np
import pytest
import yaml

from optimization import (
    ConfigError,
    ConfigWarning,
    OptimizationConfig,
    OptimizerFactory,
    parse_override,
)
from optimization.rules.adafactor import (
    VARIANTS,
    AdafactorConfig,
    AdafactorKerasConfig,
    keras_switches,
)
from optimization.rules.adafactor_formula import axes_to_factor
from optimization.rules.modifiers import MODIFIER_FIELDS

CONSTANT = {"type": "constant", "constant": {"learning_rate": 0.1}}


def config(section=None, **others):
    others.setdefault("learning_rate", CONSTANT)
    values = {"optimizer": {"type": "adafactor", "adafactor": section or {}}, **others}
    return OptimizationConfig({k: v for k, v in values.items() if v is not None})


def relative(**others):
    return config({"variant": "hf"}, **{"learning_rate": None, **others})


def switches(section):
    return {name: getattr(section, name) for name in VARIANTS[section.variant]}


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_sets_every_switch(variant):
    section = AdafactorConfig(variant=variant)
    assert switches(section) == VARIANTS[variant]
    section.validate()
    others = {"variant", "name", *MODIFIER_FIELDS, *section.pipeline_fields()}
    assert set(VARIANTS[variant]) == set(section.field_names()) - others
    assert section.arguments().keys() - others == set(VARIANTS[variant])


def test_what_is_written_beside_a_variant_stays():
    section = AdafactorConfig({"beta1": 0.8, "variant": "hf", "epsilon2": 0.1})
    assert switches(section) == {**VARIANTS["hf"], "beta1": 0.8, "epsilon2": 0.1}


def test_later_settings_change_single_switches():
    section = AdafactorConfig(variant="torch")
    section.clipping_threshold = 2.0
    section.override({"weight_decay": 0.1})
    expected = {**VARIANTS["torch"], "clipping_threshold": 2.0, "weight_decay": 0.1}
    assert switches(section) == expected


def test_a_variant_resets_all_switches_of_a_saved_file(tmp_path):
    saved = config({"variant": "big_vision", "beta1": 0.5, "weight_decay": 0.1})
    saved.to_yaml(tmp_path / "params.yaml")
    again = OptimizationConfig.from_yaml(tmp_path / "params.yaml")
    assert again == saved
    again.override(parse_override("optimizer.adafactor.variant=torch"))
    assert switches(again.optimizer.adafactor) == VARIANTS["torch"]


@pytest.mark.parametrize("variant", VARIANTS)
def test_an_exported_section_replays(variant):
    section = AdafactorConfig(variant=variant, decay_rate=0.7)
    exported = section.as_dict()
    assert exported["variant"] == variant
    again = AdafactorConfig(yaml.safe_load(yaml.safe_dump(exported)))
    assert again == section
    again.validate()


def test_the_origin_of_a_switch_is_that_of_its_variant(tmp_path):
    file = tmp_path / "params.yaml"
    file.write_text(
        "optimizer:\n  type: adafactor\n  adafactor:\n    epsilon2: 0.1\n    variant: hf\n"
    )
    read = OptimizationConfig.from_yaml(file)
    assert read.origin_of("optimizer.adafactor.epsilon2").line == 4
    assert read.origin_of("optimizer.adafactor.step_size").line == 5


def test_a_file_with_model_gardens_keys(tmp_path):
    import keras

    from tests.golden_cases import make_variables

    file = tmp_path / "t5.yaml"
    file.write_text(
        """
optimizer:
  type: adafactor
  adafactor:
    factored: true
    multiply_by_parameter_scale: false
    beta1: 0.9
    decay_rate: 0.7
    step_offset: 100
    clipping_threshold: 2.0
    min_dim_size_to_factor: 2
    epsilon1: 1.0e-20
    epsilon2: 1.0e-3
    weight_decay: 0.01
    include_in_weight_decay: kernel
learning_rate: {type: constant, constant: {learning_rate: 0.1}}
"""
    )
    factory = OptimizerFactory(OptimizationConfig.from_yaml(file))
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    weights = {"a/kernel": np.ones((2, 3), "float32"), "a/bias": np.ones(3, "float32")}
    kernel, bias = make_variables(weights)
    zeros = [np.zeros_like(w) for w in weights.values()]
    optimizer.apply([keras.ops.convert_to_tensor(g) for g in zeros], [kernel, bias])
    # Without gradients there is the decay, of the kernel alone, by itself.
    np.testing.assert_allclose(keras.ops.convert_to_numpy(kernel), 0.99, rtol=1e-6)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(bias), 1.0)


@pytest.mark.parametrize("variant", ["tourch", "T5X", None, 3, ["hf"]])
def test_an_unknown_variant_is_one_error(variant):
    with pytest.raises(ConfigError) as error:
        AdafactorConfig(variant=variant)
    assert [problem.path for problem in error.value.problems] == ["variant"]


def test_the_nearest_variant_is_named():
    with pytest.raises(ConfigError, match="did you mean 'big_vision'"):
        AdafactorConfig(variant="bigvision")


def test_timm_scales_a_rate_of_its_own_alone():
    assert AdafactorConfig(variant="timm").multiply_by_parameter_scale
    section = AdafactorConfig(variant="timm", step_size="absolute")
    assert not section.multiply_by_parameter_scale


def test_one_pattern_needs_no_list():
    one = AdafactorConfig(weight_decay=0.1, include_in_weight_decay="kernel")
    assert one == AdafactorConfig(weight_decay=0.1, include_in_weight_decay=["kernel"])
    assert one.arguments()["include_in_weight_decay"] == ["kernel"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"warmup_init": True}, "warmup_init: needs `step_size: relative`"),
        ({"epsilon1": None}, "epsilon1: null, the dtype's epsilon, needs `epsilon1_mode: clamp`"),
        ({"variant": "torch", "epsilon1_mode": "added"}, "needs `epsilon1_mode: clamp`"),
        ({"epsilon1_mode": "clamp"}, "which makes 1e-30 0 in float32"),
        ({"epsilon1": 1e-45}, "epsilon1: 1e-45 is 0 in float32"),
        ({"momentum_of": "update"}, "momentum_of: needs `beta1`"),
        ({"weight_decay_kind": "step_size"}, "weight_decay_kind: needs `weight_decay` > 0"),
        ({"weight_decay_first": True}, "weight_decay_first: needs `weight_decay` > 0"),
        (
            {"variant": "hf", "weight_decay": 0.1, "weight_decay_first": True},
            "cannot be with `weight_decay_kind: step_size`",
        ),
        ({"factored": False, "factored_axes": "last_two"}, "factored_axes: needs `factored"),
        ({"factored": False, "min_dim_size_to_factor": 4}, "min_dim_size_to_factor: needs"),
        ({"multiply_by_parameter_scale": False, "epsilon2": 0.1}, "epsilon2: needs"),
        ({"weight_decay": 0.1, "include_in_weight_decay": ["("]}, "not a regular expression"),
        ({"beta_2_cap": 1.0}, "beta_2_cap: must be < 1"),
        ({"step_size": "relativ"}, "did you mean 'relative'"),
    ],
)
def test_contradictions(values, message):
    with pytest.raises(ConfigError, match=message):
        AdafactorConfig(values).validate()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"global_clipnorm": 1.0}, "global_clipnorm: Adafactor clips its update itself"),
        ({"variant": "hf", "clipnorm": 1.0}, "clipnorm: Adafactor clips its update itself"),
        ({"variant": "hf", "clipping_threshold": None}, "training without it"),
        ({"variant": "hf", "step_size": "absolute"}, "multiply_by_parameter_scale: with a"),
    ],
)
def test_advice(values, message):
    with pytest.warns(ConfigWarning, match=message):
        AdafactorConfig(values).validate()


def test_a_clip_alone_is_no_doubt():
    assert AdafactorConfig(variant="big_vision", global_clipnorm=1.0).validate() == []


def test_a_relative_step_needs_no_learning_rate():
    factory = OptimizerFactory(relative())
    curve = factory.learning_rate_curve([0, 9999, 39999])
    np.testing.assert_allclose(curve, [1e-2, 1e-2, 5e-3])
    rate = factory.build_learning_rate()
    assert float(rate(39999)) == pytest.approx(5e-3)
    optimizer = factory.build_optimizer(rate)
    optimizer.iterations.assign(39999)
    assert float(optimizer.learning_rate) == pytest.approx(5e-3)


def test_other_step_sizes_need_one():
    with pytest.raises(ConfigError, match="learning_rate.type: a type is required"):
        config({"variant": "torch"}, learning_rate=None).validate()


WARMUP = {"type": "linear", "linear": {"warmup_steps": 5}}


@pytest.mark.parametrize(
    ("others", "message"),
    [
        ({"learning_rate": CONSTANT}, r"^learning_rate.type: `adafactor` has .* RelativeStep"),
        (
            {"learning_rate": {"type": "relative_step"}},
            r"^learning_rate.type: `adafactor` has a learning rate of its own",
        ),
        ({"warmup": WARMUP}, "^warmup.type: `adafactor` has a learning rate of its own"),
        ({"lr_scaling": {"global_batch_size": 512}}, "^lr_scaling: .* not scaled"),
        (
            {"param_groups": [{"match": "a", "learning_rate": CONSTANT}]},
            r"^param_groups\[0\].learning_rate.type: `adafactor` has a learning rate of its own",
        ),
        (
            {"param_groups": [{"match": "a", "optimizer": {"type": "lars"}}]},
            r"^param_groups\[0\].learning_rate.type: a type is required",
        ),
    ],
)
def test_a_learning_rate_beside_a_relative_step(others, message):
    with pytest.raises(ConfigError, match=message):
        relative(**others).validate()


def test_groups_with_and_without_a_relative_step():
    hf = {"type": "adafactor", "adafactor": {"variant": "hf"}}
    groups = [{"match": "a/", "optimizer": hf}, {"match": "b/", "freeze": True}]
    mixed = OptimizationConfig(
        {"optimizer": {"type": "sgd"}, "learning_rate": CONSTANT, "param_groups": groups}
    )
    mixed.validate()
    assert mixed.learning_rate_of() == (mixed.learning_rate.get(), None)
    own, warmup = mixed.learning_rate_of(mixed.param_groups[0])
    assert own == mixed.param_groups[0].optimizer.get().own_learning_rate()
    assert warmup is None
    assert mixed.learning_rate_of(mixed.param_groups[1]) is None
    sgd = {"match": "a/", "optimizer": {"type": "sgd"}, "learning_rate": CONSTANT}
    relative(param_groups=[sgd, {"match": "b/", "freeze": True}]).validate()


def test_each_group_learns_at_its_rate():
    hf = {"type": "adafactor", "adafactor": {"variant": "hf"}}
    factory = OptimizerFactory(
        OptimizationConfig(
            {
                "optimizer": {"type": "sgd"},
                "learning_rate": CONSTANT,
                "lr_scaling": {"global_batch_size": 512},
                "param_groups": [{"match": "a/", "optimizer": hf, "name": "relative"}],
            }
        )
    )
    optimizer = factory.build_optimizer(factory.build_learning_rate())
    weights = {"a/kernel": np.ones((2, 3), "float32"), "b/kernel": np.ones(4, "float32")}
    from tests.golden_cases import make_variables

    optimizer.build(make_variables(weights))
    rates = {name: float(rate) for name, rate in optimizer.learning_rates().items()}
    # The scaling of the batch is for the rate that is written.
    assert rates == pytest.approx({"default": 0.2, "relative": 1e-2})


def test_keras_names_mean_the_same_switches():
    section = AdafactorKerasConfig(beta_2_decay=-0.6, clip_threshold=2.0)
    expected = {**VARIANTS["keras"], "decay_rate": 0.6, "clipping_threshold": 2.0}
    assert keras_switches(section, constant_rate=True) == expected
    assert keras_switches(section, constant_rate=False)["step_size"] == "absolute"
    section.relative_step = False
    assert keras_switches(section, constant_rate=True)["step_size"] == "absolute"


@pytest.mark.parametrize(
    ("shape", "rule", "least", "axes"),
    [
        ((), "last_two", 1, None),
        ((5,), "two_largest", 1, None),
        ((1, 1), "last_two", 1, (1, 0)),
        ((5, 3, 4), "last_two", 1, (2, 1)),
        ((5, 3, 4), "last_two", 4, None),
        ((32, 31), "two_largest", 32, None),
        ((32, 33), "two_largest", 32, (1, 0)),
        ((16, 17), "timm", 16, None),
        ((17, 18), "timm", 16, (1, 0)),
        ((17, 18, 3, 3), "timm", 16, (1, 0)),
        ((3, 3, 17, 18), "timm", 16, (3, 2)),
        ((17, 3, 18), "timm", 16, None),
    ],
)
def test_which_axes_are_factored(shape, rule, least, axes):
    assert axes_to_factor(shape, rule, least) == axes


def test_a_null_that_is_no_value_leaves_a_switch_to_the_variant():
    switches = {"weight_decay_first": None, "gradient_accumulation_steps": None}
    section = AdafactorConfig({"variant": "keras", **switches})
    assert section == AdafactorConfig(variant="keras")
    assert section.weight_decay_first
