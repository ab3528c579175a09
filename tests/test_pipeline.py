from __future__ import annotations

import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw

from audit_plugin import pipeline
from audit_plugin.arrays import AuditError, AuditResult, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.embedding import digest_contents, embed, silent
from audit_plugin.encoders import OFFLINE, load_encoders
from audit_plugin.modalities import file_digest, text_digest
from audit_plugin.pipeline import plan_audit, run_audit
from audit_plugin.store import FeatureCache, RunFolder
from tests.core_fixtures import unit

ROOT = Path(__file__).resolve().parents[1]
QUICK = AuditConfig(encoder="offline", trials=4, epochs=4)
N = 120
TRAINED = ("misalignment", "misalignment_image_text", "probability", "multimem", "multimem_stderr", "alignment")


def rows_of(samples: Samples, rows: Sequence[int]) -> Samples:
    """The same samples, these rows only, in this order."""
    return Samples(
        tuple(samples.ids[r] for r in rows), {m: tuple(v[r] for r in rows) for m, v in samples.media.items()}
    )


def cells(result: AuditResult, ids: Sequence[str] | None = None) -> dict[tuple[str, str], bytes]:
    """(column, id) -> its bytes, for rows whose ids are distinct."""
    chosen = set(result.ids if ids is None else ids)
    return {
        (name, i): repr(v).encode() if values.dtype == object else v.tobytes()
        for name, values in result.columns.items()
        for i, v in zip(result.ids, values, strict=True)
        if i in chosen
    }


def auroc(score: np.ndarray, bad: np.ndarray) -> float:
    return float((score[bad][:, None] > score[~bad][None]).mean())


@pytest.fixture(scope="module")
def encoded(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Samples]:
    """A cache of features made from one hidden vector per row, and the rows: audits of them need no encoder.

    Rows 0 to 11 have their captions swapped in pairs.
    """
    folder = tmp_path_factory.mktemp("encoded")
    rng = np.random.default_rng(2)
    hidden = rng.standard_normal((N, 8))
    paths, texts = [str(folder / f"{row}.png") for row in range(N)], [f"the text of row {row}" for row in range(N)]
    for row, path in enumerate(paths):
        Image.new("L", (1, 1), row).save(path)
    digests = {"image": [file_digest(p) for p in paths], "text": [text_digest(t) for t in texts]}
    for name, keys in digests.items():
        seen = unit(hidden @ rng.standard_normal((8, 24)) + 0.5 * rng.standard_normal((N, 24)))
        FeatureCache(OFFLINE[name].key, folder / "cache" / "features").append(dict(zip(keys, seen, strict=True)))
    for row in range(0, 12, 2):
        texts[row], texts[row + 1] = texts[row + 1], texts[row]
    return folder / "cache", Samples(tuple(f"s{r}" for r in range(N)), {"image": tuple(paths), "text": tuple(texts)})


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


# --- what is handed back -------------------------------------------------------------------------------------------


def test_columns_come_in_their_order_and_types(reference: AuditResult) -> None:
    floats = ["probability", "multimem", "multimem_stderr", "alignment", "outlier", "outlier_image", "outlier_text"]
    flags = ["misaligned", "memorized", "outlier", "duplicate", "conflict", "placeholder", "vague"]
    assert list(reference.columns) == [
        *("misalignment", "misalignment_image_text", "culprit", *floats, "duplicate", "duplicate_group"),
        *(f"is_{kind}" for kind in flags),
        *("action", "reason", "suggestion", "failure"),
    ]
    texts = {"culprit", "duplicate_group", "action", "reason", "suggestion", "failure"}
    for name, values in reference.columns.items():
        expected = object if name in texts else bool if name.startswith("is_") else np.float32
        assert values.dtype == expected, name
        assert values.shape == (N,)
        if name in texts:
            assert {type(v) for v in values} == {str}, name
    assert all(np.isfinite(reference.columns[name]).all() for name in TRAINED)


