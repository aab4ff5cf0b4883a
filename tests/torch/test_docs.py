import re

from optimization import OPTIMIZERS_CLS
from tests.torch.common import skip_beside_tensorflow

skip_beside_tensorflow()

from tests.test_docs import DOCS, run_examples  # noqa: E402

PAGE = DOCS / "torch.md"


def test_the_examples_print_what_the_page_says(tmp_path):
    outputs = run_examples(PAGE, tmp_path)
    assert len(outputs) == 1
    for block, printed in outputs:
        assert printed == block.text, f"{PAGE.name}:{block.line}"


def test_the_table_has_every_type():
    table = PAGE.read_text().partition("| type |")[2].partition("\n\n")[0]
    types = {name for row in table.splitlines() for name in _types(row)}
    assert types == set(OPTIMIZERS_CLS)


def _types(row):
    first = row.strip("| ").partition("|")[0]
    return re.findall(r"`(\w+)`", first)
