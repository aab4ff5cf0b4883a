"""tools/versions: the bounds of setup.cfg are what CI installs and what the page says."""

import re

import pytest

from tools import versions

PAGE = """\
| environment | versions | passed | failed | skipped | on |
|---|---|---|---|---|---|
| `a` | X 1 | 1 | 0 | 0 | 2026-01-01 |

more
"""


def test_the_constraints_of_ci_are_in_step_with_setup_cfg():
    text = versions.LOWEST.read_text(encoding="utf-8")
    assert text == versions.constraints("test"), "run `python -m tools.versions --lowest`"
    assert {"keras", "tensorflow", "numpy", "pytest", "matplotlib"} <= {
        line.partition("==")[0] for line in text.splitlines()
    }


def test_an_extra_may_need_a_later_version_than_the_package():
    assert versions.lower_bounds()["numpy"] == "1.26"
    assert versions.lower_bounds("jax")["numpy"] == "2.0"


def test_the_page_says_what_setup_cfg_says():
    page = versions.PAGE.read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| ([\w ,]+) \| ([\d., ]+) \|", page, re.MULTILINE))
    core, jax = versions.lower_bounds(), versions.lower_bounds("jax")
    tensorflow = versions.lower_bounds("tensorflow")
    assert rows["NumPy"] == core["numpy"]
    assert rows["Keras"] == tensorflow["keras"] == jax["keras"]
    assert rows["TensorFlow"] == tensorflow["tensorflow"]
    assert rows["PyTorch"] == versions.lower_bounds("torch")["torch"]
    assert rows["JAX, optax, NumPy"] == f"{jax['jax']}, {jax['optax']}, {jax['numpy']}"


def test_every_environment_has_its_name_and_what_is_installed(tmp_path):
    found = {each.name: each for each in versions.environments()}
    assert len(found) == len(list(versions.environments()))
    lowest = found["jax-lowest-py3.12"].requirements(tmp_path)
    assert lowest[-2:] == ["-c", str(tmp_path / "lowest.txt")]
    assert "numpy==2.0\n" in (tmp_path / "lowest.txt").read_text()
    assert "keras==3.12.*" in found["tensorflow-keras3.12-py3.11"].requirements(tmp_path)
    assert "-c" not in found["core-newest-py3.13"].requirements(tmp_path)
    assert "core-lowest-py3.13" not in found


def test_what_is_run_is_there():
    for side in versions.SIDES.values():
        assert [name for name in side.tests if not (versions.ROOT / name).exists()] == []


def test_tests_are_counted(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(
        '<testsuites><testsuite tests="9" failures="2" errors="1" skipped="3"/></testsuites>'
    )
    assert versions.counts(report) == {"passed": 3, "failed": 3, "skipped": 3}


@pytest.mark.parametrize(("name", "before"), [("`a`", 0), ("`b`", 1)])
def test_a_row_takes_its_place_or_comes_last(name, before):
    cells = [name, "X 2", "5", "0", "1", "2026-02-02"]
    lines = versions.with_row(PAGE, cells).splitlines()
    assert lines[2 + before] == f"| {name} | X 2 | 5 | 0 | 1 | 2026-02-02 |"
    assert len(lines) == 5 + before
    assert lines[-1] == "more"


def test_a_name_that_is_none_is_an_error(capsys):
    with pytest.raises(SystemExit):
        versions.main(["nothing-*"])
    assert "no environment that can be made here has such a name" in capsys.readouterr().err
