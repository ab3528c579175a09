from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import Features, SampleFacts
from audit_plugin.audit.score import SMALL_SET, gather_evidence, small_set_note
from audit_plugin.config import AuditConfig
from audit_plugin.scoring.contrast import FROZEN_TEMPERATURE
from audit_plugin.scoring.evidence import MIN_FROZEN, Evidence
from audit_plugin.scoring.evidence_weights import UNTRAINED_WEIGHTS
from audit_plugin.scoring.scores import compute_scores, robust_z
from audit_plugin.store import RunFolder
from audit_plugin.trials.run import Job
from tests.core_fixtures import heads, unit

CONFIG = AuditConfig(trials=2, epochs=1, neighbors=6)


def gathered(
    folder: Path,
    n: int = 60,
    image: np.ndarray | None = None,
    groups: np.ndarray | None = None,
    space: tuple[str, str] = ("", ""),
) -> tuple[Evidence, list[str]]:
    """Evidence and notes on n random samples whose image contents are `image` (default: all differ)."""
    rng = np.random.default_rng(6)
    content = np.arange(n) if image is None else image
    vectors = {"image": unit(rng.standard_normal((n, 12)))[content], "text": unit(rng.standard_normal((n, 12)))}
    contents = {"image": np.unique(content, return_inverse=True)[1].astype(np.int64), "text": np.arange(n)}
    names = dict(zip(vectors, space, strict=True))
    with RunFolder(folder / "run", {}) as run:
        job = Job(CONFIG, "cpu", run, lambda *_: None)
        features = Features(vectors, np.ones((n, 2), bool))
        rows = SampleFacts(contents, names, {"text": np.full(n, 4)}, groups)
        return gather_evidence(features, rows, heads(features, job), job)


@pytest.mark.parametrize("n", [0, 1, 2, 31])
def test_too_few_samples_are_not_trained_on_and_it_is_said(n: int, tmp_path: Path) -> None:
    evidence, notes = gathered(tmp_path, n)
    assert evidence.trials is None
    assert evidence.probe_evidence == {}
    counts = "1 usable sample in 1 group" if n == 1 else f"{n} usable samples in {n} groups"
    assert notes[0].startswith(f"{counts}: too few to train on")
    assert len(evidence) == n
    with pytest.raises(RuntimeError, match="no trials"):
        _ = evidence.required_trials


@pytest.mark.parametrize(("n", "space"), [(9, "clip"), (20, ""), (20, "clip")])
def test_frozen_encoders_in_one_space_score_what_is_too_few_to_train_on(n: int, space: str, tmp_path: Path) -> None:
    evidence, notes = gathered(tmp_path, n, space=(space, space))
    misalignment = compute_scores(evidence)["misalignment"]
    if n < MIN_FROZEN or not space:
        assert not evidence.held_out
        assert np.isnan(misalignment).all()
        assert notes[-1].endswith(": misalignment and memorization are not scored")
        return
    similarity = evidence.vectors["image"] @ evidence.vectors["text"].T / FROZEN_TEMPERATURE
    exponentials = np.exp(similarity) * (1 - np.eye(n))  # of all negatives: no two samples share anything here
    log_means = np.log(exponentials.sum(1) / (n - 1)) + np.log(exponentials.sum(0) / (n - 1))
    expected = FROZEN_TEMPERATURE * (0.5 * log_means - similarity.diagonal())
    np.testing.assert_allclose(evidence.held_out["zero_shot"][0], expected, atol=1e-5)
    weighted = [weight * robust_z(evidence.held_out[kind][0]) for kind, weight in UNTRAINED_WEIGHTS.items()]
    np.testing.assert_allclose(misalignment, np.sum(weighted, axis=0) / sum(UNTRAINED_WEIGHTS.values()), atol=1e-5)
    assert set(evidence.probe_evidence) == {"random", "neighborhood"}
    assert all(set(parts) == set(UNTRAINED_WEIGHTS) for parts in evidence.probe_evidence.values())
    assert notes[-1].endswith("misalignment by the frozen encoders and nearest neighbors alone")


def test_one_image_for_all_is_not_said_to_be_scored(tmp_path: Path) -> None:
    """Encoders that share a space, and yet nothing to compare with: no sample has a negative."""
    evidence, notes = gathered(tmp_path, 20, image=np.zeros(20, np.int64), space=("clip", "clip"))
    assert np.isnan(compute_scores(evidence)["misalignment"]).all()
    assert notes[-1].endswith(": misalignment and memorization are not scored")


