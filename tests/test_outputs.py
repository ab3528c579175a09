"""What commands may write: never an input, a medium, a part of a run, or a file that another program wrote."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from audit_plugin import cli
from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.export import folder_of
from audit_plugin.cli.options import USAGE_ERROR
from audit_plugin.cli.running import check_beside, check_output
from audit_plugin.report.display import place_line


def refusal(out: Path, *inputs: Path, samples: Samples | None = None) -> str:
    with pytest.raises(AuditError) as caught:
        check_output(out, (".json", ".png"), *inputs, samples=samples)
    return str(caught.value)


def test_an_output_is_no_input_no_medium_and_no_part_of_a_run(tmp_path: Path) -> None:
    manifest, medium = tmp_path / "m.json", tmp_path / "0.png"
    manifest.write_text("{}")
    medium.write_bytes(b"pixels")
    os.link(manifest, tmp_path / "same.json")
    (tmp_path / "link.json").symlink_to(manifest)
    for name in ("m.json", "same.json", "link.json", "../" + tmp_path.name + "/m.json"):
        assert "would overwrite the input 'm.json'" in refusal(tmp_path / name, manifest)
    samples = Samples(("0",), {"image": (str(medium),), "text": ("x",)})
    assert "would overwrite a medium" in refusal(medium, samples=samples)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "run.json").write_text("{}")
    for name in ("run.json", "new.json"):
        assert "lies in the folder of a run" in refusal(tmp_path / "run" / name)
    os.mkfifo(tmp_path / "pipe.json")
    (tmp_path / "null.json").symlink_to("/dev/null")
    assert "a named pipe" in refusal(tmp_path / "pipe.json")
    assert "a link to /dev/null" in refusal(tmp_path / "null.json")
    check_output(tmp_path / "new.json", (".json",), manifest, samples=samples)


def test_outputs_beside_another_replace_only_what_this_tool_wrote(tmp_path: Path) -> None:
    samples = Samples(("0",), {"image": (str(tmp_path / "a.png"),), "text": ("x",)})
    with pytest.raises(AuditError, match="would overwrite a medium"):
        check_beside(tmp_path / "a.parquet", (".json", ".png"), samples=samples)
    summary = tmp_path / "b.json"
    for content in ("[1]", '{"annotations": []}', "{"):
        summary.write_text(content)
        with pytest.raises(AuditError, match="is not a summary of this tool"):
            check_beside(tmp_path / "b.parquet", (".json",), samples=samples)
    summary.write_text(json.dumps({"versions": {}, "config": {}}))
    check_beside(tmp_path / "b.parquet", (".json", ".png"), samples=samples)


@pytest.mark.parametrize(
    ("manifest", "folder"),
    [
        ("m.csv", "."),
        ("set", "set"),
        ("set/*.tar", "set"),
        ("s*t/a{0..9}/x.tar", "."),
        ("gone/m.csv", "gone"),
        ("a[1]/m.csv", "a[1]"),
        ("set/annotations/coco.json", "set"),  # whose images lie beside
        ("set/annotations/m.json", "set/annotations"),
        ("set/annotations/m.csv", "set/annotations"),
    ],
)
def test_media_of_a_recorded_manifest_lie_in_its_folder(tmp_path: Path, manifest: str, folder: str) -> None:
    (tmp_path / "set").mkdir()
    (tmp_path / "a[1]").mkdir()
    (tmp_path / "a[1]" / "m.csv").touch()
    (tmp_path / "set" / "annotations").mkdir()
    coco = {"images": [{"id": 1, "file_name": "a.jpg"}], "annotations": [{"image_id": 1, "caption": "x"}]}
    for name, content in (("coco.json", coco), ("m.json", [{"image": "../a.jpg", "caption": "x"}])):
        (tmp_path / "set" / "annotations" / name).write_text(json.dumps(content))
    (tmp_path / "set" / "annotations" / "m.csv").write_text("image,caption\n../a.jpg,x\n")
    assert folder_of(tmp_path / manifest) == tmp_path / folder


def test_lines_that_name_files_cannot_act_on_the_terminal() -> None:
    assert place_line("scores: /a  b/\x1b[31m\u202ex\r\n.csv") == "scores: /a  b/\\u001b[31m\\u202ex\\r\\n.csv"


def test_refused_arguments_cannot_act_on_the_terminal(tmp_path: Path) -> None:
    assert issubclass(typer.BadParameter, USAGE_ERROR)
    for arguments in (
        ["score", "m.csv", "\x1b]0;owned\x07"],
        ["score", str(tmp_path / "\x1b[31m\u202e.csv"), "--image", "image", "--text", "text"],
        ["report", "x.parquet", "--seed", "\x1b[31m"],
        ["\x1b[31m"],
    ):
        done = CliRunner().invoke(cli.app, arguments)
        assert done.exit_code == 2
        assert done.output
        assert not {"\x1b", "\x07", "\u202e"} & set(done.output)
