from pathlib import Path

import pytest

from optimization import load_optimization_config
from optimization.cli.app import main
from optimization.cli.new import RECIPES, recipe
from optimization.configs.comments import key_lines

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("like", [None, *RECIPES])
def test_it_is_right_and_every_value_is_explained(like, tmp_path, capsys):
    path = tmp_path / "new.yaml"
    options = ["--like", like] if like else []
    assert main(["new", *options, "-o", str(path)]) == 0
    assert main(["validate", str(path)]) == 0
    out, err = capsys.readouterr()
    assert "fine" in out
    assert err == ""
    text = path.read_text()
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    for key, number in key_lines(text):
        is_section = lines[number - 1].endswith(":")
        above = lines[number - 2].lstrip() if number > 1 else ""
        assert is_section or above.startswith("#"), key


@pytest.mark.parametrize("like", RECIPES)
def test_it_is_the_recipe(like, tmp_path, capsys):
    assert main(["new", "--like", like]) == 0
    path = tmp_path / "new.yaml"
    path.write_text(capsys.readouterr().out)
    file = ROOT / "configs" / "optimization" / f"{RECIPES[like]}.yaml"
    assert load_optimization_config(path) == load_optimization_config(file)
    assert recipe(like) == file.read_text()
    assert path.read_text().startswith(file.read_text().splitlines()[0])


def test_comments_have_units_and_ranges(capsys):
    assert main(["new"]) == 0
    text = " ".join(capsys.readouterr().out.replace("#", " ").split())
    assert "0 for none. Optimizer steps >= 0, '5 epochs', '10%'; required." in text


def test_a_file_that_exists_is_left_as_it_is(tmp_path, capsys):
    path = tmp_path / "mine.yaml"
    path.write_text("mine")
    assert main(["new", "-o", str(path)]) == 2
    assert path.read_text() == "mine"
    assert "--force writes over it" in capsys.readouterr().err
    assert main(["new", "-o", str(path), "--force"]) == 0
    assert path.read_text() != "mine"


def test_wrong_usage(tmp_path, capsys):
    assert main(["new", "-o", str(tmp_path / "no" / "x.yaml")]) == 2
    assert "cannot be written" in capsys.readouterr().err
    assert main(["new", "--force"]) == 2
    assert "--force: it takes --output" in capsys.readouterr().err
    assert main(["new", "--like", "brt"]) == 2
    assert "'bert'" in capsys.readouterr().err
