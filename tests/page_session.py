"""Does what a page shows, in a process of its own: `tests.pages.run` starts it.

The environment variable PAGE has the steps. The report has what was printed for each output that
the page shows, and how it ended: `failed`, a traceback and its line, or `missing`, a module.
"""

import contextlib
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

# PyTorch's compiler and TensorFlow each bring LLVM: loaded after TensorFlow, Triton aborts.
if os.environ["KERAS_BACKEND"] == "torch":
    with contextlib.suppress(ImportError):
        import triton  # noqa: F401

# What libraries in C++ say of the machine, before anybody can ask them to be quiet.
_NATIVE = re.compile(r"^(WARNING: All log messages before absl|[IWE]\d{4} \d\d:).*\n", re.MULTILINE)


def main() -> None:
    """Runs the steps until one fails, and writes the report."""
    page = json.loads(os.environ.pop("PAGE"))
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    report: dict[str, Any] = {"outputs": []}
    # What it defines is found again where pickle looks for it, and goes to processes by value.
    module = types.ModuleType("__main__")
    sys.modules["__main__"] = module
    printed = ""
    for step in page["steps"]:
        try:
            printed = _do(step, page["name"], module, printed, report["outputs"])
        except ModuleNotFoundError as error:
            report |= {"missing": error.name, "failed": traceback.format_exc()}
        except ImportError as error:  # that names the extra
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
