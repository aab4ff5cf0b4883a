"""The files of this repository: what the lint finds in them is right, or there is a reason."""

from pathlib import Path

from optimization.cli.validate import check
from optimization.lint import Severity

ROOT = Path(__file__).parent.parent.parent
FILES = sorted((ROOT / "configs").glob("[eo]*/*.yaml"))
# Detection transformers, Lion's ViT, Muon's models and torchtitan's Llama decay all weights, as
# published.
INFOS = {"detr_coco", "lion_vit_imagenet", "llama3_8b_torchtitan", "muon_kimi_k2", "muon_moonlight"}


def test_no_warnings_and_only_infos_that_are_right():
    assert len(FILES) > 30
    found = {path.stem: check(str(path))[0] for path in FILES}
    infos = {name: {f.code for f in findings} for name, findings in found.items() if findings}
    assert infos == {name: {"decay-on-norms"} for name in INFOS}
    assert {f.severity for findings in found.values() for f in findings} == {Severity.INFO}
