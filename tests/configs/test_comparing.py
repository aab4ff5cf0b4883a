import math

import numpy as np
import pytest

import optimization
from optimization import ExperimentConfig, OptimizationConfig, OptimizerFactory
from optimization.configs.comparing import difference, in_training
from optimization.configs.difference import ABSENT
from optimization.configs.durations import TrainingLength

SGD = {"optimizer": {"type": "sgd", "sgd": {"momentum": 0.9}}}


def config(rate=None, **sections):
    rate = {"initial_learning_rate": 0.1, "decay_steps": 1000, **(rate or {})}
    return OptimizationConfig(
        {**SGD, "learning_rate": {"type": "cosine", "cosine": rate}, **sections}
    )


def changes(found):
    return [(c.path, c.before, c.after) for c in found.values]


def test_nothing_differs_between_what_is_written_and_the_same_default():
    found = config().diff(config({"alpha": 0.0}))
    assert not found
    assert str(found) == "no difference"
    assert found.curves[0].size == 0


def test_values_are_told_with_their_places(tmp_path):
    for name, momentum in (("a.yaml", 0.9), ("b.yaml", 0.5)):
        optimizer = f"optimizer:\n  type: sgd\n  sgd: {{momentum: {momentum}}}\n"
        (tmp_path / name).write_text(optimizer + "learning_rate: {type: constant}\n")
    a, b = (OptimizationConfig.from_yaml(tmp_path / name) for name in ("a.yaml", "b.yaml"))
    found = a.diff(b)
    (change,) = found.values
    assert change[:3] == ("optimizer.sgd.momentum", 0.9, 0.5)
    assert change.before_at == (str(tmp_path / "a.yaml"), 3)
    assert str(change).splitlines() == [
        "optimizer.sgd.momentum",
        f"  - 0.9  ({tmp_path / 'a.yaml'}:3)",
        f"  + 0.5  ({tmp_path / 'b.yaml'}:3)",
    ]


def test_another_type_is_told_with_what_is_no_default():
    other = config(optimizer={"type": "adam", "adam": {"beta_1": 0.8, "beta_2": 0.999}})
    assert changes(config().diff(other)) == [
        ("optimizer.type", "sgd", "adam"),
        ("optimizer.sgd.momentum", 0.9, ABSENT),
        ("optimizer.adam.beta_1", ABSENT, 0.8),
    ]


def test_lists_of_sections_are_compared_element_by_element_where_they_are_as_long():
    groups = [{"match": "a", "freeze": True}, {"match": "b"}]
    a, b = config(param_groups=groups), config(param_groups=[groups[0], {"match": "c"}])
    assert changes(a.diff(b)) == [("param_groups[1].match", "b", "c")]
    shorter = config(param_groups=groups[:1])
    (change,) = a.diff(shorter).values
    assert change.path == "param_groups"
    assert "- [{match: 'a', freeze: true}, {match: 'b'}]" in str(change)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ({}, {"decay_steps": 500}),
        ({}, {"initial_learning_rate": 0.2, "alpha": 0.1}),
        ({"decay_steps": 700_000}, {"decay_steps": 650_000}),
        ({"offset": 13}, {}),
    ],
)
def test_the_curves_differ_most_where_all_steps_say_it(a, b):
    found = config(a).diff(config(b))
    (curve,) = found.curves
    steps = np.arange(curve.steps)
    rates = [OptimizerFactory(c).learning_rate_curve(steps) for c in (config(a), config(b))]
    gaps = np.abs(rates[1] - rates[0])
    assert math.isclose(curve.size, gaps.max(), rel_tol=1e-9)
    assert math.isclose(gaps[curve.step], gaps.max(), rel_tol=1e-9)
    assert math.isclose(curve.before, rates[0][curve.step])


@pytest.mark.parametrize("steps", [10**12, 2**53, 2**63 - 1])
def test_the_curves_of_endless_trainings_are_compared(steps):
    found = config({"decay_steps": steps}).diff(config({"decay_steps": steps // 2}))
    (curve,) = found.curves
    share = np.linspace(0, 1, 10**6)
    longer, shorter = (np.cos(np.pi * np.minimum(s, 1)) / 2 for s in (share, 2 * share))
    expected = min(int(share[np.argmax(longer - shorter)] * steps), 2**53)  # exact up to there
    assert curve.step == pytest.approx(expected, rel=1e-3)


def test_the_rates_of_groups_are_compared_too():
    own = {"type": "constant", "constant": {"learning_rate": 1.0}}
    a = config(param_groups=[{"match": "x", "learning_rate": own}])
    b = a.replace(param_groups=[{**a.param_groups[0].as_dict(), "learning_rate_multiplier": 0.5}])
    curves = {curve.path: curve.size for curve in a.diff(b).curves}
    assert curves == {"learning_rate": 0, "param_groups[0].learning_rate": 0.5}


def test_a_rate_that_cannot_be_computed_is_said_to_be_left_out():
    found = config({"decay_steps": "10%"}).diff(config())
    assert found.curves == ()
    assert "give `train_steps`" in found.notes[0]
    known = difference(config({"decay_steps": "10%"}), config(), TrainingLength(10_000))
    assert not known
    assert known.notes == ()


def experiment(batch, **rate):
    section = config(rate)
    return ExperimentConfig(
        task={"train_data": {"global_batch_size": batch}},
        trainer={"train_steps": 1000, "optimizer_config": section.as_dict()},
    )


def test_a_batch_that_changes_without_the_rate_is_told():
    found = experiment(64).diff(experiment(256))
    assert len(found.notes) == 1
    assert (
        "makes the batch of an update 4 times as large, 256 after 64, and the highest"
        in found.notes[0]
    )
    assert experiment(64).diff(experiment(256, initial_learning_rate=0.4)).notes == ()
    assert experiment(64).diff(experiment(64)).notes == ()
    scaled = experiment(256)
    scaled.trainer.optimizer_config.lr_scaling = {"base_batch_size": 64}
    assert experiment(64).diff(scaled).notes == ()


def test_accumulated_gradients_count_as_the_batch():
    accumulated = experiment(16)
    accumulated.trainer.optimizer_config.optimizer.sgd.gradient_accumulation_steps = 4
    assert experiment(64).diff(accumulated).notes == ()


def test_an_experiment_is_compared_as_it_trains():
    a, b = experiment(64, decay_steps="remaining"), experiment(64, decay_steps=1000)
    assert not a.diff(b)
    assert in_training(a).trainer.optimizer_config.learning_rate.cosine.decay_steps == 1000
    assert a.trainer.optimizer_config.learning_rate.cosine.decay_steps == "remaining"


def test_configs_of_two_classes_are_refused():
    with pytest.raises(TypeError, match="OptimizationConfig and EMAConfig cannot"):
        config().diff(optimization.OptimizationConfig(ema={}).ema)


def test_a_path_is_not_compared_and_it_is_said_what_reads_it():
    with pytest.raises(TypeError, match="str cannot be compared; `load_optimization_config` reads"):
        config().diff("other.yaml")
