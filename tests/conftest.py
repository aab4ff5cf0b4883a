import contextlib
import gc
import importlib.util
import os
import signal

import pytest

from optimization import extras

# Before TensorFlow is imported: what its libraries say of missing GPUs would hide real output.
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

# What a shell runs in the background ignores these; tests send them.
for _number, _usual in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, _usual)

# PyTorch's compiler and TensorFlow each bring LLVM: loaded after TensorFlow, Triton aborts.
with contextlib.suppress(ImportError):
    import triton  # noqa: F401

# What is a framework's own is left out without it; the summary says so.
collect_ignore = [name for name in ("jax", "torch") if importlib.util.find_spec(name) is None]


def pytest_collection_finish():
    """Leaves what is imported out of collections of garbage, for which every trainer asks."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item):
    """Leaves out a test that needs an optional package which is not installed."""
    try:
        return (yield)
    except ImportError as error:
        missing = extras.explained(error) if isinstance(error, ModuleNotFoundError) else error
        if not isinstance(missing, extras.MissingExtraError):
            raise
        pytest.skip(str(missing))


def pytest_terminal_summary(terminalreporter):
    """Says which packages were missing, so that nobody takes what was left out for tested."""
    for module, (title, extra) in extras.OPTIONAL.items():
        if importlib.util.find_spec(module) is None:
            terminalreporter.write_line(
                f"{title} is not installed: tests that need it were left out; "
                f"`pip install -e '.[{extra}]'` brings it."
            )
