"""The digits with an optimizer of the task's own: how to override `create_optimizer`."""

import dataclasses

from experiments.digits import DigitsConfig, DigitsTask, digits
from optimization import ExperimentConfig, OptimizerFactory
from optimization.training import register_experiment, register_task


def centralize(grads_and_vars):
    """Gradient centralization (Yong et al. 2020, arXiv:2004.01461).

    The mean over all axes but the last is taken from the gradient of each kernel.
    """
    import tensorflow as tf

    def centralized(gradient):
        axes = list(range(len(gradient.shape) - 1))
        return gradient - tf.reduce_mean(gradient, axes, keepdims=True) if axes else gradient

    return [(centralized(gradient), variable) for gradient, variable in grads_and_vars]


@dataclasses.dataclass
class CentralizedDigitsConfig(DigitsConfig):
    """The digits task whose gradients are centralized."""


@register_task(CentralizedDigitsConfig)
class CentralizedDigitsTask(DigitsTask):
    """Digits with a gradient transformer between the sum over replicas and the update."""

    @classmethod
    def create_optimizer(cls, optimizer_config, runtime_config=None):
        """Builds what the config says, with one transformer more."""
        from optimization.training import with_loss_scale

        factory = OptimizerFactory(optimizer_config)
        optimizer = factory.build_optimizer(
            factory.build_learning_rate(), gradient_transformers=[centralize]
        )
        return with_loss_scale(optimizer, runtime_config)


@register_experiment("digits_custom_optimizer")
def digits_custom_optimizer() -> ExperimentConfig:
    """The digits experiment with `CentralizedDigitsTask`."""
    config = digits()
    config.task = CentralizedDigitsConfig(config.task.as_dict())
    return config
