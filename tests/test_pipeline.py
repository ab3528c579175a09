from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.audit import score as audit_score
from audit_plugin.audit.cost import plan_audit
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from audit_plugin.encoders.offline import IDENTITIES
from audit_plugin.store import FeatureCache, RunFolder
from tests.pipeline_fixtures import QUICK, SWAPPED, TRAINED, auroc, cells, draw, encoded_rows, rows_of

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


# --- what is handed back -------------------------------------------------------------------------------------------


def test_columns_come_in_their_order_and_types(reference: AuditResult) -> None:
    memory = ["probability", "multimem", "multimem_stderr", "multimem_mean", "alignment"]
    floats = [*memory, "outlier", "outlier_image", "outlier_text"]
    flags = [
        "misaligned",
        "memorized",
        "outlier",
        "duplicate",
        "likely_copy",
        "leak",
        "conflict",
        "placeholder",
        "vague",
    ]
    flags += ["boilerplate", "text_problem", "image_problem", "box_problem", "personal"]
    assert list(reference.columns) == [
        *("misalignment", "misalignment_image_text", "culprit", "driver", *floats, "duplicate", "duplicate_group"),
        "suggestion_score",
        *(f"is_{kind}" for kind in flags),
        *("action", "reason", "suggestion", "repair", "failure"),
    ]
    texts = {"culprit", "driver", "duplicate_group", "action", "reason", "suggestion", "repair", "failure"}
    for name, values in reference.columns.items():
        expected = object if name in texts else bool if name.startswith("is_") else np.float32
        assert values.dtype == expected, name
        assert values.shape == (N,)
        if name in texts:
            assert {type(v) for v in values} == {str}, name
    assert all(np.isfinite(reference.columns[name]).all() for name in TRAINED)


def test_a_result_is_flagged_again_at_its_own_rate_and_comes_back_from_a_file(
    reference: AuditResult, tmp_path: Path
) -> None:
    for kind in ("misaligned", "memorized", "outlier"):
        again = reference.rethreshold(kind, QUICK.false_positive_rate)
        for name, values in reference.columns.items():
            np.testing.assert_array_equal(again.columns[name], values)
        assert reference.rethreshold(kind, 0.2).flagged(kind).sum() >= reference.flagged(kind).sum()
    reference.save(tmp_path / "result.parquet")
    loaded = AuditResult.load(tmp_path / "result.parquet")
    assert (loaded.ids, loaded.run_dir, repr(loaded)) == (reference.ids, reference.run_dir, repr(reference))
    for name, values in reference.columns.items():
        np.testing.assert_array_equal(loaded.columns[name], values)


def test_the_summary_says_what_was_done(reference: AuditResult) -> None:
    summary = reference.summary
    assert (summary["samples"], summary["failures"], summary["encoder_name"]) == (N, 0, "offline")
    assert summary["config"] == replace(QUICK, trials=16).to_dict()
    assert set(summary["encoder"]) == set(summary["encoded_now"]) == {"image", "text"}
    assert set(summary["probe_recall"]) == {"random", "neighborhood"}
    assert 0 <= summary["probe_recall"]["neighborhood"] <= summary["probe_recall"]["random"] <= 1
    assert set(summary["seconds"]) == {"read", "encode", "train", "score", "explain"}
    assert {"torch", "numpy"} <= set(summary["versions"])
    assert summary["flags"] == {kind: int(reference.flagged(kind).sum()) for kind in summary["flags"]}
    assert sum(summary["actions"].values()) == N


def test_the_separate_evidence_is_kept_beside_the_ids(reference: AuditResult) -> None:
    with np.load(Path(reference.run_dir) / "evidence.npz", allow_pickle=False) as kept:
        assert set(kept["ids"].tolist()) == set(reference.ids)
        at = [kept["ids"].tolist().index(i) for i in reference.ids]
        swapped = np.arange(N) < SWAPPED
        assert auroc(kept["contrast_image_text"][at], swapped) > 0.8
        assert auroc(-kept["cosine_image_text"][at], swapped) > 0.8


