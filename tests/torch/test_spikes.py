import copy

import numpy as np
import pytest

from optimization.configs.spike_config import ZClipConfig
from tests import spike_cases as cases
from tests.references import spikes
from tests.torch.common import (
    OptimizerFactory,
    largest_difference,
    model_of,
    parameters,
    set_gradients,
    torch,
    train,
    weights_of,
)


def built(config, initial):
    factory, params = OptimizerFactory(config, train_steps=cases.STEPS), parameters(initial)
    optimizer = factory.build_optimizer(params.items())
    return optimizer, params, factory.build_scheduler(optimizer)


@pytest.mark.parametrize("most", [None, 3.0])
def test_zclip_acts_inside_the_step_and_goes_on_where_it_is_loaded(most):
    initial, gradients, _ = cases.problem()
    fields = {"momentum": 0.0, "global_clipnorm": most}
    config = cases.config(fields=fields, zclip=cases.ZCLIP)
    optimizer, params, _ = built(config, initial)
    train(optimizer, params, gradients[:15])
    other, others, _ = built(config, weights_of(params))
    other.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(other, others, gradients[15:])
    expected, clipped = cases.clipped_weights(initial, gradients, most or float("inf"))
    assert largest_difference(weights_of(others), expected) < 1e-12  # float64 on both sides
    assert other.clipped_spikes == clipped > 2


@pytest.mark.parametrize("kind", cases.SKIPS)
def test_spikes_are_left_out_with_their_state_and_their_schedules(kind):
    initial, gradients, losses = cases.problem()
    config = cases.config(fields={"momentum": 0.9}, rate="linear", skip_spikes=cases.SKIPS[kind])
    expected = cases.skipped(kind, gradients, losses)
    optimizer, params, scheduler = built(config, initial)
    found = []
    for number, (grads, loss) in enumerate(zip(gradients, losses, strict=True)):
        if number == 25:  # it goes on in another process
            state = copy.deepcopy((optimizer.state_dict(), scheduler.state_dict()))
            optimizer, params, scheduler = built(config, weights_of(params))
            optimizer.load_state_dict(state[0])
            scheduler.load_state_dict(state[1])
        set_gradients(params, grads)
        optimizer.tell_loss(torch.tensor(loss))
        optimizer.step()
        scheduler.step()
        found.append(optimizer.skipped)
    assert found == expected
    assert optimizer.skipped_spikes == sum(expected) > 1
    wanted = cases.kept_weights(initial, gradients, expected)
    assert largest_difference(weights_of(params), wanted) < 1e-12


@pytest.mark.parametrize("in_step", [True, False])
def test_an_average_stays_where_a_spike_was_left_out(in_step):
    initial, gradients, losses = cases.problem()
    sections = {"skip_spikes": cases.SKIPS["sigma"], "ema": cases.AVERAGE}
    config = cases.config(fields={"momentum": 0.9}, rate="linear", **sections)
    factory, model = OptimizerFactory(config, train_steps=cases.STEPS), model_of(initial)
    optimizer = factory.build_optimizer(model)
    average = factory.build_ema(model, optimizer, in_step=in_step)
    scheduler = factory.build_scheduler(optimizer)
    params = dict(model.named_parameters())
    for grads in gradients:
        for path, gradient in grads.items():
            params[path.replace("/", "_")].grad = torch.tensor(gradient)
        optimizer.step()
        scheduler.step()
        if not in_step:
            average.update_parameters(model)
    expected = cases.skipped("sigma", gradients, losses)
    found = {name.replace("_", "/"): p.detach() for name, p in average.module.named_parameters()}
    assert largest_difference(found, cases.kept_average(initial, gradients, expected)) < 1e-12
    assert int(average.n_averaged) == 1 + cases.STEPS - sum(expected)


def test_a_closure_tells_the_loss():
    initial, gradients, losses = cases.problem()
    config = cases.config(fields={"momentum": 0.9}, skip_spikes=cases.SKIPS["loss"])
    optimizer, params, _ = built(config, initial)
    for grads, loss in zip(gradients, losses, strict=True):

        def closure(grads=grads, loss=loss):
            set_gradients(params, grads)
            return torch.tensor(loss)

        optimizer.step(closure)
    assert optimizer.skipped_spikes == sum(cases.skipped("loss", gradients, losses)) > 1


def test_the_loss_must_be_told():
    initial, gradients, _ = cases.problem()
    optimizer, params, _ = built(cases.config(skip_spikes=cases.SKIPS["loss"]), initial)
    with pytest.raises(RuntimeError, match=r"call `optimizer.tell_loss\(loss\)` before `step\(\)`"):
        train(optimizer, params, gradients[:1])


@pytest.mark.parametrize("kind", ["prodigy", "schedule_free_adamw", "adafactor", "adamw"])
def test_what_rules_count_stays_too(kind):
    initial, gradients, _ = cases.problem()
    spikes = {"quantile": 1.0, "window": 2}
    optimizer, params, _ = built(cases.config(kind, skip_spikes=spikes), initial)
    calm = [{path: 1e-3 * g for path, g in grads.items()} for grads in gradients]
    calm = [{path: g / cases.norm_of(grads) for path, g in grads.items()} for grads in calm[:4]]
    train(optimizer, params, calm)
    before, weights = copy.deepcopy(optimizer.state_dict()), weights_of(params)
    assert train(optimizer, params, gradients[:1]).keys() == weights.keys()
    assert optimizer.skipped
    after = optimizer.state_dict()
    assert largest_difference(weights_of(params), weights) == 0
    kept = {"recent_gradient_norm", "skipped_spikes"}
    for one, other in zip(before["param_groups"], after["param_groups"], strict=True):
        assert {k: v for k, v in one.items() if k not in kept} == {
            k: v for k, v in other.items() if k not in kept
        }
    for index, state in before["state"].items():
        for name, value in state.items():
            torch.testing.assert_close(value, after["state"][index][name], rtol=0, atol=0)


def test_what_looks_at_numbers_is_not_compiled():
    initial, _, _ = cases.problem()
    for sections in ({"zclip": {}}, {"skip_spikes": cases.SKIPS["sigma"]}):
        factory = OptimizerFactory(cases.config(**sections))
        with pytest.raises(ValueError, match=f"`{next(iter(sections))}` looks at numbers"):
            factory.build_optimizer(parameters(initial).items(), compile=True)


@pytest.mark.parametrize(
    ("fields", "own"),
    [
        ({}, {}),
        ({"mode": "mean"}, {"clip_option": "mean"}),
        ({"mode": "threshold"}, {"mode": "percentile"}),
        ({"clip_factor": 0.7}, {"clip_factor": 0.7}),
        ({"learns_from_spikes": False}, {"skip_update_on_spike": True}),
    ],
    ids=str,
)
def test_zclip_is_that_of_the_authors(fields, own):
    peer = pytest.importorskip("zclip", reason="the authors' package is not installed")
    peer = peer.ZClip(max_grad_norm=None, **own)
    config, kept = ZClipConfig(fields), np.zeros(ZClipConfig.SIZE)
    layer = torch.nn.Linear(1, 1, bias=False, dtype=torch.float64)
    for norm in 1e6 * spikes.norms():  # beside which the 1e-6 in what the authors divide by is 0
        layer.weight.grad = torch.full((1, 1), norm, dtype=torch.float64)
        peer.step(layer)
        bound, kept = config.clip(norm, kept, np)
        assert min(norm, bound) == pytest.approx(float(layer.weight.grad), rel=1e-9)
