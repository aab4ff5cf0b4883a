"""What the figures depend on: the machine, the time, the state of the sources."""

import datetime
import os
import pathlib
import platform
import subprocess
from typing import Any

from tools.benchmark.processes import ROOT


def facts() -> dict[str, Any]:
    """Returns what is to be said beside figures."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{memory / 2**30:.0f} GiB",
        "system": platform.system(),
        "python": platform.python_version(),
        "sources": sources(),
        "load": os.getloadavg()[0],
    }


def processor() -> str:
    """Returns the processor's name."""
    for line in pathlib.Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or "unknown"


def sources() -> str:
    """Returns the commit of the sources, marked if they differ from it."""
    command = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return done.stdout.strip()
