import csv
import json
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest
import yaml
from rich.console import Console

import experiments.digits  # noqa: F401  registers it
from optimization import ConfigWarning
from optimization.training import TrainingError, run_sweep, sweep, sweep_engines
from optimization.training.binary import resolve_flags
from tests.training.tiny import ROOT, run, run_binary, tiny

O = "trainer.optimizer_config"  # noqa: E741  the paths stay readable
RATE = f"{O}.learning_rate.cosine.initial_learning_rate"
QUIET = Console(quiet=True)
SHORT = "trainer.validation_interval=3"


def space_file(folder, **settings):
    usual = {
        "trials": 4,
        "metric": "mae",
        "metric_comp": "lower",
        "prune": False,
        "parameters": [
            {"path": RATE, "log_uniform": [1e-3, 0.1]},
            {"path": f"{O}.optimizer.sgd.momentum", "uniform": [0.0, 0.9]},
        ],
    }
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump({**usual, **settings}))
    return path


def records(folder):
    """Returns the results of all trials, without the seconds."""
    found = [json.loads(path.read_text()) for path in sorted(folder.glob("trial_*/results.json"))]
    assert all(record.pop("seconds") > 0 for record in found)
    return found


def of(folder, name):
    return [record[name] for record in records(folder)]


@pytest.fixture
def optuna():
    return pytest.importorskip("optuna")


def test_mistakes_are_told_before_anything_trains(tmp_path):
    path = space_file(tmp_path, parameters=[{"path": f"{O}.optimizer.sgd.momentmu", "grid": [1]}])
    status, out, err = run_binary(
        "--experiment=tiny", f"--sweep={path}", f"--model_dir={tmp_path / 'sweep'}"
    )
    assert (status, out) == (1, "")
    assert err == (
        f"error: {path}:6: {O}.optimizer.sgd.momentmu: unknown key; did you mean 'momentum'?\n"
    )
    assert not (tmp_path / "sweep").exists()


def test_a_sweep_takes_no_other_mode(tmp_path):
    status, _, err = run_binary(
        "--experiment=tiny", "--sweep=a.yaml", "--mode=train", f"--model_dir={tmp_path}"
    )
    assert (status, err) == (1, "error: --mode can't be combined with --sweep\n")


@pytest.fixture
def quick(optuna, monkeypatch):
    """Puts a formula in the place of the training, which has a checkpoint at step 6; the trials."""
    began = []

    def run(config, mode, model_dir, *, console, on_evaluation):
        began.append(model_dir[-4:])
        rate = config.trainer.optimizer_config.learning_rate.cosine.initial_learning_rate
        if rate > 1:
            raise TrainingError("the loss is inf")
        checkpoint = Path(model_dir) / "checkpoint"
        for step in range(9 if checkpoint.exists() else 3, 13, 3):
            on_evaluation(step, {"loss": rate, "mae": rate / step})
            if step == 6:
                checkpoint.touch()
            if len(began) == run.interrupted and step == 9:
                raise KeyboardInterrupt

    run.interrupted, run.began = None, began
    monkeypatch.setattr(sweep, "run_experiment", run)
    return run


@pytest.mark.slow
def test_the_same_seed_gives_the_same_trials_and_a_sweep_goes_on(tmp_path, quick):
    path = space_file(tmp_path, trials=14, prune=True, grace_steps=3)
    config = tiny(SHORT)
    summary = run_sweep(config, path, tmp_path / "whole", console=QUIET)
    whole = records(tmp_path / "whole")
    assert len({record["override"] for record in whole}) == 14
    assert {record["status"] for record in whole} == {"finished", "pruned"}
    ended = [record for record in whole if record["status"] == "finished"]
    assert summary["best"]["value"] == min(record["value"] for record in ended)
    for record in ended:
        assert [e["step"] for e in record["evaluations"]] == [3, 6, 9, 12]
        assert record["value"] == record["evaluations"][-1]["mae"]

    # Stopped in a trial, and before TPE begins to choose by what trials came to.
    number = ended[-1]["trial"]
    quick.began.clear()
    quick.interrupted = number + 1
    with pytest.raises(KeyboardInterrupt):
        run_sweep(config, path, tmp_path / "parts", console=QUIET)
    assert of(tmp_path / "parts", "status")[number:] == ["running"]
    run_sweep(config, path, tmp_path / "parts", console=QUIET)
    ran = [f"{n:04d}" for n in range(14)]
    assert quick.began == [*ran[: number + 1], *ran[number:]]
    assert records(tmp_path / "parts") == whole

    quick.interrupted = None
    quick.began.clear()
    again = run_sweep(config, path, tmp_path / "parts", console=QUIET)
    assert again["best"]["value"] == summary["best"]["value"]
    assert quick.began == []
    other = space_file(tmp_path, trials=2, prune=True, grace_steps=3, seed=1)
    with pytest.raises(TrainingError, match=r"began with other settings:\n  seed: is another one"):
        run_sweep(config, other, tmp_path / "parts", console=QUIET)
    run_sweep(config, other, tmp_path / "other", console=QUIET)
    assert not {r["override"] for r in records(tmp_path / "other")} & {r["override"] for r in whole}


