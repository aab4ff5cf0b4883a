"""Every registered rule in every position of its switches: PyTorch's lists are NumPy."""

import inspect
import re

import pytest

from optimization import OPTIMIZERS_CLS, OptimizationConfig
from optimization.rules.rule import native_name, origins
from tests.rules import contracts
from tests.torch.common import OptimizerFactory, parameters, torch, train

from optimization.torch.derived import native_class  # isort: skip

# A schedule-free optimizer under a rate that changes is doubtful, and yet what it is.
pytestmark = pytest.mark.filterwarnings("ignore::optimization.ConfigWarning")


def config_of(kind, fields):
    rule = OPTIMIZERS_CLS.config_class(kind)
    # Without the clip that some types have by default.
    clips = [n for n in rule.pipeline_fields() if n.endswith("norm") and getattr(rule(), n)]
    none = {n: None if rule._find_spec(n).optional else 0.0 for n in clips}
    config = {"optimizer": {"type": kind, kind: {**none, **fields}}}
    if contracts.section_of(kind, fields).own_learning_rate() is None:
        config["learning_rate"] = contracts.RATE
    return OptimizationConfig(config)


def problem_of(kind):
    summed = bool(OPTIMIZERS_CLS.config_class(kind).summed)
    return contracts.problem(contracts.NATIVE, steps=10, goes_somewhere=summed)


def weights_of(kind, fields, foreach):
    initial, gradients = problem_of(kind)
    factory = OptimizerFactory(config_of(kind, fields), train_steps=len(gradients))
    params = parameters(initial)
    optimizer = factory.build_optimizer(params.items())
    section = contracts.section_of(kind, fields)
    equivalent = section.native_equivalent(set())
    if equivalent:
        assert isinstance(optimizer, getattr(torch.optim, equivalent))
    elif section.origin().native_name != "" and kind != "adafactor":  # by recipes of their own
        assert isinstance(optimizer, native_class(type(section)))
    for group in optimizer.param_groups:
        group["foreach"] = foreach
    return train(optimizer, params, gradients, factory.build_scheduler(optimizer))


@contracts.every_case()
def test_native_lists_are_numpy(kind, fields):
    initial, gradients = problem_of(kind)
    section = contracts.section_of(kind, fields)
    expected = contracts.numpy_weights(section, initial, gradients, contracts.stepped)
    # Float64 on both sides. Muon's iteration magnifies rounding, and so do SOAP's eigenvectors.
    limit = 1e-9 if kind in ("muon", "soap") else 1e-12
    for foreach in (None, False):
        assert contracts.difference(weights_of(kind, fields, foreach), expected) < limit


@pytest.mark.parametrize(
    "rule", [rule for rule in origins() if native_name(rule)], ids=lambda rule: rule.class_name
)
def test_the_help_has_the_arguments_and_an_example_that_runs(rule):
    cls = native_class(rule)
    contracts.check_example(cls, torch=torch)
    text = inspect.getdoc(cls)
    told = re.findall(r"^    (\w+) \(", text, re.M)
    assert sorted(told) == sorted(name for name, _, _ in cls.places)
    words = " ".join(text.split())
    for name, key, _ in cls.places:
        assert key == name or re.search(rf"`{name}`( and `\w+`)* (is|are) `{key}`", words)
