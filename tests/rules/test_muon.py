"""Settings of Muon that the contracts do not make of its fields."""

import numpy as np
import pytest

from optimization import ConfigError, OptimizationConfig
from optimization.rules.modifiers import MODIFIER_FIELDS
from optimization.rules.muon import VARIANTS, MuonConfig
from optimization.rules.newton_schulz import COEFFICIENTS
from tests.rules import contracts

SHAPES = {
    "embedding/embeddings": (8, 6),
    "conv/kernel": (3, 2, 4, 6),
    "qkv/kernel": (4, 12),
    "qkv/bias": (12,),
    "out/kernel": (12, 4),
    "head/kernel": (4, 3),
}
TORCH = {
    "embedding.weight": (8, 6),
    "conv.weight": (6, 4, 3, 2),
    "qkv.weight": (12, 4),
    "qkv.bias": (12,),
    "head.weight": (3, 4),
}
OWN = [[3.0, -3.2, 1.2], [2.0, -1.5, 0.5]]


@pytest.mark.parametrize("shapes", [SHAPES, TORCH], ids=["outputs last", "outputs first"])
@pytest.mark.parametrize(
    "fields",
    [
        {"split": {"qkv": 3}},
        {"split": {"conv": 2, "qkv": 3}, "second_moment": "row", "scale": "shape"},
        {"split": {"qkv": 3}, "second_moment": "full", "update_norm": "orthogonal"},
        {"coefficients": OWN},
        {"coefficients": OWN, "ns_steps": 1, "include_layers": ["head", "embed"]},
        {"include_layers": ["head"], "exclude_layers": ["qkv"]},
        *({"variant": variant, "ns_steps": 9} for variant in VARIANTS),
    ],
    ids=str,
)
def test_it_is_its_transcription(shapes, fields):
    assert contracts.check_reference("muon", MuonConfig(fields), shapes)


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_variant_sets_every_switch(variant):
    section = MuonConfig(variant=variant)
    assert {name: getattr(section, name) for name in VARIANTS[variant]} == VARIANTS[variant]
    section.validate()
    others = {"variant", "auxiliary", "name", *MODIFIER_FIELDS, *section.pipeline_fields()}
    assert set(VARIANTS[variant]) == set(section.field_names()) - others
    written = MuonConfig({"momentum": 0.8, "variant": variant, "ns_steps": 4})
    expected = {**VARIANTS[variant], "momentum": 0.8, "ns_steps": 4}
    assert {name: getattr(written, name) for name in expected} == expected


@pytest.mark.parametrize("name", COEFFICIENTS)
def test_singular_values_come_close_to_one(name):
    """Five iterations, from 1e-3 of the norm on."""
    x = np.geomspace(1e-3, 1.0, 200)
    for a, b, c in [*COEFFICIENTS[name]][:5]:
        x = a * x + b * x**3 + c * x**5
    assert np.abs(x - 1).max() < {"quintic": 0.53, "polar_express": 0.2}[name]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"coefficients": []}, r"coefficients: must be a name, or \[\[a, b, c\], ...\]"),
        ({"coefficients": [[1.0, 2.0]]}, "three numbers an iteration"),
        ({"coefficients": "polar_expres"}, "'polar_express'"),
        ({"coefficients": "quintic", "muon_b": -3.0}, "muon_b: needs `coefficients: simple`"),
        ({"update_norm": "orthogonal"}, "update_norm: needs `second_moment: row` or `full`"),
        ({"second_moment_beta": 0.9}, "second_moment_beta: needs `second_moment: row` or `full`"),
        ({"scale": "shape", "rms_rate": None}, "scale: needs `rms_rate`"),
        ({"variant": "jordan", "rms_rate": None, "scale": "unit_rms"}, "scale: needs `rms_rate`"),
        ({"split": {"qkv": 1}}, "split.qkv: must be >= 2, got 1"),
        ({"split": {"(": 2}}, "is not a regular expression"),
        ({"split": ["qkv"]}, "split: expected a mapping"),
        ({"variant": "kera"}, "'keras'"),
        ({"safety_factor": 0.5}, "safety_factor: must be >= 1"),
        ({"variant": "adamuon", "nesterov": True, "momentum": 0.0}, "nesterov: needs `momentum`"),
    ],
)
def test_mistakes(fields, message):
    rate = {"type": "constant", "constant": {"learning_rate": 0.1}}
    optimizer = {"type": "muon", "muon": fields}
    with pytest.raises(ConfigError, match=message):
        OptimizationConfig({"optimizer": optimizer, "learning_rate": rate}).validate()


def test_what_does_not_act_has_no_schedule():
    constant = {"type": "constant", "constant": {"learning_rate": 0.1}}
    schedule = {"type": "linear", "linear": {"initial_learning_rate": 0.9, "decay_steps": 9}}
    fields = {"optimizer": {"type": "muon"}, "learning_rate": constant}
    fields["schedules"] = {"second_moment_beta": schedule}
    with pytest.raises(ConfigError, match="second_moment_beta"):
        OptimizationConfig(fields).validate()
    fields["optimizer"]["muon"] = {"second_moment": "row"}
    OptimizationConfig(fields).validate()


def test_what_a_variant_has_may_stay_where_it_acts_no_more():
    section = MuonConfig(variant="adamuon")
    section.second_moment = "none"
    section.validate()


def test_kernels_that_are_no_equal_parts_are_refused():
    section = MuonConfig(split={"qkv": 5})
    with pytest.raises(
        ValueError, match=r"makes 5 matrices of one size of 'qkv/kernel'.*\(4, 12\)"
    ):
        section.all_settings(list(SHAPES), SHAPES)
