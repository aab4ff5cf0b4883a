"""Does what pages show, each in a process of its own: `tests.pages.run_steps` asks it to.

It loads the framework that KERAS_BACKEND names once, and forks for each page, which comes as a line
of JSON; "done" is the answer. The report of a page has what was printed for each output that it
shows, and how it ended: `failed`, a traceback and its line, or `missing`, a module.
"""

import contextlib
import importlib
import io
import json
import os
import re
import subprocess
import sys
import traceback
import types
import warnings
from pathlib import Path
from typing import Any

# In this order: PyTorch's compiler and TensorFlow each bring LLVM, and loaded after TensorFlow,
# Triton aborts.
LOADED = {
    "tensorflow": ("tensorflow", "sklearn.datasets", "optimization.training.trainer"),
    "torch": ("triton", "torch", "keras", "optimization.torch"),
    "jax": ("jax", "optax", "keras", "optimization.jax"),
}

# What libraries in C++ say of the machine, before anybody can ask them to be quiet.
_NATIVE = re.compile(r"^(WARNING: All log messages before absl|[IWE]\d{4} \d\d:).*\n", re.MULTILINE)


def main() -> None:
    """Runs the pages that come."""
    for module in LOADED[os.environ["KERAS_BACKEND"]]:
        with contextlib.suppress(ImportError):
            importlib.import_module(module)
    for line in sys.stdin:
        page = json.loads(line)
        if not (process := os.fork()):
            _run(page)
            sys.stdout.flush()
            os._exit(0)  # what others registered to run at the end is of the server
        os.waitpid(process, 0)
        print("done", flush=True)


def _run(page: dict[str, Any]) -> None:
    """Runs the steps until one fails, and writes the report."""
    os.chdir(page["folder"])
    os.environ.clear()
    os.environ.update(page["environment"])
    sys.path[0] = page["folder"]
    printed_to = os.open(page["printed"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    nothing = os.open(os.devnull, os.O_RDONLY)
    for descriptor, own in ((nothing, 0), (printed_to, 1), (printed_to, 2)):
        os.dup2(descriptor, own)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    report: dict[str, Any] = {"outputs": []}
    # What it defines is found again where pickle looks for it, and goes to processes by value.
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    printed = ""
    for step in page["steps"]:
        try:
            printed = _do(step, page["name"], module, printed, report["outputs"])
        except ImportError as error:  # of a module, or one that names the extra
            report |= {"missing": error.name, "failed": traceback.format_exc()}
        except BaseException:
            report["failed"] = traceback.format_exc()
        if "failed" in report:
            report["line"] = step["line"]
            break
    Path(page["report"]).write_text(json.dumps(report), encoding="utf-8")


def _do(step: dict, name: str, module: types.ModuleType, printed: str, outputs: list) -> str:
    """Does one step; returns what is printed that the page may show next."""
    kind = step["do"]
    if kind == "write":
        path = Path(step["name"])
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(step["text"], encoding="utf-8")
    elif kind == "python":
        with contextlib.redirect_stdout(io.StringIO()) as stdout:
            exec(compile(step["text"], f"{name}:{step['line']}", "exec"), vars(module))
        return stdout.getvalue()
    elif kind == "shell":
        found = _shell(step["text"])
        if step["shown"] is None:
            return found
        outputs.append({**step, "printed": found})
        return ""
    else:
        outputs.append({**step, "printed": printed})
        return ""
    return printed


def _shell(command: str) -> str:
    """Runs a command, as one types it in an activated environment; returns what it prints."""
    command = command.replace(".venv/bin/", "").replace("/tmp/", f"{os.getcwd()}/tmp/")
    done = subprocess.run(
        ["bash", "-c", command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    return _NATIVE.sub("", done.stdout).replace(f"{os.getcwd()}/tmp/", "/tmp/")


if __name__ == "__main__":
    main()
