"""The oneofs whose branches are in a registry.

Type checkers read `branches.pyi` instead, in which every type of this package is a field;
`python -m tools.branches` writes it.
"""

from optimization.configs.oneof import OneOfConfig

OptimizerBranches = LearningRateBranches = WarmupBranches = OneOfConfig
