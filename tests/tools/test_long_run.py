import pytest

from tools import long_run
from tools.long_run import Sample


def samples(**changes):
    """Returns those of 21 evaluations, of which the last has other values."""
    flat = [Sample(1000 * i, 500.0, 8, 15, 0.5 * i) for i in range(21)]
    return [*flat[:-1], flat[-1]._replace(**changes)]


def test_a_process_that_stays_as_it_is_passes():
    rows = long_run.table(samples())
    assert [row.step for row in rows] == list(range(2000, 20001, 2000))
    text, flat = long_run.report(rows)
    assert flat
    assert text.splitlines()[2] == "| 2,000 | 500.0 | 8 | 15 | 500 |"
    assert text.splitlines()[-4:] == [
        "memory: +0.00% at most, of 1%",
        "files: +0.00% at most, of 0%",
        "threads: +0.00% at most, of 0%",
        "time: +0.00% at most, of 10%",
    ]


@pytest.mark.parametrize("changes", [{"memory": 511.0}, {"files": 9}, {"threads": 16}])
def test_one_that_grows_is_told(changes):
    text, flat = long_run.report(long_run.table(samples(**changes)))
    assert not flat
    assert text.count("TOO MUCH") == 1
    (line,) = [line for line in text.splitlines() if "TOO MUCH" in line]
    assert line.startswith(f"{next(iter(changes))}: +")


def test_steps_that_get_slower_are_told_but_not_one_slow_row():
    slow = [
        s._replace(time=s.time + (0.06 * (s.step - 10_000) / 1000) * (s.step > 10_000))
        for s in samples()
    ]
    assert "time: +12.00% at most, of 10%: TOO MUCH" in long_run.report(long_run.table(slow))[0]
    once = [s._replace(time=s.time + 5.0 * (s.step > 15_000)) for s in samples()]
    assert long_run.report(long_run.table(once))[1]


def test_memory_that_falls_is_no_growth():
    assert long_run.report(long_run.table(samples(memory=100.0)))[1]


def test_too_few_steps_are_an_error(capsys):
    with pytest.raises(SystemExit):
        long_run.main(["--steps=10"])
    assert "--steps must be at least 11000, got 10" in capsys.readouterr().err
