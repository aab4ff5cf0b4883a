"""`GreedyLR` of transformers, for PyTorch."""

from optimization.torch.greedy import GreedyLR

__all__ = ["GreedyLR"]
