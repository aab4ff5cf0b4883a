import copy
import functools
import pickle

import numpy as np
import pytest

from tests.references import averages
from tests.torch.common import OptimizerFactory, config_of, torch

SECTIONS = [
    {},
    {"average_decay": 0.9, "dynamic_decay": False},
    {"average_decay": 0.5, "start_step": 4},
    {"average_decay": 0.99, "start_step": 2, "dynamic_decay": True},
]


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.dense = torch.nn.Linear(3, 2)
        self.norm = torch.nn.BatchNorm1d(2)

    def forward(self, x):
        return self.norm(self.dense(x))


def factory_of(section):
    config = config_of("sgd", learning_rate=0.5)
    config.override({"ema": section})
    return OptimizerFactory(config)


def run(section, steps=8):
    """Yields the model and its average, and the expected average, after each step."""
    factory, model = factory_of(section), Net()
    optimizer, average = factory.build_optimizer(model), factory.build_ema(model)
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    settings = {"average_decay": 0.99, "start_step": 0, "dynamic_decay": True, **section}
    random = torch.Generator().manual_seed(1)
    for n in range(1, steps + 1):
        optimizer.zero_grad()
        model(torch.randn(4, 3, generator=random)).square().sum().backward()
        optimizer.step()
        average.update_parameters(model)
        m = n - settings["start_step"]
        decay = settings["average_decay"]
        if settings["dynamic_decay"]:
            decay = min(decay, (1 + m) / (10 + m))
        decay = 0.0 if m < 0 else decay
        for name, value in model.state_dict().items():
            expected[name] += (1 - decay) * (value.double() - expected[name])
        yield model, average, expected


@pytest.mark.parametrize("section", SECTIONS, ids=str)
def test_the_average_is_that_of_keras(section):
    for model, average, expected in run(section):
        assert isinstance(average, torch.optim.swa_utils.AveragedModel)
        for name, value in average.module.named_parameters():
            # Averages are float32, as the weights are.
            np.testing.assert_allclose(value.detach(), expected[name], rtol=1e-5, atol=1e-6)
        # Buffers are the model's own.
        for name, value in average.module.named_buffers():
            assert torch.equal(value, model.state_dict()[name])


def test_all_weights_are_averaged_where_asked_and_integers_copied():
    for model, average, expected in run({"trainable_weights_only": False, "average_decay": 0.9}):
        for name, value in average.module.state_dict().items():
            if name.endswith("num_batches_tracked"):
                assert torch.equal(value, model.state_dict()[name])
            else:
                np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6)


def moved_by(factory, expected, steps=12):
    """Checks the average of a parameter against float64, by the decay of each update."""
    model = torch.nn.Linear(2, 1, bias=False)
    average = factory.build_ema(model)
    reference = model.weight.detach().double().clone()
    for n in range(1, steps + 1):
        with torch.no_grad():
            model.weight += n % 3 - 1.5
        average.update_parameters(model)
        reference += (1 - expected(n)) * (model.weight.detach().double() - reference)
        found = average.module.weight.detach()
        np.testing.assert_allclose(found, reference, rtol=1e-5, atol=1e-6)  # in float32
    return average


@pytest.mark.parametrize("name", averages.FORMS)
def test_every_form_of_decay_is_its_origin_s(name):
    settings, expected = averages.FORMS[name]
    moved_by(factory_of(settings), expected)


def test_the_decay_follows_a_schedule_which_is_pickled():
    config = config_of("sgd", learning_rate=0.5)
    schedules = {"average_decay": averages.SCHEDULE}
    config.override({"ema": {"dynamic_decay": False}, "schedules": schedules})
    average = moved_by(OptimizerFactory(config), averages.scheduled, 2)
    other, model = pickle.loads(pickle.dumps(average)), torch.nn.Linear(2, 1, bias=False)
    before = other.module.weight.detach().clone()
    other.update_parameters(model)
    expected = torch.lerp(before, model.weight.detach(), 1 - averages.scheduled(3))
    torch.testing.assert_close(other.module.weight.detach(), expected)


def test_timm_averages_alike():
    peer = pytest.importorskip("timm.utils.model_ema", reason="the peer")
    settings = {"average_decay": 0.8, "dynamic_decay": "power", "start_step": 3, "gamma": 2.0}
    model = torch.nn.Linear(3, 2)
    ours = factory_of(settings).build_ema(model)
    theirs = peer.ModelEmaV3(
        model, decay=0.8, use_warmup=True, update_after_step=2, warmup_gamma=2.0
    )
    for n in range(1, 20):
        with torch.no_grad():
            model.weight += n % 3 - 1.5
        ours.update_parameters(model)
        theirs.update(model, step=n)
        torch.testing.assert_close(ours.module.weight, theirs.module.weight)


def test_use_ema_is_keras():
    factory, model = OptimizerFactory(config_of("sgd", use_ema=True, ema_momentum=0.7)), Net()
    average = factory.build_ema(model)
    expected = None
    for step in range(4):
        with torch.no_grad():
            model.dense.weight += step + 1.0
        average.update_parameters(model)
        weight = model.dense.weight.detach().double()
        # Keras: the first update copies.
        expected = weight if expected is None else 0.7 * expected + 0.3 * weight
        found = average.module.dense.weight.detach()
        np.testing.assert_allclose(found, expected, rtol=1e-6)  # in float32


