"""Files that nobody trusts: refused in words, whatever is wrong with them."""

import io
import json
import os
import zipfile

import pytest

from optimization.bridges import files
from optimization.configs import text_files
from optimization.configs.errors import ConfigError


def refused(path, message):
    with pytest.raises(ConfigError, match=message):
        files.read(str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a = " + "9" * 5000, "not TOML"),
        ("a = " + "[" * 5000, "not TOML"),
        ("a" + ".a" * 2000 + " = 1", "nested more than 50 levels|not TOML"),
        ("a = [" + "1," * 50_000 + "1]", "more than 50,000 values"),
        ("#" + " " * text_files.MAX_BYTES, "larger than"),
    ],
)
def test_toml_without_end(text, message, tmp_path):
    path = tmp_path / "a.toml"
    path.write_text(text)
    refused(path, message)


@pytest.mark.parametrize("ending", [".toml", ".keras", ".yaml", ".json"])
def test_pipes_are_not_read(ending, tmp_path):
    path = tmp_path / f"pipe{ending}"
    os.mkfifo(path)
    refused(path, "no regular file")


def keras_file(path, text, **options):
    with zipfile.ZipFile(path, "w", **options) as archive:
        archive.writestr("config.json", text)
    return path


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 100_000, "nested too deeply"),
        ('{"a": ' + "9" * 5000 + "}", "is not JSON"),
        ("[" + "{}," * 100_001 + "{}]", "more than 100,000 objects"),
        ("[" + "[]," * 600_000 + "[]]", "more than 1,000,000 values"),
        (" " * (text_files.MAX_JSON_BYTES + 1), "is larger than"),
    ],
)
def test_a_config_of_keras_without_end(text, message, tmp_path):
    path = keras_file(tmp_path / "a.keras", text, compression=zipfile.ZIP_DEFLATED)
    refused(path, message)


def test_every_damaged_byte_of_a_keras_file_is_told(tmp_path):
    made = io.BytesIO()
    keras_file(made, json.dumps({"compile_config": None}), compression=zipfile.ZIP_DEFLATED)
    path = tmp_path / "a.keras"
    told = "no model that Keras 3 has saved|without `compile`|not JSON|larger than|cannot be read"
    for place in range(len(made.getvalue())):
        content = bytearray(made.getvalue())
        content[place] ^= 0xFF
        path.write_bytes(content)
        refused(path, told)


@pytest.mark.parametrize("ending", [".bin", ".pt", ".pth", ".pkl"])
def test_a_pickle_is_not_read(ending, tmp_path):
    path = tmp_path / f"args{ending}"
    path.write_bytes(b"cos\nsystem\n(S'true'\ntR.")
    refused(path, "is a pickle, which can run code and is not read")
