"""The memory's own speed: `a += b`, the simplest update there is."""

import concurrent.futures
import os
import time

import numpy as np

BYTES = 12
"""What `a += b` moves for each float32 number: two reads and a write."""

_REPEATS = 3


class Floor:
    """Times NumPy's `a += b` over `size` float32 numbers, on one thread for each core.

    Args:
        size: How many numbers.
        threads: How many threads share them; None for one for each core that this process may use.
    """

    def __init__(self, size: int, threads: int | None = None) -> None:
        self.threads = threads or len(os.sched_getaffinity(0))
        self._pool = concurrent.futures.ThreadPoolExecutor(self.threads)
        # Written to, so that they lie in memory of their own. Zeros would not.
        a, b = np.ones(size, np.float32), np.full(size, 1e-6, np.float32)
        self._parts = list(
            zip(np.array_split(a, self.threads), np.array_split(b, self.threads), strict=True)
        )
        self.measure()

    def measure(self) -> float:
        """Returns the seconds of the best of a few."""
        return min(self._once() for _ in range(_REPEATS))

    def _once(self) -> float:
        start = time.perf_counter()
        # NumPy lets go of the interpreter's lock while it adds.
        list(self._pool.map(lambda part: np.add(*part, out=part[0]), self._parts))
        return time.perf_counter() - start

    def close(self) -> None:
        """Frees the memory and the threads."""
        self._pool.shutdown()
        self._parts = []
