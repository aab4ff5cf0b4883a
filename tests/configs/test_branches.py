from tools import branches


def test_the_stub_has_every_type():
    assert branches.PATH.read_text(encoding="utf-8") == branches.text()
