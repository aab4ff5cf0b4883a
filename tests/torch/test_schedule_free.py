import numpy as np
import pytest

from tests.torch.common import (
    largest_difference,
    parameters,
    problem,
    torch,
    train,
    weights_of,
)

from optimization.torch import ScheduleFreeAdamW, ScheduleFreeSGD  # isort: skip

CASES = {
    "sgd": (ScheduleFreeSGD, "SGDScheduleFree", {"lr": 0.05}),
    "sgd, all": (
        ScheduleFreeSGD,
        "SGDScheduleFree",
        {
            "lr": 0.05,
            "momentum": 0.8,
            "weight_decay": 0.1,
            "warmup_steps": 7,
            "r": 0.5,
            "weight_lr_power": 1.5,
        },
    ),
    "adamw": (ScheduleFreeAdamW, "AdamWScheduleFree", {"lr": 0.05, "eps": 1e-4}),
    "adamw, all": (
        ScheduleFreeAdamW,
        "AdamWScheduleFree",
        {"lr": 0.05, "betas": (0.8, 0.99), "weight_decay": 0.1, "warmup_steps": 7, "r": 1.0},
    ),
}
every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


@every_case
def test_both_sequences_are_the_authors(case):
    peer = pytest.importorskip("schedulefree", reason="the authors' package")
    cls, name, arguments = case
    initial, gradients = problem(steps=50)
    params, others = parameters(initial), parameters(initial)
    mine = cls(params.values(), **arguments)
    theirs = getattr(peer, name)(others.values(), foreach=False, **arguments)
    theirs.train()
    for grads in gradients:
        for optimizer, weights in ((mine, params), (theirs, others)):
            train(optimizer, weights, [grads])
        # Float64 on both sides, over up to 50 steps.
        assert largest_difference(weights_of(params), weights_of(others)) < 1e-12
    mine.eval()
    theirs.eval()
    assert largest_difference(weights_of(params), weights_of(others)) < 1e-12


def test_the_equations():
    initial, gradients = problem(steps=9)
    params = parameters(initial)
    optimizer = ScheduleFreeSGD(params.values(), lr=0.1, momentum=0.7, weight_decay=0.2)
    train(optimizer, params, gradients)
    expected = {}
    for name, start in initial.items():
        x = y = z = np.array(start)
        for t, grads in enumerate(gradients, start=1):
            z = z - 0.1 * (grads[name] + 0.2 * y)
            x = (1 - 1 / t) * x + z / t
            y = 0.3 * z + 0.7 * x
        expected[name] = (x, y)
    training = {name: y for name, (_, y) in expected.items()}
    evaluated = {name: x for name, (x, _) in expected.items()}
    assert largest_difference(weights_of(params), training) < 1e-12
    for _ in range(2):  # the second time nothing happens
        optimizer.eval()
        assert largest_difference(weights_of(params), evaluated) < 1e-12
    with pytest.raises(RuntimeError, match=r"call `train\(\)` first"):
        optimizer.step()
    for _ in range(2):
        optimizer.train()
        assert largest_difference(weights_of(params), training) < 1e-12


@every_case
def test_evaluation_and_saving_in_between_change_nothing(case, tmp_path):
    cls, _, arguments = case
    initial, gradients = problem(steps=8)
    whole = parameters(initial)
    train(cls(whole.items(), **arguments), whole, gradients)
    first = parameters(initial)
    optimizer = cls(first.items(), **arguments)
    train(optimizer, first, gradients[:4])
    optimizer.eval()
    torch.save((optimizer.state_dict(), weights_of(first)), tmp_path / "state.pt")
    state, weights = torch.load(tmp_path / "state.pt", weights_only=False)
    second = parameters(weights)
    resumed = cls(second.items(), **arguments)
    resumed.load_state_dict(state)
    resumed.train()
    train(resumed, second, gradients[4:])
    # There and back between x and y is rounded.
    assert largest_difference(weights_of(second), weights_of(whole)) < 1e-12


@pytest.mark.parametrize(
    "arguments", [{"momentum": 0.0}, {"momentum": 1.0}, {"warmup_steps": -1}, {"r": -1.0}], ids=str
)
def test_wrong_arguments(arguments):
    with pytest.raises(ValueError, match=next(iter(arguments))):
        ScheduleFreeSGD([torch.nn.Parameter(torch.zeros(2))], **arguments)


@pytest.mark.parametrize("cls", [ScheduleFreeSGD, ScheduleFreeAdamW])
def test_torch_compile_does_not_compile_each_step_anew(cls):
    graphs = []

    def backend(graph, inputs):
        graphs.append(graph)
        return graph.forward

    torch._dynamo.reset()
    parameter = torch.nn.Parameter(torch.ones(3))
    optimizer = cls([parameter], lr=0.1)
    step = torch.compile(optimizer.step, backend=backend)
    parameter.grad = torch.ones(3)
    step()
    compiled = len(graphs)
    for _ in range(3):
        step()
    assert len(graphs) == compiled
    assert optimizer.param_groups[0]["k"] == 4
