import pytest

from optimization.cli.app import main
from tests.training.tiny import run


@pytest.mark.parametrize(
    ("arguments", "status", "message"),
    [
        ([], 2, "--experiment"),
        (["--experiment=tinny"], 2, "unknown experiment 'tinny'; did you mean 'tiny'?"),
        (["--experiment=tiny", "-o", "x.gif"], 2, "the ending of 'x.gif' must be one of .png"),
        (["--experiment=tiny", "-o", "no/such/x.csv"], 2, "no/such/x.csv cannot be written: No"),
        (["--experiment=tiny", "--lowest=1", "--highest=0.1"], 2, "above --lowest"),
        (
            ["--experiment=tiny", "--steps=2"],
            2,
            "'--steps': expected a whole number >= 3, got '2'\n",
        ),
        (["--experiment=tiny", "--steps=1e3"], 2, "expected a whole number >= 3, got '1e3'\n"),
        (["--experiment=tiny", "--smoothing=1"], 2, "--smoothing: must be >= 0 and < 1, got 1\n"),
        (["--experiment=tiny", "gone.yaml"], 1, "gone.yaml: cannot be read"),
    ],
)
def test_mistakes_are_told(arguments, status, message, capsys):
    import tests.training.tiny  # noqa: F401  registers the experiment

    assert main(["find-lr", *arguments]) == status
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_it_prints_a_table_and_writes_a_file(tmp_path):
    pytest.importorskip("tensorflow", reason="trains")
    arguments = ["--import=tests.training.tiny", "--experiment=tiny", "--lowest=0.001"]
    output = tmp_path / "found.csv"
    status, out, err = run(["-m", "optimization", "find-lr", *arguments, "-o", str(output)])
    assert (status, err) == (0, "")
    assert out.startswith("rate       smoothed loss\n0.001")
    assert "steepest descent" in out
    assert "the loss diverged at" in out
    assert output.read_text().startswith("learning_rate,loss,smoothed_loss\n0.001,")
    assert [path.name for path in tmp_path.iterdir()] == ["found.csv"]
