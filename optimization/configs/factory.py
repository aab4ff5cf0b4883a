"""`ConfiguredFactory`: what the factories for Keras, PyTorch and JAX share."""

import typing
from collections.abc import Iterable, Sequence

from optimization.configs import printing
from optimization.configs.errors import ConfigError, Problem
from optimization.configs.optimization_config import OptimizationConfig, resolved

if typing.TYPE_CHECKING:
    from optimization.plots.picture import Picture


class ConfiguredFactory:
    """Holds a config, resolved and read-only, and shows it."""

    def __init__(
        self,
        config: OptimizationConfig,
        train_steps: int | None = None,
        steps_per_epoch: int | None = None,
        global_batch_size: int | None = None,
        tokens_per_step: int | None = None,
    ):
        lengths = (train_steps, steps_per_epoch, global_batch_size, tokens_per_step)
        self._config = resolved(config, *lengths)
        problems = list(self._problems())
        if problems:
            raise ConfigError(problems)

    def _problems(self) -> Iterable[Problem]:
        """Yields what the framework of a factory does not have of the config."""
        return ()

    @property
    def config(self) -> OptimizationConfig:
        """The config, read-only."""
        return self._config

    def micro_batches(self, step: int) -> int:
        """Returns of how many micro-batches the update after `step` updates is.

        For loops that accumulate by themselves, as PyTorch's do.

        Raises:
            ValueError: If `step` is below 0.
        """
        return self._config.ramp().at(_updates(step))

    def first_micro_batch(self, step: int) -> int:
        """Returns the number of the first micro-batch of the update after `step` updates, from 0.

        That is where a training that goes on from there goes on in its data.

        Raises:
            ValueError: If `step` is below 0.
        """
        return self._config.ramp().before(_updates(step))

    def __repr__(self) -> str:
        return printing.call(type(self).__name__, **printing.sections(self._config))

    def _repr_html_(self) -> str:
        return self._config._repr_html_()

    def plot(
        self,
        what: str = "learning_rate",
        groups: str | Sequence[str] = (),
        *,
        log: bool = False,
        steps: tuple[int | None, int | None] = (None, None),
    ) -> "Picture":
        """Returns a picture: a notebook shows it, `print` draws it, and `save("x.svg")` writes it.

        It is computed from the config alone, up to `train_steps`, or as far as the curve bends
        where that is not known.

        Args:
            what: `learning_rate`, a number of the optimizer, such as `weight_decay`, the decay of
                the average, such as `average_decay`, or `micro_batches`.
            groups: Names of `param_groups`, or what they match; `default` for the variables of
                none, `layer L-2` for those two layers below the head under `layer_decay`, `all`.
            log: Whether heights are drawn on a logarithmic axis.
            steps: The first and the last optimizer step to draw; None for the start and the end.

        Raises:
            ConfigError: If there is no such number or group, or nothing to draw.
        """
        from optimization.plots.drawing import picture_of

        return picture_of({"": self._config}, what, groups, log, steps)


def _updates(step: int) -> int:
    if isinstance(step, bool) or step != int(step) or step < 0:
        raise ValueError(f"Argument `step` must be an integer >= 0, received: step={step!r}")
    return int(step)
