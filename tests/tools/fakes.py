"""A contestant that is NumPy alone, and processes that are none."""

import numpy as np

from tools.benchmark.contestants import UnsupportedError
from tools.benchmark.processes import WorkerError
from tools.benchmark.worker import Worker, answer


class Descent:
    """w -= rate * g, for any variant but LAMB."""

    def __init__(self, rate=0.1):
        self._rate = rate

    def versions(self):
        return {"numpy": np.__version__}

    def build(self, tensors, variant):
        if variant.algorithm == "lamb":
            raise UnsupportedError("no LAMB here")
        return DescentUpdate(tensors, self._rate)


class DescentUpdate:
    def __init__(self, tensors, rate):
        self._weights = [tensor.weights() for tensor in tensors]
        self._gradients = [tensor.gradient() for tensor in tensors]
        self._rate = rate

    def run(self, calls):
        for _ in range(calls):
            for weight, gradient in zip(self._weights, self._gradients, strict=True):
                weight -= self._rate * gradient

    def set_gradients(self, gradients):
        self._gradients = gradients

    def weights(self):
        return self._weights

    def averages(self):
        return None

    def state_bytes(self):
        return 0

    def close(self):
        self._weights = []


class FakeProcess:
    """A contestant that answers in this process; `fails` is a request that it fails at."""

    def __init__(self, name, contestant, fails=None):
        self.name = name
        self.alive = True
        self.asked = []
        self._worker = Worker(contestant)
        self._fails = fails

    def start(self):
        self.alive = True

    def stop(self):
        self.alive = False

    def ask(self, request, **arguments):
        self.asked.append(request)
        if request == self._fails:
            raise WorkerError(f"{request} failed")
        found = answer(self._worker, {"do": request, **arguments})
        if "error" in found:
            raise WorkerError(found["error"])
        return found["result"]
