"""Learning rates that grow with the depth of a layer, for fine-tuning."""

import re
from collections.abc import Sequence
from typing import Any

from optimization.configs.printing import by_arguments
from optimization.matching.patterns import as_pattern_list, find, nearest


class LayerDecay:
    """Multipliers of the learning rate by depth (Clark et al. 2020, ELECTRA, arXiv:2003.10555).

    A variable of layer l of L = (largest depth) + 2 has the multiplier

        max(rate^(L - l), min_multiplier)

    where l is depth + 1 for a variable in whose path `depth` is found, 0 for one that comes before
    the first of these in the order of the variables (embeddings), and L for all others (the head).

    That is timm's `param_groups_layer_decay`. For vision transformers timm counts the norm after
    the last block as part of it; name it in `with_last_block` to have the same. (BEiT and MAE
    leave it with the head.) Depths are not numbered anew: blocks that are not trained count.

    Args:
        rate: Factor from one layer to the one before, in (0, 1].
        depth: Regular expression with one group, the number of a block.
        min_multiplier: Least multiplier, in [0, 1].
        with_last_block: Regular expression for variables that count as of the last block.

    Raises:
        ValueError: For a value out of its range, or an expression without exactly one group.
    """

    def __init__(
        self,
        rate: float,
        depth: str,
        min_multiplier: float = 0.0,
        with_last_block: str | None = None,
    ):
        if not 0 < rate <= 1:
            raise ValueError(f"Argument `rate` must be in (0, 1], received: rate={rate}")
        if not 0 <= min_multiplier <= 1:
            raise ValueError(
                f"Argument `min_multiplier` must be in [0, 1], received: {min_multiplier=}"
            )
        as_pattern_list([depth], "depth")
        if re.compile(depth).groups != 1:
            raise ValueError(
                "Argument `depth` must have exactly one group, the number of a block, "
                f"received: depth={depth!r}"
            )
        as_pattern_list(with_last_block, "with_last_block")
        self.rate = rate
        self.depth = depth
        self.min_multiplier = min_multiplier
        self.with_last_block = with_last_block

    __repr__ = by_arguments

    def get_config(self) -> dict[str, Any]:
        """Returns the constructor's arguments."""
        return {
            "rate": self.rate,
            "depth": self.depth,
            "min_multiplier": self.min_multiplier,
            "with_last_block": self.with_last_block,
        }

    def layers(self, paths: Sequence[str]) -> list[int]:
        """Returns the layer l of each variable.

        Raises:
            ValueError: If an expression is found in no path, or `depth` finds what is no number.
        """
        depths = [self._depth_of(path) for path in paths]
        known = [depth for depth in depths if depth is not None]
        if not known:
            raise ValueError(
                f"Argument `depth` of layer_decay matches no trainable variable: {self.depth!r} "
                f"(nearest: {nearest(self.depth, paths)})"
            )
        first = next(index for index, depth in enumerate(depths) if depth is not None)
        last_block = max(known) + 1
        late = [self.with_last_block and find(self.with_last_block, path) for path in paths]
        if self.with_last_block and not any(late):
            raise ValueError(
                "Argument `with_last_block` of layer_decay matches no trainable variable: "
                f"{self.with_last_block!r} (nearest: {nearest(self.with_last_block, paths)})"
            )

        def layer(index: int) -> int:
            depth = depths[index]
            if depth is not None:
                return depth + 1
            if late[index]:
                return last_block
            return 0 if index < first else last_block + 1

        return [layer(index) for index in range(len(paths))]

    def multipliers(self, paths: Sequence[str]) -> list[tuple[int, float]]:
        """Returns the layer and the multiplier of each variable.

        Raises:
            ValueError: As `layers` does.
        """
        layers = self.layers(paths)
        top = max(layer for layer, path in zip(layers, paths, strict=True) if self._in_block(path))
        return [
            (layer, max(self.rate ** (top + 1 - layer), self.min_multiplier)) for layer in layers
        ]

    def _in_block(self, path: str) -> bool:
        return find(self.depth, path) is not None

    def _depth_of(self, path: str) -> int | None:
        found = find(self.depth, path)
        if found is None:
            return None
        try:
            return int(found[1])
        except (TypeError, ValueError):
            raise ValueError(
                f"Argument `depth` of layer_decay must find a number, received: depth="
                f"{self.depth!r}, which finds {found[1]!r} in {path!r}"
            ) from None
