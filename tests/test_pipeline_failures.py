from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from tests.pipeline_fixtures import QUICK, TRAINED, cells, encoded_rows, rows_of

ROOT = Path(__file__).resolve().parents[1]
N = 120


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Samples]:
    return encoded_rows(tmp_path_factory.mktemp("encoded"), N)


@pytest.fixture
def known(encoded: tuple[Path, Samples], monkeypatch: pytest.MonkeyPatch) -> Samples:
    """Rows whose features are all cached."""
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(encoded[0]))
    return encoded[1]


@pytest.fixture(scope="module")
def reference(encoded: tuple[Path, Samples], tmp_path_factory: pytest.TempPathFactory) -> AuditResult:
    """An uninterrupted audit of these rows with two groups of trials."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_PLUGIN_CACHE", str(encoded[0]))
        return run_audit(encoded[1], replace(QUICK, trials=16), run_dir=tmp_path_factory.mktemp("reference") / "run")


# --- stopped half way ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("stop", [("neighbors", N), ("train", 0), ("train", 8), ("score", 0), ("score", 1)])
def test_killed_and_resumed_is_as_if_never_killed(
    stop: tuple[str, int], known: Samples, reference: AuditResult, tmp_path: Path
) -> None:
    def kill(stage: str, done: int, _total: int) -> None:
        if (stage, done) == stop:
            raise KeyboardInterrupt

    config, run = replace(QUICK, trials=16), tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        run_audit(known, config, kill, run)
    finished = {path: path.stat().st_mtime_ns for path in run.glob("*.npz")}
    names = {"neighbors": 1, "train": 2 + (stop[1] == 8), "score": 5}
    assert len(finished) == names[stop[0]]
    assert cells(run_audit(known, config, run_dir=run)) == cells(reference)
    worked = {path: then for path, then in finished.items() if path.name not in ("rows.npz", "evidence.npz")}
    assert all(path.stat().st_mtime_ns == then for path, then in worked.items())  # loaded, not made again


@pytest.mark.parametrize("changed", [{"protocol": "split", "trials": 10}, {"folds": 5, "trials": 10}])
def test_a_split_and_folds_are_resumed_with_equal_bytes(changed: dict, known: Samples, tmp_path: Path) -> None:
    def kill(stage: str, done: int, _total: int) -> None:
        if (stage, done) == ("train", 8):
            raise KeyboardInterrupt

    config = replace(QUICK, **changed)
    with pytest.raises(KeyboardInterrupt):
        run_audit(known, config, kill, tmp_path / "run")
    part = tmp_path / "run" / "trials_0000.npz"
    then = part.stat().st_mtime_ns
    resumed = run_audit(known, config, run_dir=tmp_path / "run")
    assert part.stat().st_mtime_ns == then
    assert cells(resumed) == cells(run_audit(known, config, run_dir=tmp_path / "whole"))


def test_kill_9_in_training_then_the_same_command_gives_the_same_bytes(known: Samples, tmp_path: Path) -> None:
    manifest = tmp_path / "m.csv"
    rows = zip(known.ids, known.media["image"], known.media["text"], strict=True)
    manifest.write_text("id,image,caption\n" + "".join(f"{','.join(row)}\n" for row in rows))
    trials = 32

    def command(name: str) -> list[str]:
        named = ["--image", "image", "--text", "caption", "--encoder", "offline", "--trials", str(trials)]
        folders = ["--epochs", "4", "--out", str(tmp_path / f"{name}.parquet"), "--run-dir", str(tmp_path / name)]
        return [sys.executable, "-m", "audit_plugin", "score", str(manifest), *named, *folders]

    process = subprocess.Popen(command("killed"), cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 120
        while not (tmp_path / "killed" / "trials_0000.npz").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL
    assert 1 <= len(list((tmp_path / "killed").glob("trials_*.npz"))) < trials // 8
    for name in ("killed", "whole"):
        subprocess.run(command(name), cwd=ROOT, capture_output=True, check=True)
    killed, whole = ((tmp_path / f"{name}.parquet").read_bytes() for name in ("killed", "whole"))
    assert killed == whole


@pytest.mark.usefixtures("known")
def test_a_disk_that_takes_no_more_gives_one_sentence_and_is_resumed(
    known: Samples, reference: AuditResult, tmp_path: Path
) -> None:
    config, run = replace(QUICK, trials=16), tmp_path / "run"
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, limits[1]))
    try:
        with pytest.raises(AuditError, match=r"trials_0000\.npz cannot be written .*; choose another folder$"):
            run_audit(known, config, run_dir=run)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not list(run.glob(".*.part"))
    assert cells(run_audit(known, config, run_dir=run)) == cells(reference)


# --- few, equal and unusable rows ----------------------------------------------------------------------------------


def test_no_rows_and_one_modality_are_refused(known: Samples) -> None:
    with pytest.raises(AuditError, match="0 samples to audit; give at least one row"):
        run_audit(rows_of(known, []), QUICK)
    with pytest.raises(AuditError, match="only image is named; name two or more modalities"):
        run_audit(replace(known, media={"image": known.media["image"]}), QUICK)
    with pytest.raises(AuditError, match="modality 'smell' is not known; use image, text"):
        run_audit(replace(known, media={**known.media, "smell": known.media["text"]}), QUICK)


@pytest.mark.parametrize("n", [1, 2, 15, 31])
def test_too_few_rows_to_train_are_compared_with_each_other_only(n: int, known: Samples, tmp_path: Path) -> None:
    result = run_audit(rows_of(known, range(n)), QUICK, run_dir=tmp_path / "run")
    assert all(np.isnan(result.columns[name]).all() for name in TRAINED)
    assert any(f"{n} usable sample" in note and "too few to train" in note for note in result.summary["notes"])
    for name in ("outlier", "outlier_image", "outlier_text", "duplicate"):
        assert np.isfinite(result.columns[name]).all() == (n > 1), name
    assert result.summary["reliability"] is None
    assert result.summary["probe_recall"] == {}
    assert result.summary["trained"] == "nothing"
    assert result.summary["flags"]["misaligned"] == result.summary["flags"]["memorized"] == 0
    assert (result.columns["failure"] == "").all()


def test_more_neighbors_than_rows(known: Samples, tmp_path: Path) -> None:
    result = run_audit(rows_of(known, range(33)), replace(QUICK, neighbors=200), run_dir=tmp_path / "run")
    assert all(np.isfinite(result.columns[name]).all() for name in (*TRAINED, "outlier", "duplicate"))


def test_all_images_equal_is_a_placeholder(known: Samples, tmp_path: Path) -> None:
    same = replace(known, media={**known.media, "image": known.media["image"][:1] * N})
    result = run_audit(same, QUICK, run_dir=tmp_path / "run")
    assert result.flagged("placeholder").all()
    assert set(result.columns["action"]) == {"remove"}
    assert (result.columns["duplicate"] == 1).all()
    assert np.isnan(result.columns["outlier_image"]).all()
    assert np.isfinite(result.columns["outlier_text"]).all()
    assert np.isnan(result.columns["misalignment"]).all()


def test_all_captions_equal_can_be_told_from_nothing(known: Samples, tmp_path: Path) -> None:
    same = replace(known, media={**known.media, "text": known.media["text"][:1] * N})
    result = run_audit(same, QUICK, run_dir=tmp_path / "run")
    assert np.isnan(result.columns["misalignment"]).all()
    assert not result.flagged("misaligned").any()
    assert np.isfinite(result.columns["outlier_image"]).all()
    assert not result.flagged("placeholder").any()


def test_all_rows_equal_leaves_one(known: Samples, tmp_path: Path) -> None:
    result = run_audit(
        replace(known, media={m: v[:1] * N for m, v in known.media.items()}), QUICK, run_dir=tmp_path / "run"
    )
    assert sorted(result.columns["action"]) == ["keep", *["remove"] * (N - 1)]
    kept = result.ids[result.columns["action"].tolist().index("keep")]
    assert kept == min(result.ids)
    assert set(result.columns["duplicate_group"]) == {kept}


def test_all_images_lost_is_recorded_row_by_row(known: Samples, tmp_path: Path) -> None:
    lost = replace(known, media={**known.media, "image": tuple(str(tmp_path / f"{r}.png") for r in range(N))})
    result = run_audit(lost, QUICK, run_dir=tmp_path / "run")
    assert set(result.columns["failure"]) == {"image: file not found"}
    assert set(result.columns["action"]) == {"fix"}
    assert result.summary["failures"] == N
    for name, values in result.columns.items():
        if values.dtype == np.float32:
            assert np.isnan(values).all(), name
        elif values.dtype == bool:
            assert not values.any(), name


def test_bad_rows_fail_alone(known: Samples, tmp_path: Path) -> None:
    """Each kind of bad row between good ones: NaN and a reason there, and to the others it never happened."""
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "cut.png").write_bytes((tmp_path / "whole.png").read_bytes()[:2000])
    good = known.media["image"][0]
    bad: list[tuple[str | None, str | None, str]] = [
        (str(tmp_path / "missing.png"), "the text of row 1", "image: file not found"),
        (str(tmp_path / "empty.png"), "the text of row 1", "image: file is empty (0 bytes)"),
        (str(tmp_path / "cut.png"), "the text of row 1", "image: image is damaged"),
        (str(tmp_path), "the text of row 1", "image: is a folder"),
        (good, " \n", "text: text is empty"),
        (None, None, "image: no value; text: no value"),
        (good, "the text of row 1", "torn line"),
    ]
    places = [0, 10, 20, 21, 50, 90, N + len(bad) - 1]
    images, texts, ids = list(known.media["image"]), list(known.media["text"]), list(known.ids)
    for place, (image, text, _) in zip(places, bad, strict=True):
        images.insert(place, image)  # type: ignore[arg-type]
        texts.insert(place, text)  # type: ignore[arg-type]
        ids.insert(place, f"bad{place}")
    torn = {places[-1]: bad[-1][2]}
    mixed = Samples(tuple(ids), {"image": tuple(images), "text": tuple(texts)}, problems=torn)
    result = run_audit(mixed, QUICK, run_dir=tmp_path / "mixed")
    assert result.ids == tuple(ids)
    for place, (*_, reason) in zip(places, bad, strict=True):
        assert result.columns["failure"][place].startswith(reason)
        assert (result.columns["action"][place], result.columns["reason"][place]) == ("fix", "not scored: see failure")
        assert all(np.isnan(v[place]) for v in result.columns.values() if v.dtype == np.float32)
    assert result.summary["failures"] == len(bad)
    clean = run_audit(known, QUICK, run_dir=tmp_path / "clean")
    assert cells(result, known.ids) == cells(clean)
