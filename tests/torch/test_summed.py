"""Prodigy in PyTorch: the authors' package, groups, checkpoints."""

import copy

import pytest

from optimization import OptimizationConfig
from tests.rules import contracts
from tests.rules import prodigy_cases as cases
from tests.torch.common import largest_difference, parameters, torch, train

import optimization.torch as ours  # isort: skip

COUPLED = "coupled decay"
LIMIT = 1e-9  # of float64 weights, as steps are times a quotient of sums
# Peers have the next estimate beside epsilon, which is made to be no matter.
EPSILON = 1e-30


def arguments_of(name):
    arguments = cases.section_of(name).arguments()
    others = ("include_in_weight_decay", "exclude_from_weight_decay", "name", "epsilon")
    return {key: value for key, value in arguments.items() if key not in others}


def groups_of(params):
    spared = [p for name, p in params.items() if "bias" in name]
    others = [p for name, p in params.items() if "bias" not in name]
    return [{"params": others}, {"params": spared, "weight_decay": 0.0}]


def mine(name, params, **more):
    return ours.Prodigy(groups_of(params), lr=cases.RATE, **arguments_of(name), **more)


def problem():
    return cases.problem(contracts.NATIVE)


@pytest.mark.parametrize("name", [name for name in cases.CASES if name != COUPLED])
def test_it_is_the_paper_over_all_groups(name):
    initial, gradients = problem()
    expected = cases.expected(cases.section_of(name), initial, gradients)
    cases.assert_moved(expected, initial)
    params = parameters(initial)
    assert largest_difference(train(mine(name, params), params, gradients), expected) < LIMIT


THEIRS = {
    "beta_3": "beta3",
    "d_coef": "d_coef",
    "d0": "d0",
    "weight_decay": "weight_decay",
    "decoupled_weight_decay": "decouple",
    "use_bias_correction": "use_bias_correction",
    "safeguard_warmup": "safeguard_warmup",
    "growth_rate": "growth_rate",
}
OTHERS = {"use_bias_correction": "bias_correction", "decoupled_weight_decay": "weight_decouple"}
# With the roundings of the sums of a peer: pytorch_optimizer has them in float32.
PEERS = {"prodigyopt": (THEIRS, LIMIT), "pytorch_optimizer": ({**THEIRS, **OTHERS}, 1e-6)}


# pytorch_optimizer 4.1 adds a coupled decay to gradients that have been used already.
PAIRS = [(p, n) for p in PEERS for n in cases.CASES if (p, n) != ("pytorch_optimizer", COUPLED)]


@pytest.mark.parametrize(("peer", "name"), PAIRS)
def test_it_is_that_of_others(peer, name):
    cls = pytest.importorskip(peer, reason="the peer").Prodigy
    initial, gradients = problem()
    section, params, (words, limit) = cases.section_of(name), parameters(initial), PEERS[peer]
    given = {word: getattr(section, own) for own, word in words.items()}
    given = {key: value for key, value in given.items() if value is not None}
    theirs = cls(groups_of(params), lr=cases.RATE, eps=EPSILON, **given)
    expected = train(theirs, params, gradients)
    params = parameters(initial)
    own = mine(name, params, epsilon=EPSILON)
    assert largest_difference(train(own, params, gradients), expected) < limit
    assert own.param_groups[1]["d"] == pytest.approx(float(theirs.param_groups[0]["d"]), rel=limit)


def test_a_checkpoint_goes_on_as_if_nothing_had_been():
    initial, gradients = problem()
    params = parameters(initial)
    expected = train(mine("usual", params), params, gradients)
    params = parameters(initial)
    first = mine("usual", params)
    train(first, params, gradients[:9])
    saved = copy.deepcopy(first.state_dict())
    second = mine("usual", params)
    second.load_state_dict(saved)
    assert largest_difference(train(second, params, gradients[9:]), expected) == 0


def test_a_later_group_has_the_estimate_so_far():
    initial, gradients = problem()
    params = parameters(initial)
    optimizer = mine("usual", params)
    assert optimizer.param_groups[0]["d"] == cases.section_of("usual").d0
    train(optimizer, params, gradients)
    d = optimizer.param_groups[0]["d"]
    optimizer.add_param_group({"params": [torch.nn.Parameter(torch.ones(2))]})
    assert optimizer.param_groups[-1]["d"] == d > 0.01


def test_a_parameter_that_misses_a_step_has_the_estimate_of_all():
    initial, gradients = problem()
    params = parameters(initial)
    optimizer = mine("usual", params)
    for step, grads in enumerate(gradients):
        some = {n: g for n, g in grads.items() if step < 12 or "dense" not in n}
        train(optimizer, params, [some])
    assert optimizer.param_groups[0]["d"] == optimizer.param_groups[1]["d"] > 0.001


def test_the_estimate_of_each_optimizer_is_told():
    initial, gradients = problem()
    params = parameters(initial)
    optimizer = mine("usual", params)
    assert ours.estimated_step_sizes(optimizer) == {"default": optimizer.param_groups[0]["d0"]}
    train(optimizer, params, gradients)
    found = ours.estimated_step_sizes(optimizer)
    assert found == {"default": optimizer.param_groups[0]["d"]}
    assert found["default"] > 0.01
    rate = {"type": "constant", "constant": {"learning_rate": 1.0}}
    own = {"type": "prodigy", "prodigy": {"d0": 1e-3}}
    groups = [{"match": "bias", "name": "biases", "optimizer": own}]
    config = {"optimizer": {"type": "adamw"}, "learning_rate": rate, "param_groups": groups}
    mixed = ours.OptimizerFactory(OptimizationConfig(config)).build_optimizer(params.items())
    assert ours.estimated_step_sizes(mixed) == {"biases": 1e-3}
    assert ours.estimated_step_sizes(torch.optim.SGD(params.values())) == {}
