import numpy as np
import pytest

from tests import spike_cases as cases
from tests.jax.common import OptimizerFactory, jax, optax
from tests.jax.test_gradients import as_paths, as_tree


def trained(config, initial, gradients, losses):
    """Returns the weights, and the states after each step."""
    params = as_tree(initial)
    tx = OptimizerFactory(config, train_steps=cases.STEPS).build_optimizer(params)
    state, states = tx.init(params), []

    @jax.jit
    def step(params, state, grads, loss):
        updates, state = tx.update(grads, state, params, value=loss)
        return optax.apply_updates(params, updates), state

    for grads, loss in zip(gradients, losses, strict=True):
        params, state = step(params, state, as_tree(grads), loss)
        states.append(state)
    return as_paths(params), states


@pytest.mark.parametrize("most", [None, 3.0])
def test_zclip_is_that_of_the_paper(most):
    initial, gradients, losses = cases.problem()
    fields = {"momentum": 0.0, "global_clipnorm": most}
    config = cases.config(fields=fields, zclip=cases.ZCLIP)
    found, states = trained(config, initial, gradients, losses)
    expected, clipped = cases.clipped_weights(initial, gradients, most or float("inf"))
    for path, weight in found.items():
        np.testing.assert_allclose(weight, expected[path], atol=2e-5)  # 40 steps in float32
    assert int(states[-1].zclip[3]) == clipped > 2
    assert int(states[-1].clipped_steps) >= clipped


@pytest.mark.parametrize("kind", cases.SKIPS)
def test_spikes_are_left_out_with_their_state_and_their_schedules(kind):
    initial, gradients, losses = cases.problem()
    sections = {"skip_spikes": cases.SKIPS[kind], "ema": cases.AVERAGE}
    config = cases.config(fields={"momentum": 0.9}, rate="linear", **sections)
    expected = cases.skipped(kind, gradients, losses)
    found, states = trained(config, initial, gradients, losses)
    assert np.diff([0, *(int(state.skipped_spikes) for state in states)]).tolist() == expected
    assert int(states[-1].step) == cases.STEPS - sum(expected)
    wanted = cases.kept_weights(initial, gradients, expected)
    averages = as_paths(states[-1].average)
    average = cases.kept_average(initial, gradients, expected)
    for path, weight in found.items():
        np.testing.assert_allclose(weight, wanted[path], atol=2e-5)
        np.testing.assert_allclose(averages[path], average[path], atol=2e-5)


def test_the_loss_of_accumulated_batches_is_their_mean():
    initial, gradients, losses = cases.problem()
    fields = {"momentum": 0.9, "gradient_accumulation_steps": 2}
    config = cases.config(fields=fields, skip_spikes=cases.SKIPS["loss"])
    _, states = trained(config, initial, gradients, losses)
    means = [(a + b) / 2 for a, b in zip(losses[::2], losses[1::2], strict=True)]
    expected = cases.skipped("loss", gradients[::2], means)
    assert int(states[-1].skipped_spikes) == sum(expected) > 0


def test_the_loss_is_needed():
    initial, gradients, _ = cases.problem()
    params = as_tree(initial)
    tx = OptimizerFactory(cases.config(skip_spikes=cases.SKIPS["loss"])).build_optimizer(params)
    with pytest.raises(ValueError, match="Argument `value` is needed, the loss of the batch"):
        tx.update(as_tree(gradients[0]), tx.init(params), params)