def test_the_summary_says_what_was_done(reference: AuditResult) -> None:
    summary = reference.summary
    assert (summary["samples"], summary["failures"], summary["encoder_name"]) == (N, 0, "offline")
    assert summary["config"] == replace(QUICK, trials=16).to_dict()
    assert set(summary["encoder"]) == set(summary["encoded_now"]) == {"image", "text"}
    assert set(summary["recall"]) == {"random", "neighbourhood"}
    assert 0 <= summary["recall"]["neighbourhood"] <= summary["recall"]["random"] <= 1
    assert set(summary["seconds"]) == {"read", "encode", "train", "score"}
    assert {"torch", "numpy"} <= set(summary["versions"])
    assert summary["flags"] == {kind: int(reference.flagged(kind).sum()) for kind in summary["flags"]}
    assert sum(summary["actions"].values()) == N


def test_the_separate_evidence_is_kept_beside_the_ids(reference: AuditResult) -> None:
    with np.load(Path(reference.run_dir) / "evidence.npz", allow_pickle=False) as kept:
        assert set(kept["ids"].tolist()) == set(reference.ids)
        at = [kept["ids"].tolist().index(i) for i in reference.ids]
        swapped = np.arange(N) < 12
        assert auroc(kept["contrast_image_text"][at], swapped) > 0.8
        assert auroc(-kept["cosine_image_text"][at], swapped) > 0.8


