import importlib

import pytest

from optimization import ConfigError, OptimizationConfig

CONFIG = {
    "optimizer": {"type": "adamw", "adamw": {"weight_decay_rate": 0.1}},
    "learning_rate": {"type": "cosine", "cosine": {"initial_learning_rate": 0.1}},
    "warmup": {"type": "linear", "linear": {"warmup_steps": 100}},
    "param_groups": [{"match": "bias$", "name": "biases", "weight_decay": 0.0}],
}
FACTORIES = {"optimization": None, "optimization.torch": "torch", "optimization.jax": "optax"}


@pytest.fixture(params=FACTORIES)
def factory(request):
    if FACTORIES[request.param] is not None:
        pytest.importorskip(FACTORIES[request.param])
    cls = importlib.import_module(request.param).OptimizerFactory
    return cls(OptimizationConfig(CONFIG), train_steps=1000)


def test_every_factory_draws_the_same(factory, tmp_path):
    picture = factory.plot(groups="all")
    assert picture.steps[-1] == 1000
    assert [curve.name for curve in picture.curves] == ["default", "biases"]
    values = dict(zip(picture.steps, picture.curves[0].values, strict=True))
    assert values[100] == pytest.approx(0.1 * 0.97552826, rel=1e-6)
    assert values[1000] == 0
    picture.save(tmp_path / "x.svg")
    assert (tmp_path / "x.svg").read_text().startswith("<svg")
    decay = factory.plot("weight_decay", ["default", "biases"], steps=(0, 10))
    assert [set(curve.values) for curve in decay.curves] == [{0.1}, {0.0}]
    assert picture._repr_html_().startswith("<svg")
    assert factory.plot(log=True).title == "learning rate, logarithmic"
    with pytest.raises(ConfigError, match="there is no group 'bias'; did you mean 'biases'"):
        factory.plot(groups="bias")


def test_every_factory_says_what_it_holds(factory):
    assert factory.config.locked
    assert repr(factory).startswith("OptimizerFactory(optimizer=adamw(weight_decay_rate=0.1), ")
    assert "training ends at step 1,000" in factory._repr_html_()
