import random
from pathlib import Path

import pytest

from optimization import ConfigError, ExperimentConfig
from optimization.configs.layers import resolve
from optimization.configs.overrides import parse_override
from optimization.configs.sweep_config import SweepConfig
from optimization.configs.sweep_space import Space, load_space

O = "trainer.optimizer_config"  # noqa: E741  the paths stay readable
ROOT = Path(__file__).parents[2]
TYPE, RATE = f"{O}.optimizer.type", f"{O}.learning_rate.cosine.initial_learning_rate"


def experiment():
    data = {"global_batch_size": 8}
    return ExperimentConfig(
        {
            "task": {
                "train_data": {**data, "is_training": True},
                "validation_data": data,
            },
            "trainer": {
                "train_steps": 100,
                "optimizer_config": {
                    "optimizer": {"type": "sgd"},
                    "learning_rate": {
                        "type": "cosine",
                        "cosine": {"initial_learning_rate": 0.1},
                    },
                    "param_groups": [{"match": "bias", "learning_rate_multiplier": 2.0}],
                },
            },
        }
    )


def space_of(*parameters, **settings):
    config = SweepConfig({"parameters": [*parameters], "trials": 9, **settings})
    space = Space(config, experiment())
    assert [*space.problems()] == []
    return space


def trials(space, count=60):
    """Returns the settings of drawn trials by path."""
    found = []
    for number in range(count):
        source, point = random.Random(number).random, space.point(number)
        values = space.assign(
            lambda n, p=point, s=source: p[n] if n in p else space.parameters[n].draw(s)
        )
        assert space.numbered(space.named(values)) == values
        found.append(space.named(values))
    return found


def problems_of(text, tmp_path):
    path = tmp_path / "space.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError) as error:
        load_space(path, experiment())
    return str(error.value).replace(str(path), "space.yaml").split("\n")


def test_a_file_that_is_not_there_is_one_error(tmp_path):
    path = tmp_path / "none.yaml"
    with pytest.raises(ConfigError) as error:
        load_space(path, experiment())
    assert str(error.value) == f"{path}: cannot be read: No such file or directory"


