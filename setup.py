"""Makes the page of a package index of README.md; all else is in setup.cfg.

README.md links to other files of the repository, which an index does not have. Where setup.cfg says
under `[metadata]` as `url` where the repository is, links lead there. Until it does, they are text.
"""

import configparser
import pathlib
import re

import setuptools

ROOT = pathlib.Path(__file__).resolve().parent


def page(text: str, url: str | None) -> str:
    """Returns README's text with links that work anywhere: into the repository at `url`, or none.

    Args:
        text: The text.
        url: The address of the repository on a code host that has `/blob/HEAD/PATH` for a file and
            `/raw/HEAD/PATH` for a picture, as GitHub and GitLab do; None where it is not known.
    """
    text = re.sub(r"<!-- test: .*? -->\n", "", text)
    relative = r"\((?![a-z]+:|#)([^)\s]+)\)"
    picture, link = rf"!\[([^]]*)\]{relative}", rf"(?<!!)\[([^]]+)\]{relative}"
    if url is None:
        return re.sub(link, r"\1", re.sub(rf"{picture}\n*", "", text))
    url = url.rstrip("/")
    text = re.sub(picture, rf"![\1]({url}/raw/HEAD/\2)", text)
    return re.sub(link, rf"[\1]({url}/blob/HEAD/\2)", text)


def main() -> None:
    """Runs setuptools, with the page of the index."""
    settings = configparser.ConfigParser()
    settings.read(ROOT / "setup.cfg", encoding="utf-8")
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    setuptools.setup(
        long_description=page(text, settings["metadata"].get("url")),
        long_description_content_type="text/markdown",
    )


if __name__ == "__main__":
    main()
