"""Commands that show configs need no framework."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
DIGITS = str(ROOT / "configs" / "experiments" / "digits.yaml")


@pytest.mark.parametrize(
    "arguments",
    [
        ["explain", DIGITS],
        ["diff", DIGITS, DIGITS],
        ["show", DIGITS],
        ["list", "optimizers"],
        ["show-type", "cosine"],
        ["new"],
        ["schema"],
    ],
    ids=lambda arguments: arguments[0],
)
def test_no_framework_is_imported(arguments):
    code = (
        "import sys\n"
        "from optimization.cli.app import main\n"
        f"assert main({arguments!r}) == 0\n"
        "heavy = {'tensorflow', 'keras', 'torch', 'jax', 'optax'} & set(sys.modules)\n"
        "print(sorted(heavy), file=sys.stderr)\n"
    )
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.stderr.endswith("[]\n")
    assert result.stdout
