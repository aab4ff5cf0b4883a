"""What `PipelineOptimizer` passes on to its inner optimizers."""

from collections.abc import Sequence
from typing import Any


class Delegates:
    """Mixin that reads and sets hyperparameters of the inner optimizer."""

    def _inner_learning_rate(self) -> Any:
        return self.optimizer.learning_rate

    @property
    def learning_rate(self) -> Any:
        """The learning rate at the present step; setting it sets the inner optimizer's."""
        return self.optimizer.learning_rate

    @learning_rate.setter
    def learning_rate(self, learning_rate: Any) -> None:
        self.optimizer.learning_rate = learning_rate

    def __getattr__(self, name: str) -> Any:
        # Private names are Keras' own bookkeeping, which probes for them.
        if name.startswith("_") or "optimizer" not in self.__dict__:
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self.__dict__["optimizer"], name)

    def __setattr__(self, name: str, value: Any) -> None:
        own = name.startswith("_") or name in self.__dict__ or hasattr(type(self), name)
        if not own and hasattr(self.__dict__.get("optimizer"), name):
            setattr(self.optimizer, name, value)
        else:
            super().__setattr__(name, value)

    def exclude_from_weight_decay(
        self, var_list: Sequence[Any] | None = None, var_names: Sequence[str] | None = None
    ) -> None:
        """Spares variables the weight decay of Keras' optimizers, in every group.

        Unlike Keras', it searches in full paths, on every backend, and is saved.

        Args:
            var_list: Variables.
            var_names: Regular expressions searched (`re.search`) in the path.

        Raises:
            ValueError: If the optimizer is built, or decays by rules of its own; for an invalid
                expression; at build, if none matches a variable.
        """
        if self.built:
            raise ValueError("`exclude_from_weight_decay` must be called before `build`.")
        self._members.exclude(var_list or (), var_names or ())