def test_another_experiment_is_another_sweep(tmp_path, quick):
    path = space_file(tmp_path, trials=1)
    run_sweep(tiny(SHORT), path, tmp_path / "sweep", console=QUIET)
    with pytest.raises(TrainingError, match=r"other settings:\n  task.hidden: was 0, is 3"):
        run_sweep(tiny(SHORT, "task.hidden=3"), path, tmp_path / "sweep", console=QUIET)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "params.yaml").touch()
    with pytest.raises(TrainingError, match="is that of a run; take another one"):
        run_sweep(tiny(SHORT), path, tmp_path / "run", console=QUIET)


def test_a_trial_that_fails_is_recorded_and_the_sweep_goes_on(tmp_path, quick, capsys):
    path = space_file(
        tmp_path,
        trials=None,
        parameters=[
            {"path": RATE, "grid": [0.05, 1e30]},
            {"path": "runtime.seed", "grid": [0, 1]},
        ],
    )
    summary = run_sweep(tiny(SHORT), path, tmp_path / "sweep", console=Console(width=300))
    assert of(tmp_path / "sweep", "status") == ["finished", "finished", "failed", "failed"]
    assert of(tmp_path / "sweep", "error") == [None, None, "the loss is inf", "the loss is inf"]
    assert summary["best"]["params"][RATE] == 0.05
    printed = capsys.readouterr().out
    assert "trial_0002 of 4  failed  the loss is inf" in printed
    assert f"  --params_override='{summary['best']['override']}'" in printed
    with open(tmp_path / "sweep" / "sweep.csv") as file:
        rows = [*csv.DictReader(file)]
    assert [row["status"] for row in rows] == ["finished", "finished", "failed", "failed"]
    assert [row[RATE] for row in rows] == ["0.05", "0.05", "1e+30", "1e+30"]
    assert json.loads((tmp_path / "sweep" / "sweep.json").read_text()) == summary


def test_settings_that_are_wrong_together_fail_alone(tmp_path, quick):
    grids = [{"path": f"runtime.{n}", "grid": [False, True]} for n in ("enable_xla", "run_eagerly")]
    path = space_file(tmp_path, trials=None, parameters=grids)
    run_sweep(tiny(SHORT), path, tmp_path / "sweep", console=QUIET)
    assert of(tmp_path / "sweep", "status") == ["finished", "finished", "finished", "failed"]
    assert "cannot be combined with `run_eagerly`" in of(tmp_path / "sweep", "error")[3]


def test_a_sweep_of_failures_and_a_metric_that_is_not_there(tmp_path, quick):
    rate = [{"path": RATE, "grid": [1e29, 1e30]}]
    path = space_file(tmp_path, trials=None, parameters=rate)
    with pytest.raises(TrainingError, match="no trial came to its end; the first error: the loss"):
        run_sweep(tiny(SHORT), path, tmp_path / "failures", console=QUIET)
    path = space_file(tmp_path, metric="mea")
    with pytest.raises(TrainingError, match="reports no 'mea'; did you mean 'mae'?"):
        run_sweep(tiny(SHORT), path, tmp_path / "metric", console=QUIET)
    assert of(tmp_path / "metric", "status") == ["failed"]


def test_trials_that_fall_behind_are_stopped(tmp_path, quick):
    """Each other rate is worse than the first one, or better."""
    path = space_file(
        tmp_path,
        trials=None,
        prune=True,
        grace_steps=6,
        parameters=[{"path": RATE, "grid": [0.05, 0.1, 0.01, 0.2]}],
    )
    run_sweep(tiny(SHORT), path, tmp_path / "sweep", console=QUIET)
    assert of(tmp_path / "sweep", "status") == ["finished", "pruned", "finished", "pruned"]
    steps = [[e["step"] for e in found] for found in of(tmp_path / "sweep", "evaluations")]
    assert steps == [[3, 6, 9, 12], [3, 6], [3, 6, 9, 12], [3, 6]]


