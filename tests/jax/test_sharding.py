"""State over the devices of a mesh, in a process that has four of them."""

import json
import os
import subprocess
import sys

import pytest

from tests.jax.common import jax  # noqa: F401  skips where it is not installed

# To optimize many small programs takes longer than to run them.
FLAGS = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


def run_on_devices(module, path, devices):
    """Runs a module that writes what it found into a file; returns that."""
    flags = f"{FLAGS} --xla_force_host_platform_device_count={devices}"
    backend = {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu", "KERAS_BACKEND": "jax"}
    environment = {**os.environ, **backend}
    command = [sys.executable, "-m", module, str(path)]
    ended = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert ended.returncode == 0, ended.stderr
    return json.loads(path.read_text())


@pytest.mark.slow
def test_every_rule_on_every_mesh(tmp_path):
    found = run_on_devices("tests.jax.sharded", tmp_path / "found.json", devices=4)
    assert found["problems"] == []
    assert found["cases"] > 18


@pytest.mark.slow
def test_orbax_restores_onto_another_mesh(tmp_path):
    pytest.importorskip("orbax.checkpoint")
    found = run_on_devices("tests.jax.resharded", tmp_path / "found.json", devices=4)
    assert found == {"problems": []}
