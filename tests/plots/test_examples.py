import pytest

from optimization import LR_CLS, WARMUP_CLS, ConfigError, OptimizationConfig
from optimization.plots.examples import LENGTH, example, picture_of_example

TYPES = [(LR_CLS, name) for name in LR_CLS] + [(WARMUP_CLS, name) for name in WARMUP_CLS]


@pytest.mark.parametrize(("registry", "kind"), TYPES, ids=lambda item: str(item))
def test_every_type_has_a_picture_of_the_whole_training(registry, kind):
    picture = picture_of_example(registry, kind)
    assert (picture.steps[0], picture.steps[-1]) == (0, LENGTH)
    assert None not in picture.curves[0].values
    for name in example(registry, kind):
        assert name in picture.title


def test_types_of_ones_own(monkeypatch):
    monkeypatch.setattr(LR_CLS, "_entries", dict(LR_CLS._entries))

    @LR_CLS.register("halved")
    def halved(step, *, peak: float, xp):
        return peak / (1 + step)

    @LR_CLS.register("named")
    def named(step, *, name_of_file: str, xp):
        return 0 * step

    assert picture_of_example(LR_CLS, "halved").curves[0].values[:2] == (1.0, 0.5)
    assert picture_of_example(LR_CLS, "named") is None
    with pytest.raises(ConfigError):
        OptimizationConfig({"learning_rate": {"type": "named", "named": {"name_of_file": 1.0}}})
