import os

import pytest

from optimization.training.whole_files import write_whole


def test_a_file_is_written_anew(tmp_path):
    path = str(tmp_path / "a.txt")
    for text in ("one\n", "ä\n"):
        write_whole(path, text)
        assert (tmp_path / "a.txt").read_text(encoding="utf-8") == text
    assert os.listdir(tmp_path) == ["a.txt"]


def test_what_fails_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    path = str(tmp_path / "a.txt")
    write_whole(path, "one\n")
    with pytest.raises(ValueError, match="surrogates"):
        write_whole(path, "\ud800")

    def full(*arguments):
        raise OSError("no space")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="no space"):
        write_whole(path, "two\n")
    assert (tmp_path / "a.txt").read_text() == "one\n"
    assert os.listdir(tmp_path) == ["a.txt"]
