from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.extend import NOT_TRAINED, _new_rows, extend_run, load_rows
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.offline import IDENTITIES
from audit_plugin.encoders.pixels import MEASURES_KEY
from audit_plugin.inputs.files import file_digest, text_digest
from audit_plugin.scoring.flags import FLAGS
from audit_plugin.store import FeatureCache, RunFolder, cache_root
from tests.pipeline_fixtures import SWAPPED, auroc, cells, encoded_rows, rows_of
from tests.test_image_checks import scene

BASE, NEW = 300, 40
CONFIG = AuditConfig(encoder="offline", trials=8, epochs=20)
MEMORY = ("multimem", "multimem_stderr", "multimem_mean")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Samples, Samples, AuditResult]]:
    """(rows of a finished run, rows that come later, the run's result). The first twelve new rows are swapped."""
    folder = tmp_path_factory.mktemp("extension")
    cache, rows = encoded_rows(folder, BASE + NEW)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_PLUGIN_CACHE", str(cache))
        new, base = rows_of(rows, range(NEW)), rows_of(rows, range(NEW, NEW + BASE))
        yield new, base, run_audit(base, CONFIG, run_dir=folder / "run")


@pytest.fixture(scope="module")
def extended(home: tuple[Samples, Samples, AuditResult]) -> AuditResult:
    return extend_run(home[0], home[2].run_dir)


def test_new_rows_get_held_out_scores_and_no_multimem(home, extended: AuditResult) -> None:
    new, _, base = home
    assert extended.ids == new.ids
    assert list(extended.columns) == list(base.columns)
    for name, values in extended.columns.items():
        if name in MEMORY:
            assert np.isnan(values).all(), name
        elif values.dtype == np.float32 and name != "suggestion_score":
            assert np.isfinite(values).all(), name
    keep = extended.columns["action"] == "keep"
    assert (extended.columns["reason"][keep] == NOT_TRAINED).any()
    assert not extended.flagged("memorized").any()
    assert (extended.columns["failure"] == "").all()


def test_swapped_new_rows_stand_out_on_the_runs_scale(home, extended: AuditResult) -> None:
    score, swapped = extended.columns["misalignment"], np.arange(NEW) < SWAPPED
    assert auroc(score, swapped) > 0.9
    assert auroc(-extended.columns["alignment"], swapped) > 0.9
    usual = home[2].columns["misalignment"]
    assert np.median(score[~swapped]) == pytest.approx(np.median(usual), abs=0.7)  # in robust deviations
    assert extended.flagged("misaligned")[swapped].mean() > 0.5
    assert extended.flagged("misaligned")[~swapped].mean() < 0.2


def test_a_new_row_of_the_test_split_that_the_run_trained_on_is_a_leak(
    home: tuple[Samples, Samples, AuditResult], tmp_path: Path
) -> None:
    new, base, _ = home
    trained = replace(base, splits=("train",) * BASE, labels=("a",) * BASE)
    run = run_audit(trained, CONFIG, run_dir=tmp_path / "run")
    with RunFolder(Path(run.run_dir), None) as folder:
        stored = load_rows(folder).samples
    assert {*stored.splits} == {"train"}
    assert {*stored.labels} == {"a"}
    images = (base.media["image"][7], *new.media["image"][1:])
    later = replace(new, media={**new.media, "image": images}, splits=("test",) * NEW)
    found = extend_run(later, run.run_dir)
    assert found.flagged("leak")[0]
    assert not (found.flagged("leak") & ~found.flagged("duplicate")).any()  # also emoji that look the same
    assert found.columns["leak_of"][0] == f"also in train: {base.ids[7]}"


def test_the_summary_counts_the_new_rows_alone(extended: AuditResult) -> None:
    summary = extended.summary
    assert (summary["samples"], summary["extends"], summary["failures"]) == (NEW, BASE, 0)
    assert summary["flags"] == {kind: int(extended.flagged(kind).sum()) for kind in summary["flags"]}
    assert sum(summary["actions"].values()) == NEW


def test_the_runs_own_scores_stay_as_they_were(home, extended: AuditResult) -> None:
    _, base, before = home
    assert len(extended) == NEW
    parts = {path: path.stat().st_mtime_ns for path in Path(before.run_dir).glob("trials_*.npz")}
    assert cells(run_audit(base, CONFIG, run_dir=before.run_dir)) == cells(before)
    assert parts == {path: path.stat().st_mtime_ns for path in Path(before.run_dir).glob("trials_*.npz")} != {}


