import inspect
import io
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest

import optimization.transformers as ours
from optimization import ConfigError, MetricLearningRate
from optimization.optimizers import PipelineOptimizer
from optimization.schedules import curve
from tests.keras.common import TableSchedule
from tests.schedules.common import keras_values

W, N = 4, 20
CASES = [
    ("linear", {}),
    ("cosine", {"num_cycles": 1.5}),
    ("cosine_with_restarts", {"num_cycles": 3}),
    ("polynomial", {"lr_end": 0.01, "power": 2.0}),
    ("constant", {}),
    ("constant_with_warmup", {}),
    ("inverse_sqrt", {"timescale": 9}),
    ("inverse_sqrt", {}),
    ("cosine_with_min_lr", {"min_lr": 0.01}),
    ("cosine_with_min_lr", {"min_lr_rate": 0.3}),
    ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.3, "warmup_lr_rate": 0.1}),
    ("warmup_stable_decay", {"num_decay_steps": 6, "decay_type": "1-sqrt"}),
    ("warmup_stable_decay", {"num_decay_steps": 6, "num_stable_steps": 3}),
]
CASE = pytest.mark.parametrize(("name", "settings"), CASES, ids=str)


@pytest.fixture
def torch():
    return pytest.importorskip("torch", reason="PyTorch is installed for some of the tests only")


@pytest.fixture
def theirs(torch):
    del torch
    return pytest.importorskip(
        "transformers", minversion="5", reason="transformers is installed for some tests only"
    )


@CASE
def test_a_part_of_a_state_loads(torch, name, settings):
    scheduler = ours.get_scheduler(name, torch_optimizer(torch), W, N, settings)
    before = scheduler.state_dict()
    scheduler.load_state_dict({"last_epoch": 5})
    assert scheduler.state_dict() == {**before, "last_epoch": 5}
    assert "0x" not in repr(scheduler)


def torch_optimizer(torch, rates=(0.1, 0.02)):
    groups = [{"params": [torch.nn.Parameter(torch.ones(2))], "lr": rate} for rate in rates]
    return torch.optim.SGD(groups, lr=rates[0])


def rates(scheduler, steps):
    """Returns the rates of all groups, from now on."""
    values = [scheduler.get_last_lr()]
    for _ in range(steps):
        scheduler.optimizer.step()
        scheduler.step()
        values.append(scheduler.get_last_lr())
    return values


def get(module, name, optimizer, settings, warmup=W):
    stable = "num_stable_steps" in settings
    return module.get_scheduler(name, optimizer, warmup, None if stable else N, dict(settings))


@CASE
def test_a_torch_optimizer_gets_a_scheduler_of_torch(torch, theirs, name, settings):
    actual = get(ours, name, torch_optimizer(torch), settings)
    expected = get(theirs, name, torch_optimizer(torch), settings)
    assert isinstance(actual, type(expected))
    # The same float64 numbers in another order.
    np.testing.assert_allclose(rates(actual, N + 3), rates(expected, N + 3), rtol=1e-12, atol=1e-15)


@CASE
def test_it_goes_on_from_its_state_and_from_last_epoch(torch, name, settings):
    whole = get(ours, name, torch_optimizer(torch), settings)
    expected = rates(whole, N)
    first = get(ours, name, torch_optimizer(torch), settings)
    rates(first, 7)
    saved = io.BytesIO()
    torch.save(first.state_dict(), saved)
    saved.seek(0)
    resumed = get(ours, name, torch_optimizer(torch), settings)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    assert resumed.last_epoch == 7
    assert rates(resumed, N - 7)[1:] == expected[8:]
    assert rates(pickle.loads(pickle.dumps(first)), N - 7) == expected[7:]
    # As PyTorch means it: with the groups' initial rates, and the epoch that was the last.
    optimizer = torch_optimizer(torch)
    for group in optimizer.param_groups:
        group["initial_lr"] = group["lr"]
    later = _function(name)(optimizer, **_arguments(name, settings), last_epoch=6)
    assert rates(later, N - 7) == expected[7:]


def _function(name):
    return {
        "linear": ours.get_linear_schedule_with_warmup,
        "cosine": ours.get_cosine_schedule_with_warmup,
        "cosine_with_restarts": ours.get_cosine_with_hard_restarts_schedule_with_warmup,
        "polynomial": ours.get_polynomial_decay_schedule_with_warmup,
        "constant": ours.get_constant_schedule,
        "constant_with_warmup": ours.get_constant_schedule_with_warmup,
        "inverse_sqrt": ours.get_inverse_sqrt_schedule,
        "cosine_with_min_lr": ours.get_cosine_with_min_lr_schedule_with_warmup,
        "cosine_warmup_with_min_lr": ours.get_cosine_with_min_lr_schedule_with_warmup_lr_rate,
        "warmup_stable_decay": ours.get_wsd_schedule,
    }[name]


