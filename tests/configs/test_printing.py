import optimization
from optimization.configs.printing import by_arguments, call, function, section, sections


class Thing:
    def __init__(self, size, rate=0.5, *, names=()):
        self.size, self.rate, self.names = size, rate, names

    __repr__ = by_arguments


def test_what_differs_from_the_defaults_of_the_constructor():
    assert repr(Thing(3)) == "Thing(size=3)"
    assert repr(Thing(3, rate=0.25, names=("a",))) == "Thing(size=3, rate=0.25, names=('a',))"


def test_a_text_of_one_object_is_short():
    assert len(call("f", *range(1000))) == 300
    assert len(repr(Thing("a" * 1000))) < 150


def test_functions_have_no_addresses():
    assert function(len) == "<built-in function len>"
    assert "0x" not in function(lambda step: step)
    assert "0x" not in function(object())


def test_sections_in_few_words():
    config = optimization.OptimizationConfig(
        optimizer={"type": "sgd", "sgd": {"momentum": 0.95}},
        learning_rate={"type": "constant"},
        param_groups=[{"match": "bias$"}],
        schedules={"momentum": {"type": "linear", "linear": {"decay_steps": 10}}},
    )
    assert section(config.optimizer) == "sgd(momentum=0.95)"
    assert section(config.warmup) == "none"
    expected = (
        "f(optimizer=sgd(momentum=0.95), learning_rate=constant(), "
        "param_groups=['bias$'], schedules={'momentum': linear(decay_steps=10)})"
    )
    assert call("f", **sections(config)) == expected
    factory = optimization.OptimizerFactory(config.replace(schedules={}))
    assert repr(factory).startswith("OptimizerFactory(optimizer=sgd(momentum=0.95), ")
