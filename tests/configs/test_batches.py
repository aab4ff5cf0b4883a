from optimization.cli.files import read_whole
from optimization.configs.batches import batch_without_rate
from tests.lint.test_batches import BATCH, experiment


def test_two_experiments_are_compared(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(BATCH)
    after = read_whole(str(path), experiment()).experiment
    (found,) = batch_without_rate(experiment(), after)
    assert found.origin == (str(path), 1)
    assert [*batch_without_rate(after, after)] == []
