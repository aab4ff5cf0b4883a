"""Writes a draft as YAML, with a comment at each value that says from where it is."""

import json
import textwrap
from typing import Any

from optimization.bridges.draft import Draft, Finding
from optimization.configs import yaml_file

WIDTH = 100


def written(draft: Draft, title: str) -> str:
    """Returns the text of a YAML file: what there is to tell, then the commented config."""
    lines = _head(title, draft.findings) + _lines(draft.values, draft.comments, "", "")
    return "\n".join(lines) + "\n"


def written_json(values: dict[str, Any]) -> str:
    """Returns the text of a JSON file."""
    return json.dumps(values, indent=2) + "\n"


def written_plain(values: dict[str, Any], title: str, findings: list[Finding]) -> str:
    """Returns the text of a YAML file of another library."""
    return "\n".join(_head(title, findings)) + "\n" + yaml_file.dump(values)


def _head(title: str, findings: list[Finding]) -> list[str]:
    lines = [f"# {_printable(title)}"]
    for finding in findings:
        lines += _comment(_printable(f"{finding.path}: {finding.text}"), "# - ", "#   ")
    return lines


def _printable(text: str) -> str:
    """Returns a text for a comment, which ends with its line and can't hold every character."""
    shown = (each if each.isprintable() else ascii(each)[1:-1] for each in " ".join(text.split()))
    return "".join(shown)


def _comment(text: str, first: str, later: str) -> list[str]:
    return textwrap.wrap(
        text, WIDTH, initial_indent=first, subsequent_indent=later, break_on_hyphens=False
    )


def _lines(values: dict[str, Any], comments: dict[str, str], place: str, indent: str) -> list[str]:
    lines: list[str] = []
    for key, value in values.items():
        path = f"{place}{key}"
        said = _printable(comments.get(path, ""))
        if isinstance(value, dict) and value:
            lines += _comment(said, f"{indent}# ", f"{indent}# ") if said else []
            lines.append(f"{indent}{yaml_file.dump(key).splitlines()[0]}:")
            lines += _lines(value, comments, f"{path}.", f"{indent}  ")
            continue
        text = yaml_file.dump({key: value}).rstrip("\n").splitlines()
        if said and len(text) == 1 and len(indent + text[0]) + len(said) + 4 <= WIDTH:
            text[0] += f"  # {said}"
        elif said:
            lines += _comment(said, f"{indent}# ", f"{indent}# ")
        lines += [indent + line for line in text]
    return lines
