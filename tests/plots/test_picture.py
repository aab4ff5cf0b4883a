import csv
import struct

import pytest

from optimization import ConfigError, OptimizationConfig, OptimizerFactory
from optimization.plots import picture as pictures
from optimization.plots.curves import Mark
from optimization.plots.drawing import picture_of
from optimization.plots.picture import renderer


def config(steps=1000, **sections):
    rate = {"initial_learning_rate": 0.1, "decay_steps": steps}
    return OptimizationConfig(
        {
            "optimizer": {"type": "sgd"},
            "learning_rate": {"type": "cosine", "cosine": rate},
            "warmup": {"type": "linear", "linear": {"warmup_steps": 100}},
            **sections,
        }
    )


STEPWISE = {"type": "stepwise", "stepwise": {"boundaries": [5000], "values": [1.0, 0.1]}}


def test_each_curve_ends_where_its_config_does():
    picture = picture_of({"short": config(1000), "long": config(9000)})
    short, long = picture.curves
    for curve, end in ((short, 1050), (long, 9450)):
        known = [s for s, v in zip(picture.steps, curve.values, strict=True) if v is not None]
        assert known == [step for step in picture.steps if step <= end]
        assert known[-1] == end
        expected = OptimizerFactory(config(end * 20 // 21)).learning_rate_curve(known)
        assert [v for v in curve.values if v is not None] == pytest.approx(list(expected), 1e-12)


def test_jumps_and_bends_are_among_the_steps():
    picture = picture_of({"": config(learning_rate=STEPWISE)})
    assert {99, 100, 101, 5000, 5001} <= set(picture.steps)
    assert picture.curves[0].marks == (Mark(100, "warmup ends"), Mark(5000, "boundary"))


def test_a_part_of_the_steps():
    picture = picture_of({"": config()}, steps=(50, 3000))
    assert (picture.steps[0], picture.steps[-1]) == (50, 3000)  # also past the end
    assert {50, 99, 100, 101, 1000} <= set(picture.steps)
    assert picture.curves[0].values[-1] == 0
    assert picture.notes == ()
    assert picture_of({"": config()}, steps=(200, None)).curves[0].marks == (
        Mark(1000, "decay ends"),
    )
    with pytest.raises(ConfigError, match="from step 2,000 on: the end is at 1,050"):
        picture_of({"": config()}, steps=(2000, None))
    picture = picture_of({"short": config(), "long": config(9000)}, steps=(2000, None))
    assert [curve.name for curve in picture.curves] == ["long"]


def test_logarithmic_pictures_leave_out_zeros_and_say_so():
    picture = picture_of({"": config()}, log=True)
    points = picture.points(picture.curves[0])
    assert points[0][0] == 1
    assert min(value for _, value in points) > 0
    assert "values of 0 are left out" in picture.notes[-1]
    constant = {"type": "constant", "constant": {"learning_rate": 0.0}}
    zero = config(learning_rate=constant, warmup={})
    with pytest.raises(ConfigError, match="a logarithmic axis has no 0"):
        picture_of({"zero": zero}, log=True)
    assert len(picture_of({"zero": zero, "other": config()}, log=True).curves) == 1


def test_names():
    groups = [{"match": "bias$", "name": "biases"}]
    one, two = config(param_groups=groups), config(param_groups=groups)

    def names(*args, **kwargs):
        return [curve.name for curve in picture_of(*args, **kwargs).curves]

    assert names({"": one}) == ["learning rate"]
    assert names({"a": one}) == ["a"]
    assert names({"a": one}, groups="all") == ["default", "biases"]
    assert names({"a": one}, groups="biases") == ["a: biases"]
    assert names({"a": one, "b": two}, groups=["biases", "default"]) == [
        *("a: biases", "a: default", "b: biases", "b: default")
    ]
    assert picture_of({"a": one}, groups="all").title == "learning rate of a"
    assert picture_of({"": one}, "momentum", log=False).title == "momentum"


def test_summary():
    assert picture_of({"a": config(), "b": config(9000)}).summary().splitlines() == [
        "a: 0 at step 0, 0.09755 at step 100, 0 at step 1,050; warmup ends at step 100; decay ends "
        "at step 1,000",
        "b: 0 at step 0, 0.09997 at step 100, 0 at step 9,450; warmup ends at step 100; decay ends "
        "at step 9,000",
        "`train_steps` is not known: drawn as far as it bends",
    ]
    same = picture_of({"a": config(), "b": config()}).summary()
    assert "all: warmup ends at step 100; decay ends at step 1,000" in same
    many = [Mark(step, "boundary") for step in range(1, 9)]
    assert pictures.told_marks(many) == ["boundaries at steps 1, 2, 3, 4, 5, 6, ..."]


def test_repr_is_short():
    assert repr(picture_of({"a": config()})) == "<Picture of learning rate: a; steps 0 to 1,050>"


def test_csv_has_the_exact_values(tmp_path):
    picture = picture_of({"short, with comma": config(1000), "long": config(9000)})
    picture.save(tmp_path / "x.csv")
    with open(tmp_path / "x.csv", newline="") as file:
        header, *rows = csv.reader(file)
    assert header == ["step", "short, with comma", "long"]
    assert [int(row[0]) for row in rows] == list(picture.steps)
    for column, curve in enumerate(picture.curves, start=1):
        assert [float(row[column]) if row[column] else None for row in rows] == list(curve.values)


@pytest.mark.parametrize("log", [False, True])
def test_png(tmp_path, log):
    pytest.importorskip("matplotlib")
    picture_of({"a $x$": config(), "b": config(9000)}, log=log).save(tmp_path / "x.PNG")
    content = (tmp_path / "x.PNG").read_bytes()
    assert content[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", content[16:24]) == (1520, 720)


def test_other_endings_are_refused(tmp_path):
    for name in ("x.jpg", "x", "x.htm"):
        with pytest.raises(ValueError, match=r"ends with \.png, \.svg, \.html, \.csv; got"):
            renderer(tmp_path / name)
