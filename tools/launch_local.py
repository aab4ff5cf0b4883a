"""Runs a training binary as several workers on this machine.

    python -m tools.launch_local --workers 2 -- --experiment=digits --model_dir=/tmp/digits

Each worker is a process that gets the arguments after `--`, the setting
`runtime.distribution_strategy=multi_worker_mirrored`, and a TF_CONFIG of its own with free ports of
127.0.0.1. Its lines are shown as they come, with its name before them. When a worker fails, the
others have some seconds to say so and are ended then; the exit status is that of the worker that
failed first, 128 and the number of the signal if one killed it. Signals go on to all workers.
"""

import argparse
import json
import os
import queue
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from optimization.training.signals import SIGNALS

ROOT = Path(__file__).parent.parent
_STRATEGY = "--params_override=runtime.distribution_strategy=multi_worker_mirrored"
# How long the others may take to end by themselves, which tells more than to be ended.
_GRACE = 30.0


def clusters(workers: int) -> list[str]:
    """Returns the TF_CONFIG of each worker, with ports that were free a moment ago."""
    sockets = [socket.socket() for _ in range(workers)]
    for each in sockets:
        each.bind(("127.0.0.1", 0))
    cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in sockets]}
    for each in sockets:
        each.close()
    tasks = [{"type": "worker", "index": index} for index in range(workers)]
    return [json.dumps({"cluster": cluster, "task": task}) for task in tasks]


def command(binary: str, arguments: Sequence[str]) -> list[str]:
    """Returns the command of a worker; `binary` is a file, or the name of a module."""
    program = [binary] if binary.endswith(".py") else ["-m", binary]
    return [sys.executable, "-u", *program, *arguments, _STRATEGY]


def launch(binary: str, workers: int, arguments: Sequence[str]) -> int:
    """Runs the workers to the end; returns the exit status."""
    processes = [
        subprocess.Popen(
            command(binary, arguments),
            env=os.environ | {"TF_CONFIG": config},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        for config in clusters(workers)
    ]
    ended: queue.SimpleQueue[int] = queue.SimpleQueue()
    showing = threading.Lock()

    def show(index: int) -> None:
        output = processes[index].stdout
        assert output is not None
        for line in output:
            with showing:
                print(f"worker {index}: {line.rstrip()}", flush=True)
        processes[index].wait()
        ended.put(index)

    for index in range(workers):
        threading.Thread(target=show, args=(index,), daemon=True).start()

    def pass_on(number: int, frame: object) -> None:
        for process in processes:
            process.send_signal(number)

    # The workers save what they have done, end, and have the exit status.
    before = {number: signal.signal(number, pass_on) for number in SIGNALS}
    try:
        return _first_failure(processes, ended)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for process in processes:
            process.kill()
            process.wait()


def _first_failure(processes: list[subprocess.Popen], ended: queue.SimpleQueue) -> int:
    """Waits for all; returns the status of the first that failed, or 0."""
    status = 0
    for _ in processes:
        try:
            index = ended.get(timeout=_GRACE if status else None)
        except queue.Empty:
            break
        code = processes[index].returncode
        if code and not status:
            how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"failed ({code})"
            print(f"worker {index} {how}; the others end", file=sys.stderr, flush=True)
            status = 128 - code if code < 0 else code
    return status


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m tools.launch_local",
        description="Runs a training binary as several workers on this machine.",
        usage="%(prog)s [--workers N] [--binary BINARY] -- ARGUMENTS OF THE BINARY",
    )
    parser.add_argument("--workers", type=int, default=2, help="how many (default: 2)")
    parser.add_argument(
        "--binary",
        default=str(ROOT / "experiments/train.py"),
        help="a Python file, or the name of a module (default: experiments/train.py)",
    )
    parser.add_argument("arguments", nargs="*", help="what each worker gets, after --")
    options = parser.parse_args(argv)
    if options.workers < 1:
        parser.error(f"--workers must be at least 1, got {options.workers}")
    if options.binary.endswith(".py") and not os.path.isfile(options.binary):
        parser.error(f"--binary: there is no file {options.binary!r}")
    return launch(options.binary, options.workers, options.arguments)


if __name__ == "__main__":
    sys.exit(main())
