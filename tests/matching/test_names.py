import json
import os

import pytest

from optimization.matching.names import read_names, read_safetensors


def write(path, header):
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 24)
    return str(path)


def entry(*shape):
    return {"dtype": "F32", "shape": list(shape), "data_offsets": [0, 24]}


@pytest.mark.parametrize("line", ["a/b [2, 3]", "a/b (2,3)", "  a/b\t[2 3]  ", "a/b [2x3]"])
def test_a_line_has_a_path_and_a_shape(line):
    assert read_names([line]) == {"a/b": (2, 3)}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a\nb [2", "names.txt:2: expected a path, .* got 'b \\[2'"),
        ("a b", "names.txt:1: expected a path"),
        ("a\n\na [3]", "names.txt:3: the path 'a' is there twice"),
        ("# nothing\n", "names.txt: holds no names"),
    ],
)
def test_what_is_no_list_of_names_is_told(text, message):
    with pytest.raises(ValueError, match=message):
        read_names(text.splitlines(), "names.txt")


def test_the_header_of_safetensors_is_read(tmp_path):
    header = {"__metadata__": {"format": "pt"}, "b.weight": entry(2, 3), "a.scale": entry()}
    shapes = read_safetensors(write(tmp_path / "m.safetensors", header))
    assert list(shapes.items()) == [("b.weight", (2, 3)), ("a.scale", ())]


def test_a_file_of_the_library_itself(tmp_path):
    numpy = pytest.importorskip("safetensors.numpy")
    np = pytest.importorskip("numpy")
    numpy.save_file({"w": np.zeros((2, 3)), "b": np.zeros(4)}, tmp_path / "m.safetensors")
    assert read_safetensors(str(tmp_path / "m.safetensors")) == {"w": (2, 3), "b": (4,)}


def test_an_index_brings_its_files_together(tmp_path):
    write(tmp_path / "1.safetensors", {"b": entry(1)})
    write(tmp_path / "2.safetensors", {"a": entry(2), "c": entry(3)})
    index = tmp_path / "model.safetensors.index.json"
    names = {"a": "2.safetensors", "b": "1.safetensors", "c": "2.safetensors"}
    index.write_text(json.dumps({"weight_map": names}))
    assert read_safetensors(str(index)) == {"a": (2,), "b": (1,), "c": (3,)}
    index.write_text("{}")
    with pytest.raises(ValueError, match="is no index of safetensors files"):
        read_safetensors(str(index))


@pytest.mark.parametrize(
    "content", [b"", b"\x05", b"\xff" * 30, (9).to_bytes(8, "little") + b"[1,2,3,4]"]
)
def test_another_file_is_told(tmp_path, content):
    path = tmp_path / "m.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match="m.safetensors: is no safetensors file"):
        read_safetensors(str(path))


@pytest.mark.parametrize(
    "name", ["/etc/passwd", "../m.safetensors", "a/m.safetensors", "..", "", 1]
)
def test_an_index_names_files_beside_it_alone(tmp_path, name):
    write(tmp_path / "m.safetensors", {"a": entry(1)})
    index = tmp_path / "a" / "model.safetensors.index.json"
    index.parent.mkdir()
    index.write_text(json.dumps({"weight_map": {"a": name}}))
    with pytest.raises(ValueError, match="no file beside it|no index of safetensors"):
        read_safetensors(str(index))


@pytest.mark.parametrize("shape", ["[-1]", "[1.5]", "[true]", '"ab"', "null", "[[1]]"])
def test_a_shape_is_a_list_of_sizes(tmp_path, shape):
    text = f'{{"a": {{"shape": {shape}}}}}'.encode()
    (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match="is no safetensors file"):
        read_safetensors(str(tmp_path / "m.safetensors"))


def test_a_header_without_end_is_not_read(tmp_path):
    text = b"[" * 100_000
    (tmp_path / "m.safetensors").write_bytes(len(text).to_bytes(8, "little") + text)
    with pytest.raises(ValueError, match="is no safetensors file"):
        read_safetensors(str(tmp_path / "m.safetensors"))
    os.mkfifo(tmp_path / "pipe.safetensors")
    with pytest.raises(ValueError, match="no regular file"):
        read_safetensors(str(tmp_path / "pipe.safetensors"))
