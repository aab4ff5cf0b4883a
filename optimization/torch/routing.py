"""Which parameters of a model Muon orthogonalizes, by their modules where these are known."""

from collections.abc import Sequence

import torch
from torch import Tensor

from optimization.matching.matrices import flattened, heads, is_embedding, may_be_matrix
from optimization.matching.patterns import matches_any
from optimization.torch.by_name import bare_names


def hidden_matrices(
    parameters: list[tuple[str, Tensor]],
    model: torch.nn.Module | None,
    spare_embeddings: bool = True,
    include: Sequence[str] | None = None,
) -> set[str]:
    """Returns the names of the parameters that Muon orthogonalizes.

    Embeddings are those of modules that are one, what is tied to them, and what is called so. The
    head is found by usual names, else it is the last linear layer, which is known by its module
    only. `heads` and `may_be_matrix` say more. Patterns of `include` find embeddings and heads that
    it orthogonalizes too.
    """
    embeddings, kernels, others, layers = _modules(model)
    known = parameters
    if model is not None:  # The head may be what is not trained, or have two names.
        named = list(model.named_parameters(remove_duplicate=False))
        bare = bare_names([name for name, _ in named], model)
        known = [(name, parameter) for name, (_, parameter) in zip(bare, named, strict=True)]
    shaped = {
        name: p
        for name, p in known
        if id(p) not in others and (id(p) in kernels or may_be_matrix(name, p.shape))
    }
    embedded = {n for n, p in known if id(p) in embeddings or is_embedding(n)}
    by_id = {id(parameter): name for name, parameter in reversed(known)}
    linear = [by_id[each] for each in layers if each in by_id]
    # A head of one output is a vector, and the head nevertheless.
    outputs = heads(list(shaped), [name for name in linear if name in shaped])
    names = outputs | embedded if spare_embeddings else outputs
    spared = {id(parameter) for name, parameter in known if name in names}  # by all their names
    spared -= {id(parameter) for name, parameter in known if matches_any(name, include)}
    flat = {n for n, p in shaped.items() if min(flattened(p.shape, outputs_first=True)) == 1}
    return {n for n, p in parameters if n in shaped and n not in flat and id(p) not in spared}


def _modules(
    model: torch.nn.Module | None,
) -> tuple[set[int], set[int], set[int], list[int]]:
    """Returns the `id` of what is an embedding, a kernel, neither, or of a linear layer."""
    embeddings, kernels, others = set[int](), set[int](), set[int]()
    linear: list[int] = []
    for module in () if model is None else model.modules():
        kind = type(module).__name__
        named = list(module.named_parameters(recurse=False))
        own = {id(parameter) for _, parameter in named}
        weights = {id(parameter) for name, parameter in named if name == "weight"}
        if isinstance(module, torch.nn.Embedding | torch.nn.EmbeddingBag) or "Embed" in kind:
            embeddings |= own
        elif isinstance(module, torch.nn.modules.conv._ConvNd):
            # Each filter of a depthwise convolution is a matrix, of one row, by itself.
            depthwise = module.groups == module.in_channels > 1
            (others if depthwise else kernels).update(weights)
        elif isinstance(module, torch.nn.Linear) or "Linear" in kind:
            linear += weights
        elif "Norm" in kind:
            others |= own
        else:
            others |= {id(p) for _, p in named if p.dim() > 2}
    return embeddings, kernels, others, linear
