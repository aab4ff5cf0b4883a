import pytest

from optimization import ExperimentConfig
from optimization.training.history import keep, settings_at
from tests.training.tiny import tiny


def files(directory):
    return {path.name: path.read_text().splitlines()[0] for path in sorted(directory.iterdir())}


def test_each_file_says_from_which_step_to_which_it_held_and_is_a_config(tmp_path):
    keep(tmp_path, tiny(), 0)
    keep(tmp_path, tiny("trainer.resume=continue"), 4)  # no difference
    assert files(tmp_path) == {"params.yaml": "# The settings of this run from step 0 on."}
    keep(tmp_path, tiny("runtime.seed=1"), 6)
    keep(tmp_path, tiny("trainer.max_to_keep=2"), 9)
    assert files(tmp_path) == {
        "params.1.yaml": "# The settings of this run from step 0 to step 6.",
        "params.2.yaml": "# The settings of this run from step 6 to step 9.",
        "params.yaml": "# The settings of this run from step 9 on.",
    }
    second = tiny()
    second.override(dict(settings_at(tmp_path, 9)))
    assert (second.runtime.seed, second.trainer.max_to_keep) == (1, 5)
    seeds = [settings_at(tmp_path, step)["runtime"]["seed"] for step in (1, 6, 7, 9, 10)]
    assert seeds == [0, 0, 1, 1, 0]
    assert ExperimentConfig(runtime=settings_at(tmp_path, 10)["runtime"]).runtime.seed == 0


def test_settings_that_held_for_no_step_are_no_history(tmp_path):
    for seed in (1, 2):
        keep(tmp_path, tiny(f"runtime.seed={seed}"), 0)
    keep(tmp_path, tiny(), 6)
    keep(tmp_path, tiny("runtime.seed=3"), 6)
    assert sorted(files(tmp_path)) == ["params.1.yaml", "params.yaml"]
    assert settings_at(tmp_path, 6)["runtime"]["seed"] == 2


def test_a_run_that_dies_between_two_files_leaves_no_settings_twice(tmp_path, monkeypatch):
    keep(tmp_path, tiny(), 0)
    before = (tmp_path / "params.yaml").read_text()
    keep(tmp_path, tiny("runtime.seed=1"), 6)
    (tmp_path / "params.yaml").write_text(before)
    keep(tmp_path, tiny("runtime.seed=1"), 6)
    assert sorted(files(tmp_path)) == ["params.1.yaml", "params.yaml"]


@pytest.mark.parametrize("text", ["{", "experiment: [", "\udcff"])
def test_what_cannot_be_read_is_not_known(tmp_path, text):
    (tmp_path / "params.yaml").write_bytes(text.encode("utf-8", "surrogateescape"))
    assert settings_at(tmp_path, 3) is None
    assert settings_at(tmp_path / "none", 3) is None
    keep(tmp_path, tiny(), 3)
    assert settings_at(tmp_path, 4)["experiment"] == "tiny"
