import os

import pytest

from optimization.training.errors import TrainingError
from optimization.training.imports import import_module


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = 1\nraise ValueError('first\\nsecond')", "ValueError: first ({path}:2)"),
        ("import no_such_module_at_all", "ModuleNotFoundError: No module named 'no_such_module"),
        ("import sys\nsys.exit(3)", "SystemExit: 3 ({path}:2)"),
        ("def f(:", "SyntaxError: "),
    ],
)
def test_a_module_that_fails_says_where(text, message, tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "failing_module.py"
    path.write_text(text)
    with pytest.raises(TrainingError) as error:
        import_module("failing_module")
    assert str(error.value).startswith("failing_module cannot be imported: ")
    assert message.format(path=path) in str(error.value)


def test_a_module_that_there_is_not_says_where_it_was_looked_for():
    for name in ("no_such_module.at_all", "os.no_such"):
        with pytest.raises(TrainingError) as error:
            import_module(name)
        assert str(error.value).endswith(f"; there is none in {os.getcwd()}, nor installed")


def test_a_module_that_a_module_lacks_is_not_looked_for_here(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lacking_module.py").write_text("import no_such_module_at_all")
    with pytest.raises(TrainingError, match="No module named 'no_such_module_at_all' "):
        import_module("lacking_module")


def test_a_path_is_no_name_of_a_module():
    with pytest.raises(TrainingError, match="by its name, such as a.b, not a/b.py"):
        import_module("a/b.py")
