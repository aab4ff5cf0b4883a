import pytest

from optimization.lint.ignores import ignores_in
from tests.lint.linting import linted

CASES = {
    "a: 1": [],
    "a: 1 # optfactory: ignore[x]": [("x", 1, False)],
    "# optfactory: ignore[x]\na: 1": [("x", 1, True)],
    "# license\n\n# optfactory:ignore[ x , y ] why\n---\na: 1": [("x", 3, True), ("y", 3, True)],
    "a: 1\n# optfactory: ignore[x]\nb: 2": [("x", 2, False)],
    "a: 1  # the paper's  # optfactory: ignore[x]": [("x", 1, False)],
    "a: 1  # optfactory: ignor[x]": [("", 1, False)],
    "a: 1  # optfactory: ignore": [("", 1, False)],
    "a: 1  # optfactory: ignore[]": [("", 1, False)],
    "a: '# optfactory: ignore[x]'": [],
    "a: 'b\n\n  # optfactory: ignore[x]'": [],
    "a: |\n  # optfactory: ignore[x]\nb: 1  # optfactory: ignore[y]": [("y", 3, False)],
    "a: 'Größe # 😀'  # optfactory: ignore[x]": [("x", 1, False)],
    "a: 'Größe 😀 # optfactory: ignore[x]'": [],
    "a: >\n  b\n  # optfactory: ignore[x]\n# optfactory: ignore[y]\n": [("y", 4, False)],
    "a: [1,  # optfactory: ignore[x]\n  2]": [("x", 1, False)],
}


@pytest.mark.parametrize("text", CASES)
def test_comments_are_found(text):
    assert ignores_in(text) == CASES[text]


TEXT = """\
{}optimizer: {{type: sgd}}
learning_rate:
  type: constant
  constant: {{learning_rate: 0.1}}
warmup:
  type: linear
  linear:
    warmup_steps: 10
    warmup_learning_rate: 0.2{}
"""


@pytest.mark.parametrize(
    ("front", "line", "found"),
    [
        ("", "", ["lowest-above-peak"]),
        ("", "  # optfactory: ignore[lowest-above-peak]", []),
        ("", "  # optfactory: ignore[lowest-above-peak, warmup-jump]", ["unused-ignore"]),
        ("# optfactory: ignore[lowest-above-peak]\n", "", []),
        ("# optfactory: ignore[warmup-jump]\n", "", ["unused-ignore", "lowest-above-peak"]),
        ("", "  # optfactory: ignore[lowest-above-peek]", ["lowest-above-peak", "unknown-ignore"]),
        ("", "  # optfactory: ignore[unknown-key]", ["lowest-above-peak", "unknown-ignore"]),
        ("", "  # optfactory: ignore", ["lowest-above-peak", "unknown-ignore"]),
        # What needs a length of the training that is not known can't be told to be idle.
        ("# optfactory: ignore[decay-ends-early, unmatched]\n", "", ["lowest-above-peak"]),
        ("# optfactory: ignore[equals-default]\n", "", ["lowest-above-peak"]),
        ("# optfactory: ignore[decay-on-norms]\n", "", ["unused-ignore", "lowest-above-peak"]),
    ],
)
def test_ignores_silence(tmp_path, front, line, found):
    assert [finding.code for finding in linted(tmp_path, TEXT.format(front, line))] == found


def test_an_ignore_on_another_line_silences_nothing(tmp_path):
    text = TEXT.format("", "").replace(
        "type: linear", "type: linear  # optfactory: ignore[lowest-above-peak]"
    )
    found = linted(tmp_path, text)
    assert [(finding.line, finding.code) for finding in found] == [
        (6, "unused-ignore"),
        (9, "lowest-above-peak"),
    ]
    assert found[0].message == "`ignore[lowest-above-peak]` silences nothing on this line"


def test_an_unknown_code_has_the_nearest_one(tmp_path):
    found = linted(tmp_path, TEXT.format("", "  # optfactory: ignore[lowest-abov-peak]"))
    assert str(found[1]).endswith(
        ":9: `ignore[lowest-abov-peak]` names no code; did you mean 'lowest-above-peak'?"
    )