def test_stages_are_told_in_order_and_reach_their_end(known: Samples, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    run_audit(known, replace(QUICK, trials=16), lambda *args: told.append(args), tmp_path / "run")
    stages = ["read", "encode image", "encode text", "neighbors", "train", "score", "explain"]
    as_needed = ("measure images", "compare images")  # those of a cache without measures, and pairs that may be copies
    assert list(dict.fromkeys(stage for stage, *_ in told if stage not in as_needed)) == stages
    for stage in stages:
        counts = [(done, total) for name, done, total in told if name == stage]
        assert counts == sorted(counts)
        assert counts[-1][0] == counts[-1][1] > 0
    assert [done for name, done, _ in told if name == "train"] == [0, 8, 16]


def test_copies_in_two_splits_are_told(known: Samples, tmp_path: Path) -> None:
    paths = list(known.media["image"])
    paths[41] = paths[40]
    splits = tuple("train" if row % 2 == 0 else "test" for row in range(N))
    samples = replace(known, media={**known.media, "image": tuple(paths)}, splits=splits)
    result = run_audit(samples, QUICK, run_dir=tmp_path / "run")
    assert (result.columns["leak"][40], result.columns["leak"][41]) == ("test", "train")
    flagged = result.flagged("leak")
    assert flagged.tolist() == [row % 2 == 1 and bool(other) for row, other in enumerate(result.columns["leak"])]
    assert result.columns["action"][41] == "remove"
    assert (result.columns["action"] == "remove").sum() == 1  # what is nearly the same is to be looked at
    assert f"also in train: {known.ids[40]}" in result.columns["reason"][41]
    assert any("have a copy in another split" in note for note in result.summary["notes"])
    assert "leak" not in run_audit(known, QUICK, run_dir=tmp_path / "none").columns


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


# --- what belongs together -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["id", "group"])
def test_rows_of_one_sample_or_group_stay_on_one_side_of_every_mask(
    by: str, known: Samples, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    owner = [f"p{row % 40}" for row in range(N)]  # three captions each
    seen = []
    build: Callable = audit_score.build_evidence
    monkeypatch.setattr(audit_score, "build_evidence", lambda *args: seen.append(build(*args)) or seen[-1])
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
    member = seen[0].required_trials.member
    sides = {who: {member[:, i].tobytes() for i, n in enumerate(name) if n == who} for who in set(name)}
    assert all(len(s) == 1 for s in sides.values())
    assert len(set.union(*sides.values())) == 4  # and the groups are on all sides of two pairs of masks
    assert (member[0::2] != member[1::2]).all()


# --- what is planned and what is made anew ---------------------------------------------------------------------------


def test_a_plan_counts_what_is_not_cached_and_encodes_nothing(known: Samples, tmp_path: Path) -> None:
    for row in range(3):
        draw(tmp_path / f"{row}.png", row)
    new = [str(tmp_path / f"{row}.png") for row in (0, 1, 2, 2)] + [str(tmp_path / "missing.png")]
    images, texts = (*known.media["image"], *new), (*known.media["text"], *["new"] * 4, " ")
    more = Samples(tuple(map(str, range(N + 5))), {"image": images, "text": texts})
    before = {m: FeatureCache(IDENTITIES[m].key).known() for m in IDENTITIES}
    plan = plan_audit(more, QUICK)
    assert (plan["rows"], plan["encodes"]) == (N + 5, {"image": 3, "text": 1})
    assert (plan["encoder"], plan["downloads"]) == ("offline", [])
    assert plan["minutes"] > 0
    assert plan["disk_mb"] > 0
    assert {m: FeatureCache(IDENTITIES[m].key).known() for m in IDENTITIES} == before
    assert plan_audit(known, QUICK)["encodes"] == {"image": 0, "text": 0}
    with pytest.raises(AuditError, match="0 samples"):
        plan_audit(rows_of(known, []), QUICK)


def test_a_new_threshold_of_the_flags_trains_nothing(known: Samples, tmp_path: Path) -> None:
    run_audit(known, QUICK, run_dir=tmp_path / "run")
    before = {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("trials_*")}
    result = run_audit(known, replace(QUICK, false_positive_rate=0.2), run_dir=tmp_path / "run")
    assert {path.name: path.stat().st_mtime_ns for path in (tmp_path / "run").glob("trials_*")} == before != {}
    assert result.summary["false_positive_rate"] == 0.2


# --- the paper's split ---------------------------------------------------------------------------------------------

SPLIT = replace(QUICK, protocol="split", trials=10, epochs=20)


def test_a_split_scores_candidates_mirrors_the_independent_and_says_so(known: Samples, tmp_path: Path) -> None:
    result = run_audit(known, SPLIT, run_dir=tmp_path / "run")
    role, columns = result.columns["role"], result.columns
    assert {r: int((role == r).sum()) for r in set(role)} == {"both": 72, "f": 12, "g": 12, "none": 12, "reference": 12}
    told = result.summary["protocol"]["groups"]
    assert told["candidate"]["mean"] > 0.01 > -0.01 > told["independent"]["mean"]
    assert abs(told["shared"]["mean"]) < 0.5 * told["candidate"]["mean"]
    assert told["external"]["mean"] == pytest.approx(0, abs=1e-6)
    assert (np.isfinite(columns["multimem"]) == np.isin(role, ["f", "g"])).all()
    assert (np.isfinite(columns["alignment"]) == (role != "both")).all()
    assert (np.isfinite(columns["misalignment"]) == (role != "both")).all()
    assert np.isfinite(columns["outlier"]).all()
    assert any("12 samples are the reference H and are not scored" in note for note in result.summary["notes"])
    assert result.summary["protocol"]["repeats"] == 5


def test_given_roles_are_the_split(known: Samples, tmp_path: Path) -> None:
    roles = tuple(("both", "both", "f", "g", "none", "reference")[row % 6] for row in range(N))
    given = replace(known, roles=roles)
    result = run_audit(given, SPLIT, run_dir=tmp_path / "run")
    assert tuple(result.columns["role"]) == roles
    order = np.random.default_rng(0).permutation(N).tolist()
    moved = replace(rows_of(known, order), roles=tuple(roles[row] for row in order))
    assert cells(run_audit(moved, SPLIT, run_dir=tmp_path / "moved")) == cells(result)
    other = replace(known, roles=roles[1:] + roles[:1])
    with pytest.raises(AuditError, match=r"belongs to another run \(data was "):  # other roles are other data
        run_audit(other, SPLIT, run_dir=tmp_path / "run")


def test_a_class_balances_the_reference(known: Samples, tmp_path: Path) -> None:
    rare = np.arange(N) % 6 == 0
    result = run_audit(replace(known, labels=tuple(np.where(rare, "rare", "usual"))), SPLIT, run_dir=tmp_path / "run")
    reference = result.columns["role"] == "reference"
    assert (reference & rare).sum() == (reference & ~rare).sum() == 6


def test_folds_score_every_sample(known: Samples, tmp_path: Path) -> None:
    result = run_audit(known, replace(QUICK, folds=4, trials=8, epochs=10), run_dir=tmp_path / "run")
    assert all(np.isfinite(result.columns[name]).all() for name in TRAINED)
    assert np.median(result.columns["multimem"]) > 0
    assert "role" not in result.columns
