import json

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="PyTorch is installed for some of the tests only")

import optimization.transformers as ours  # noqa: E402
from tests.golden_cases import GOLDEN  # noqa: E402

with np.load(GOLDEN / "transformers_adamw.npz") as stored:
    FIGURES = dict(stored)
PATHS = [name.split("|")[1] for name in FIGURES if name.startswith("initial|")]
CASES = sorted({name.split("|")[0] for name in FIGURES if name.startswith("{")})


def trained(case, first=0, last=None, optimizer=None):
    """Returns an optimizer after the updates of a golden."""
    if optimizer is None:
        weights = [torch.tensor(FIGURES[f"initial|{path}"].astype("float64")) for path in PATHS]
        optimizer = ours.AdamW(
            map(torch.nn.Parameter, weights),
            betas=(0.85, 0.99),
            no_deprecation_warning=True,
            **json.loads(case),
        )
    for step, rate in list(enumerate(FIGURES["rates"]))[first:last]:
        optimizer.param_groups[0]["lr"] = float(rate)
        for path, weight in zip(PATHS, optimizer.param_groups[0]["params"], strict=True):
            weight.grad = torch.tensor(FIGURES[f"gradients|{path}"][step].astype("float64"))
        optimizer.step()
    return optimizer


def check(optimizer, case):
    for path, weight in zip(PATHS, optimizer.param_groups[0]["params"], strict=True):
        np.testing.assert_allclose(weight.detach(), FIGURES[f"{case}|{path}"], rtol=1e-12)


@pytest.mark.parametrize("case", CASES)
def test_updates_are_those_of_transformers_4_49(case):
    check(trained(case), case)


def test_its_state_loads():
    first = trained(CASES[0], last=10)
    saved = first.state_dict()
    keys = ("lr", "betas", "eps", "weight_decay", "correct_bias", "params")
    saved["param_groups"] = [{k: group[k] for k in keys} for group in saved["param_groups"]]
    for state in saved["state"].values():
        state["step"] = int(state["step"])
    weights = [torch.nn.Parameter(p.detach().clone()) for p in first.param_groups[0]["params"]]
    resumed = ours.AdamW(weights)
    resumed.load_state_dict(saved)
    check(trained(CASES[0], first=10, optimizer=resumed), CASES[0])


@pytest.mark.parametrize("wrong", [{"lr": -1.0}, {"betas": (1.0, 0.9)}, {"eps": -1e-8}])
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match=next(iter(wrong))):
        ours.AdamW([torch.nn.Parameter(torch.zeros(2))], **wrong)