@pytest.mark.slow
def test_a_trial_that_was_stopped_goes_on_from_its_checkpoint(tmp_path, optuna, monkeypatch):
    def interrupted(*args, on_evaluation, **kwargs):
        def evaluated(step, values):
            on_evaluation(step, values)
            if step == 9:
                raise KeyboardInterrupt

        return run_experiment(*args, on_evaluation=evaluated, **kwargs)

    run_experiment = sweep.run_experiment
    path = space_file(tmp_path, trials=1)
    run_sweep(tiny(SHORT), path, tmp_path / "whole", console=QUIET)
    monkeypatch.setattr(sweep, "run_experiment", interrupted)
    with pytest.raises(KeyboardInterrupt):
        run_sweep(tiny(SHORT), path, tmp_path / "parts", console=QUIET)
    monkeypatch.setattr(sweep, "run_experiment", run_experiment)
    run_sweep(tiny(SHORT), path, tmp_path / "parts", console=QUIET)
    assert "resumed at step 6" in (tmp_path / "parts" / "trial_0000" / "log.txt").read_text()
    assert records(tmp_path / "parts") == records(tmp_path / "whole")


DIGITS = (
    "trainer.train_steps=60,trainer.validation_interval=20,trainer.checkpoint_interval=60,"
    f"trainer.summary_interval=60,{O}.learning_rate.cosine.decay_steps=60,"
    f"{O}.warmup.linear.warmup_steps=6,{O}.optimizer.adamw.weight_decay_rate=0.01"
)


def digits_space(folder, **engine):
    """Writes the sweep of this repository, with four short trials."""
    settings = yaml.safe_load((ROOT / "configs/sweeps/digits.yaml").read_text())
    assert settings["parameters"][-1]["path"] == "task.model.filters"
    settings["parameters"][-1].update(int=[2, 6], step=2)
    settings |= {**engine, "trials": 4, "grace_steps": 20, "reduction_factor": 2}
    path = folder / "space.yaml"
    path.write_text(yaml.safe_dump(settings))
    return path


def digits(*overrides):
    with warnings.catch_warnings():  # of a branch that some trials select
        warnings.simplefilter("ignore", ConfigWarning)
        return resolve_flags("digits", (), [DIGITS, *overrides])


def check_digits(folder):
    """Checks what a sweep has left; returns the summary."""
    found = records(folder)
    assert [record["trial"] for record in found] == [0, 1, 2, 3]
    assert {record["status"] for record in found} <= {"finished", "pruned"}
    assert len({record["override"] for record in found}) == 4
    summary = json.loads((folder / "sweep.json").read_text())
    ended = [record for record in found if record["status"] == "finished"]
    assert summary["best"]["value"] == max(record["value"] for record in ended) > 0.15
    # Over the same settings, the override is the run that the trial was.
    params = Path(summary["best"]["model_dir"]) / "params.yaml"
    _, text = params.read_text().split("\n", 1)  # a comment before the settings
    assert digits(summary["best"]["override"]).to_yaml() == text
    return summary


@pytest.mark.slow
def test_digits_on_optuna(tmp_path, optuna):
    space = digits_space(tmp_path, engine="optuna")
    summary = run_sweep(digits(), space, tmp_path / "sweep", console=QUIET)
    assert check_digits(tmp_path / "sweep") == summary


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("The actor died unexpectedly.\n\tclass_name: X\n", "The actor died unexpectedly."),
        ("ray::X.train()\n  File a.py\nValueError: no task", "ValueError: no task"),
    ],
)
def test_why_a_worker_has_ended(text, reason, tmp_path):
    path = tmp_path / "error.txt"
    path.write_text(f"Failure # 1 (occurred at 12:00)\n{text}")
    assert sweep_engines._reason(SimpleNamespace(error_file=path)) == reason


@pytest.mark.parametrize(
    ("resources", "message"),
    [
        (
            {"cpus": 1},
            "resources.cpus: a trial takes 1, and this machine has 0; did you mean 'cpu'",
        ),
        ({"cpu": 1, "gpu": 0.5}, "resources.gpu: a trial takes 0.5, and this machine has 0$"),
        ({"cpu": 3}, "resources.cpu: a trial takes 3, and this machine has 2$"),
    ],
)
def test_what_a_machine_has_not_is_not_waited_for(resources, message):
    there = {"CPU": 2.0, "memory": 1e9, "tpu_host": 1.0}
    with pytest.raises(TrainingError, match=message):
        sweep_engines.check_room(resources, there)
    sweep_engines.check_room({"cpu": 2, "gpu": 0, "tpu_host": 1}, there)


@pytest.mark.slow
def test_digits_on_ray(tmp_path):
    """A worker imports the tasks of the binary; one at a time, as TensorFlow takes long to load."""
    pytest.importorskip("ray.tune")
    space = digits_space(tmp_path, engine="ray", concurrent_trials=1)
    status, out, err = run(
        [
            "experiments/train.py",
            "--experiment=digits",
            f"--sweep={space}",
            f"--params_override={DIGITS}",
            f"--model_dir={tmp_path / 'sweep'}",
        ]
    )
    assert status == 0, err
    summary = check_digits(tmp_path / "sweep")
    assert f"  --params_override='{summary['best']['override']}'" in out