def test_a_saved_average_goes_on():
    *_, (model, average, _) = run(SECTIONS[2])
    other = factory_of(SECTIONS[2]).build_ema(Net())
    other.load_state_dict(average.state_dict())
    for both in (average, other):
        both.update_parameters(model)
    for name, value in average.state_dict().items():
        assert torch.equal(other.state_dict()[name], value)


def test_without_a_section_there_is_no_average():
    with pytest.raises(ValueError, match="neither an `ema` section"):
        OptimizerFactory(config_of("sgd")).build_ema(Net())


# Averages of low precision

AVERAGE = {"average_decay": 0.99, "dynamic_decay": False}
LOW = [torch.bfloat16, torch.float16]


def averaged(model, steps, average=None):
    """Returns the average of a model whose weights are 1 in every step, from those it has."""
    average = average or factory_of(AVERAGE).build_ema(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(1.0)
        for _ in range(steps):
            average.update_parameters(model)
    return average


def zeros(dtype):
    model = torch.nn.Linear(3, 2)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.zero_()
    return model.to(dtype)


@pytest.mark.parametrize("dtype", LOW, ids=str)
def test_averages_of_low_precision_are_float32(dtype):
    average = averaged(zeros(dtype), 600)
    exact = 1 - 0.99**600
    state = average.state_dict()
    assert state["module.weight"].dtype == torch.float32
    np.testing.assert_allclose(state["module.weight"], exact, rtol=1e-5)
    # The averaged model runs as the model does, with the average in its dtype.
    assert torch.equal(average.module.weight, state["module.weight"].to(dtype))
    assert average(torch.ones(1, 3, dtype=dtype)).dtype == dtype
    assert torch.equal(average.float().module.weight, state["module.weight"])


def test_they_are_saved_and_copied_exactly():
    average = averaged(zeros(torch.bfloat16), 100)
    saved = {name: value.clone() for name, value in average.state_dict().items()}
    again = factory_of(AVERAGE).build_ema(zeros(torch.bfloat16))
    again.load_state_dict(saved)
    for other in (again, copy.deepcopy(average), pickle.loads(pickle.dumps(average))):
        assert torch.equal(other.state_dict()["module.weight"], saved["module.weight"])
        whole = averaged(zeros(torch.bfloat16), 150).state_dict()
        found = averaged(zeros(torch.bfloat16), 50, other).state_dict()
        assert torch.equal(found["module.weight"], whole["module.weight"])
    torchs = torch.optim.swa_utils.AveragedModel(zeros(torch.bfloat16))
    torchs.load_state_dict(saved)
    assert torch.equal(torchs.module.weight, saved["module.weight"].bfloat16())
    again.load_state_dict(torchs.state_dict())
    assert torch.equal(again.state_dict()["module.weight"].bfloat16(), torchs.module.weight)


def test_a_tied_weight_has_its_average_under_each_name():
    def tied(dtype):
        model = torch.nn.Sequential(zeros(dtype), zeros(dtype))
        model[1].weight = model[0].weight
        return model

    average = averaged(tied(torch.bfloat16), 100)
    state = average.state_dict()
    assert list(state) == list(torch.optim.swa_utils.AveragedModel(average.module).state_dict())
    exact = state["module.0.weight"]
    assert exact.dtype == torch.float32
    assert torch.equal(state["module.1.weight"], exact)
    for dtype in (torch.float32, torch.bfloat16):
        other = factory_of(AVERAGE).build_ema(tied(dtype))
        other.load_state_dict(state)
        assert torch.equal(other.state_dict()["module.1.weight"], exact)


def test_averages_of_float32_copies():
    config = config_of("nadam", learning_rate=1e-5)
    config.override({"ema": {"average_decay": 0.5, "dynamic_decay": False}})
    factory, model = OptimizerFactory(config), torch.nn.Linear(3, 2).bfloat16()
    optimizer = factory.build_optimizer(model)
    average = factory.build_ema(model, optimizer)
    expected = model.weight.detach().float()
    for _ in range(10):
        model.weight.grad = torch.ones_like(model.weight)
        optimizer.step()
        average.update_parameters(model)
        expected = expected.lerp(optimizer.state[model.weight]["master"], 0.5)
    found = average.state_dict()["module.weight"]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-7)
    with pytest.raises(TypeError, match="`optimizer` must be what `build_optimizer` returned"):
        factory.build_ema(model, torch.optim.SGD(model.parameters()))


@pytest.mark.parametrize("saved_compiled", [True, False])
@pytest.mark.parametrize(
    "wrap", [torch.nn.DataParallel, functools.partial(torch.compile, backend="eager")]
)
def test_averages_of_compiled_and_wrapped_models(wrap, saved_compiled):
    models = [wrap(zeros(torch.float32)), zeros(torch.float32)]
    there, here = models if saved_compiled else models[::-1]
    average = averaged(there, 3)
    assert list(average.state_dict()) == ["n_averaged", "module.weight", "module.bias"]
    torchs = torch.optim.swa_utils.AveragedModel(there)
    for saved in (average, torchs):
        again = factory_of(AVERAGE).build_ema(here)
        again.load_state_dict(saved.state_dict())
        expected = saved.state_dict().values()
        for found, value in zip(again.state_dict().values(), expected, strict=True):
            assert torch.equal(found, value)
    assert again.module(torch.ones(1, 3)).shape == (1, 2)
