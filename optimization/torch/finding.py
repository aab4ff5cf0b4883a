"""The learning rate range test in a loop of PyTorch."""

import copy
from collections.abc import Callable, Iterable
from typing import Any

import torch

from optimization.range_test import RangeTest, repeated
from optimization.range_test import find_learning_rate as _find


def find_learning_rate(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    loss_fn: Callable[[torch.nn.Module, Any], torch.Tensor],
    batches: Iterable[Any],
    **arguments: Any,
) -> RangeTest:
    """Trains with a rate that grows; the model and the optimizer are as before in the end.

    The rate is that of the first group; that of any other stays in proportion to it. Put back are
    weights and buffers, the state and the rates of the optimizer, gradients, the mode, and the
    random numbers of the processor.

    >>> model = torch.nn.Linear(2, 1)
    >>> optimizer = torch.optim.SGD(model.parameters(), 0.1)
    >>> loss_fn = lambda model, batch: (model(batch[0]) - batch[1]).square().mean()
    >>> batches = [(torch.randn(32, 2), torch.randn(32, 1))]
    >>> find_learning_rate(model, optimizer, loss_fn, batches, highest=100.0).diverged
    True
    >>> optimizer.param_groups[0]["lr"]
    0.1

    Args:
        model: The model; it is tested in training mode.
        optimizer: Its optimizer.
        loss_fn: Returns the loss, a scalar, of the model on a batch.
        batches: The batches, as of a `DataLoader`; they begin again where they end.
        **arguments: Those of `optimization.find_learning_rate`.

    Raises:
        ValueError: If there are no batches.
    """
    groups, endless = optimizer.param_groups, repeated(batches)
    rates = [float(group.get("initial_lr", group["lr"])) for group in groups]
    shares = [rate / rates[0] if rates[0] else 1.0 for rate in rates]
    weights, state = copy.deepcopy(model.state_dict()), copy.deepcopy(optimizer.state_dict())
    training, random = model.training, torch.get_rng_state()
    lrs = [(group["lr"], float(group["lr"])) for group in groups]
    model.train()

    def step(rate: float) -> float:
        for group, share in zip(groups, shares, strict=True):
            if isinstance(group["lr"], torch.Tensor):
                group["lr"].fill_(rate * share)
            else:
                group["lr"] = rate * share
        optimizer.zero_grad()
        loss = loss_fn(model, next(endless))
        loss.backward()
        optimizer.step()
        return float(loss.detach())

    try:
        return _find(step, **arguments)
    finally:
        model.load_state_dict(weights)
        optimizer.load_state_dict(state)
        for group, (lr, value) in zip(optimizer.param_groups, lrs, strict=True):
            group["lr"] = lr.fill_(value) if isinstance(lr, torch.Tensor) else lr
        optimizer.zero_grad()
        model.train(training)
        torch.set_rng_state(random)
