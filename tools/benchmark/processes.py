"""The parent's end of a contestant's process."""

import json
import os
import pathlib
import selectors
import subprocess
import sys
import tempfile
import types
from typing import Any

from tools.benchmark.contestants import CONTESTANTS

ROOT = pathlib.Path(__file__).resolve().parents[2]
_ENVIRONMENT = {
    "TF_CPP_MIN_LOG_LEVEL": "3",
    "KERAS_BACKEND": "tensorflow",
    "CUDA_VISIBLE_DEVICES": "",
}
_LAST_LINES = 15


class WorkerError(Exception):
    """A contestant's process failed at a request, or took too long."""


class Process:
    """A contestant's process, which answers one request at a time.

    Args:
        name: The contestant's name.
        python: The interpreter.
        timeout: Seconds that a request may take; longer ones end the process.

    Attributes:
        versions: What the contestant consists of; known when it was started.
    """

    def __init__(self, name: str, python: str = sys.executable, timeout: float = 600) -> None:
        self.name = name
        self.versions: dict[str, str] = {}
        self._python = python
        self._timeout = timeout
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115  (closed by `close`)
        self._process: subprocess.Popen | None = None

    def start(self) -> None:
        """Starts the process, unless it is running.

        Raises:
            WorkerError: If the contestant can't be loaded there.
        """
        if self.alive:
            return
        self.stop()
        self._log.truncate(0)
        try:
            self._process = subprocess.Popen(
                [self._python, "-m", "tools.benchmark.worker", self.name],
                cwd=ROOT,
                env={**os.environ, **_ENVIRONMENT, **CONTESTANTS[self.name].environment},
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._log,
                text=True,
            )
        except OSError as error:
            raise WorkerError(f"{self._python}: {error.strerror}") from None
        self.versions = self._answer("load")

    @property
    def alive(self) -> bool:
        """Whether the process is running."""
        return self._process is not None and self._process.poll() is None

    def ask(self, request: str, **arguments: Any) -> Any:
        """Returns the result of a request, which is a method of `Worker`.

        Raises:
            WorkerError: If it fails there, or takes too long.
        """
        if self._process is None:
            raise WorkerError(f"there is no process for `{request}`")
        try:
            print(json.dumps({"do": request, **arguments}), file=self._process.stdin, flush=True)
        except BrokenPipeError:
            raise self._died(request) from None
        return self._answer(request)

    def _answer(self, request: str) -> Any:
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            if not selector.select(self._timeout):
                self.stop()
                raise WorkerError(f"`{request}` took more than {self._timeout:g} s")
        line = self._process.stdout.readline()
        if not line:
            raise self._died(request)
        answer = json.loads(line)
        if "error" in answer:
            raise WorkerError(answer["error"])
        return answer["result"]

    def _died(self, request: str) -> WorkerError:
        code = self._process.wait()
        return WorkerError(f"the process ended ({code}) at `{request}`:\n{self.log()}")

    def log(self) -> str:
        """Returns the last lines that the process wrote to its standard error."""
        self._log.seek(0)
        return "".join(self._log.readlines()[-_LAST_LINES:])

    def close(self) -> None:
        """Ends the process for good."""
        self.stop()
        self._log.close()

    def stop(self) -> None:
        """Ends the process; it can be started again."""
        if self._process is not None:
            self._process.kill()
            self._process.communicate()
            self._process = None

    def __enter__(self) -> "Process":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: types.TracebackType | None,
    ) -> None:
        self.close()
