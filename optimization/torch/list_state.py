"""The state of some variables, as formulas have it."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from optimization.rules.arrays import no_slot
from optimization.torch.lists import Scalars, Slots, Tensors, as_plain


class ListState:
    """What a formula calls `s`: the state of some variables, by the names of the slots."""

    def __init__(self, slots: Mapping[str, list[Tensor]]):
        self.__dict__["_slots"] = {name: Slots(tensors) for name, tensors in slots.items()}

    def __contains__(self, name: str) -> bool:
        return name in self.__dict__["_slots"]

    def __getattr__(self, name: str) -> Slots:
        slots = self.__dict__["_slots"]
        if name not in slots:
            raise no_slot(name, slots)
        return slots[name]

    def __setattr__(self, name: str, value: Any) -> None:
        slot, value = self._moving(name, value)
        torch._foreach_copy_(slot.raw(), value.tensors())

    def _moving(self, name: str, value: Any) -> tuple[Slots, Tensors]:
        """Returns a slot to be moved by a value, and the value for each of its tensors."""
        slot = getattr(self, name)
        if value is slot:
            value = slot.keep()
        moving = self.__dict__["_slots"][name] = slot.moving()
        if not isinstance(value, Tensors):
            numbers = value.values if isinstance(value, Scalars) else [value] * len(moving.raw())
            pairs = zip(moving.raw(), numbers, strict=True)
            value = Tensors([torch.as_tensor(x).to(tensor) for tensor, x in pairs])
        return moving, value

    def lerp(self, name: str, value: Any, share: Any) -> Slots:
        """Moves a slot a share of the way to a value; returns what it is then."""
        slot, value = self._moving(name, value)
        if isinstance(share, int | float):
            torch._foreach_lerp_(slot.raw(), value.tensors(), share)
        else:
            difference = value - slot
            torch._foreach_add_(slot.raw(), (difference * share).tensors())
        return slot

    def lerp_square(self, name: str, value: Any, share: Any) -> Slots:
        """Moves a slot a share of the way to the square of a value."""
        if not isinstance(share, int | float):
            return self.lerp(name, value * value, share)
        slot, value = self._moving(name, value)
        tensors = value.tensors()
        torch._foreach_mul_(slot.raw(), 1 - share)
        torch._foreach_addcmul_(slot.raw(), tensors, tensors, share)
        return slot

    def add_square(self, name: str, value: Any) -> Slots:
        """Adds the square of a value to a slot."""
        slot, value = self._moving(name, value)
        tensors = value.tensors()
        torch._foreach_addcmul_(slot.raw(), tensors, tensors, 1)
        return slot

    def scale_add(self, name: str, factor: Any, value: Any) -> Slots:
        """Multiplies a slot, and adds a value."""
        slot, value = self._moving(name, value)
        if not (isinstance(factor, int | float) and factor == 1):
            torch._foreach_mul_(slot.raw(), as_plain(factor))
        value.add_to(slot.raw())
        return slot
