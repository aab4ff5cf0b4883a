from optimization import OptimizationConfig, TaskConfig, parse_override
from optimization.configs import yaml_file
from optimization.configs.errors import DEFAULT, PYTHON, Origin
from optimization.configs.leaves import histories, leaves

BASE = "optimizer:\n  type: sgd\n  sgd: {momentum: 0.9}\nlearning_rate: {type: constant}\n"


def layer(text, name):
    return yaml_file.read(text, name)[0]


def history(path, *layers):
    _, found, problems = histories(OptimizationConfig(), layers)
    assert problems == []
    return found[path]


def test_leaves_are_the_values_of_what_is_selected():
    config = OptimizationConfig({"optimizer": {"type": "sgd", "adam": {"beta_1": 0.5}}})
    config.param_groups = [{"match": "x"}]
    config.schedules = {"momentum": {"type": "constant"}}
    paths = {leaf.path: leaf for leaf in leaves(config)}
    assert paths["optimizer.sgd.momentum"].value == 0.0
    assert paths["optimizer.sgd.momentum"].is_default
    assert paths["param_groups[0].match"].value == "x"
    assert not paths["param_groups[0].match"].is_default
    assert "schedules.momentum.constant.learning_rate" in paths
    assert paths["ema"].value is None
    assert "optimizer.adam.beta_1" not in paths
    assert "optimizer.adam.beta_1" in {leaf.path for leaf in leaves(config, unselected=True)}


def test_a_history_has_the_default_and_each_layer():
    override = parse_override("optimizer.sgd.momentum=0.5")
    found = history(
        "optimizer.sgd.momentum", layer(BASE, "a"), layer("{}", "b"), layer(BASE, "c"), override
    )
    assert [(w.value, w.origin.source, w.origin.line) for w in found] == [
        (0.0, "default", None),
        (0.9, "a", 3),
        (0.9, "c", 3),
        (0.5, "--params_override 'optimizer.sgd.momentum=0.5'", None),
    ]


def test_a_layer_may_take_a_value_back():
    null = layer("optimizer: {sgd: {momentum: null}}", "b")
    values = [
        (w.value, w.origin) for w in history("optimizer.sgd.momentum", layer(BASE, "a"), null)
    ]
    assert values == [(0.0, DEFAULT), (0.9, Origin("a", 3)), (0.0, DEFAULT)]


def test_a_branch_keeps_its_history_while_another_is_selected():
    other = layer("optimizer: {type: adam, sgd: {momentum: 0.7}}", "b")
    back = layer("optimizer: {type: sgd}", "c")
    found = history("optimizer.sgd.momentum", layer(BASE, "a"), other, back)
    assert [w.value for w in found] == [0.0, 0.9, 0.7]


def test_elements_of_lists_have_histories():
    groups = layer("param_groups:\n- match: x\n  freeze: true\n", "a")
    element = parse_override("param_groups[0].match=y")
    found = history("param_groups[0].match", groups, element)
    assert [w.value for w in found] == [None, "x", "y"]


def test_a_base_config_comes_after_the_default():
    base = OptimizationConfig({"optimizer": {"type": "sgd", "sgd": {"momentum": 0.8}}})
    _, found, _ = histories(base, [])
    assert found["optimizer.sgd.momentum"] == [(0.0, DEFAULT), (0.8, PYTHON)]


def test_the_default_is_what_the_section_that_holds_it_says():
    _, found, _ = histories(TaskConfig(), [])
    assert found["train_data.shuffle"] == [(True, DEFAULT)]
    assert found["validation_data.shuffle"] == [(False, DEFAULT)]


def test_a_history_ends_with_what_all_layers_at_once_make():
    layers = [layer(BASE, "a"), layer("optimizer: {sgd: {nesterov: true}}", "b")]
    config, found, _ = histories(OptimizationConfig(), layers)
    for leaf in leaves(config, unselected=True):
        assert found[leaf.path][-1] == (leaf.value, leaf.origin)