def test_stages_are_told_in_order_and_reach_their_end(known: Samples, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run_audit(known, replace(QUICK, trials=16), lambda *args: told.append(args), tmp_path / "run")
    stages = ["read", "encode image", "encode text", "neighbours", "train", "score"]
    assert list(dict.fromkeys(stage for stage, *_ in told)) == stages
    for stage in stages:
        counts = [(done, total) for name, done, total in told if name == stage]
        assert counts == sorted(counts)
        assert counts[-1][0] == counts[-1][1] > 0
    assert [done for name, done, _ in told if name == "train"] == [0, 8, 16]


# --- equal runs give equal bytes -----------------------------------------------------------------------------------


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(
    known: Samples, reference: AuditResult, tmp_path: Path
) -> None:
    again = run_audit(known, replace(QUICK, trials=16), run_dir=tmp_path / "run")
    assert cells(again) == cells(reference)
    other = run_audit(known, replace(QUICK, trials=16, seed=1), run_dir=tmp_path / "other")
    assert (other.columns["multimem"] != reference.columns["multimem"]).any()


def test_the_order_of_rows_and_of_modalities_changes_nothing(
    known: Samples, reference: AuditResult, tmp_path: Path
) -> None:
    order = np.random.default_rng(3).permutation(N).tolist()
    shuffled = rows_of(known, order)
    mirrored = replace(shuffled, media={m: shuffled.media[m] for m in ("text", "image")})
    result = run_audit(mirrored, replace(QUICK, trials=16), run_dir=tmp_path / "run")
    assert result.ids == shuffled.ids
    assert list(result.columns) == list(reference.columns)
    assert cells(result) == cells(reference)
    # the order does not make it another run
    assert cells(run_audit(known, replace(QUICK, trials=16), run_dir=tmp_path / "run")) == cells(reference)


@pytest.mark.parametrize("stop", [("neighbours", 1), ("train", 0), ("train", 8), ("score", 0), ("score", 1)])
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
    names = {"neighbours": 1, "train": 3 + (stop[1] == 8), "score": 5}
    assert len(finished) == names[stop[0]]
    assert cells(run_audit(known, config, run_dir=run)) == cells(reference)
    assert all(path.stat().st_mtime_ns == then for path, then in finished.items())  # loaded, not made again


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


# --- run folders ---------------------------------------------------------------------------------------------------


def test_a_run_folder_of_another_run_is_refused_by_name(known: Samples, tmp_path: Path) -> None:
    few, run = rows_of(known, range(4)), tmp_path / "run"
    run_audit(few, QUICK, run_dir=run)
    with pytest.raises(AuditError, match=r"run folder .* belongs to another run \(trials was 4, now 6\); choose"):
        run_audit(few, replace(QUICK, trials=6), run_dir=run)
    with pytest.raises(AuditError, match=r"belongs to another run \(data was "):
        run_audit(rows_of(known, range(5)), QUICK, run_dir=run)
    # what cannot change a score is no other run
    assert len(run_audit(few, replace(QUICK, run="mine", device="cpu"), run_dir=run)) == 4


def test_a_run_folder_in_use_is_refused_and_left_alone(known: Samples, tmp_path: Path) -> None:
    few, run = rows_of(known, range(4)), tmp_path / "run"
    with (
        RunFolder(run, {}),
        pytest.raises(AuditError, match="is in use by another audit; wait for it, or choose another --run-dir"),
    ):
        run_audit(few, QUICK, run_dir=run)


def test_every_data_and_setting_has_a_default_folder_of_its_own(known: Samples) -> None:
    few = rows_of(known, range(4))
    folder = run_audit(few, QUICK).run_dir
    assert Path(folder).parent == Path(os.environ["AUDIT_PLUGIN_CACHE"]) / "runs"
    assert run_audit(rows_of(few, [3, 1, 0, 2]), QUICK).run_dir == folder
    assert run_audit(few, replace(QUICK, seed=1)).run_dir != folder
    assert run_audit(rows_of(known, range(5)), QUICK).run_dir != folder


def test_rows_that_belong_together_are_other_data_than_rows_that_do_not(known: Samples, tmp_path: Path) -> None:
    """The same contents under shared ids are drawn into other halves: parts of the one run must not serve the other."""
    alone = rows_of(known, range(40))
    shared = replace(alone, ids=tuple(f"p{r // 4}" for r in range(40)), caption=tuple(r % 4 for r in range(40)))
    run_audit(alone, QUICK)
    default, fresh = run_audit(shared, QUICK), run_audit(shared, QUICK, run_dir=tmp_path / "fresh")
    np.testing.assert_array_equal(default.columns["multimem"], fresh.columns["multimem"])


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
    assert any(f"{n} usable samples" in note and "too few to train" in note for note in result.summary["notes"])
    for name in ("outlier", "outlier_image", "outlier_text", "duplicate"):
        assert np.isfinite(result.columns[name]).all() == (n > 1), name
    assert result.summary["reliability"] is None
    assert result.summary["recall"] == {}
    assert result.summary["trained"] == "nothing"
    assert result.summary["flags"]["misaligned"] == result.summary["flags"]["memorized"] == 0
    assert (result.columns["failure"] == "").all()


def test_more_neighbours_than_rows(known: Samples, tmp_path: Path) -> None:
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
    assert set(result.columns["action"]) == {"keep"}
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
        assert (result.columns["action"][place], result.columns["reason"][place]) == ("keep", "not scored: see failure")
        assert all(np.isnan(v[place]) for v in result.columns.values() if v.dtype == np.float32)
    assert result.summary["failures"] == len(bad)
    clean = run_audit(known, QUICK, run_dir=tmp_path / "clean")
    assert cells(result, known.ids) == cells(clean)


# --- what belongs together -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "group"])
def test_rows_of_one_sample_or_group_stay_on_one_side_of_every_mask(
    by: str, known: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = [f"p{row % 40}" for row in range(N)]  # three captions each
    seen = []
    gather: Callable = pipeline.gather
    monkeypatch.setattr(pipeline, "gather", lambda *args: seen.append(gather(*args)) or seen[-1])
    rows = (
        replace(known, ids=tuple(owner), caption=tuple(r // 40 for r in range(N)))
        if by == "id"
        else replace(known, groups=tuple(owner))
    )
    result = run_audit(rows, QUICK, run_dir=tmp_path / "run")
    assert result.ids == rows.ids
    with np.load(Path(result.run_dir) / "evidence.npz") as kept:
        ids = kept["ids"].tolist()  # canonical order, in which the masks are
    name = ids if by == "id" else [owner[known.ids.index(i)] for i in ids]
    member = seen[0].evidence.trials.member
    sides = {who: {member[:, i].tobytes() for i, n in enumerate(name) if n == who} for who in set(name)}
    assert all(len(s) == 1 for s in sides.values())
    assert len(set.union(*sides.values())) == 4  # and the groups are on all sides of two pairs of masks
    assert (member[0::2] != member[1::2]).all()


# --- pictures through the packaged encoders ------------------------------------------------------------------------

COLOURS = ["red", "green", "blue", "yellow", "black", "white", "purple", "orange"]
SHAPES, GROUNDS = ["circle", "square", "triangle", "cross"], ["grey", "pink", "brown", "cyan"]


def draw(path: Path, row: int) -> str:
    """Draws one of 128 pictures; returns what it shows."""
    colour, shape, ground = COLOURS[row % 8], SHAPES[row // 8 % 4], GROUNDS[row // 32 % 4]
    image = Image.new("RGB", (64, 64), ground)
    pen = ImageDraw.Draw(image)
    x, y = 8 + row % 5, 8 + row % 7
    box = (x, y, x + 40, y + 40)
    if shape == "circle":
        pen.ellipse(box, fill=colour)
    elif shape == "square":
        pen.rectangle(box, fill=colour)
    elif shape == "triangle":
        pen.polygon([(x, y + 40), (x + 40, y + 40), (x + 20, y)], fill=colour)
    else:
        pen.line(box, fill=colour, width=9)
        pen.line((x, y + 40, x + 40, y), fill=colour, width=9)
    image.save(path)
    return f"a {colour} {shape} on a {ground} background"


def test_planted_faults_are_found_in_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    true = [draw(tmp_path / f"{row}.png", row) for row in range(128)]
    images, texts = [str(tmp_path / f"{row}.png") for row in range(128)], list(true)
    left = np.random.default_rng(0).permutation(64)[:8]
    for row in left:  # 41 rows on, colour, shape and ground all differ
        texts[row], texts[row + 41] = true[row + 41], true[row]
    swapped = np.isin(np.arange(128), [*left, *(left + 41)])
    clean = np.flatnonzero(~swapped)
    again, grey = clean[:3].tolist(), np.random.default_rng(1).permutation(clean[3:])[:12].tolist()
    Image.new("RGB", (64, 64), "grey").save(tmp_path / "none.png")
    for row in grey:
        images[row] = str(tmp_path / "none.png")
    ids = tuple(f"s{row:03d}" for row in (*range(128), *range(128, 131)))
    samples = Samples(
        ids, {"image": (*images, *(images[r] for r in again)), "text": (*texts, *(texts[r] for r in again))}
    )
    config = AuditConfig(encoder="offline", trials=8)
    assert plan_audit(samples, config)["encodes"] == {"image": 117, "text": 128}
    result = run_audit(samples, config)
    assert plan_audit(samples, config)["encodes"] == {"image": 0, "text": 0}

    score, action = result.columns["misalignment"][:128], result.columns["action"]
    rest = ~np.isin(np.arange(128), grey)
    assert auroc(score[rest], swapped[rest]) > 0.95
    assert result.flagged("misaligned")[:128][swapped].mean() > 0.7
    proposed = result.columns["suggestion"][:128][swapped]
    shared = [
        sum(word in p for word in (COLOURS[row % 8], SHAPES[row // 8 % 4], GROUNDS[row // 32 % 4]))
        for p, row in zip(proposed, np.flatnonzero(swapped), strict=True)
        if p
    ]
    assert len(shared) > 4
    assert np.mean(shared) > 1.2  # of three attributes; twice chance (0.6), and their present captions share none
    assert set(action[:128][swapped]) <= {"relabel", "review", "keep"}
    for copy, row in enumerate(again, 128):  # of equal rows the first id stays
        assert (action[copy], action[row] == "remove") == ("remove", False)
        assert result.columns["duplicate_group"][copy] == result.columns["duplicate_group"][row] == ids[row]
        assert result.columns["duplicate"][copy] == 1
    assert result.flagged("placeholder").tolist() == [row in grey for row in range(131)]
    assert set(action[grey]) == {"remove"}
    assert set(np.flatnonzero(action == "remove")) == {128, 129, 130, *grey}


def test_a_cold_a_warm_and_a_half_warm_cache_and_a_kill_while_encoding_give_the_same_bytes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = range(0, 120, 3)
    texts = [draw(tmp_path / f"{row}.png", row) for row in rows]
    samples = Samples(
        tuple(f"s{row}" for row in rows),
        {"image": tuple(str(tmp_path / f"{row}.png") for row in rows), "text": tuple(texts)},
    )
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cold"))
    cold = run_audit(samples, QUICK, run_dir=tmp_path / "run_cold")
    assert cold.summary["encoded_now"] == {"image": 40, "text": 40}
    warm = run_audit(samples, QUICK, run_dir=tmp_path / "run_warm")
    assert warm.summary["encoded_now"] == {"image": 0, "text": 0}
    assert cells(warm) == cells(cold)

    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "half"))
    encoders = load_encoders("offline", ("image", "text"), "cpu")
    keys = {m: OFFLINE[m].key for m in encoders}
    for part in (range(39, 20, -2), range(0, 20, 2)):  # other batches, other neighbours in them
        half = rows_of(samples, part)
        embed(half, digest_contents(half, silent), keys, lambda: encoders, silent)

    def kill(stage: str, done: int, _total: int) -> None:
        if stage == "encode text" and done > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_audit(samples, QUICK, kill, tmp_path / "run_half")
    assert plan_audit(samples, QUICK)["encodes"] == {"image": 0, "text": 20}
    half_warm = run_audit(samples, QUICK, run_dir=tmp_path / "run_half")
    assert half_warm.summary["encoded_now"] == {"image": 0, "text": 20}
    assert cells(half_warm) == cells(cold)


def test_a_plan_counts_what_is_not_cached_and_encodes_nothing(known: Samples, tmp_path: Path) -> None:
    for row in range(3):
        draw(tmp_path / f"{row}.png", row)
    new = [str(tmp_path / f"{row}.png") for row in (0, 1, 2, 2)] + [str(tmp_path / "missing.png")]
    images, texts = (*known.media["image"], *new), (*known.media["text"], *["new"] * 4, " ")
    more = Samples(tuple(map(str, range(N + 5))), {"image": images, "text": texts})
    before = {m: FeatureCache(OFFLINE[m].key).known() for m in OFFLINE}
    plan = plan_audit(more, QUICK)
    assert (plan["rows"], plan["encodes"]) == (N + 5, {"image": 3, "text": 1})
    assert (plan["encoder"], plan["downloads"]) == ("offline", [])
    assert plan["minutes"] > 0
    assert plan["disk_mb"] > 0
    assert {m: FeatureCache(OFFLINE[m].key).known() for m in OFFLINE} == before
    assert plan_audit(known, QUICK)["encodes"] == {"image": 0, "text": 0}
    with pytest.raises(AuditError, match="0 samples"):
        plan_audit(rows_of(known, []), QUICK)


def test_a_new_threshold_of_the_flags_trains_nothing(known: Samples, tmp_path: Path) -> None:
    run_audit(known, QUICK, run_dir=tmp_path / "run")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("trials_*")}
    result = run_audit(known, replace(QUICK, false_alarms=0.2), run_dir=tmp_path / "run")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("trials_*")} == before != {}
    assert result.summary["false_alarms"] == 0.2
