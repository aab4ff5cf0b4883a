"""The process of one contestant: takes requests, a line of JSON each, and answers them.

It runs in any interpreter with NumPy and the contestant's framework, and imports nothing of this
project unless the contestant does.
"""

import gc
import json
import os
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from tools.benchmark import memory
from tools.benchmark.contestants import Contestant, Update, load
from tools.benchmark.lists import parameters, sampled
from tools.benchmark.variants import VARIANTS


class Worker:
    """Answers the requests that are its public methods."""

    def __init__(self, contestant: Contestant) -> None:
        self._contestant = contestant
        self._update: Update | None = None
        self._accumulation = 1
        self._names: list[str] = []
        self._baseline = 0
        self._settled = 0
        self._loaded = 0

    def versions(self) -> dict[str, str]:
        """Returns the versions of what the contestant consists of."""
        return self._contestant.versions()

    def check(self, variant: str, steps: int, path: str) -> None:
        """Updates a few small tensors `steps` times, gradients differing; writes the weights."""
        tensors = parameters("check")
        chosen = VARIANTS[variant]
        update = self._contestant.build(tensors, chosen)
        self._loaded = self._loaded or memory.resident()
        for step in range(steps * chosen.accumulation):
            update.set_gradients([tensor.gradient(step) for tensor in tensors])
            update.run(1)
        values = {f"weight/{t.name}": w for t, w in zip(tensors, update.weights(), strict=True)}
        averages = update.averages()
        if averages is not None:
            named = zip(tensors, averages, strict=True)
            values |= {f"average/{tensor.name}": average for tensor, average in named}
        np.savez(path, **values)

    def prepare(self, parameter_list: str, variant: str, quick: bool) -> dict[str, Any]:
        """Builds the update of a list and takes the first step; returns what that cost.

        Bytes are those over what the weights and the gradients take.
        """
        self.finish()
        before = memory.resident()
        tensors = parameters(parameter_list, quick)
        chosen = VARIANTS[variant]
        self._accumulation = chosen.accumulation
        self._names = [t.name for t in tensors if len(t.shape) <= 2]
        resets = memory.reset_peak()
        start = time.perf_counter()
        self._update = self._contestant.build(tensors, chosen)
        built = time.perf_counter()
        self._update.run(self._accumulation)
        first = time.perf_counter() - built
        # What TensorFlow takes for any such loop over these gradients.
        loop = getattr(self._update, "seconds_without", None)
        copies = getattr(self._update, "copies", 1)  # Under a strategy each device has its own.
        self._baseline = before + 8 * copies * sum(t.size for t in tensors)
        peak = memory.peak()
        return {
            "build_seconds": built - start,
            "first_step_seconds": first,
            "first_step_seconds_of_the_loop": None if loop is None else loop(),
            "state_bytes": self._update.state_bytes(),
            "first_step_peak_bytes": peak - self._baseline if resets else None,
        }

    def time(self, updates: int) -> float:
        """Takes `updates` updates; returns the seconds of one."""
        start = time.perf_counter()
        self._update.run(updates * self._accumulation)
        return (time.perf_counter() - start) / updates

    def reset_peak(self) -> bool:
        """Starts the peak of the resident memory anew."""
        resets = memory.reset_peak()
        self._settled = memory.resident()
        return resets

    def memory(self) -> dict[str, int]:
        """Returns the most bytes that were resident since the peak was reset.

        `peak_bytes` are those over what weights and gradients take; `temporary_bytes` those over
        what was resident when the peak was reset: what comes and goes with each update.
        """
        peak = memory.peak()
        return {
            "peak_bytes": peak - self._baseline,
            "temporary_bytes": max(0, peak - self._settled),
        }

    def sample(self, path: str) -> None:
        """Writes some of the weights of the prepared list.

        Kernels of more than two axes are left out: which two an Adafactor factors differs.
        """
        tensors = [w for w in self._update.weights() if np.ndim(w) <= 2]
        samples = {
            f"weight/{name}": sampled(w) for name, w in zip(self._names, tensors, strict=True)
        }
        np.savez(path, **samples)

    def finish(self) -> int:
        """Lets go of what was prepared; returns the bytes that stay, over those before the first.

        What was freed may stay with an allocator, and would hide what is needed next.
        """
        if self._update is not None:
            self._update.close()
        self._update = None
        gc.collect()
        return memory.resident() - self._loaded


def answer(worker: Worker, request: dict[str, Any]) -> dict[str, Any]:
    """Returns the result of a request, or the error, whose kind says what it means."""
    method: Callable[..., Any] = getattr(worker, request.pop("do"))
    try:
        return {"result": method(**request)}
    except Exception as error:
        traceback.print_exc()
        return {"error": str(error), "kind": type(error).__name__}


def main() -> None:
    """Answers requests from standard input until it ends."""
    # Whatever a framework prints must not come between the answers.
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    try:
        worker = Worker(load(sys.argv[1]))
        hello = {"result": worker.versions()}
    except Exception as error:
        traceback.print_exc()
        hello = {"error": f"{type(error).__name__}: {error}", "kind": type(error).__name__}
    print(json.dumps(hello), file=replies, flush=True)
    if "error" in hello:
        return
    for line in sys.stdin:
        print(json.dumps(answer(worker, json.loads(line))), file=replies, flush=True)


if __name__ == "__main__":
    main()