def test_again_gives_equal_values_and_so_does_a_fresh_copy(home, extended: AuditResult, tmp_path: Path) -> None:
    again = extend_run(home[0], home[2].run_dir)
    assert cells(again) == cells(extended)
    assert again.run_dir == extended.run_dir
    shutil.copytree(home[2].run_dir, tmp_path / "run", ignore=shutil.ignore_patterns("extended-*"))
    assert cells(extend_run(home[0], tmp_path / "run")) == cells(extended)


def test_the_order_of_new_rows_does_not_matter(home, extended: AuditResult) -> None:
    order = np.random.default_rng(0).permutation(NEW).tolist()
    moved = rows_of(home[0], order)
    mirrored = replace(moved, media={m: moved.media[m] for m in ("text", "image")})
    result = extend_run(mirrored, home[2].run_dir)
    assert result.ids == moved.ids
    assert cells(result) == cells(extended)


def test_one_new_row_scores_nearly_as_among_many(home, extended: AuditResult) -> None:
    """New rows are nobody's reference or negative; only neighbors are sought among them as well."""
    one = extend_run(rows_of(home[0], [20]), home[2].run_dir)
    assert one.columns["alignment"][0] == pytest.approx(extended.columns["alignment"][20], abs=1e-5)
    assert one.columns["misalignment"][0] == pytest.approx(extended.columns["misalignment"][20], abs=0.3)


def test_unusable_new_rows_fail_alone(home, extended: AuditResult, tmp_path: Path) -> None:
    new = home[0]
    bad = Samples(
        ("gone", *new.ids, "torn"),
        {"image": (str(tmp_path / "no.png"), *new.media["image"], new.media["image"][0]),
         "text": (new.media["text"][1], *new.media["text"], new.media["text"][2])},
        problems={NEW + 1: "torn line"},
    )  # fmt: skip
    result = extend_run(bad, home[2].run_dir)
    assert result.columns["failure"][[0, -1]].tolist() == ["image: file not found", "torn line"]
    assert result.summary["failures"] == 2
    assert cells(result, new.ids) == cells(extended)


def test_nothing_but_unusable_rows(home, tmp_path: Path) -> None:
    lost = Samples(("a",), {"image": (str(tmp_path / "no.png"),), "text": home[0].media["text"][:1]})
    result = extend_run(lost, home[2].run_dir)
    assert result.columns["failure"].tolist() == ["image: file not found"]
    assert np.isnan(result.columns["misalignment"]).all()


def test_a_copy_of_a_sample_of_the_run_is_read_by_heads_that_saw_neither(home) -> None:
    """Heads that were trained on a row have memorized its copy too: only the others hold it out."""
    _, base, before = home
    copies = replace(rows_of(base, range(NEW)), ids=tuple(f"copy {row}" for row in range(NEW)))
    result = extend_run(copies, before.run_dir)
    np.testing.assert_allclose(result.columns["alignment"], before.columns["alignment"][:NEW], atol=1e-4)


# --- what cannot be extended ---------------------------------------------------------------------------------------


def test_a_new_row_is_not_memorized_and_gives_no_such_reason() -> None:
    n, name = 4, "memorized far more than the set's bulk"
    text = {column: np.full(n, "", object) for column in ("driver", "suggestion", "repair", "failure")}
    text |= {"action": np.full(n, "keep", object), "reason": np.array(["", "", name, name], object)}
    text["driver"][2:] = "image"
    flags = {f"is_{kind}": np.zeros(n, bool) for kind in FLAGS}
    flags["is_memorized"][2:] = True
    scores = {column: np.zeros(n, np.float32) for column in ("misalignment", "outlier", "multimem", "multimem_mean")}
    result = _new_rows(AuditResult(tuple("abcd"), {**scores, **flags, **text}, {}), 2)
    assert result.ids == ("c", "d")
    assert np.isnan(result.columns["multimem"]).all()
    assert not result.flagged("memorized").any()
    assert result.summary["flags"]["memorized"] == 0
    assert set(result.columns["reason"]) == {NOT_TRAINED}
    assert set(result.columns["driver"]) == {""}


