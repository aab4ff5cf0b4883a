"""Natively for JAX: gradient transformations of optax, built from the same configuration.

    import optax
    from optimization.jax import OptimizerFactory

    factory = OptimizerFactory(config, train_steps=10000)
    optimizer = factory.build_optimizer(params)
    state = optimizer.init(params)

    @jax.jit
    def step(params, state, batch):
        grads = jax.grad(loss)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state

Neither Keras nor TensorFlow is imported. docs/jax.md says what differs from Keras and PyTorch.
"""

from optimization import extras

extras.require("jax")
extras.require("optax")

__getattr__, __dir__, __all__ = extras.attach_stub(__name__, __file__)
