import pytest

from optimization.configs import text_files
from optimization.configs.text_files import NotReadError, parse_json, read_text


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"[" * 100_000, "nested too deeply"),
        (b"[" + b"1," * 20 + b"1]", "more than 20 values"),
        (b'"' + b"x" * 100 + b'"', "larger than 100 bytes"),
        (b"\xff", "utf-8"),
        (b"[\x001]".replace(b"1", b"1\x00"), "Expecting value"),  # no other encoding is guessed
        (b"9" * 99, None),
        (b"{", "Expecting property name"),
    ],
)
def test_json_is_bounded_before_it_is_parsed(content, message, monkeypatch):
    monkeypatch.setattr(text_files, "MAX_JSON_VALUES", 20 if b"," in content else 10**6)
    monkeypatch.setattr(text_files, "MAX_JSON_BYTES", 100 if b"x" in content else 10**6)
    if message is None:
        assert parse_json(content) == int(content)
        return
    with pytest.raises(ValueError, match=message):
        parse_json(content)


def test_a_file_of_more_than_is_read_is_refused_by_its_first_bytes(tmp_path, monkeypatch):
    monkeypatch.setenv("OPTFACTORY_MAX_BYTES", "10")
    path = tmp_path / "text"
    path.write_bytes(b"\xef\xbb\xbf1234567")
    assert read_text(path) == "1234567"
    path.write_bytes(b"\xff" * 11)
    with pytest.raises(NotReadError, match="larger than 10 bytes"):
        read_text(path)
