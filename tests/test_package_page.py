"""setup.py: the page of a package index is README.md with links that work there."""

import re
import runpy

import pytest

from tests import pages

README = (pages.ROOT / "README.md").read_text(encoding="utf-8")
LINK = re.compile(r"\[[^]]*\]\(([^)\s]+)\)")


@pytest.fixture(scope="module")
def page():
    return runpy.run_path(str(pages.ROOT / "setup.py"))["page"]


def test_without_an_address_no_link_is_left_that_an_index_has_not(page):
    text = page(README, None)
    assert [link for link in LINK.findall(text) if ":" not in link] == []
    assert "Quick start" in text
    assert "<!--" not in text


def test_with_an_address_every_link_leads_to_its_file(page):
    text = page(README, "https://example.org/me/it/")
    before = [link for link in LINK.findall(README) if ":" not in link]
    found = [link for link in LINK.findall(text) if link.startswith("https://example.org/")]
    assert len(found) == len(before) > 20
    for link, path in zip(found, before, strict=True):
        kind = "raw" if path.endswith(".svg") else "blob"
        assert link == f"https://example.org/me/it/{kind}/HEAD/{path}"
        assert (pages.ROOT / path.partition("#")[0]).exists()


def test_what_is_no_link_stays(page):
    text = "`[a](b)` is text? no: (c)\n[x](https://x.org) and [y](#z)\n"
    assert page(text.partition("\n")[2], "https://e.org") == text.partition("\n")[2]
