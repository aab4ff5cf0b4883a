"""mkdocs.yml and tools/site.py: every page has its place, and links lead to pages of the site."""

import re

import pytest

pytest.importorskip("mkdocs", reason="the site is an extra: docs")
pytest.importorskip("griffe")

from mkdocs.config import load_config
from mkdocs.structure.files import get_files

from tests import pages
from tools import site


@pytest.fixture(scope="module")
def config():
    return site.on_config(load_config(str(pages.ROOT / "mkdocs.yml")))


@pytest.fixture(scope="module")
def files(config):
    config.plugins._current_plugin = "tests"  # as while MkDocs runs a hook
    return site.on_files(get_files(config), config)


def places(nav):
    """Yields the pages of a table of contents."""
    for item in nav:
        for value in item.values():
            yield from places(value) if isinstance(value, list) else [value]


def test_every_page_is_in_the_table_of_contents_once(config, files):
    listed = list(places(config.nav))
    assert len(listed) == len(set(listed))
    known = {file.src_uri for file in files.documentation_pages()}
    assert set(listed) <= known
    # Tables of single runs are reached from the page of their figures.
    apart = ("files/", "performance/")
    assert {name for name in known if not name.startswith(apart)} <= set(listed)


def test_links_out_of_the_docs_lead_to_pages_of_files(files):
    class Page:
        file = files.get_file_from_path("pipeline.md")

    text = site.on_page_markdown(
        "[a](../configs/optimization/detr_coco.yaml#x) `[b](../LICENSE)`", Page
    )
    assert text == "[a](files/configs/optimization/detr_coco.yaml.md#x) `[b](../LICENSE)`"
    shown = files.get_file_from_path("files/configs/optimization/detr_coco.yaml.md")
    assert "```yaml" in shown.content_string
    Page.file = files.get_file_from_path("index.md")
    assert site.on_page_markdown("[a](docs/files.md)", Page) == "[a](files.md)"
    assert site.on_page_markdown("[a](CONTRIBUTING.md)", Page) == "[a](contributing.md)"


def test_the_site_loads_nothing_from_elsewhere(config):
    assert config.theme["font"] is False
    assert [url for url in config.extra["polyfills"] if re.match(r"[a-z]+:|//", url)] == []


def test_examples_of_docstrings_are_code():
    text = "Adds.\n\n>>> add(\n...     1)\n2\n\nSource: x."
    assert site._fenced(text) == "Adds.\n\n```pycon\n>>> add(\n...     1)\n2\n```\n\nSource: x."
