from optimization.plots.drawing import picture_of
from optimization.plots.table import listed
from tests.plots.test_picture import config


def listed_steps(text):
    lines = text.split("\n\n")[0].splitlines()[2:]
    return [int(line.split()[0].replace(",", "")) for line in lines]


def test_the_ends_the_eighths_and_the_marks_are_listed():
    text = listed(picture_of({"mine": config()}, steps=(0, 2000)))
    assert listed_steps(text) == [0, 99, 100, 250, 500, 750, 999, 1000, 1250, 1500, 1750, 2000]
    assert "  100  0.09755\n" in text
    assert text.endswith("warmup ends at step 100; decay ends at step 1,000")


def test_what_is_over_is_left_empty():
    text = listed(picture_of({"short": config(), "long": config(9000)}))
    assert text.splitlines()[1].split() == ["step", "short", "long"]
    assert len(text.split("\n\n")[0].splitlines()[-1].split()) == 2


def test_of_many_marks_none_is_listed():
    boundaries, values = [*range(100, 4000, 100)], [1 / (1 + n) for n in range(40)]
    rate = {"type": "stepwise", "stepwise": {"boundaries": boundaries, "values": values}}
    picture = picture_of({"": config(learning_rate=rate, warmup={})}, steps=(0, 4000))
    assert listed_steps(listed(picture)) == [*range(0, 4001, 500)]
