"""The stage that leaves out updates whose gradient norm or loss is far above the recent ones."""

from collections.abc import Mapping, Sequence
from typing import Any

import keras
from keras import ops

from optimization.configs.spike_config import SkipSpikesConfig
from optimization.keras import gradients
from optimization.keras.control import conditionally
from optimization.keras.gradients import is_overwritten
from optimization.keras.stages.stage import Batch, Rest, Stage, argument


class SkipSpikes(Stage):
    """Compares the norm over all gradients, or the loss, with its recent values.

    The loss is what `tell_loss` was told of each batch before its gradients were applied.
    """

    title = "skip spikes"
    sees = "what that has let through"
    set_by = "`skip_spikes`"
    shows = ("skipped_spikes", "tell_loss")
    settable = False

    skip_spikes: Mapping[str, Any] | None = argument(
        None,
        "Settings of `SkipSpikesConfig`: an update whose gradient norm or loss is far above the "
        "recent ones leaves weights, moments, average and `iterations` as they are and counts in "
        "`skipped_spikes`; None for none.",
    )

    def __post_init__(self) -> None:
        self._config = None if self.skip_spikes is None else SkipSpikesConfig(self.skip_spikes)
        self.skip_spikes = None if self._config is None else self._config.as_dict()
        self._recent: dict[str, keras.Variable] = {}
        self._is_told = False

    @property
    def skipped_spikes(self) -> Any:
        """Updates skipped so far since they were spikes; 0 where none is skipped."""
        return self.made.get("skipped_spikes", 0)

    @property
    def _looks_at_loss(self) -> bool:
        return self._config is not None and "loss" in self._config.of

    def build(self, variables: Sequence[Any]) -> None:
        if self._config is None:
            return
        self.make("skipped_spikes", "int")
        if self._looks_at_loss:
            self.make("loss_sum", "float32")
            self.make("losses", "int")
        for name in self._config.of:
            self._recent[name] = self.pipeline.add_variable(
                (self._config.size,), dtype="float32", name=f"recent_{name}"
            )

    def variables_by_path(self) -> dict[str, keras.Variable]:
        return {**self.made, **{f"recent/{name}": kept for name, kept in self._recent.items()}}

    def tell_loss(self, loss: Any) -> None:
        """Takes the loss of a batch, the mean over all its examples, before `apply`.

        That of an update is the mean of those of its accumulated batches. It does nothing where no
        loss is looked at.

        Raises:
            ValueError: If the optimizer is not built.
        """
        if not self._looks_at_loss:
            return
        if not self.made:
            raise ValueError("The optimizer is not built: call `build(variables)` first.")
        self._is_told = True
        begins = ops.equal(self.pipeline.micro_step, 0)
        for name, value in (("loss_sum", loss), ("losses", 1)):
            total = self.made[name]
            before = ops.where(begins, ops.zeros((), total.dtype), ops.convert_to_tensor(total))
            total.assign(before + ops.cast(value, total.dtype))

    def __call__(self, batch: Batch, rest: Rest) -> None:
        if self._config is None:
            rest(batch)
            return
        found = []
        for name, kept in self._recent.items():
            value = self._loss() if name == "loss" else self._norm(batch)
            spike, moved = self._config.judge(value, ops.convert_to_tensor(kept), ops)
            kept.assign(moved)
            found.append(spike)

        def update(grads: list[Any]) -> None:
            rest(batch.with_grads(grads))

        def skip(grads: list[Any]) -> None:
            self.skipped_spikes.assign_add(1)

        fine, variables = ops.logical_not(ops.any(ops.stack(found))), self.pipeline.all_variables()
        conditionally(fine, update, (list(batch.grads),), variables, otherwise=skip)

    def _norm(self, batch: Batch) -> Any:
        return gradients.global_norm([g for g, v in batch.pairs if not is_overwritten(v)]).value

    def _loss(self) -> Any:
        if not self._is_told:
            raise ValueError(
                "`skip_spikes` looks at the loss: call `optimizer.tell_loss(loss)` before each "
                "`apply`, as the trainer does; `fit` does not, where `of: [gradient_norm]` works."
            )
        return self.made["loss_sum"] / ops.cast(self.made["losses"], "float32")
