"""State that earlier versions have saved natively loads, and is trained on from."""

import pytest

from tests.saved_goldens import STEPS, Goldens, assert_close, assert_same

torch = pytest.importorskip("torch", reason="optimization.torch is an extra: it needs PyTorch")

from tests.torch.saved import Run  # noqa: E402

GOLDENS = Goldens("torch")
# What a class of this package has in another dtype than one of torch, which had it before; numbers
# of groups may be 0 or 0.0.
RETYPED = ("optimizer/step/", "optimizer/mu_product/", "group ")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    return GOLDENS.unpack(tmp_path_factory.mktemp("saved"))


def loaded(files, name, by_name=False):
    """Returns a run that has loaded the files of a case."""
    run = Run(GOLDENS.cases[name])
    run.load(torch.load(files / name / "state.pt", weights_only=True), by_name)
    return run


def values_of(run, name):
    """Returns the values of a run; groups may have more, of a later version, than were saved."""
    known = GOLDENS.cases[name]["variables"]
    found = run.values().items()
    return {path: value for path, value in found if path in known or not path.startswith("group ")}


@pytest.mark.parametrize("name", GOLDENS.cases)
def test_a_saved_state_trains_on(files, name):
    run = loaded(files, name)
    assert_same(values_of(run, name), GOLDENS.values(name, "saved"))
    kinds = run.kinds()
    for path, (dtype, shape) in GOLDENS.cases[name]["variables"].items():
        assert kinds[path] == (kinds[path][0] if path.startswith(RETYPED) else dtype, shape)
    if GOLDENS.cases[name].get("swapped"):
        run.optimizer.train()
    run.take_steps(STEPS)
    assert_close(values_of(run, name), GOLDENS.values(name, "trained"), GOLDENS.cases[name])


# To make the state that it then fills, torch takes a step at a rate of 0, by which FTRL divides.
BY_NAME = [n for n, c in GOLDENS.cases.items() if "class" not in c and not n.startswith("ftrl")]


@pytest.mark.parametrize("name", BY_NAME)
def test_a_state_by_names_trains_on(files, name):
    run = loaded(files, name, by_name=True)
    if GOLDENS.cases[name].get("swapped"):
        run.optimizer.train()
    run.take_steps(STEPS)
    assert_close(values_of(run, name), GOLDENS.values(name, "trained"), GOLDENS.cases[name])
