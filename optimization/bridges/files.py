"""Reads the files of other libraries: YAML, JSON, TOML and Keras' `.keras`, each strictly."""

import itertools
import os
import re
import tomllib
import zipfile
import zlib
from typing import Any

from optimization.configs import yaml_file
from optimization.configs.errors import ConfigError, Origin, Problem, cannot_be_read
from optimization.configs.text_files import (
    MAX_JSON_BYTES,
    NotReadError,
    check_regular,
    parse_json,
    read_text,
)
from optimization.configs.yaml_file import MAX_DEPTH, MAX_VALUES, SourcedDict

# What `zipfile` raises for a damaged file, and for one of a kind that it does not read.
_NO_ZIP = (zipfile.BadZipFile, KeyError, EOFError, NotImplementedError, RuntimeError, zlib.error)

_MOST_SIGNS = 50_000  # of TOML that stand before a value, or part a key; it is read by Python alone


def read(path: str) -> SourcedDict:
    """Returns the mapping in a file; its values know their lines, but for `.keras` files.

    Raises:
        ConfigError: What is wrong with the file.
    """
    ending = os.path.splitext(path)[1].lower()
    if ending == ".toml":
        return _read_toml(path)
    if ending == ".keras":
        return _read_keras(path)
    if ending in (".bin", ".pt", ".pth", ".pkl"):
        message = "is a pickle, which can run code and is not read; save it as JSON: "
        message += "`open('args.json', 'w').write(torch.load(FILE, weights_only=False)"
        raise _error(path, f"{message}.to_json_string())`")
    params, problems = yaml_file.read_file(path)
    if problems:
        raise ConfigError(problems)
    if not params:
        raise _error(path, "is empty: it sets nothing")
    return params


def _error(path: str, message: str, line: int | None = None) -> ConfigError:
    return ConfigError([Problem("syntax", "", message, Origin(path, line))])


def _read_toml(path: str) -> SourcedDict:
    try:
        text = read_text(path)
        if sum(map(text.count, "=[,.")) > _MOST_SIGNS:
            raise NotReadError(f"has more than {_MOST_SIGNS:,} values and parts of keys")
        values = tomllib.loads(text)
    except OSError as error:
        raise _error(path, cannot_be_read(path, error)) from None
    except UnicodeDecodeError as error:
        raise _error(path, f"is not UTF-8 text: {error}") from None
    except tomllib.TOMLDecodeError as error:
        found = re.search(r"\(at line (\d+)", str(error))
        raise _error(path, f"not TOML: {error}", int(found[1]) if found else None) from None
    except NotReadError as error:
        raise _error(path, str(error)) from None
    except (ValueError, RecursionError) as error:
        raise _error(path, f"not TOML: {error}") from None
    return _sourced(values, path, _lines_of_toml(text), "")


def _lines_of_toml(text: str) -> dict[str, int]:
    """Returns the line of each table and of each key with a plain name, by dotted path."""
    lines: dict[str, int] = {}
    table = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([\w.-]+)\s*\]", line):
            table = f"{header[1]}."
            lines.setdefault(header[1], number)
        elif key := re.match(r"\s*([\w.-]+)\s*=", line):
            lines.setdefault(table + key[1], number)
    return lines


def _sourced(values: dict, path: str, lines: dict[str, int], place: str) -> SourcedDict:
    if place.count(".") > MAX_DEPTH:
        raise _error(path, f"nested more than {MAX_DEPTH} levels deep")
    result = SourcedDict()
    for key, value in values.items():
        at = place + key
        if isinstance(value, dict):
            value = _sourced(value, path, lines, f"{at}.")
        result.put(key, value, Origin(path, lines.get(at)))
    return result


def _read_keras(path: str) -> SourcedDict:
    """Returns the `compile_config` of a model that Keras has saved."""
    objects = itertools.count(1)

    def made(pairs: list[tuple[str, Any]]) -> SourcedDict:
        if next(objects) > MAX_VALUES:
            raise _error(path, f"its config.json has more than {MAX_VALUES:,} objects")
        return _object(path, pairs)

    try:
        check_regular(path)
        with zipfile.ZipFile(path) as archive:
            if archive.getinfo("config.json").file_size > MAX_JSON_BYTES:
                raise _error(path, f"its config.json is larger than {MAX_JSON_BYTES:,} bytes")
            content = archive.read("config.json")
        config = parse_json(content, object_pairs_hook=made)
    except OSError as error:
        raise _error(path, cannot_be_read(path, error)) from None
    except _NO_ZIP:
        message = "is no model that Keras 3 has saved: no zip with a config.json that can be read"
        raise _error(path, message) from None
    except ConfigError:
        raise
    except NotReadError as error:
        raise _error(path, f"its config.json {error}") from None
    except ValueError as error:
        raise _error(path, f"its config.json is not JSON: {error}") from None
    compiled = config.get("compile_config") if isinstance(config, dict) else None
    if not isinstance(compiled, SourcedDict):
        raise _error(path, "its model was saved without `compile`: it has no optimizer")
    return compiled


def _object(path: str, pairs: list[tuple[str, Any]]) -> SourcedDict:
    result = SourcedDict()
    for key, value in pairs:
        if key in result:
            raise _error(path, f"duplicate key {key!r} in its config.json")
        result.put(key, value, Origin(path))
    return result
