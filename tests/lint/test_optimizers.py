import pytest

from tests.lint.linting import codes, told

RATE = "learning_rate: {type: constant, constant: {learning_rate: 0.1}}\n"


def optimizer(kind, fields, more=""):
    return f"optimizer:\n  type: {kind}\n  {kind}: {{{fields}}}\n{RATE}{more}"


@pytest.mark.parametrize(
    ("value", "found"), [("1e-8", []), ("1.2e-38", []), ("1e-38", [3]), ("1e-46", [3])]
)
def test_an_epsilon_that_is_0_in_float32(tmp_path, value, found):
    text = optimizer("adam", f"epsilon: {value}")
    assert [line for line, _, _ in told(tmp_path, text, "epsilon-zero")] == found


def test_the_epsilon_of_a_group(tmp_path):
    group = "param_groups: [{match: x, optimizer: {type: adam, adam: {epsilon: 1e-50}}}]"
    ((_, path, _),) = told(tmp_path, optimizer("adam", "", group), "epsilon-zero")
    assert path == "param_groups[0].optimizer.adam.epsilon"


DECAYING = {
    "adamw": ("adamw", "weight_decay_rate: 0.1", ""),
    "adamw by the other name": ("adamw", "weight_decay: 0.1", ""),
    "lamb": ("lamb", "weight_decay_rate: 0.1", ""),
    "sgd": ("sgd", "weight_decay: 0.1", ""),
    "lion": ("lion", "weight_decay: 0.1", ""),
    "muon's adam": ("muon", "adam_weight_decay: 0.1", ""),
    "a group for something else": (
        *("sgd", "weight_decay: 0.1"),
        "param_groups: [{match: x, learning_rate_multiplier: 0.1}]\n",
    ),
}
SPARING = {
    "no decay": ("adamw", "weight_decay_rate: 0.0", ""),
    "a list": ("adamw", "weight_decay_rate: 0.1, exclude_from_weight_decay: [bias]", ""),
    "a list that has no biases": (
        *("adamw", "weight_decay_rate: 0.1, exclude_from_weight_decay: [norm]"),
        "",
    ),
    "only these": ("adamw", "weight_decay_rate: 0.1, include_in_weight_decay: [kernel]", ""),
    "a group": (
        *("sgd", "weight_decay: 0.1"),
        "param_groups: [{ndim: [0, 1], weight_decay: 0.0}]\n",
    ),
    "lists of its own": ("sgd_torch", "weight_decay: 0.1", ""),
    "muon's matrices": ("muon", "weight_decay: 0.1, adam_weight_decay: 0.0", ""),
}


@pytest.mark.parametrize("case", DECAYING)
def test_decay_on_norms_and_biases(tmp_path, case):
    assert codes(tmp_path, optimizer(*DECAYING[case]), "decay-on-norms") == ["decay-on-norms"]


@pytest.mark.parametrize("case", SPARING)
def test_decay_that_spares_them(tmp_path, case):
    assert codes(tmp_path, optimizer(*SPARING[case]), "decay-on-norms") == []


@pytest.mark.parametrize("name", ["clipnorm", "clipvalue", "global_clipnorm"])
def test_adamw_clips_twice(tmp_path, name):
    text = optimizer("adamw", f"{name}: 0.5")  # beside its `gradient_clip_norm`, which is 1
    ((line, path, message),) = told(tmp_path, text, "clipped-twice")
    assert (line, path) == (3, f"optimizer.adamw.{name}")
    assert message == "clips what `gradient_clip_norm` 1 has clipped before"
    assert codes(tmp_path, optimizer("adamw", f"{name}: 0.5, gradient_clip_norm: 0")) == []
    assert codes(tmp_path, optimizer("adamw", "gradient_clip_norm: 0.5")) == []


@pytest.mark.parametrize(
    ("kind", "fields", "found"),
    [
        ("adafactor", "global_clipnorm: 1.0", ["clipped-twice"]),
        ("adafactor", "global_clipnorm: 1.0, clipping_threshold: null", []),
        ("adafactor", "clipping_threshold: 1.0", []),
        ("adafactor_keras", "global_clipnorm: 1.0", ["relative-step-clipped"]),
        ("adafactor_keras", "global_clipnorm: 1.0, relative_step: false", ["clipped-twice"]),
        ("adafactor_keras", "", []),
    ],
)
def test_adafactor_clips_by_itself(tmp_path, kind, fields, found):
    assert codes(tmp_path, optimizer(kind, fields)) == found


@pytest.mark.parametrize("threshold", ["1.0", "null"])
def test_a_relative_step_with_a_clip(tmp_path, threshold):
    fields = f"step_size: relative, clipping_threshold: {threshold}"
    text = f"optimizer: {{type: adafactor, adafactor: {{{fields}, clipnorm: 1.0}}}}\n"
    assert codes(tmp_path, text) == ["relative-step-clipped"]
    assert codes(tmp_path, text.replace(", clipnorm: 1.0", "")) == []
