"""tools/compare_optimizers.py: what is run next, and what the page and the picture show."""

import json
import math
import re

import numpy as np
import pytest

from optimization import OptimizationConfig, OptimizerFactory
from tools import compare_optimizers as tool
from tools import gallery
from tools.benchmark import page

PLAN = tool.Plan(types=("adamw", "lion"), steps=4, points=2, rates=5)
FIRST_RATES = {"adamw": 0.002, "lion": 0.00025}
FACTS = {"date": "2026-01-02", "processor": "a processor", "torch": "2.0"}


def record(kind, rate, seed, best=None, shift=0.0):
    """A training whose loss is lowest at the rate `best`: 1 + shift + seed / 100 there."""
    best = FIRST_RATES[kind] * 4 if best is None else best
    last = 1 + shift + seed / 100 + abs(math.log2(rate / best))
    return {
        **{"type": kind, "rate": rate, "seed": seed, "digest": tool.digest(PLAN, kind)},
        **{"losses": [[0, 5.0], [2, 3.0], [4, last]], "processor_seconds": 36, "facts": FACTS},
    }


def measured(kind, ratio, state):
    known = {"type": kind, "digest": tool.digest(PLAN, kind), "milliseconds": 1.0, "facts": FACTS}
    return {**known, "to_base": ratio, "weights": 100, "state": state}


@pytest.fixture
def path(tmp_path, monkeypatch):
    """The file of a whole comparison, whose trainings take no time."""
    shifts = {"adamw": 0.5, "lion": 0.0}
    monkeypatch.setattr(tool, "FIRST_RATES", FIRST_RATES)
    monkeypatch.setattr(tool, "train", lambda plan, k, *run: record(k, *run, shift=shifts[k]))
    path = tmp_path / "folder" / "records.jsonl"
    tool.run(PLAN, path)
    tool.add(path, measured("adamw", 1.0, 200))
    tool.add(path, measured("lion", 0.9, 101))
    return path


def test_the_page_and_its_picture_are_those_of_the_records():
    plan = tool.Plan()
    records = tool.read(tool.FOLDER / "records.jsonl", plan)
    assert tool.missing(plan, records) is None
    assert {r["type"] for r in records if "to_base" in r} == set(plan.types)
    text = tool.PAGE.read_text()
    for name, section in tool.sections(plan, records).items():
        told = f"python -m tools.compare_optimizers --write` -->\n\n{section}\n\n<!-- end of {name}"
        assert told in text, "run `python -m tools.compare_optimizers --write`"
    assert tool.picture(plan, records).is_drawn(), "draw it with `--write`"


def test_no_tuned_rate_is_at_an_end_of_its_grid():
    plan = tool.Plan()
    records = tool.read(tool.FOLDER / "records.jsonl", plan)
    for kind in plan.types:
        rates = sorted(r["rate"] for r in tool.trainings(records, kind))
        assert rates[0] < tool.best_rate(records, kind) < rates[-1]
        assert len(rates) >= plan.rates


def test_each_rate_is_tried_once_and_then_each_seed_at_the_best(path):
    records = tool.read(path, PLAN)
    assert [(r["rate"], r["seed"]) for r in tool.trainings(records, "adamw")] == [
        (0.002 * 2**i, 0) for i in range(5)
    ]
    best = tool.best_rate(records, "adamw")
    assert best == 0.008
    assert [r["seed"] for r in tool.trainings(records, "adamw", best)] == [1, 2, 3]
    assert len(records) == 2 * (5 + 3) + 2
    assert tool.missing(PLAN, records) is None


def test_what_was_stopped_goes_on(path):
    lines = path.read_text().splitlines()
    path.write_text("\n".join(lines[:7]) + "\n")
    assert tool.missing(PLAN, tool.read(path, PLAN)) == ("lion", 0.001, 0)
    tool.run(PLAN, path)
    assert path.read_text().splitlines() == lines[:-2]


@pytest.mark.parametrize(("best", "more"), [(0.064, [0.064, 0.128]), (0.001, [0.001, 0.0005])])
def test_a_grid_goes_on_where_the_best_is_at_its_end(best, more, monkeypatch):
    monkeypatch.setattr(tool, "FIRST_RATES", FIRST_RATES)
    records = []
    for _ in range(8):
        run = tool.missing(PLAN, records)
        if run[0] == "lion":
            break
        records.append(record(*run, best=best))
    assert [r["rate"] for r in records[5:]] == more
    assert tool.best_rate(records, "adamw") == best


