"""The average of a model's weights, as an `AveragedModel` of torch."""

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.optim.swa_utils import AveragedModel

from optimization.schedules.averages import AverageDecay
from optimization.schedules.scalars import SCALARS
from optimization.torch.by_name import bare_names, unwrapped
from optimization.torch.lists import batches
from optimization.torch.masters import LOW_PRECISION, ExactState, brought_up_to_date
from optimization.torch.shards import own_part


class Average(AveragedModel):
    """The average of a model's weights, in float32 where weights are float16 or bfloat16.

    The averaged model has the dtype of the model and takes the same inputs: its weights are the
    float32 averages, rounded. `state_dict` has these averages in float32, under torch's names, and
    `average.float()` is the averaged model with them. States of compiled and of wrapped models
    load, and so do those of torch's own `AveragedModel`. `EMAConfig` describes the arguments; the
    `average_decay` may be a function of the updates done.
    """

    def __init__(
        self,
        model: torch.nn.Module,
        optimizer: Optimizer | None = None,
        *,
        in_step: bool = False,
        trainable_weights_only: bool = True,
        **decay: Any,
    ):
        if optimizer is not None and not isinstance(optimizer, ExactState):
            raise TypeError(
                "Argument `optimizer` must be what `build_optimizer` returned, "
                f"received: {type(optimizer).__name__}"
            )
        if in_step and optimizer is None:
            raise TypeError("Argument `optimizer` is needed with `in_step`, received: None")
        self._decay = AverageDecay(**decay)
        inner, use_buffers = unwrapped(model), not trainable_weights_only
        if _sharded_modules(inner):  # which torch does not copy
            _reshard(inner)
            super().__init__(torch.nn.Identity(), use_buffers=use_buffers)
            self.module = _weights_alone(inner, {})
        else:
            super().__init__(inner, use_buffers=use_buffers)
        # It holds the first weights already: with 0 torch would take those after the first update.
        self.n_averaged.fill_(1)
        self._copies: dict[str, Tensor] = {}
        self._optimizer = None if optimizer is None else weakref.ref(optimizer)
        self._exact_averages()
        self._waiting: dict[Tensor, Tensor] | None = None  # what moves in the step that runs
        self._known = 0 if optimizer is None else optimizer.taken  # the steps that it has seen
        if optimizer is not None and _count not in optimizer._optimizer_step_post_hooks.values():
            optimizer.register_step_post_hook(_count)
        self._model = weakref.ref(model) if in_step else None
        if in_step and optimizer is not None:
            if optimizer.average is not None and optimizer.average() is not None:
                raise ValueError("`optimizer.step()` moves another average already.")
            optimizer.average = weakref.ref(self)
            if _finish not in optimizer._optimizer_step_post_hooks.values():
                optimizer.register_step_post_hook(_finish)

    def _moved_share(self) -> float:
        n = int(self.n_averaged)
        return self._decay.moved_share(n, n - self._decay.start_step, SCALARS)

    def update_parameters(self, model: torch.nn.Module) -> None:
        """Moves the average to the weights of the model.

        An average that was built with the optimizer stays, and does not count, where no step was
        taken since it last moved: a `GradScaler` or `skip_spikes` has left it out.

        Raises:
            RuntimeError: If the steps of the optimizer do that.
        """
        if self._model is not None and self._model() is not None:
            raise RuntimeError("`optimizer.step()` moves this average, since it is `in_step`.")
        self._waiting = None
        optimizer = None if self._optimizer is None else self._optimizer()
        if isinstance(optimizer, ExactState):
            if optimizer.taken == self._known:
                return
            self._known = optimizer.taken
        self._finish(model)

    def start(self) -> None:
        """Prepares to be moved in a step."""
        model = None if self._model is None else self._model()
        if model is not None:
            self._start(model)

    def take(self, weights: Sequence[Tensor]) -> tuple[list[Tensor], float]:
        """Returns the averages of weights, for whoever moves them, and how far they move.

        Where some have none, it returns none.
        """
        waiting = self._waiting or {}
        if not all(weight in waiting for weight in weights):
            return [], 0.0
        return [waiting.pop(weight) for weight in weights], self._moved_share()

    def finish(self) -> None:
        """Moves what the step has not moved."""
        model = None if self._model is None else self._model()
        if model is not None:
            self._finish(model)

    def _start(self, model: torch.nn.Module) -> None:
        _reshard(model)
        pairs = zip(self._exact_averages(), self._averaged(model), strict=True)
        self._waiting = {weight: average for (_, average), (_, weight) in pairs}

    @torch.no_grad()
    def _finish(self, model: torch.nn.Module) -> None:
        optimizer = None if self._optimizer is None else self._optimizer()
        averages, targets = list[Tensor](), list[Tensor]()
        if self._waiting is None:
            self._start(model)
        for weight, moving in (self._waiting or {}).items():
            exact = weight if optimizer is None else optimizer.weight_of(weight)
            average = own_part(moving)
            exact = own_part(exact).to(average)
            if average.is_floating_point():
                averages.append(average)
                targets.append(exact)
            else:  # integers are copied
                average.copy_(exact)
        for moved, weights in batches([averages, targets]):
            torch._foreach_lerp_(moved, weights, self._moved_share())
        self._waiting = None
        for tensor, average in self._exact_averages(renewed=False):
            if tensor is not average:
                own_part(tensor).copy_(own_part(average))
        if not self.use_buffers:
            for buffer, own in zip(self.module.buffers(), model.buffers(), strict=True):
                buffer.copy_(own)
        self.n_averaged += 1

    @contextlib.contextmanager
    def applied_to(self, model: torch.nn.Module) -> Iterator[None]:
        """Has a model hold the averages within a `with` block, and then its own weights again.

        That is how a model of `fully_shard` runs with them, which can't be copied.
        """
        with torch.no_grad():
            _reshard(model)
            averages = [own_part(average) for _, average in self._averaged(self.module)]
            weights = [own_part(weight) for _, weight in self._averaged(model)]
            own = [weight.clone() for weight in weights]
            for weight, average in zip(weights, averages, strict=True):
                weight.copy_(average)
        try:
            yield
        finally:
            with torch.no_grad():
                _reshard(model)
                for weight, value in zip(weights, own, strict=True):
                    weight.copy_(value)

    def state_dict(self, *args: Any, **kwargs: Any) -> Any:
        state = super().state_dict(*args, **kwargs)
        prefix = kwargs.get("prefix", "")
        exact = {id(tensor): average.detach() for tensor, average in self._exact_averages()}
        # A weight that is tied has several names.
        for named in (self.module.named_parameters, self.module.named_buffers):
            for name, tensor in named(f"{prefix}module", remove_duplicate=False):
                if name in state and tensor.dtype in LOW_PRECISION and id(tensor) in exact:
                    state[name] = exact[id(tensor)]
        return state

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *args: Any) -> None:
        start = f"{prefix}module."
        own = _by_bare_name(super().state_dict(prefix=prefix), start)
        saved = _by_bare_name(state, start)
        values = {own[bare]: state.pop(saved[bare]) for bare in own if bare in saved}
        state.update(values)
        for name, copy in self._copies.items():
            value = values.get(f"{start}{name}")
            if value is not None and value.shape == copy.shape:  # else torch says so
                copy.copy_(value)
        super()._load_from_state_dict(state, prefix, *args)

    def _apply(self, function: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        exact, self._copies = self._copies, {}
        super()._apply(function, recurse)
        with torch.no_grad():
            for name, tensor in self._averaged(self.module):
                if name not in exact:
                    continue
                if tensor.dtype in LOW_PRECISION:
                    self._copies[name] = exact[name].to(tensor.device)
                else:  # it has room for the average now
                    tensor.copy_(exact[name])
        return self

    def __getstate__(self) -> dict[str, Any]:
        # Of a copy nobody knows what trains its model.
        return {**self.__dict__, "_optimizer": None, "_model": None}

    def _averaged(self, model: torch.nn.Module) -> list[tuple[str, Tensor]]:
        named = list(model.named_parameters())
        return named + (list(model.named_buffers()) if self.use_buffers else [])

    @torch.no_grad()
    def _exact_averages(self, renewed: bool = True) -> list[tuple[Tensor, Tensor]]:
        """Returns the tensors of the averaged model, each with its average: itself, or a copy.

        Copies are `renewed` by what was assigned to their tensors.
        """
        pairs = []
        for name, tensor in self._averaged(self.module):
            average = tensor
            if tensor.dtype in LOW_PRECISION:
                if name not in self._copies:
                    self._copies[name] = tensor.detach().float()
                average = self._copies[name]
                if renewed:
                    brought_up_to_date(average, tensor)
            pairs.append((tensor, average))
        return pairs


@torch.compiler.disable
def _finish(optimizer: Any, args: Any, kwargs: Any) -> None:
    average = None if optimizer.average is None else optimizer.average()
    if average is not None and not _left_out(optimizer):
        average.finish()


@torch.compiler.disable
def _count(optimizer: Any, args: Any, kwargs: Any) -> None:
    optimizer.taken += not _left_out(optimizer)


def _left_out(optimizer: Any) -> bool:
    """Says whether the step that has run was left out."""
    found_inf = getattr(optimizer, "found_inf", None)  # of a `GradScaler`, for a fused kernel
    return getattr(optimizer, "skipped", False) or (found_inf is not None and bool(found_inf))


class _Weights(torch.nn.Module):
    """The weights of a module of `fully_shard`, by their names, without what runs it."""

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            "The average of a model of `fully_shard` cannot run by itself: evaluate the model, "
            "within `with average.applied_to(model):`."
        )


