"""The lists of parameters that are updated, and the numbers in them."""

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator

import numpy as np

Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Parameter:
    """One tensor of a list: what it is called, how large it is, and where it stands."""

    name: str
    shape: Shape
    index: int

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    def weights(self) -> np.ndarray:
        """Returns its initial weights, float32 with a standard deviation of 0.02."""
        return 0.02 * self._draw(1)

    def gradient(self, seed: int = 0) -> np.ndarray:
        """Returns a gradient, float32, of entries between 0.5 and 5 in size.

        None is near 0, where implementations of Adam that place epsilon differently differ.
        """
        values = self._draw(2 + seed)
        return values + 0.5 * np.sign(values)

    def _draw(self, seed: int) -> np.ndarray:
        # Drawing 100 million numbers takes seconds, and there are many processes: a block of them
        # is repeated from another place on in each tensor.
        start = (self.index * 7919 + seed * 104729) % _BLOCK.size
        return np.resize(np.roll(_BLOCK, -start), self.shape)


_SAMPLED = 64
# RandomState's stream is frozen: interpreters with another NumPy draw the same.
_BLOCK = np.random.RandomState(5).standard_normal(1 << 17).clip(-4.5, 4.5).astype("float32")


def bert_base(layers: int = 12, hidden: int = 768, vocabulary: int = 30522) -> Iterator[Shape]:
    """BERT (Devlin et al. 2019): 199 tensors, 109.5 million parameters; kernel, bias, norms."""
    yield from [(vocabulary, hidden), (512, hidden), (2, hidden), (hidden,), (hidden,)]
    yield from blocks(layers, hidden)
    yield from [(hidden, hidden), (hidden,)]


def resnet50(blocks: tuple[int, ...] = (3, 4, 6, 3)) -> Iterator[Shape]:
    """ResNet-50 v1.5 (He et al. 2016): 161 tensors, 25.6 million parameters, without biases."""
    yield from [(7, 7, 3, 64), (64,), (64,)]
    channels = 64
    for stage, count in enumerate(blocks):
        width = 64 << stage
        for block in range(count):
            for kernel in ((1, 1, channels, width), (3, 3, width, width), (1, 1, width, 4 * width)):
                yield from [kernel, kernel[-1:], kernel[-1:]]
            if block == 0:
                yield from [(1, 1, channels, 4 * width), (4 * width,), (4 * width,)]
            channels = 4 * width
    yield from [(channels, 1000), (1000,)]


def tiny(count: int = 10_000) -> Iterator[Shape]:
    """Vectors of 768 numbers, as BERT's biases are: 10,000 hold 7.68 million parameters."""
    return iter([(768,)] * count)


def tiny_in_199(count: int = 10_000) -> Iterator[Shape]:
    """As many parameters as `tiny`, in 199 tensors: 197 matrices and two vectors."""
    total = count * 768 // 192 - 2
    rows = total // 197
    return iter([(rows, 192)] * 196 + [(total - 196 * rows, 192), (192,), (192,)])


def huge(rows: int = 32768) -> Iterator[Shape]:
    """Four matrices with as many parameters as BERT-base has, 109 million, and three vectors."""
    return iter([(rows, 1024)] * 3 + [(rows // 2, 512)] + [(1024,)] * 3)


def blocks(layers: int = 2, hidden: int = 256) -> Iterator[Shape]:
    """Blocks of a Transformer without embeddings: 32 tensors, 1.6 million parameters.

    For updates that multiply or decompose matrices: each of BERT-base takes them seconds.
    """
    inner = 4 * hidden
    for _ in range(layers):
        yield from [(hidden, hidden), (hidden,)] * 4
        yield from [(hidden,), (hidden,)]
        yield from [(hidden, inner), (inner,), (inner, hidden), (hidden,)]
        yield from [(hidden,), (hidden,)]


def check() -> Iterator[Shape]:
    """A few small tensors, of shapes that no other list has, on which results are compared."""
    return iter([(211, 203), (203,), (203,), (203,), (17, 23)])


LISTS: dict[str, Callable[[], Iterator[Shape]]] = {
    "check": check,
    "bert_base": bert_base,
    "resnet50": resnet50,
    "tiny": tiny,
    "tiny_in_199": tiny_in_199,
    "huge": huge,
    "blocks": blocks,
}
QUICK: dict[str, Callable[[], Iterator[Shape]]] = {
    "check": check,
    "bert_base": lambda: bert_base(layers=4, hidden=256, vocabulary=8000),
    "resnet50": lambda: resnet50(blocks=(1, 1, 1, 1)),
    "tiny": lambda: tiny(500),
    "tiny_in_199": lambda: tiny_in_199(500),
    "huge": lambda: huge(4096),
    "blocks": lambda: blocks(1, 64),
}
"""The same in small, for finding mistakes, not figures."""


def parameters(name: str, quick: bool = False) -> list[Parameter]:
    """Returns the list of that name.

    Names say what weight decay may exclude: vectors are biases or belong to norms.
    """
    shapes = (QUICK if quick else LISTS)[name]()
    kinds = itertools.cycle(("bias", "layer_norm_gamma", "layer_norm_beta"))
    return [
        Parameter(f"layer_{i:05d}_{'kernel' if len(shape) > 1 else next(kinds)}", shape, i)
        for i, shape in enumerate(shapes)
    ]


def sampled(values: np.ndarray) -> np.ndarray:
    """Returns some of the values, a few dozen from all over."""
    return np.ravel(values)[:: max(1, np.size(values) // _SAMPLED)]
