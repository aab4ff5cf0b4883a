import json

import numpy as np

import optimization
from tools.benchmark import config


def test_every_learning_rate_that_is_a_curve_is_drawn_with_a_warmup():
    found = dict(config.curves())
    metric = {"hf_reduce_lr_on_plateau", "hf_greedy"}
    assert set(found) == set(optimization.LR_CLS) - metric
    for name, factory in found.items():
        values = factory.learning_rate_curve(np.linspace(0, config.STEPS, 101))
        assert np.isfinite(values).all(), name
        if name != "hf_constant":  # the one that warms up by no means
            assert values[0] < values[5], name


def test_the_fresh_process_imports_no_framework():
    found = config.fresh_process()
    assert found["heavy"] == []
    assert 0 < found["import"] < found["all"] < found["process"]


def test_the_files(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(config, "STEPS", 100)
    config.main(["--runs", "1", "--output", str(tmp_path)])
    figures = json.loads((tmp_path / "config.json").read_text())["milliseconds"]
    assert figures["heavy"] == []
    assert len(figures["parse and validate a dictionary"]) == 2
    assert (tmp_path / "config.md").read_text().strip() in capsys.readouterr().out