def test_other_modalities_are_refused(home) -> None:
    other = replace(home[0], media={"image": home[0].media["image"], "audio": home[0].media["text"]})
    with pytest.raises(AuditError, match="the run has image, text, the new samples have image, audio; name the same"):
        extend_run(other, home[2].run_dir)


def test_a_folder_without_a_run_is_refused(home, tmp_path: Path) -> None:
    with pytest.raises(AuditError, match=r"is not the folder of a run; the summary of an audit names its own"):
        extend_run(home[0], tmp_path / "nothing")


@pytest.mark.parametrize("how", ["interrupted", "split"])
def test_a_run_that_is_not_finished_or_a_split_is_refused(how: str, home, tmp_path: Path) -> None:
    def stop(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("train", 0):
            raise KeyboardInterrupt

    few = rows_of(home[1], range(60))
    if how == "interrupted":
        with pytest.raises(KeyboardInterrupt):
            run_audit(few, CONFIG, stop, run_dir=tmp_path / "run")
    else:
        run_audit(few, replace(CONFIG, protocol="split", trials=2, epochs=1), run_dir=tmp_path / "run")
    with pytest.raises(AuditError, match="cannot be extended: it is not finished, or was not an ensemble of heads"):
        extend_run(home[0], tmp_path / "run")


def test_a_run_in_use_is_refused(home) -> None:
    with (
        RunFolder(Path(home[2].run_dir), None),
        pytest.raises(AuditError, match="is in use by another audit; wait for it"),
    ):
        extend_run(home[0], home[2].run_dir)


def stored(key: str, names: list[str]) -> dict[str, np.ndarray]:
    rows, found = FeatureCache(key).load(names)
    assert found.all()
    return dict(zip(names, rows, strict=True))


def test_features_that_are_gone_from_the_cache_are_told_and_come_back(
    home, extended: AuditResult, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    new, base, before = home
    digests = {"image": file_digest, "text": text_digest}
    found = {
        (m, name): stored(IDENTITIES[m].key, [digests[m](value) for value in rows.media[m]])  # type: ignore[arg-type]
        for m in digests
        for name, rows in (("new", new), ("base", base))
    }
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "emptied"))
    for m in digests:
        FeatureCache(IDENTITIES[m].key).append(found[m, "new"])
    with pytest.raises(
        AuditError, match="the features of 300 samples of the run are gone from the cache; run the audit itself"
    ):
        extend_run(new, before.run_dir)
    for m in digests:
        FeatureCache(IDENTITIES[m].key).append(found[m, "base"])
    assert cells(extend_run(new, before.run_dir)) == cells(extended)


def test_altered_copies_of_the_runs_images_are_found_though_their_measures_are_gone(tmp_path: Path) -> None:
    """They are measured again, but for files that are gone or others now, of which a note speaks."""
    images = [scene(row, (128, 96)) for row in range(80)]
    paths = [str(tmp_path / f"{row}.png") for row in range(80)]
    for image, path in zip(images, paths, strict=True):
        image.save(path)
    texts = [f"the scene number {row} of eighty" for row in range(80)]
    base = Samples(tuple(map(str, range(80))), {"image": tuple(paths), "text": tuple(texts)})
    before = run_audit(base, replace(CONFIG, epochs=2), run_dir=tmp_path / "run")
    for row in (1, 2, 3):
        images[row].crop((0, 0, 120, 90)).save(tmp_path / f"new{row}.png")
    new_paths = tuple(str(tmp_path / f"new{row}.png") for row in (1, 2, 3))
    new = Samples(("new1", "new2", "new3"), {"image": new_paths, "text": tuple(texts[row] for row in (1, 2, 3))})
    for file in FeatureCache(MEASURES_KEY).path.iterdir():
        assert tmp_path in file.parents or cache_root() in file.parents
        file.unlink()
    Path(paths[2]).unlink()
    images[70].save(paths[3])  # another image has its name now
    result = extend_run(new, before.run_dir)
    assert result.columns["copy_of"].tolist() == ["cropped copy of 1", "", ""]
    notes = [note for note in result.summary["notes"] if "copies is not known" in note]
    assert len(notes) == 1
    assert notes[0].startswith("2 images could not be read again: whether they are cropped, mirrored, bordered or gray")
