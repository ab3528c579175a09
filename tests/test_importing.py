"""A manifest of tar shards is scored outside FiftyOne, and what is worth a look is imported."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from typer.testing import CliRunner

from audit_plugin import cli
from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.result import AuditResult, write_scores
from audit_plugin.audit.run import run_audit
from audit_plugin.inputs.samples import read_samples
from audit_plugin.report import report_html, report_of_table
from audit_plugin.review import queue
from audit_plugin.scoring.columns import JUDGE_COLUMNS
from tests.pipeline_fixtures import QUICK, encoded_rows

fo = pytest.importorskip("fiftyone")
from audit_plugin import fiftyone_io  # noqa: E402 (only where FiftyOne is)
from audit_plugin.fiftyone_io.results.reports import audit_scores  # noqa: E402

pytestmark = pytest.mark.fiftyone
N = 120


@pytest.fixture(scope="module")
def scored(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Samples, AuditResult]:
    """(scores.parquet, the manifest's rows, the result) of two shards whose features are cached."""
    folder = tmp_path_factory.mktemp("scored")
    cache, samples = encoded_rows(folder, N)
    for shard in range(2):
        with tarfile.open(folder / f"{shard:05d}.tar", "w") as file:
            for row in range(shard * 60, shard * 60 + 60):
                (folder / "caption.txt").write_text(samples.media["text"][row] or "")
                file.add(samples.media["image"][row] or "", f"{row:09d}.png")
                file.add(folder / "caption.txt", f"{row:09d}.txt")
    config = replace(QUICK, image="image", text="text", trials=8, epochs=20)
    rows = read_samples(folder / "*.tar", {"image": "image", "text": "text"})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_PLUGIN_CACHE", str(cache))
        result = run_audit(rows, config, run_dir=folder / "run")
    result = replace(result, summary={**result.summary, "manifest": str(folder / "*.tar")})
    write_scores(folder / "scores.parquet", result)
    return folder / "scores.parquet", rows, result


@pytest.fixture
def imported(scored: tuple[Path, Samples, AuditResult], tmp_path: Path) -> Iterator[Callable[..., fo.Dataset]]:
    """Imports the scored manifest; the datasets are deleted after the test."""
    made = []

    def make(**options: object) -> fo.Dataset:
        content = report_of_table(scored[0], scored[1])
        options = {"run": "audit", "media": tmp_path / "media", "others": 10, **options}
        made.append(fiftyone_io.import_scores(content, f"imported-{tmp_path.name}-{len(made)}", **options))
        return made[-1]

    yield make
    for dataset in made:
        dataset.delete()


def rows_in(dataset: fo.Dataset, samples: Samples) -> list[int]:
    return [samples.ids.index(name) for name in dataset.values("manifest_id")]


def test_flagged_rows_come_with_their_evidence_and_a_few_others(scored, imported) -> None:
    _, samples, result = scored
    dataset = imported()
    here, flagged = rows_in(dataset, samples), set(queue(result.columns).tolist())
    assert here == sorted(here)
    assert flagged, "something is flagged"
    assert flagged <= set(here)
    assert 10 <= len(set(here) - flagged) < N - len(flagged)
    for name in ("misalignment", "probability", "multimem", "outlier"):
        expected = result.columns[name][here].astype(float)
        np.testing.assert_array_equal(np.array(dataset.values(f"audit_{name}"), dtype=float), expected)
    assert dataset.values("audit_action") == result.columns["action"][here].tolist()
    assert dataset.values("caption") == [samples.media["text"][row] for row in here]
    for kind in ("misaligned", "outlier", "memorized"):
        tagged = set(dataset.match_tags(f"audit:{kind}").values("manifest_id"))
        assert tagged == {samples.ids[row] for row in here if result.flagged(kind)[row]}


def test_a_judged_table_comes_with_the_columns_of_the_judge(scored, tmp_path: Path) -> None:
    _, samples, result = scored
    judged = {column.name: np.full(N, "", dtype=object) for column in JUDGE_COLUMNS}
    judged |= {"judge_confidence": np.full(N, np.nan, np.float32), "judge_probability": np.full(N, 0.5, np.float32)}
    worst = int(np.nanargmax(result.columns["misalignment"]))
    judged["judge_fits"][worst], judged["judge_caption"][worst] = "no", "=<b>x</b>"
    write_scores(tmp_path / "judged.parquet", replace(result, columns={**result.columns, **judged}))
    content = report_of_table(tmp_path / "judged.parquet", samples)
    assert "<b>x" not in report_html(content, media=False)
    dataset = fiftyone_io.import_scores(content, f"judged-{tmp_path.name}", "audit", tmp_path / "media", (), None, 5)
    try:
        at = dataset.values("manifest_id").index(samples.ids[worst])
        assert dataset.values("audit_judge_caption")[at] == "=<b>x</b>"
        columns = audit_scores(dataset, "audit")
        assert columns["judge_fits"].tolist().count("no") == 1
        assert (columns["judge_probability"] == 0.5).all()
        fiftyone_io.delete_audit(dataset, "audit")
        assert not [name for name in dataset.get_field_schema() if name.startswith("audit_judge")]
    finally:
        dataset.delete()


def test_media_are_unpacked_for_the_rows_that_came(scored, imported, tmp_path: Path) -> None:
    dataset = imported()
    assert sorted(dataset.values("filepath")) == sorted(str(path) for path in (tmp_path / "media").iterdir())
    for name, path in zip(dataset.values("manifest_id"), dataset.values("filepath"), strict=True):
        original = scored[0].parent / f"{int(name)}.png"
        assert Path(path).read_bytes() == original.read_bytes()


def test_it_is_reviewed_like_any_audit(scored, imported) -> None:
    _, samples, result = scored
    dataset = imported()
    assert fiftyone_io.list_audits(dataset) == ["audit"]
    assert fiftyone_io.audit_info(dataset, "audit").status == "done"
    assert dataset.load_saved_view("audit_flagged").count() == len(queue(result.columns))
    order = [samples.ids[row] for row in queue(result.columns)]
    asked = fiftyone_io.queue_of(dataset, "audit")
    names = dict(zip(dataset.values("id"), dataset.values("manifest_id"), strict=True))
    assert [names[name] for name, _ in asked.left] == order
    from audit_plugin.fiftyone_io.results.cases import case_of
    from audit_plugin.fiftyone_io.results.reports import review_report

    case = case_of(dataset, "audit", asked.left[0])
    assert case.text == samples.media["text"][samples.ids.index(order[0])]
    shown = [voter["path"] for side in case.neighbors for voter in side["voters"]]
    assert shown
    assert all(Path(path).is_file() for path in shown), "whom the evidence names was imported too"
    assert "rows of scores.parquet were imported" in report_html(review_report(dataset, "audit"))
    fiftyone_io.decide(dataset, [asked.left[0][0]], "remove")
    assert len(fiftyone_io.queue_of(dataset, "audit").left) == len(order) - 1
    summary = dataset.load_run_results("audit").summary
    assert summary["samples"] == len(dataset)
    assert summary["flags"]["misaligned"] == len(dataset.match_tags("audit:misaligned"))
    assert "of the 120 rows of scores.parquet were imported" in summary["notes"][0]
    fiftyone_io.delete_audit(dataset, "audit")
    assert not [name for name in dataset.get_field_schema() if name.startswith("audit_m")]


def test_a_part_of_the_flagged_is_the_most_suspicious_part(scored, imported) -> None:
    _, samples, result = scored
    worst = queue(result.columns, ("misaligned",))[:3]
    here = rows_in(imported(kinds=("misaligned",), rows=3, others=0), samples)
    assert set(worst) <= set(here)
    named = set(here) - set(worst)
    assert named, "neighbors"
    assert len(here) < 60
    assert rows_in(imported(rows=0, others=7), samples) == rows_in(imported(rows=0, others=7), samples)
    drawn = rows_in(imported(rows=0, others=7), samples)
    assert len(drawn) == 7
    assert not set(drawn) & set(queue(result.columns).tolist())


def test_what_cannot_be_imported_is_said_and_leaves_nothing(scored, imported, tmp_path: Path) -> None:
    dataset = imported()
    content = report_of_table(scored[0], scored[1])
    with pytest.raises(AuditError, match=f"dataset '{dataset.name}' exists"):
        fiftyone_io.import_scores(content, dataset.name, "audit", tmp_path)
    with pytest.raises(AuditError, match="no row of that kind"):
        fiftyone_io.import_scores(content, "none", "audit", tmp_path, rows=0, others=0)
    texts = replace(content, samples=Samples(scored[1].ids, {"text": scored[1].media["text"]}))
    with pytest.raises(AuditError, match="no image or video or audio"):
        fiftyone_io.import_scores(texts, "none", "audit", tmp_path)
    gone = tuple((value or "").replace("00000.tar", "gone.tar") for value in scored[1].media["image"])
    lost = replace(content, samples=replace(scored[1], media={**scored[1].media, "image": gone}))
    with pytest.raises(AuditError, match=r"gone\.tar.*put the shard back"):
        fiftyone_io.import_scores(lost, "none", "audit", tmp_path)
    with pytest.raises(AuditError, match="kind 'blurred' is unknown"):
        fiftyone_io.import_scores(content, "none", "audit", tmp_path, kinds=("blurred",))
    assert not fo.dataset_exists("none")


def test_lists_of_captions_come_whole(tmp_path: Path) -> None:
    from audit_plugin.report import ReportContent

    names, captions = ("a", "a", "b", "c", "c"), (0, 1, 0, 0, 1)
    texts = ("one", "two", None, "three", "four")
    columns = {
        "misalignment": np.array([0, 9, np.nan, 0, 0], np.float32),
        "probability": np.array([0, 1, np.nan, 0, 0], np.float32),
        "is_misaligned": np.array([False, True, False, False, False]),
        "duplicate_group": np.array(["", "", "", "", ""], dtype=object),
        "action": np.array(["keep", "review", "keep", "keep", "keep"], dtype=object),
        "reason": np.array([""] * 5, dtype=object),
        "suggestion": np.array([""] * 5, dtype=object),
        "failure": np.array(["", "", "text: no value", "", ""], dtype=object),
    }
    media = {"image": ("/x/a.png", "/x/a.png", "/x/b.png", "/x/c.png", "/x/c.png"), "text": texts}
    content = ReportContent("s.parquet", Samples(names, media, caption=captions), columns, {"config": {}})
    dataset = fiftyone_io.import_scores(content, f"lists-{tmp_path.name}", "audit", tmp_path, others=0)
    try:
        assert dataset.values("manifest_id") == ["a"]
        assert dataset.values("caption") == [["one", "two"]]
        assert dataset.values("audit_caption_index") == [1]
        assert dataset.values("audit_misalignment_list") == [[0, 9]]
        assert fiftyone_io.queue_of(dataset, "audit").left == ((dataset.first().id, 1),)
    finally:
        dataset.delete()


def test_objects_come_as_crops(tmp_path: Path) -> None:
    from PIL import Image

    from audit_plugin.inputs.images import crop_of
    from audit_plugin.report import ReportContent

    Image.new("RGB", (100, 50), (200, 10, 10)).save(tmp_path / "a.png")
    boxes = [crop_of(str(tmp_path / "a.png"), box) for box in ((0, 0, 1, 1), (0.25, 0, 0.5, 1))]
    columns = {
        "misalignment": np.array([9, 9], np.float32),
        "probability": np.array([1, 1], np.float32),
        "is_misaligned": np.array([True, True]),
        "action": np.array(["review", "review"], dtype=object),
        **{name: np.array(["", ""], dtype=object) for name in ("duplicate_group", "reason", "suggestion", "failure")},
    }
    samples = Samples(("a#1", "a#2"), {"image": tuple(boxes), "text": ("cat", "dog")})
    content = ReportContent("s.parquet", samples, columns, {"config": {}})
    dataset = fiftyone_io.import_scores(content, f"crops-{tmp_path.name}", "audit", tmp_path / "media", others=0)
    try:
        assert dataset.values("manifest_id") == ["a#1", "a#2"]
        # half of the width, with a tenth of it on each side
        assert [Image.open(path).size for path in dataset.values("filepath")] == [(100, 50), (60, 50)]
    finally:
        dataset.delete()


def test_media_of_a_recorded_manifest_come_from_its_folder_only(scored, tmp_path: Path) -> None:
    original, name = scored[0], f"confined-{tmp_path.name}"
    links, table = tmp_path / "links", tmp_path / "scores.parquet"
    links.mkdir()
    for shard in original.parent.glob("*.tar"):
        (links / shard.name).symlink_to(shard)
    table.write_bytes(original.read_bytes())
    summary = json.loads(original.with_suffix(".json").read_text())
    table.with_suffix(".json").write_text(json.dumps(summary | {"manifest": str(links)}))
    arguments = [
        "import",
        str(table),
        "--dataset",
        name,
        "--rows",
        "2",
        "--others",
        "3",
        "--media",
        str(tmp_path / "m"),
    ]
    done = CliRunner().invoke(cli.app, arguments)
    assert done.exit_code == 2
    assert f"manifest, as recorded in scores.json: {links}; media are read from {links} only" in done.stdout
    assert f"names a file outside of the media root {links}" in done.output
    assert not fo.dataset_exists(name)
    for more in (["--media-root", str(original.parent)], ["--manifest", str(links)]):
        done = CliRunner().invoke(cli.app, [*arguments, *more])
        try:
            assert done.exit_code == 0, done.output
            assert len(fo.load_dataset(name)) > 0
        finally:
            if fo.dataset_exists(name):
                fo.delete_dataset(name)


def test_the_command_finds_the_manifest_that_was_scored(scored, tmp_path: Path) -> None:
    path, name = scored[0], f"command-{tmp_path.name}"
    arguments = ["import", str(path), "--dataset", name, "--rows", "2", "--others", "3", "--media", str(tmp_path / "m")]
    done = CliRunner().invoke(cli.app, arguments)
    try:
        assert done.exit_code == 0, done.output
        assert f"of 120 rows: dataset '{name}'" in done.stdout
        assert fo.load_dataset(name).has_saved_view("audit_flagged")
    finally:
        if fo.dataset_exists(name):
            fo.delete_dataset(name)
    summary = json.loads(path.with_suffix(".json").read_text())
    del summary["manifest"]
    bare = tmp_path / "scores.parquet"
    bare.write_bytes(path.read_bytes())
    bare.with_suffix(".json").write_text(json.dumps(summary))
    done = CliRunner().invoke(cli.app, ["import", str(bare), "--dataset", name])
    assert done.exit_code == 2
    assert "scores.json does not name the manifest of scores.parquet; name it: --manifest" in done.stderr