def test_what_diverges_is_never_the_best(monkeypatch):
    monkeypatch.setattr(tool, "FIRST_RATES", FIRST_RATES)
    records = [record("adamw", 0.002 * 2**i, 0, best=0.032) for i in range(5)]
    records[4]["losses"][-1][1] = None
    assert tool.best_rate(records, "adamw") == 0.016
    assert "0.032: diverged" in tool.grids(tool.Plan(types=("adamw",)), records)
    assert tool.missing(PLAN, records)[0] == "lion"


def test_records_of_other_settings_are_an_error(path):
    with pytest.raises(SystemExit, match="trainings of `adamw` with other settings"):
        tool.read(path, tool.Plan(types=("adamw",), steps=5, points=2))


def test_the_table_is_what_one_computes_by_hand(path):
    records = tool.read(path, PLAN)
    # Losses are 1.51, 1.52, 1.53 and 1.01, 1.02, 1.03; from 3 at step 2 to 1.02 at step 4.
    # lion passes 1.52 at step 2 + 2 * (3 - 1.52) / (3 - 1.02) = 3.495, 0.87 of the steps.
    rows = [[cell.strip() for cell in line.split("|")] for line in _rows(tool.table(PLAN, records))]
    assert rows[0][1:4] == ["`adamw`", "0.008", "5"]
    assert rows[0][5:9] == ["1.520 ± 0.010", "1.00", "1.00", "2.00"]
    assert rows[1][5:9] == ["1.020 ± 0.010", "0.87", "0.90", "1.01"]
    assert "16 trainings, 10 minutes" in tool.scale(PLAN, records)
    assert "**0.001: 1.000**" in tool.grids(PLAN, records)


def _rows(table):
    return table.splitlines()[2:]


def test_a_loss_that_is_not_reached_is_said():
    assert tool.steps_to([(0, [5.0]), (10, [3.0, 3.0])], 2.9) is None
    assert tool.steps_to([(0, [5.0]), (10, [3.0, 3.0])], 4.0) == 5


def test_it_writes_the_page_and_the_picture(path, tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    copy = tmp_path / "page.md"
    names = ("scale", "table", "grids", "settings")
    copy.write_text("".join(f"<!-- {name}: -->\n<!-- end of {name} -->\n" for name in names))
    monkeypatch.setattr(tool, "PAGE", copy)
    monkeypatch.setattr(tool, "FOLDER", path.parent)
    records = tool.read(path, PLAN)
    tool.write(PLAN, records)
    assert tool.table(PLAN, records) in copy.read_text()
    picture = (path.parent / "losses.svg").read_text()
    assert all(f">{kind}</text>" in picture for kind in PLAN.types)
    assert tool.picture(PLAN, records).is_drawn()
    records[-3]["losses"][-1][1] += 0.1  # of a seed of lion
    assert not tool.picture(PLAN, records).is_drawn()
    assert isinstance(tool.picture(PLAN, records), gallery.Picture)
    page.fill(copy, "table", "as before")  # the section is still one


@pytest.mark.parametrize("kind", tool.Plan().types)
def test_settings_are_right_and_all_decay_and_warm_up_alike(kind):
    config = OptimizationConfig(tool.optimization_of(kind, 0.01))
    section = config.optimizer.get()
    assert 0.1 in [getattr(section, name) for name in section.decay_arguments]
    clips = {getattr(section, n, None) for n in ("global_clipnorm", "gradient_clip_norm")}
    assert 1.0 in clips
    assert clips <= {1.0, None}
    curve = OptimizerFactory(config, train_steps=100).learning_rate_curve([5, 10, 100])
    free = kind == "schedule_free_adamw"  # it warms up by itself, and has no decay of the rate
    assert getattr(section, "warmup_steps", None) == ("10%" if free else None)
    peak = 0.01 if free else 0.01 * (1 + math.cos(math.pi / 10)) / 2
    expected = [peak, peak, peak] if free else [peak / 2, peak, 0]
    np.testing.assert_allclose(curve, expected, rtol=1e-6, atol=1e-12)


def test_a_digest_is_of_all_that_makes_a_training():
    plans = [PLAN, tool.Plan(types=PLAN.types, steps=5, points=2)]
    found = {tool.digest(plan, kind) for plan in plans for kind in tool.Plan().types}
    assert len(found) == 12
    assert tool.digest(PLAN, "adamw") == tool.digest(tool.Plan(steps=4, points=2), "adamw")
    assert json.dumps(record("adamw", 0.002, 0))
    assert re.fullmatch("[0-9a-f]{12}", tool.digest(PLAN, "adamw"))