def _arguments(name, settings):
    taken = inspect.signature(_function(name)).parameters
    lengths = {"num_warmup_steps": W, "num_training_steps": N}
    if "num_stable_steps" in settings:
        del lengths["num_training_steps"]
    return {**{k: v for k, v in lengths.items() if k in taken}, **settings}


def test_signatures_are_those_of_transformers(theirs):
    import transformers.optimization

    names = [name for name in dir(ours) if name.startswith("get_")]
    assert len(names) == 14
    for name in (*names, "Adafactor", "AdafactorSchedule", "GreedyLR"):
        actual = inspect.signature(getattr(ours, name)).parameters.values()
        expected = inspect.signature(getattr(transformers.optimization, name)).parameters.values()
        assert [(p.name, p.kind, p.default) for p in actual] == [
            (p.name, p.kind, p.default) for p in expected
        ]
    members = theirs.SchedulerType.__members__
    assert {k: v.value for k, v in ours.SchedulerType.__members__.items()} == {
        k: v.value for k, v in members.items()
    }
    optimizer = PipelineOptimizer(keras.optimizers.SGD(0.1))
    assert ours.get_scheduler(theirs.SchedulerType.CONSTANT, optimizer) == pytest.approx(0.1)


@pytest.mark.parametrize(("warmup", "length"), [(6, 5), (5, 5)])
@pytest.mark.parametrize("name", ["linear", "cosine", "cosine_with_restarts", "polynomial"])
def test_a_warmup_that_is_longer_than_the_training(torch, theirs, name, warmup, length):
    lambdas = [
        module.get_scheduler(name, torch_optimizer(torch), warmup, length).lr_lambdas[0]
        for module in (ours, theirs)
    ]
    # At the end of the warmup their polynomial divides by zero.
    steps = [s for s in range(9) if not (name == "polynomial" and s == length == warmup)]
    actual, expected = ([function(step) for step in steps] for function in lambdas)
    np.testing.assert_allclose(actual, expected, rtol=1e-12, atol=1e-15)


@CASE
def test_a_keras_optimizer_gets_a_schedule(name, settings):
    for make in (keras.optimizers.SGD, lambda rate: PipelineOptimizer(keras.optimizers.SGD(rate))):
        optimizer = make(0.1)
        schedule = get(ours, name, optimizer, settings)
        if name == "constant":
            assert schedule == 0.1
        else:
            section = schedule.config
            assert section.initial_learning_rate == 0.1
            steps = range(N + 3)
            # A few float32 roundings; cancellation where a cosine ends.
            np.testing.assert_allclose(
                keras_values(schedule, steps), curve(section, None, steps), rtol=1e-6, atol=1e-8
            )
        variable = keras.Variable(np.ones(2, "float32"))
        for step in range(3):
            rate = keras.ops.convert_to_numpy(optimizer.learning_rate)
            expected = schedule if name == "constant" else schedule(step)
            assert float(rate) == pytest.approx(float(expected))
            optimizer.apply([keras.ops.ones(2)], [variable])


def test_what_a_keras_optimizer_cannot_have():
    with pytest.raises(ValueError, match="`last_epoch` must be -1"):
        ours.get_constant_schedule(keras.optimizers.SGD(0.1), last_epoch=3)
    with pytest.raises(TypeError, match="a schedule already"):
        ours.get_constant_schedule(keras.optimizers.SGD(TableSchedule([0.1])))
    with pytest.raises(TypeError, match="must be a PyTorch or a Keras optimizer, received: str"):
        ours.get_constant_schedule("sgd")


@pytest.mark.parametrize(
    ("arguments", "error", "match"),
    [
        (("liner",), ValueError, "'liner'; did you mean 'linear'"),
        (("linear",), ValueError, "linear requires `num_warmup_steps`"),
        (("linear", 3), ValueError, "linear requires `num_training_steps`"),
        (("linear", 3, 9, {"power": 2.0}), TypeError, "power"),
        (("constant", None, None, {"factor": 2.0}), TypeError, "factor"),
        (("inverse_sqrt",), ValueError, "inverse_sqrt requires `num_warmup_steps`"),
        (("warmup_stable_decay", 3), TypeError, "num_decay_steps"),
        (("warmup_stable_decay", 3, None, {"num_decay_steps": 2}), ConfigError, "num_stable_steps"),
        (("warmup_stable_decay", 3, 9, {"num_decay_steps": 2, "decay_type": "x"}), ValueError, "x"),
        (("cosine_with_min_lr", 3, 9), ConfigError, "exactly one"),
        (("cosine_with_min_lr", 3, 9, {"min_lr": 0.1, "min_lr_rate": 0.1}), ConfigError, "exactly"),
        (("warmup_stable_decay", 0, 9, {"num_decay_steps": 2, "warmup_type": "x"}), ValueError, ""),
        (("inverse_sqrt", 3, None, {"timescale": 0}), ConfigError, "timescale"),
        (("polynomial", 3, 9, {"lr_end": 0.2}), ConfigError, "lr_end"),
        (("greedy", None, None, {"factor": 2.0}), ConfigError, "factor"),
    ],
)
def test_errors(arguments, error, match):
    name, *rest = arguments
    with pytest.raises(error, match=match):
        ours.get_scheduler(name, keras.optimizers.SGD(0.1), *rest)


