from tools import branches


def test_the_stub_has_every_type():
    for path, text in branches.texts().items():
        assert path.read_text(encoding="utf-8") == text, path
