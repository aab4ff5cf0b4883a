import pytest

from optimization.training.errors import first_line, reason_of

IN_A_GRAPH = """Graph execution error:

Detected at node PyFunc defined at (most recent call last):
  File "<frozen runpy>", line 198, in _run_module_as_main

  File "my_task.py", line 12, in build_inputs

ValueError: row 17 is bad
Traceback (most recent call last):
"""


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("what is wrong\nand where", "RuntimeError: what is wrong"),
        ("", "RuntimeError"),
        (IN_A_GRAPH, "RuntimeError: ValueError: row 17 is bad"),
        ("Graph execution error:", "RuntimeError: Graph execution error:"),
    ],
)
def test_the_first_line_is_what_happened(text, line):
    assert first_line(RuntimeError(text)) == line


def test_the_reason_is_without_the_operation():
    text = (
        "{{function_node __wrapped__SaveV2_device_/job:a}} /x/part; No space left [Op:SaveV2]\nmore"
    )
    assert reason_of(ValueError(text)) == "/x/part; No space left"
    assert reason_of(ValueError("")) == ""
