"""Which parameters Muon orthogonalizes, by name and shape: hidden matrices, and nothing else.

As its authors use it (Jordan et al. 2024): not embeddings, not the output head, not vectors.
Kernels of convolutions are flattened to matrices.
"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence

from optimization.matching.patterns import matches_any

_EMBEDDING = re.compile(
    r"embed|(^|_)emb(s|_|$)|^w[tp]e$|token_type|^shared$|relative_attention_bias"
)
_HEAD = re.compile(
    r"(.+_)?(heads?|classifiers?|logits|predictions?|score)|fc|fc_out|embed_out|unembed(ding)?"
    r"|output|output_(proj|projection|layer|dense)|qa_outputs|(proj|conv)_out|final_layer"
    r"|(text|visual|image|vision|audio)_projection"
)
_SEVERAL = ("heads", "classifiers")  # one for each task
_DEPTHWISE = re.compile(r"depthwise|dw_?conv|conv_?dw$")
# What no layer has a matrix in, whatever its shape.
_NO_MATRIX = re.compile(rf"bias|^(gamma|beta|scale)$|norm|{_DEPTHWISE.pattern}|^a_log$")
_BLOCK = re.compile(r"(^|layers?|blocks?|stage|unit)_?\d+$")
_NUMBER = re.compile(r"\d+$")


def parts_of(name: str) -> list[str]:
    """Returns the parts of a name of PyTorch's or a path of Keras', in lower case."""
    return re.split(r"[./]", name.lower())


def is_embedding(name: str) -> bool:
    """Says whether a name is that of an embedding, by its own last part or that of its layer."""
    return any(_EMBEDDING.search(part) for part in parts_of(name)[-2:])


def may_be_matrix(name: str, shape: Sequence[int]) -> bool:
    """Says whether a parameter may be a matrix, or a kernel that can be flattened to one.

    Two axes are a matrix, four and five a kernel, if they are called so. Three are a kernel where
    the layer is called a convolution. Norms and biases of two axes are none.
    """
    leaf, layer = parts_of(name)[-1], "".join(parts_of(name)[-2:-1])
    if _NO_MATRIX.search(leaf) or _NO_MATRIX.search(layer):
        return False
    if len(shape) == 2:
        return True
    called_kernel = "kernel" in leaf or "weight" in leaf
    return called_kernel and (len(shape) in (4, 5) or (len(shape) == 3 and "conv" in layer))


def flattened(shape: Sequence[int], outputs_first: bool) -> tuple[int, int]:
    """Returns rows and columns of a matrix, or of a kernel with its outputs first or last."""
    if outputs_first:
        return shape[0], math.prod(shape[1:])
    return math.prod(shape[:-1]), shape[-1]


def outputs_first(name: str) -> bool:
    """Says whether a kernel has its outputs first: one that is called `weight`, as PyTorch's."""
    return parts_of(name)[-1] == "weight"


def input_axes(name: str, shape: Sequence[int]) -> tuple[int, ...]:
    """Returns the axes of a weight along which the inputs of an output lie; none for one input.

    Outputs are along the last axis, or the first; those of a depthwise kernel along the last two,
    and each row of an embedding counts as one.
    """
    leaf, layer = parts_of(name)[-1], "".join(parts_of(name)[-2:-1])
    axes = tuple(range(len(shape)))
    if outputs_first(name) or _EMBEDDING.search(leaf):
        found = axes[1:]
    elif len(shape) > 2 and (_DEPTHWISE.search(leaf) or _DEPTHWISE.search(layer)):
        found = axes[:-2]
    else:
        found = axes[:-1]
    return found if math.prod(shape[axis] for axis in found) > 1 else ()


def hidden_matrices(
    shapes: Mapping[str, Sequence[int]],
    spare_embeddings: bool = True,
    include: Sequence[str] | None = None,
) -> set[str]:
    """Returns the paths that Muon orthogonalizes, of those of all variables with their shapes.

    Patterns of `include` find embeddings and output layers that it orthogonalizes too.
    """
    shaped = [path for path, shape in shapes.items() if may_be_matrix(path, shape)]
    linear = [p for p in shaped if len(shapes[p]) == 2 and parts_of(p)[-1] == "kernel"]
    # A head of one output is a vector, and the head nevertheless.
    outputs = heads(shaped, linear)
    return {
        path
        for path in shaped
        if min(flattened(shapes[path], outputs_first(path))) > 1
        and (
            matches_any(path, include)
            or (path not in outputs and not (spare_embeddings and is_embedding(path)))
        )
    }


def heads(names: Sequence[str], linear: Sequence[str]) -> set[str]:
    """Returns the weights of output layers, of `names` in the order of the model.

    These are the last ones in parts of the model that have a usual name for a head, outside of
    blocks; without any, the last of the `linear` layers, unless several equal blocks have it.
    """
    found: dict[tuple[str, ...], str] = {}
    for name in names:
        part = _head_part(parts_of(name))
        if part is not None:
            found[part] = name  # the last one stays
    if found or not linear or _is_repeated(linear[-1], linear):
        return set(found.values())
    return {linear[-1]}


def _head_part(parts: list[str]) -> tuple[str, ...] | None:
    """Returns the part of a model, as the start of a name, that is a head; None for none."""
    for index, part in enumerate(parts[:-1]):
        if _BLOCK.search(part):
            return None
        if _HEAD.fullmatch(part):
            several = part.endswith(_SEVERAL) and len(parts) > index + 2
            return tuple(parts[: index + 1 + several])
    return None


def _is_repeated(name: str, names: Iterable[str]) -> bool:
    """Says whether a name differs from another by the number of a block alone."""
    parts, others = parts_of(name), [parts_of(other) for other in names if other != name]
    for index, part in enumerate(parts[:-2]):
        kind = _NUMBER.sub("", part)
        if kind != part and any(
            other[:index] == parts[:index]
            and other[index + 1 :] == parts[index + 1 :]
            and _NUMBER.sub("", other[index]) == kind
            for other in others
        ):
            return True
    return False