def test_every_mistake_is_told_at_once_with_its_line(tmp_path):
    assert problems_of(
        """\
trails: 3
trials: 4
prune: 7
parameters:
  - path: trainer.optimizer_config.optimizer.sgd.momentmu
    uniform: [0.5, 0.9]
  - path: trainer.optimizer_config.optimizer.sgd.momentum
    uniform: [0.5, 1.2]
  - path: trainer.train_steps
    uniform: [1, 3]
  - path: trainer.steps_per_loop
    uniform: [3, 3]
  - path: runtime.seed
    int: [3, 1]
  - path: trainer.validation_interval
    log_uniform: [0, 1]
  - path: trainer.optimizer_config.optimizer.sgd.nesterov
    choice: [yes, false]
    lo: 3
  - path: runtime.enable_xla
  - {uniform: [1, 2]}
  - path: trainer.optimizer_config.optimizer.type
    choice: [sgd, adm]
  - path: trainer/train_steps
    grid: [1]
""",
        tmp_path,
    ) == [
        "space.yaml:1: trails: unknown key; did you mean 'trials'?",
        "space.yaml:3: prune: expected true or false, got 7",
        f"space.yaml:5: {O}.optimizer.sgd.momentmu: unknown key; did you mean 'momentum'?",
        f"space.yaml:8: {O}.optimizer.sgd.momentum: must be < 1, got 1.2",
        "space.yaml:10: trainer.train_steps: expected an integer, got 1.763932; write `int: [...]`",
        "space.yaml:12: parameters[3].uniform: the range is empty: both ends are 3.0; "
        "leave the parameter out",
        "space.yaml:14: parameters[4].int: the lowest must be < the highest, got 3 > 1",
        "space.yaml:16: parameters[5].log_uniform: has no logarithm: must be > 0, got 0.0",
        f"space.yaml:18: {O}.optimizer.sgd.nesterov: expected true or false, got 'yes' (text)",
        "space.yaml:19: parameters[6].lo: unknown key; did you mean 'log'?",
        "space.yaml:20: parameters[7].path: says no values; write one of log_uniform, uniform, "
        "int, choice, grid",
        "space.yaml:21: parameters[8].path: a value is required, none was given",
        f"space.yaml:23: {O}.optimizer.type: unknown type 'adm'; did you mean 'adam'?",
        "space.yaml:24: parameters[10].path: expected a path, as trainer.train_steps is one, got "
        "'trainer/train_steps' (text)",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            f"parameters:\n  - path: {O}.optimizer.adam.beta_1\n    grid: [0.5, 0.9]",
            "space.yaml:2: parameters[0].path: is never used: it counts where "
            f"{O}.optimizer.type is adam, which no trial has",
        ),
        (
            # Any trial with this choice lacks what another field must say.
            f"parameters:\n  - path: {O}.learning_rate.type\n    grid: [cosine, exponential]",
            f"space.yaml:3: {O}.learning_rate.exponential.decay_rate: a value is required, none "
            "was given",
        ),
        (
            "trials: 2\nparameters:\n  - {path: runtime.seed, int: [0, 9]}\n"
            "  - path: trainer.train_steps\n    int: [1, 9]\n    when: {runtime.sed: 1}",
            "space.yaml:6: parameters[1].when: 'runtime.sed' is no parameter of this sweep; there "
            "are none",
        ),
        (
            f"trials: 2\nparameters:\n  - path: {TYPE}\n    choice: [sgd, adam]\n"
            f"  - path: {RATE}\n    uniform: [0.1, 1]\n    when: {{{TYPE}: [adam, lion]}}",
            f"space.yaml:7: parameters[1].when: '{TYPE}' is never lion; its values are sgd, adam",
        ),
        (
            "parameters:\n  - {path: runtime.seed, grid: [0, 1]}\n"
            "  - path: runtime.seed\n    grid: [2, 3]",
            "space.yaml:3: parameters[1].path: is that of parameters[0] too; a `when` in both must "
            "keep them apart",
        ),
        (
            f"trials: 9\nparameters:\n  - {{path: {TYPE}, choice: [sgd, adam]}}\n"
            f"  - path: {O}.optimizer.sgd.momentum\n    grid: [0.5, 0.9]",
            "space.yaml:5: parameters[1].grid: a grid depends on other grids alone; make "
            "parameters[0] a `grid` too",
        ),
        (
            "parameters:\n  - path: runtime.seed\n    grid: [0, 1]\n"
            "    when: {trainer.train_steps: 5}\n"
            "  - path: trainer.train_steps\n    grid: [5, 6]\n    when: {runtime.seed: 1}",
            "depends on itself, by way of other parameters",
        ),
        (
            "grace_steps: 100\nparameters:\n  - path: runtime.seed\n    grid: [0, 1]",
            "space.yaml:1: grace_steps: must be < `trainer.train_steps` 100, or nothing is ever "
            "stopped",
        ),
        (
            "metric: f1\nparameters:\n  - path: runtime.seed\n    grid: [0, 1]",
            "space.yaml:1: metric_comp: must be given: whether a higher or a lower 'f1' is better",
        ),
        (
            "metric: los\nparameters:\n  - path: runtime.seed\n    grid: [0, 1]",
            "a higher or a lower 'los' is better; did you mean 'loss'?",
        ),
        ("parameters: 3", "space.yaml:1: parameters: expected a list, got 3; write `- path: ...`"),
        (
            "parameters:\n  - runtime.seed",
            "space.yaml:1: parameters[0]: expected a mapping, got 'runtime.seed' (text)",
        ),
    ],
)
def test_what_is_wrong_with_parameters_together(text, message, tmp_path):
    assert any(message in line for line in problems_of(text, tmp_path))


def test_what_is_in_a_branch_counts_where_its_type_is_chosen():
    space = space_of(
        {"path": f"{O}.optimizer.adam.beta_1", "uniform": [0.5, 0.9]},
        {"path": f"{O}.optimizer.sgd.momentum", "uniform": [0.1, 0.9]},
        {"path": TYPE, "choice": ["sgd", "adam"]},
    )
    found = {"sgd": set(), "adam": set()}
    for values in trials(space):
        found[values[TYPE]].add(tuple(sorted(values.keys() - {TYPE})))
    assert found == {
        "sgd": {(f"{O}.optimizer.sgd.momentum",)},
        "adam": {(f"{O}.optimizer.adam.beta_1",)},
    }