def test_the_note_on_a_small_set_says_how_its_probe_pairs_rank() -> None:
    scores = np.array([0.0, 1.0, 2.0, np.nan, 3.0])
    note = small_set_note(scores, {"random": np.array([2.5, 9.0, np.nan, -1.0]), "neighborhood": np.zeros(4)})
    assert note.startswith("4 scored samples: ")
    assert "rank above 58% of its samples" in note  # of 3 + 4 + 0 of 12 pairs
    assert "(measured on 3 probe pairs)" in note
    assert small_set_note(scores, {}) == small_set_note(np.full(5, np.nan), {"random": scores}) == ""
    assert small_set_note(np.zeros(SMALL_SET), {"random": scores}) == ""


def test_few_groups_are_too_few_as_well(tmp_path: Path) -> None:
    assert "60 usable samples in 12 groups" in gathered(tmp_path, groups=np.arange(60) // 5)[1][0]
    assert gathered(tmp_path / "more", groups=np.arange(60) // 2)[0].trials is not None


def test_neighbors_are_the_nearest_other_contents(tmp_path: Path) -> None:
    content = np.r_[np.arange(50), np.arange(10)]
    evidence, _ = gathered(tmp_path, image=content)
    view, found = evidence.projections["image"], evidence.neighbors["image"]
    assert (content[found.indices] != content[:, None]).all()
    assert (found.indices < 50).all()  # each content by its first row
    for row in (0, 7, 55):
        own = view[:50] @ view[row]
        own[content[row]] = -np.inf
        assert set(found.indices[row]) == set(np.argsort(-own)[:6])
    vectors = evidence.vectors["image"]
    expected = np.einsum("nd,nkd->nk", vectors, vectors[found.indices])
    np.testing.assert_allclose(evidence.cosines("image"), expected, atol=1e-6)
    assert set(evidence.neighbors) == {"image", "text"}
    assert {found.indices.dtype for found in evidence.neighbors.values()} == {np.dtype(np.int32)}  # half of int64


def test_repeats_and_the_users_groups_leave_together(tmp_path: Path) -> None:
    content = np.r_[np.arange(50), np.arange(10)]
    groups = np.arange(60)
    groups[59] = groups[20]  # joins rows 59 and 20, and with 59's repeat also row 9
    together = gathered(tmp_path, image=content, groups=groups)[0].leave_together
    assert together[9] == together[20] == together[59]
    assert (together[:10] == together[50:]).all()
    assert len(set(together)) == 60 - 10 - 1


def test_a_group_above_its_limit_is_split_and_it_is_said(tmp_path: Path) -> None:
    groups = np.r_[np.zeros(25, int), np.arange(1, 36)]
    evidence, notes = gathered(tmp_path, groups=groups)
    assert np.bincount(evidence.leave_together).max() == 10
    assert any("1 group of over 10 rows divided (near-duplicates, or groups of your own)" in note for note in notes)


def test_only_encoders_of_one_space_compare_their_frozen_features(tmp_path: Path) -> None:
    apart, _ = gathered(tmp_path / "apart", space=("a", "b"))
    shared, _ = gathered(tmp_path / "shared", space=("a", "a"))
    assert np.isnan(apart.held_out["zero_shot"]).all()
    assert np.isfinite(shared.held_out["zero_shot"]).all()
    for kind in ("random", "neighborhood"):
        assert np.isfinite(shared.probe_evidence[kind]["zero_shot"]).all()


def test_finished_parts_are_taken_up_again(tmp_path: Path) -> None:
    first, _ = gathered(tmp_path)
    times = {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*.npz")}
    again, _ = gathered(tmp_path)
    assert len(times) == 4
    assert times == {p: p.stat().st_mtime_ns for p in (tmp_path / "run").glob("*.npz")}
    np.testing.assert_array_equal(first.required_trials.consistency, again.required_trials.consistency)
    np.testing.assert_equal(dict(first.held_out), dict(again.held_out))
    assert first.search == again.search
    assert dict(first.search) == {name: {"method": "exact", "recall": 1.0} for name in ("image", "text")}


def test_neighbors_that_former_versions_stored_as_int64_are_read(tmp_path: Path) -> None:
    first, _ = gathered(tmp_path)
    with RunFolder(tmp_path / "run", None) as run:
        part = run.load("neighbors_image")
        assert part is not None
        run.save("neighbors_image", **{**part, "indices": part["indices"].astype(np.int64)})
    again, _ = gathered(tmp_path)
    assert again.neighbors["image"].indices.dtype == np.int32
    np.testing.assert_array_equal(again.neighbors["image"].indices, first.neighbors["image"].indices)
