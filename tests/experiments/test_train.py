import os
import subprocess
import sys

from tests.training.tiny import ROOT


def test_mistakes_are_told_before_a_framework_loads():
    """Modules of tasks import none: `main` does, without what TensorFlow writes meanwhile."""
    code = (
        "import sys, experiments.train; print(sorted({'keras', 'tensorflow'} & set(sys.modules)))"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", code], env=environment, cwd=ROOT, capture_output=True, text=True
    )
    assert result.stdout == "[]\n", result.stderr