def test_one_path_has_a_range_for_each_choice():
    space = space_of(
        {"path": TYPE, "choice": ["sgd", "adam", "lion"]},
        {"path": RATE, "uniform": [1, 2], "when": {TYPE: "sgd"}},
        {"path": RATE, "uniform": [0.1, 0.2], "when": {TYPE: ["adam", "lion"]}},
    )
    rates = {kind: [] for kind in ("sgd", "adam", "lion")}
    for values in trials(space):
        rates[values[TYPE]].append(values[RATE])
    assert min(rates["sgd"]) >= 1
    assert max(rates["adam"] + rates["lion"]) <= 0.2
    assert all(rates.values())


def test_a_whole_section_is_a_choice():
    sections = [{"type": "sgd", "sgd": {"momentum": 0.9}}, {"type": "lion"}]
    space = space_of(
        {"path": f"{O}.optimizer.lion.beta_1", "uniform": [0.5, 0.9]},
        {"path": f"{O}.optimizer", "choice": sections},
    )
    counts = {values[f"{O}.optimizer"]["type"]: len(values) for values in trials(space)}
    assert counts == {"sgd": 1, "lion": 2}


def test_grids_are_tried_point_by_point_those_that_count_alone():
    space = space_of(
        {"path": TYPE, "grid": ["sgd", "adam"]},
        {"path": f"{O}.optimizer.sgd.momentum", "grid": [0.0, 0.9]},
        {"path": "runtime.seed", "grid": [1, 2]},
        trials=None,
    )
    assert space.count == 6
    points = [tuple(values.values()) for values in trials(space, 6)]
    assert sorted(points, key=str) == sorted(
        [("adam", 1), ("adam", 2), *(("sgd", s, m) for m in (0.0, 0.9) for s in (1, 2))], key=str
    )


def test_an_override_is_read_as_the_same_values_again():
    texts = ["a b", "it's", "None", "1e-3", "x,y=1", "", "a: b", "é", "[1]", "a\nb"]
    space = space_of(
        {"path": "task.init_checkpoint", "grid": texts},
        {"path": "runtime.loss_scale", "grid": [None]},
        {"path": RATE, "log_uniform": [1e-12, 1e6]},
        {"path": f"{O}.param_groups[0].learning_rate_multiplier", "uniform": [0, 1]},
        {"path": f"{O}.param_groups[0].match", "choice": ["^a[0-9]+,(b|c)$", "bias"]},
    )
    for number, values in enumerate(trials(space, 40)):
        layer = parse_override(space.override(space.numbered(values)))
        config = resolve(space.base, [layer])
        assert config.task.init_checkpoint == texts[number % len(texts)]
        assert (
            config.trainer.optimizer_config.learning_rate.cosine.initial_learning_rate
            == (values[RATE])
        )
        (group,) = config.trainer.optimizer_config.param_groups
        assert group.match == values[f"{O}.param_groups[0].match"]
        assert (
            group.learning_rate_multiplier
            == (values[f"{O}.param_groups[0].learning_rate_multiplier"])
        )


@pytest.mark.parametrize(
    ("settings", "name", "direction"),
    [
        ({}, "loss", "lower"),
        ({"metric_comp": "higher"}, "loss", "higher"),
        ({"metric": "f1", "metric_comp": "higher"}, "f1", "higher"),
    ],
)
def test_which_metric_decides(settings, name, direction):
    config, trainer = SweepConfig(settings), experiment().trainer
    assert (config.decides(trainer), config.direction(trainer)) == (name, direction)


def test_the_metric_is_that_of_the_best_checkpoint():
    trainer = experiment().trainer.replace(
        best_checkpoint_export_subdir="best", best_checkpoint_eval_metric="accuracy"
    )
    assert SweepConfig().decides(trainer) == "accuracy"
    assert SweepConfig().direction(trainer) == "higher"
    assert SweepConfig(metric="loss").direction(trainer) == "lower"


def test_the_file_of_this_repository_is_right():
    """Also against the experiment whose settings it varies, whose task needs no framework."""
    import experiments.digits  # noqa: F401
    from optimization.training import get_experiment

    space = load_space(ROOT / "configs/sweeps/digits.yaml", get_experiment("digits"))
    assert space.count == 12
