"""The memory that this process has in use, and had at most (Linux)."""

import gc
import pathlib

_STATUS = pathlib.Path("/proc/self/status")
_CLEAR = pathlib.Path("/proc/self/clear_refs")
_PEAK = "5"  # what resets the peak, see `man proc_pid_clear_refs`


def resident() -> int:
    """Returns the bytes that are resident now."""
    return _status("VmRSS")


def peak() -> int:
    """Returns the most bytes that were resident since `reset_peak`."""
    return _status("VmHWM")


def reset_peak() -> bool:
    """Starts the peak anew from what is resident; returns whether the system allows it."""
    gc.collect()
    try:
        _CLEAR.write_text(_PEAK)
    except OSError:
        return False
    return True


def available() -> int:
    """Returns the bytes that new processes may take without swapping."""
    return _field(pathlib.Path("/proc/meminfo").read_text(), "MemAvailable")


def _status(name: str) -> int:
    return _field(_STATUS.read_text(), name)


def _field(text: str, name: str) -> int:
    for line in text.splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise ValueError(f"no field {name!r}")
