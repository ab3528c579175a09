from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_plugin.arrays import AuditError, Features, SampleFacts, Samples
from audit_plugin.audit.removal_curve import extra_epochs
from audit_plugin.audit.removal_study import alignment_terms, removal_scores, removal_study, split_rows
from audit_plugin.audit.score import gather_evidence
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import silent
from audit_plugin.store import RunFolder
from audit_plugin.trials.run import Job
from tests import core_fixtures
from tests.core_fixtures import planted, unit

CONFIG = AuditConfig(encoder="offline", trials=4, epochs=4, neighbors=5, device="cpu")
NAMES = ("red", "green", "blue", "yellow")
TINTS = ((220, 40, 40), (40, 200, 60), (40, 60, 220), (230, 220, 50))


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> Samples:
    """120 small images, each of one color with noise; 8 texts name another color; one image is torn."""
    folder = tmp_path_factory.mktemp("tints")
    rng = np.random.default_rng(0)
    paths, texts, labels = [], [], []
    for row in range(120):
        tint = row % 4
        pixels = np.clip(np.array(TINTS[tint]) + rng.integers(-40, 40, (32, 32, 3)), 0, 255).astype(np.uint8)
        paths.append(str(folder / f"{row:03d}.png"))
        Image.fromarray(pixels).save(paths[-1])
        texts.append(f"a {NAMES[(tint + (row < 8)) % 4]} tile, number {row}")
        labels.append(NAMES[tint])
    Path(paths[7]).write_bytes(b"torn")
    ids = tuple(f"tile-{row}" for row in range(120))
    return Samples(ids, {"image": tuple(paths), "text": tuple(texts)}, labels=tuple(labels))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("runs")


def test_a_study_on_real_media_and_how_it_resumes(samples: Samples, cache: Path) -> None:
    class StopError(Exception):
        pass

    seen: list[tuple[str, int]] = []

    def stop_late(stage: str, done: int, _total: int) -> None:
        seen.append((stage, done))
        if (stage, done) == ("removal", 1):
            raise StopError

    with pytest.raises(StopError):
        removal_study(samples, CONFIG, [4], 2, stop_late, cache / "run")
    assert (cache / "run" / "seed_0000.npz").exists()
    assert not (cache / "run" / "seed_0001.npz").exists()
    report = removal_study(samples, CONFIG, [4], 2, run_dir=cache / "run")
    fresh = removal_study(samples, CONFIG, [4], 2, run_dir=cache / "fresh")
    assert json.dumps(report, allow_nan=False) == json.dumps(fresh, allow_nan=False)
    assert sum(report["sets"].values()) == 120
    assert report["sets"]["left_out"] == 1
    assert report["amounts"] == [0, 4]
    methods = ["multimem", "clipmem", "cosine", "alignment", "misalignment", "zero_shot_cosine", "random"]
    assert list(report["methods"]) == methods
    cell = report["methods"]["cosine"]["amounts"]["4"]["test"]
    assert set(cell) == {"retrieval_at_5", "consistency", "zero_shot"}
    assert all(0 <= v <= 1 for v in cell["zero_shot"]["values"])
    for name, ids in report["removed"].items():
        assert len(ids) == report["methods"][name]["recommended"]["amount"]
        assert set(ids) <= set(samples.ids)
    assert report["config"]["encoder"] == "offline"
    assert any("onion" in note for note in report["notes"])
    with pytest.raises(AuditError, match="another run"):
        removal_study(samples, CONFIG, [5], 2, run_dir=cache / "run")


def test_what_cannot_work_is_said(samples: Samples, cache: Path) -> None:
    few = Samples(samples.ids[:50], {m: v[:50] for m, v in samples.media.items()})
    with pytest.raises(AuditError, match="49 usable samples are too few"):
        removal_study(few, CONFIG, run_dir=cache / "few")
    for wrong in (AuditConfig(train="towers"), AuditConfig(protocol="split")):
        with pytest.raises(AuditError, match="use train heads and protocol ensemble"):
            removal_study(samples, wrong, run_dir=cache / "wrong")


def test_groups_stay_on_one_side_and_shares_are_kept() -> None:
    together = np.random.default_rng(0).integers(0, 300, 1000)
    sets = split_rows(together, 0)
    assert sorted(np.concatenate(list(sets.values()))) == list(range(1000))
    assert [len(rows) for rows in sets.values()] == pytest.approx([700, 150, 150], abs=8)
    sides = [set(together[rows]) for rows in sets.values()]
    assert not sides[0] & sides[1] | sides[0] & sides[2] | sides[1] & sides[2]
    renamed = split_rows((together * 7919) % 10_007, 0)
    assert all((renamed[name] == rows).all() for name, rows in sets.items())
    assert not np.array_equal(split_rows(together, 1)["test"], sets["test"])


def test_clip_memorization_has_the_formula_of_its_paper() -> None:
    rng = np.random.default_rng(0)
    image, text = unit(rng.standard_normal((12, 5))), unit(rng.standard_normal((12, 5)))
    reference, groups = np.arange(12) >= 6, np.array([*range(10), 9, 9])
    found = alignment_terms([image, text], reference, groups)
    for x in range(12):
        others = [h for h in range(6, 12) if groups[h] != groups[x]]
        by_hand = image[x] @ text[x] - np.mean([image[x] @ text[h] for h in others])
        by_hand -= np.mean([image[h] @ text[x] for h in others])
        assert found[x] == pytest.approx(by_hand, abs=1e-6)


def test_every_method_ranks_planted_swaps_high(tmp_path: Path) -> None:
    from sklearn.metrics import roc_auc_score

    known = planted()
    swapped, clean = known.rows["swapped"], known.rows["clean"]
    truth = np.r_[np.ones(len(swapped)), np.zeros(len(clean))]
    evidence = known.evidence
    features = Features(evidence.vectors, np.ones((len(evidence), 2), bool))
    with RunFolder(tmp_path / "run", {}) as run:
        job = Job(core_fixtures.CONFIG, "cpu", run, silent)
        rows = SampleFacts(evidence.contents, evidence.space, evidence.words)
        scores = removal_scores(gather_evidence(features, rows, core_fixtures.heads(features, job), job)[0])
    assert {"multimem", "clipmem", "cosine", "alignment", "misalignment"} <= set(scores)
    for name, values in scores.items():
        if name != "zero_shot_cosine":  # the toy encoders share no space in truth
            assert roc_auc_score(truth, np.r_[values[swapped], values[clean]]) > 0.75, name
    agreement = np.corrcoef(scores["multimem"], scores["clipmem"])[0, 1]
    assert agreement > 0.9


def test_some_training_follows_a_removal() -> None:
    assert (extra_epochs(20), extra_epochs(1)) == (10, 1)