def _weights_alone(module: torch.nn.Module, known: dict[int, Any]) -> torch.nn.Module:
    """Returns copies of the weights of a module, and of those within; `known` are those by `id`."""
    if id(module) in known:
        return known[id(module)]
    made = known[id(module)] = _Weights()
    for name, parameter in module._parameters.items():
        if parameter is not None and id(parameter) not in known:
            copied = parameter.detach().clone()
            known[id(parameter)] = torch.nn.Parameter(copied, parameter.requires_grad)
        made.register_parameter(name, None if parameter is None else known[id(parameter)])
    for name, buffer in module._buffers.items():
        own = None if buffer is None else buffer.detach().clone()
        made.register_buffer(name, own, name not in module._non_persistent_buffers_set)
    for name, part in module._modules.items():
        made.add_module(name, None if part is None else _weights_alone(part, known))
    return made


def _sharded_modules(model: torch.nn.Module) -> list[Any]:
    """Returns the modules that `fully_shard` was called on."""
    return [m for m in model.modules() if any(c.__name__ == "FSDPModule" for c in type(m).__mro__)]


def _reshard(model: torch.nn.Module) -> None:
    """Has a model hold its shards: after an evaluation it may hold what was gathered of them."""
    for module in _sharded_modules(model):
        module.reshard()


def _by_bare_name(names: Iterable[str], start: str) -> dict[str, str]:
    """Returns the names in a state that begin with `start`, by what they are in the model."""
    within = [name for name in names if name.startswith(start)]
    return dict(zip(bare_names([name[len(start) :] for name in within]), within, strict=True))
