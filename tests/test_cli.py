from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image
from typer.testing import CliRunner

from audit_plugin import __version__, cli
from audit_plugin.arrays import AuditError
from audit_plugin.cli import options, running
from audit_plugin.cli.running import check_output
from audit_plugin.config import AuditConfig

ROOT = Path(__file__).resolve().parents[1]
QUICK = ["--encoder", "offline", "--trials", "4", "--epochs", "4"]
NAMED = ["--image", "image", "--text", "caption"]
COLORS = {"red": (220, 40, 40), "green": (40, 200, 60), "blue": (40, 60, 220), "grey": (128, 128, 128)}


def run(*arguments: object) -> tuple[int, str, str]:
    """The command in this process: exit code, stdout, stderr."""
    done = CliRunner().invoke(cli.app, [str(a) for a in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), repr(done.exception)
    return done.exit_code, done.stdout, done.stderr


def start(*arguments: object, then: str = "") -> list[str]:
    """The command line of a process of its own that runs the command, then the code `then`."""
    code = (
        "import sys; from audit_plugin.cli import main\n"
        "try: main()\n"
        f"except SystemExit as end: code = end.code\n{then}\n"
        "sys.exit(code)"
    )
    return [sys.executable, "-c", code, *(str(a) for a in arguments)]


@pytest.fixture
def private_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", str(ROOT))


def make_manifest(folder: Path, rows: int, name: str = "m.csv") -> Path:
    """A manifest of noisy color patches with true captions."""
    lines = ["id,image,caption"]
    for row in range(rows):
        color = list(COLORS)[row % len(COLORS)]
        noise = np.random.default_rng(row).integers(-40, 40, (48, 48, 3))
        Image.fromarray(np.clip(np.array(COLORS[color]) + noise, 0, 255).astype(np.uint8)).save(folder / f"{row}.png")
        lines.append(f"r{row},{row}.png,a {color} patch number {row}")
    path = folder / name
    path.write_text("\n".join(lines) + "\n")
    return path


def test_version() -> None:
    assert run("--version")[:2] == (0, f"audit-plugin {__version__}\n")


def test_help_is_light_and_lists_the_commands() -> None:
    heavy = "torch fiftyone faiss pyarrow open_clip transformers onnxruntime rich"
    then = f"print('HEAVY', sorted(set('{heavy}'.split()) & set(sys.modules)))"
    done = subprocess.run(start("--help", then=then), capture_output=True, text=True, cwd=ROOT, check=True)
    assert "HEAVY []" in done.stdout
    for command in ("score", "removal-study", "audit", "demo", "import", "cross-modal", "canary-recall", "link"):
        assert f"\n  {command} " in done.stdout
    for former in ("mitigate", "transfer", "plant", "recall"):
        assert f"\n  {former} " not in done.stdout


@pytest.mark.parametrize(
    ("former", "current", "out"),
    [
        ("transfer", "cross-modal", "transfer.json"),
        ("mitigate", "removal-study", ""),
        ("plant", "plant-canaries", "planted"),
        ("recall", "canary-recall", "recall.json"),
    ],
)
def test_former_commands_run_under_their_names_of_today(
    former: str, current: str, out: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run(former, "--help") == run(current, "--help")
    passed: list[list[str]] = []
    monkeypatch.setattr("typer.core.TyperGroup.resolve_command", lambda _self, _ctx, args: passed.append(args))
    options._Application(name="app").resolve_command(None, [former, "x.csv", "--false-alarms=0.05", "--seed", "1"])
    default = ["--out", out] if out else []
    assert passed == [[current, *default, "x.csv", "--false-positive-rate=0.05", "--seed", "1"]]


def test_former_options_are_understood_but_not_listed() -> None:
    seen = []

    @options.command()
    def probe(*, config: AuditConfig) -> None:
        seen.append(config.false_positive_rate)

    try:
        assert run("probe", "--false-alarms", "0.05") == run("probe", "--false-alarms=0.05") == (0, "", "")
        assert "false-alarms" not in run("probe", "--help")[1]
    finally:
        cli.app.registered_commands.pop()
    assert seen == [0.05, 0.05]
    assert "--transfer" not in run("report", "--help")[1]


@pytest.mark.parametrize("command", ["score", "removal-study", "audit"])
def test_every_setting_is_an_option_with_its_own_help_and_default(command: str) -> None:
    _, out, _ = run(command, "--help")
    text = " ".join(out.split())
    for field in fields(AuditConfig):
        if field.name == "run" and command != "audit":
            continue
        assert f"--{field.name.replace('_', '-')} " in text
        if field.name not in ("image", "text", "audio", "video"):
            place = "Field" if command == "audit" else "Column"
            assert field.metadata["help"].replace("Field or column", place) in text
            is_off = field.default is False or field.default == ""  # of these no default is shown
            assert is_off or f"[default: {field.default}]" in text


def test_options_reach_the_config() -> None:
    seen = []

    @options.command(text="Caption")
    def probe(*, config: AuditConfig) -> None:
        seen.append(config)

    try:
        run("probe", "--text", "t", "--group", "g", "--trials", "8", "--false-positive-rate", "0.05", "--seed", "3")
    finally:
        cli.app.registered_commands.pop()
    assert seen == [AuditConfig(text="t", group="g", trials=8, false_positive_rate=0.05, seed=3)]


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["no.csv", *NAMED], "error: manifest 'no.csv' does not exist; check its path"),
        (
            ["m.csv", "--image", "image", "--text", "captoin"],
            "error: m.csv has no column 'captoin'; did you mean 'caption'? its columns are 'id', 'image', 'caption'",
        ),
        (
            ["none.csv", "--image", "id"],
            "error: none.csv: 1 modality named or known by its name, an audit needs two (its columns are "
            "'id', 'pixels'): name two or more columns by --image COL, --text COL, --audio COL, --video COL",
        ),
        (
            ["m.csv", *NAMED, "--trials", "5"],
            "error: trials is 5; it must be a multiple of 2 (folds) to hold out every sample equally often: use 6",
        ),
        (["m.csv", *NAMED, "--device", "tpu"], "error: device is 'tpu'; choose one of auto, cpu, cuda"),
        (
            ["m.csv", *NAMED, "--out", "m.csv"],
            "error: --out 'm.csv' would overwrite the input 'm.csv'; name another file",
        ),
        (
            ["m.csv", *NAMED, "--out", "s.xlsx"],
            "error: --out 's.xlsx' ends in '.xlsx'; choose .parquet or .csv or .jsonl",
        ),
        (
            ["latin.csv", *NAMED],
            "error: latin.csv is not UTF-8 (byte 28, line 2: 0xe9, perhaps Windows-1252); save it as UTF-8: iconv -f "
            "WINDOWS-1252 -t UTF-8 latin.csv > utf8.csv",
        ),
        (
            ["twice.csv", *NAMED],
            "error: twice.csv: id '1' stands in rows 1 and 2, which show different things; "
            "give every sample an id of its own",
        ),
        (["empty.csv", *NAMED], "error: empty.csv has a header but no rows; add one row per sample"),
    ],
)
def test_bad_input_is_one_sentence_and_code_2(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.csv").write_text("id,image,caption\n1,a.png,x\n")
    Path("latin.csv").write_bytes(b"id,image,caption\n1,a.png,caf\xe9\n")
    Path("twice.csv").write_text("id,image,caption\n1,a.png,x\n1,b.png,y\n")
    Path("none.csv").write_text("id,pixels\n")
    Path("empty.csv").write_text("id,image,caption\n")
    assert run("score", *arguments) == (2, "", sentence + "\n")
    assert not Path("scores.parquet").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--trials", "8"],
            "--trials cannot be combined with --extend, which uses the settings of the run; leave it out",
        ),
        (
            ["--engine", "ray"],
            "--engine cannot be combined with --extend, which uses the settings of the run; leave it out",
        ),
        (["--dry-run"], "--dry-run cannot be combined with --extend, which uses the settings of the run; leave it out"),
        ([], "gone is not the folder of a run; the summary of an audit names its own (run_dir)"),
    ],
)
def test_an_extension_refuses_what_it_cannot_honor(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.csv").write_text("id,image,caption\n1,a.png,x\n")
    code, out, error = run("score", "m.csv", *NAMED, "--extend", "gone", *arguments)
    assert (code, out) == (2, "")
    assert error.endswith(f"error: {sentence}\n")


@pytest.mark.usefixtures("private_cache")
def test_new_rows_are_scored_by_a_finished_run(tmp_path: Path) -> None:
    first, later = make_manifest(tmp_path, 40), tmp_path / "later.csv"
    code, _, error = run("score", first, *NAMED, *QUICK, "--out", tmp_path / "a.csv", "--run-dir", tmp_path / "run")
    assert code == 0, error
    for name in ("90.png", "91.png"):
        Image.new("RGB", (48, 48), "red").save(tmp_path / name)
    later.write_text("id,image,caption\nn1,90.png,a red patch number 90\nn2,91.png,a blue patch number 91\n")
    code, out, error = run("score", later, *NAMED, "--extend", tmp_path / "run", "--out", tmp_path / "b.csv")
    assert code == 0, error
    with (tmp_path / "b.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["n1", "n2"]
    assert all(row["alignment"] and not row["multimem"] for row in rows)
    assert f"scores: {tmp_path / 'b.csv'}" in out
    assert "plot:" not in out  # nothing of these rows was memorized


@pytest.mark.usefixtures("private_cache")
def test_four_modalities_from_a_manifest(
    tmp_path: Path, pictures: list[str], captions: list[str], clips: list[str], sounds: list[str]
) -> None:
    lines = [
        json.dumps(dict(zip("itas", row, strict=True)))
        for row in zip(pictures[:40], captions[:40], sounds, clips, strict=True)
    ]
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    named = ["--image", "i", "--text", "t", "--audio", "a", "--video", "s"]
    code, out, error = run("score", tmp_path / "m.jsonl", *named, *QUICK, "--out", tmp_path / "s.parquet")
    assert code == 0, error
    table = pq.read_table(tmp_path / "s.parquet")
    assert table.num_rows == 40
    assert {"misalignment_image_text", "misalignment_audio_video", "outlier_video"} <= set(table.column_names)
    assert not any(table["failure"].to_pylist())
    assert "Attribution of MultiMem" in out
    assert (tmp_path / "s.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.usefixtures("private_cache")
def test_a_removal_study_writes_a_report_a_plot_and_a_table(tmp_path: Path) -> None:
    manifest, report = make_manifest(tmp_path, 110), tmp_path / "new" / "removal.json"
    small = [*QUICK, "--amounts", "4,8", "--seeds", "2", "--out", report]
    code, out, error = run("removal-study", manifest, *NAMED, *small)
    assert code == 0, error
    found = json.loads(report.read_text())
    assert found["amounts"] == [0, 4, 8]
    assert {"multimem", "random"} <= set(found["methods"])
    for method in found["methods"]:
        assert f"│ {method} " in out
    assert "Gain over no removal, on the test rows" in out
    assert report.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--amounts", "4;8"], "--amounts is '4;8'; give whole numbers separated by commas, such as 20,50,100"),
        (["--out", "r.txt"], "--out 'r.txt' ends in '.txt'; choose .json"),
        (["--out", "m.json"], "--out 'm.json' would overwrite the input 'm.json'; name another file"),
        (["--train", "towers"], "train is towers and protocol ensemble; a removal curve needs"),
    ],
)
def test_a_removal_study_that_cannot_be_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.json").write_text('{"image": "a.png", "caption": "x"}')
    code, out, error = run("removal-study", "m.json", *NAMED, *arguments)
    assert (code, out) == (2, "")
    assert f"error: {sentence}" in error


def test_output_is_checked_before_the_work(tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    manifest.write_text("image,caption\n")
    check_output(tmp_path / "new" / "scores.parquet", (".parquet", ".csv"), manifest)
    assert not (tmp_path / "new").exists()
    for out, reason in [
        ("scores.xlsx", "choose .parquet or .csv"),
        ("m.csv", "would overwrite the input"),
        ("m.csv/scores.csv", "cannot be written"),
    ]:
        with pytest.raises(AuditError, match=reason):
            check_output(tmp_path / out, (".parquet", ".csv"), manifest)


def test_a_folder_that_takes_no_files_is_refused_before_the_work(tmp_path: Path) -> None:
    if not Path("/proc/self").exists():
        pytest.skip("no /proc, whose permissions allow root what the system does not")
    with pytest.raises(AuditError, match="cannot be written; name a file in a folder where you may write"):
        check_output(Path("/proc/missing/scores.parquet"), (".parquet",))
    check_output(tmp_path / "scores.parquet", (".parquet",))
    assert list(tmp_path.iterdir()) == []  # nothing is left of the attempt


def test_a_summary_does_not_overwrite_the_manifest(tmp_path: Path) -> None:
    manifest = tmp_path / "m.json"
    manifest.write_text('{"image": "a.png", "caption": "x"}')
    code, _, error = run("score", str(manifest), *NAMED, "--out", str(tmp_path / "m.parquet"))
    assert (code, "would overwrite the input 'm.json'" in error) == (2, True)


def test_wrong_use_is_code_2() -> None:
    assert run("score")[0] == 2
    assert run("score", "m.csv", "--color", "red")[0] == 2
    assert run("nonsense")[0] == 2


@pytest.mark.parametrize(
    ("error", "code", "sentence"),
    [
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to resume"),
        (AuditError("it is \x1b[31mred"), 2, "error: it is [31mred"),
        (
            PermissionError(13, "Permission denied", "/x"),
            2,
            "error: cannot use '/x' (Permission denied); check it and run again",
        ),
        (
            OSError(5, "Input/output error"),
            2,
            "error: cannot use the disk (Input/output error); check it and run again",
        ),
    ],
)
def test_what_errors_become(error: BaseException, code: int, sentence: str) -> None:
    @options.command()
    def probe(*, config: AuditConfig) -> None:
        raise error

    try:
        assert run("probe") == (code, "", sentence + "\n")
    finally:
        cli.app.registered_commands.pop()


@pytest.mark.usefixtures("private_cache")
def test_score_writes_the_table_without_fiftyone(tmp_path: Path) -> None:
    out = tmp_path / "scores.parquet"
    then = "print('FIFTYONE', 'fiftyone' in sys.modules)"
    command = start("score", make_manifest(tmp_path, 24), *NAMED, *QUICK, "--out", out, then=then)
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "FIFTYONE False" in done.stdout
    assert "Warning" not in done.stderr
    table = pq.read_table(out)
    assert table["id"].to_pylist() == [f"r{row}" for row in range(24)]
    assert table.column_names[:4] == ["id", "misalignment", "misalignment_image_text", "culprit"]
    assert np.isfinite(table["outlier"].to_numpy()).all()
    assert json.loads(out.with_suffix(".json").read_text())["samples"] == 24
    assert "encode image" in done.stderr
    assert f"scores: {out}" in done.stdout


@pytest.mark.usefixtures("private_cache")
def test_torn_rows_and_lost_images_fail_alone(tmp_path: Path) -> None:
    path = make_manifest(tmp_path, 16)
    lines = path.read_text().splitlines()
    lines[3] = "r2,2.png"
    (tmp_path / "5.png").unlink()
    (tmp_path / "6.png").write_bytes(b"")
    path.write_text("\n".join(lines) + "\n")
    code, out, _ = run("score", path, *NAMED, *QUICK, "--out", tmp_path / "s.jsonl")
    rows = [json.loads(line) for line in (tmp_path / "s.jsonl").read_text().splitlines()]
    assert code == 0
    assert [row["id"] for row in rows] == [f"r{i}" for i in range(16)]
    assert [i for i, row in enumerate(rows) if row["failure"]] == [2, 5, 6]
    assert "line 4 has 2 columns" in rows[2]["failure"]
    assert all(rows[i]["misalignment"] is None and rows[i]["action"] == "fix" for i in (2, 5, 6))
    assert rows[0]["outlier_text"] is not None
    assert "failures" in out


@pytest.mark.parametrize("rows", [1, 2, 15])
@pytest.mark.usefixtures("private_cache")
def test_few_rows(tmp_path: Path, rows: int) -> None:
    out = tmp_path / "s.parquet"
    code, _, error = run("score", make_manifest(tmp_path, rows), *NAMED, *QUICK, "--out", out)
    table = pq.read_table(out)
    assert table.num_rows == rows
    scored = any(
        np.isfinite(table[c].to_numpy()).any()
        for c, kind in zip(table.column_names, table.schema.types, strict=True)
        if kind == "float"
    )
    assert code == (0 if scored else 1)
    assert ("nothing could be scored" in error) is not scored
    assert scored or rows == 1


@pytest.mark.usefixtures("private_cache")
def test_nothing_scored_is_code_1_and_still_written(tmp_path: Path) -> None:
    path = tmp_path / "m.csv"
    path.write_text("image,caption\n" + "".join(f"lost{i}.png,text {i}\n" for i in range(3)))
    out = tmp_path / "s.csv"
    code, _, error = run("score", path, "--image", "image", "--text", "caption", *QUICK, "--out", out)
    assert code == 1
    assert error.endswith("nothing could be scored; the column 'failure' gives the reason for each row\n")
    with out.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["id"] for row in rows] == ["0", "1", "2"]
    assert all(row["failure"] and not row["misalignment"] for row in rows)


@pytest.mark.usefixtures("private_cache")
def test_dry_run_plans_and_writes_nothing(tmp_path: Path) -> None:
    out = tmp_path / "s.parquet"
    code, text, _ = run("score", make_manifest(tmp_path, 5), *NAMED, *QUICK, "--out", out, "--dry-run")
    assert code == 0
    assert "to encode: image" in text
    assert not out.exists()


@pytest.mark.usefixtures("private_cache")
def test_interrupted_and_resumed_gives_the_same_bytes(tmp_path: Path) -> None:
    path = make_manifest(tmp_path, 40)

    def command(name: str) -> list[str]:
        return start("score", path, *NAMED, *QUICK, "--out", tmp_path / name, "--run-dir", tmp_path / f"run_{name}")

    process = subprocess.Popen(command("a.csv"), stderr=subprocess.PIPE, text=True, cwd=tmp_path)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("encode"):
            process.send_signal(signal.SIGINT)
            break
    rest = process.stderr.read()
    assert process.wait() == 130, rest
    assert rest.endswith("interrupted; run the same command again to resume\n")
    assert "Traceback" not in rest
    assert not (tmp_path / "a.csv").exists()
    for name in ("a.csv", "b.csv"):
        subprocess.run(command(name), capture_output=True, cwd=tmp_path, check=True)
    assert (tmp_path / "a.csv").read_bytes() == (tmp_path / "b.csv").read_bytes()


DEAD_DATABASE = "mongodb://127.0.0.1:9/"


@pytest.mark.fiftyone
@pytest.mark.usefixtures("private_cache")
def test_demo_scores_without_a_database_and_fills_one_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments = ["demo", "--samples", "40", "--seed", "3", "--out", str(tmp_path / "demo")]
    with monkeypatch.context() as patch:
        patch.setenv("FIFTYONE_DATABASE_URI", DEAD_DATABASE)
        done = subprocess.run(start(*arguments), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert done.returncode == 0, done.stderr
    assert "the demo was scored but not imported into FiftyOne: FiftyOne's database at 127.0.0.1:9" in done.stdout
    assert "start it, or correct FIFTYONE_DATABASE_URI" in done.stdout
    scores = (tmp_path / "demo" / "scores.parquet").read_bytes()

    import fiftyone as fo

    code, out, _ = run(*arguments)
    assert code == 0
    assert (tmp_path / "demo" / "scores.parquet").read_bytes() == scores
    for kind in ("swapped", "vague", "non-persona", "conflict", "placeholder"):
        assert f"│ {kind}" in out
    assert "AUROC of misalignment" in out
    assert "fiftyone app launch audit-demo" in out
    dataset = fo.load_dataset("audit-demo")
    table = pq.read_table(tmp_path / "demo" / "scores.parquet")
    assert dataset.values("manifest_id") == table["id"].to_pylist()
    for what in (["report"], ["export", "--to"]):  # the table names its manifest and columns
        shown = tmp_path / f"{what[0]}.{'html' if what == ['report'] else 'csv'}"
        wanted = ["--out", str(shown)] if what == ["report"] else [*what[1:], str(shown)]
        code, out, err = run(what[0], str(tmp_path / "demo" / "scores.parquet"), *wanted)
        assert code == 0, (out, err)
        assert shown.stat().st_size > 1000
    outlier = np.array(dataset.values("audit_outlier"), np.float32)
    np.testing.assert_array_equal(outlier, table["outlier"].to_numpy())
    assert "audit_flagged" in dataset.list_saved_views()
    ids = set(dataset.values("id"))
    told = dataset.load_run_results("audit").explanations
    assert set(told) == set(dataset.load_saved_view("audit_flagged").values("id"))
    voters = {v["id"] for records in told.values() for side in records[0]["neighbors"] for v in side["voters"]}
    assert voters <= ids


@pytest.mark.fiftyone
def test_audit_names_what_is_wrong_with_a_dataset(tmp_path: Path, make_dataset: Callable[..., Any]) -> None:
    name = make_dataset(6).name
    code, out, error = run("audit", "no-such-dataset")
    assert (code, out) == (2, "")
    assert error.startswith("error: dataset 'no-such-dataset' does not exist; ")
    code, out, error = run("audit", name, "--text", "captoin")
    assert (code, out) == (2, "")
    assert error.startswith("error: text field 'captoin' does not exist")
    code, out, error = run("audit", name, "--view", "nope")
    assert (code, out) == (2, "")
    assert "no saved view 'nope'" in error


@pytest.mark.fiftyone
@pytest.mark.usefixtures("private_cache")
def test_audit_writes_into_the_view_alone(make_dataset: Callable[..., Any]) -> None:
    dataset = make_dataset(12)
    dataset.save_view("head", dataset.limit(8))
    code, out, _ = run("audit", dataset.name, "--view", "head", "--run", "second", *QUICK)
    assert code == 0
    dataset.reload()
    assert [value is not None for value in dataset.values("second_action")] == [True] * 8 + [False] * 4
    assert "fields second_*, tags second:* and the saved view second_flagged" in out


def test_audit_of_objects_writes_attributes_of_labels(make_dataset: Callable[..., Any]) -> None:
    import fiftyone as fo

    box = [0.1, 0.1, 0.8, 0.8]
    found = [fo.Detections(detections=[fo.Detection(label=f"k{row % 2}", bounding_box=box)]) for row in range(6)]
    dataset = make_dataset(6, truth=lambda row: found[row])
    code, out, _ = run("audit", dataset.name, "--patches", "truth", "--text", "truth", *QUICK)
    assert code == 0
    assert "attributes audit_*" in out
    dataset.reload()
    assert all(action for actions in dataset.values("truth.detections.audit_action") for action in actions)
    code, _, error = run("audit", dataset.name, "--patches", "caption", *QUICK)
    assert code == 2
    assert "patches field 'caption' is not a field of detections" in error


def test_a_command_that_gets_no_pipe_or_thread_at_its_start_says_so() -> None:
    start = "import resource, audit_plugin.cli as cli; resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3)); cli.main()"
    ended = subprocess.run(
        [sys.executable, "-c", start, "cache"], capture_output=True, text=True, timeout=120, check=False
    )
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr.startswith("error: too many files are open at once; raise the limit (ulimit -n")
    assert ended.stderr.count("\n") == 1


def test_a_command_in_a_deleted_folder_says_so(tmp_path: Path) -> None:
    table = tmp_path / "rows.csv"
    table.write_text("image,caption\n")
    gone = tmp_path / "gone"
    start = f"import os; os.mkdir({str(gone)!r}); os.chdir({str(gone)!r}); os.rmdir({str(gone)!r}); "
    command = [sys.executable, "-c", start + "from audit_plugin.cli import main; main()", "report", str(table)]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 2
    assert ended.stderr == "error: the current folder was deleted; change to another folder and run again\n"


@pytest.mark.parametrize("closed", ["<&-", ">&-", "2>&-", "<&- >&- 2>&-"])
def test_closed_streams_lead_nowhere(closed: str, tmp_path: Path) -> None:
    def run(arguments: str) -> subprocess.CompletedProcess[str]:
        command = f"{sys.executable} -m audit_plugin cache {arguments} {closed}"
        return subprocess.run(command, shell=True, capture_output=True, text=True, env=environment, check=False)

    environment = {**os.environ, "AUDIT_PLUGIN_CACHE": str(tmp_path / "cache"), "PYTHONPATH": str(ROOT)}
    ended, wrong = run(""), run("--nothing")
    assert (ended.returncode, ended.stderr, wrong.returncode) == (0, "", 2)
    assert "Traceback" not in wrong.stderr


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("mongodb://ann:secret@127.0.0.1:1/", "at 127.0.0.1:1 does not answer within 1 s"),
        ("127.0.0.1:1", "at 127.0.0.1:1 does not answer within 1 s"),
        ("mongodb://", "has no usable address"),
    ],
)
@pytest.mark.parametrize("place", ["environment", "configuration"])
def test_an_address_where_no_database_answers_is_named_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, reason: str, place: str
) -> None:
    monkeypatch.setattr(running, "PING_SECONDS", 1)
    if place == "environment":
        monkeypatch.setenv("FIFTYONE_DATABASE_URI", address)
    else:
        (tmp_path / "config.json").write_text(json.dumps({"database_uri": address}))
        monkeypatch.delenv("FIFTYONE_DATABASE_URI", raising=False)
        monkeypatch.setenv("FIFTYONE_CONFIG_PATH", str(tmp_path / "config.json"))
    with pytest.raises(AuditError, match=f"database {reason}.*correct FIFTYONE_DATABASE_URI") as raised:
        running.fiftyone_io()
    assert "secret" not in str(raised.value)


@pytest.mark.parametrize("megabytes", [100, 520, 1600, 2900])
def test_a_shell_that_limits_memory_too_far_is_told_so_at_once(megabytes: int) -> None:
    """OpenBLAS asks for memory for ever where it gets none while it is loaded."""
    resource = pytest.importorskip("resource")
    limit = megabytes * 1_000_000
    done = subprocess.run(
        [sys.executable, "-m", "audit_plugin", "compare", "a.parquet", "b.parquet"],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: this shell limits memory to {megabytes} MB (ulimit -v), but 3")
    assert done.stderr.count("\n") == 1
