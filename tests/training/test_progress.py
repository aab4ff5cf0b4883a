import io

import pytest
from rich.console import Console

from optimization.training import progress
from optimization.training.progress import StepProgress, format_duration, format_values


class Clock:
    """Stands in for `time.perf_counter`; a loop takes as long as the test says."""

    def __init__(self, monkeypatch):
        self.now = 0.0
        monkeypatch.setattr(progress.time, "perf_counter", lambda: self.now)


@pytest.fixture
def clock(monkeypatch):
    return Clock(monkeypatch)


def loop(shown, clock, step, seconds):
    shown.start_loop()
    clock.now += seconds
    shown.end_loop(step)


def test_lines_with_rate_and_time_left_where_there_is_no_terminal(clock):
    out = io.StringIO()
    with StepProgress(Console(file=out), total=1000, step=0) as shown:
        loop(shown, clock, 100, seconds=30.0)
        shown.show({"loss": 1.23456})
        loop(shown, clock, 200, seconds=10.0)
        clock.now += 500.0  # An evaluation between two loops does not count.
        loop(shown, clock, 300, seconds=10.0)
        shown.show({"loss": 0.5, "learning_rate": 1e-5})
    assert out.getvalue().splitlines() == [
        "step 100/1000  loss 1.235",
        "step 300/1000  loss 0.5  learning_rate 1e-05  10 steps/s, 0:01:10 left",
    ]


def test_a_bar_with_rate_and_lines_above_it_in_a_terminal(clock):
    out = io.StringIO()
    console = Console(file=out, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with StepProgress(console, total=400, step=100) as shown:
        loop(shown, clock, 200, seconds=5.0)
        loop(shown, clock, 400, seconds=4.0)
        shown.show({"loss": 0.5})
    text = out.getvalue()
    assert "step 400/400  loss 0.5\n" in text.replace("\r", "").replace("\x1b[2K", "")
    assert "50 steps/s" in text
    assert "400/400" in text.rsplit("training", 1)[1]


def test_no_line_is_wrapped_or_taken_for_markup():
    out = io.StringIO()
    progress.say(Console(file=out, width=20), "a [bold] line that is longer than twenty")
    assert out.getvalue() == "a [bold] line that is longer than twenty\n"


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.4, "0:00:00"), (59.6, "0:01:00"), (3661, "1:01:01")]
)
def test_durations(seconds, text):
    assert format_duration(seconds) == text


def test_values():
    assert format_values({"a": 1 / 3, "b": 12345678.0}) == "a 0.3333  b 1.235e+07"