def test_two_lengths_of_the_stable_part_warn():
    with pytest.warns(UserWarning, match="`num_training_steps` is left out"):
        schedule = ours.get_wsd_schedule(keras.optimizers.SGD(0.1), 2, 3, 100, 4)
    assert float(schedule(9)) == 0


@pytest.mark.parametrize(
    ("name", "unused"),
    [
        ("cosine_warmup_with_min_lr", {"min_lr_rate": 0.1, "warmup_lr_rate": 0.5}),
        ("warmup_stable_decay", {"num_decay_steps": 5, "warmup_type": "1-sqrt"}),
        ("warmup_stable_decay", {"num_decay_steps": 5, "decay_type": "linear", "num_cycles": 2.0}),
    ],
)
def test_what_a_config_refuses_as_unused_is_left_out_as_in_transformers(
    torch, theirs, name, unused
):
    pair = [get(m, name, torch_optimizer(torch), unused, 0) for m in (ours, theirs)]
    # As above.
    expected = rates(pair[1], N + 3)
    np.testing.assert_allclose(rates(pair[0], N + 3), expected, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("name", ["reduce_lr_on_plateau", "greedy"])
def test_followers_of_a_metric(torch, theirs, name):
    callback = ours.get_scheduler(
        name, keras.optimizers.SGD(0.1), scheduler_specific_kwargs={"patience": 3}
    )
    assert isinstance(callback, MetricLearningRate)
    assert callback._config.patience == 3
    settings = {"patience": 0, "factor": 0.5, "mode": "max", "min_lr": [0.01, 0.001]}
    if name == "greedy":
        settings |= {"smooth": True, "window_size": 2, "reset_start": 1, "cooldown": 1}
    pair = [
        module.get_scheduler(name, torch_optimizer(torch), scheduler_specific_kwargs=settings)
        for module in (ours, theirs)
    ]
    if name != "greedy":
        assert type(pair[0]) is type(pair[1])
        return
    values = np.random.default_rng(4).normal(size=60).tolist()
    for value in values[:30]:
        for scheduler in pair:
            scheduler.step(torch.tensor(value))
        assert pair[0].get_last_lr() == pair[1].get_last_lr()
        assert pair[0].state_dict() == pair[1].state_dict()
    # The state of either is the other's.
    resumed = ours.get_greedy_schedule(torch_optimizer(torch), **settings)
    resumed.load_state_dict(pair[1].state_dict())
    for value in values[30:]:
        for scheduler in (resumed, pair[1]):
            scheduler.step(value)
        assert resumed.state_dict() == pair[1].state_dict()
        assert [g["lr"] for g in resumed.optimizer.param_groups] == resumed.get_last_lr()
    assert pickle.loads(pickle.dumps(resumed)).state_dict() == resumed.state_dict()
    assert resumed.num_bad_epochs == pair[1].num_bad_epochs
    assert len({tuple(resumed.get_last_lr()), (0.1, 0.02)}) == 2


def test_greedy_says_what_it_does_and_keeps_tensors(torch, capsys):
    optimizer = torch.optim.SGD([torch.zeros(1)], lr=torch.tensor(0.5))
    tensor = optimizer.param_groups[0]["lr"]
    scheduler = ours.get_greedy_schedule(optimizer, patience=0, factor=0.5, verbose=True)
    scheduler.step(1.0)
    assert optimizer.param_groups[0]["lr"] is tensor
    assert float(tensor) == 1.0
    assert "group 0 is now 1.0000e+00" in capsys.readouterr().out
    with pytest.raises(TypeError, match="not an Optimizer"):
        type(scheduler)("sgd")
    with pytest.raises(ValueError, match="`max_lr` must hold 1"):
        type(scheduler)(optimizer, max_lr=[1.0, 2.0])


def test_importing_needs_no_framework():
    code = """
import sys
from pathlib import Path
from optimization.transformers import SchedulerType, get_scheduler
print([name for name in ("tensorflow", "keras", "torch", "transformers") if name in sys.modules])
"""
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stdout.strip() == "[]", result.stderr
