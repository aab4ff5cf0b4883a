import pytest

from optimization.configs.errors import Origin, Problem
from optimization.lint import Finding, Severity, errors_of
from tests.lint.linting import SGD, linted


@pytest.mark.parametrize(
    ("text", "message", "suggestion"),
    [
        ("must be < 1, got 2", "must be < 1, got 2", None),
        ("unknown key; did you mean 'x'?", "unknown key", "did you mean 'x'?"),
        ("unknown key; the keys are x, y", "unknown key; the keys are x, y", None),
        (
            "is 5; write 4 or leave it out, unless so; write",
            "is 5",
            "write 4 or leave it out, unless so; write",
        ),
        ("write nothing", "write nothing", None),
    ],
)
def test_the_advice_is_apart(text, message, suggestion):
    (found,) = errors_of([Problem("value", "a.b", text, Origin("x.yaml", 3))], "y.yaml")
    assert found == ("x.yaml", 3, "a.b", "value", Severity.ERROR, message, suggestion)
    assert str(found) == f"x.yaml:3: a.b: {text}"


def test_what_has_no_place_is_of_the_file():
    (found,) = errors_of([Problem("value", "", "is wrong")], "y.yaml")
    assert found == Finding("y.yaml", None, "", "value", Severity.ERROR, "is wrong", None)


def test_findings_are_in_the_order_of_lines(tmp_path):
    found = linted(
        tmp_path,
        f"""\
        warmup: {{type: linear, linear: {{warmup_steps: 10, warmup_learning_rate: 9}}}}
        learning_rate:
          type: polynomial
          polynomial: {{initial_learning_rate: 1, decay_steps: 100, end_learning_rate: 2}}
          linear: {{initial_learning_rate: 1}}
        {SGD}
        """,
    )
    assert [(f.line, f.code) for f in found] == [
        (1, "lowest-above-peak"),
        (4, "lowest-above-peak"),
        (5, "unselected"),
    ]
