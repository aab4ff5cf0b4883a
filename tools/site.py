"""What MkDocs does with the pages beside building them: see mkdocs.yml.

The site has the pages of docs/, and of the root README.md as its first page, CONTRIBUTING.md,
SECURITY.md and CHANGELOG.md. Pages link to files of the repository, as code hosts show them: each
file outside of docs/ that is linked becomes a page too, and links lead there.
"""

import os
import pathlib
import re
from typing import Any

import griffe
from mkdocs.structure.files import File, Files

ROOT = pathlib.Path(__file__).parents[1]
DOCS = ROOT / "docs"
_PAGES = {
    "README.md": "index.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
    "CHANGELOG.md": "changelog.md",
}
_LINK = re.compile(r"(\]\()(?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?(\))")
_CODE = re.compile(r"(^```.*?^```$|`[^`\n]+`)", re.MULTILINE | re.DOTALL)
_LANGUAGES = {".py": "python", ".yaml": "yaml", ".yml": "yaml", ".json": "json"}


def on_config(config: Any) -> Any:
    """Lists the pages of a folder where the table of contents names the folder, `lint/`."""
    config.nav = _listed(config.nav)
    return config


def _listed(nav: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for item in nav:
        ((title, value),) = item.items()
        if isinstance(value, list):
            found.append({title: _listed(value)})
        elif value.endswith("/"):
            names = sorted(path.stem for path in (DOCS / value).glob("*.md"))
            found.append({title: [{name: f"{value}{name}.md"} for name in names]})
        else:
            found.append(item)
    return found


def on_files(files: Files, config: Any) -> Files:
    """Adds the pages that lie outside of docs/."""
    for source, place in _PAGES.items():
        files.append(File.generated(config, place, content=_text(ROOT / source)))
    linked = set()
    for file in list(files.documentation_pages()):
        linked |= {target for target in _targets(file) if _place(target).startswith("files/")}
    for target in sorted(linked):
        files.append(File.generated(config, _place(target), content=_shown(target)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Returns a page whose links lead to pages of the site."""
    here = pathlib.PurePosixPath(page.file.src_uri).parent
    folder = _source(page.file).parent

    def moved(match: re.Match) -> str:
        target = (folder / match[2]).resolve()
        place = os.path.relpath(_place(target), here) if target.exists() else match[2]
        return f"{match[1]}{place}{match[3] or ''}{match[4]}"

    parts = _CODE.split(markdown)
    return "".join(p if p.startswith("`") else _LINK.sub(moved, p) for p in parts)


def _source(file: File) -> pathlib.Path:
    """Returns the file of the repository that a page is made of."""
    roots = {place: ROOT / source for source, place in _PAGES.items()}
    return roots.get(file.src_uri, DOCS / file.src_uri)


def _targets(file: File) -> set[pathlib.Path]:
    """Returns the files of the repository that a page links to."""
    source = _source(file)
    prose = "".join(p for p in _CODE.split(_text(source)) if not p.startswith("`"))
    found = {(source.parent / match[2]).resolve() for match in _LINK.finditer(prose)}
    return {target for target in found if target.exists()}


def _place(target: pathlib.Path) -> str:
    """Returns where the site has a file of the repository, from the top of the site."""
    path = target.relative_to(ROOT).as_posix()
    if path in _PAGES:
        return _PAGES[path]
    if DOCS in target.parents and target.is_file():
        return target.relative_to(DOCS).as_posix()
    return f"files/{path}.md"


def _shown(target: pathlib.Path) -> str:
    """Returns the page of a file, or of a folder, which lists its files."""
    title = f"# {target.relative_to(ROOT).as_posix()}\n\n"
    if target.is_dir():
        names = sorted(path.name for path in target.iterdir() if not path.name.startswith("_"))
        return title + "".join(f"- `{name}`\n" for name in names)
    return f"{title}````{_LANGUAGES.get(target.suffix, 'text')}\n{_text(target)}````\n"


def _text(path: pathlib.Path) -> str:
    return path.read_text(encoding="utf-8")


class Examples(griffe.Extension):
    """Shows the examples of docstrings as code, and headings of fields as text."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        if obj.docstring is not None:
            obj.docstring.value = _fenced(obj.docstring.value)


def _fenced(text: str) -> str:
    example = r"^(?P<indent> *)>>> .*(?:\n(?P=indent)(?!$)\S.*|\n(?P=indent) +\S.*)*"
    code = r"\g<indent>```pycon\n\g<0>\n\g<indent>```"
    return re.sub(example, code, text, flags=re.MULTILINE)
