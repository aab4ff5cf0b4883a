import itertools

from optimization import find_learning_rate
from tests.jax.common import jax, optax

jnp = jax.numpy


def test_a_loop_of_jax_is_tested_by_the_function_of_all():
    """Parameters and state are values: what a test makes of them is left behind."""
    params = {"w": jnp.zeros(())}
    tx = optax.inject_hyperparams(optax.sgd)(learning_rate=1.0)

    @jax.jit
    def update(params, state, target):
        # Of curvature 8: gradient descent diverges above 2 / 8.
        loss, grads = jax.value_and_grad(lambda p: 4 * (p["w"] - target) ** 2)(params)
        updates, state = tx.update(grads, state)
        return optax.apply_updates(params, updates), state, loss

    moving, targets = (params, tx.init(params)), itertools.cycle([1.0, 0.0])

    def step(rate):
        nonlocal moving
        moving[1].hyperparams["learning_rate"] = jnp.float32(rate)
        *moving, loss = update(*moving, next(targets))
        return loss

    found = find_learning_rate(step, lowest=1e-3, highest=100.0)
    assert found.diverged
    assert found.steepest < 2 / 8 < found.rates[-1]
    assert params["w"] == 0
