"""Pictures through the packaged encoders."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from audit_plugin.arrays import Samples
from audit_plugin.audit.cost import plan_audit
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.embed import digest_contents, embed, silent
from audit_plugin.encoders.offline import IDENTITIES
from audit_plugin.encoders.registry import load_encoders
from tests.pipeline_fixtures import COLORS, GROUNDS, QUICK, SHAPES, auroc, cells, draw, rows_of


def test_planted_faults_are_found_in_pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    true = [draw(tmp_path / f"{row}.png", row) for row in range(128)]
    images, texts = [str(tmp_path / f"{row}.png") for row in range(128)], list(true)
    left = np.random.default_rng(0).permutation(64)[:8]
    for row in left:  # 41 rows on, color, shape and ground all differ
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
        sum(word in p for word in (COLORS[row % 8], SHAPES[row // 8 % 4], GROUNDS[row // 32 % 4]))
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
    keys = {m: IDENTITIES[m].key for m in encoders}
    for part in (range(39, 20, -2), range(0, 20, 2)):  # other batches, other neighbors in them
        half = rows_of(samples, part)
        embed(half, digest_contents(half, silent), keys, lambda: encoders, silent)

    def kill(stage: str, done: int, _total: int) -> None:
        if stage == "encode text" and done > 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_audit(samples, QUICK, kill, tmp_path / "run_half")
    assert plan_audit(samples, QUICK)["encodes"] == {"image": 0, "text": 9}  # a canceled run loses nothing
    half_warm = run_audit(samples, QUICK, run_dir=tmp_path / "run_half")
    assert half_warm.summary["encoded_now"] == {"image": 0, "text": 9}
    assert cells(half_warm) == cells(cold)


def test_views_average_consistency_alone_and_are_cached(
    pictures: list[str], captions: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AUDIT_PLUGIN_CACHE", str(tmp_path / "cache"))
    samples = Samples(
        tuple(f"s{row}" for row in range(40)), {"image": tuple(pictures[:40]), "text": tuple(captions[:40])}
    )
    plain = run_audit(samples, QUICK, run_dir=tmp_path / "plain")
    seen: list[str] = []
    viewed = run_audit(samples, replace(QUICK, views=2), lambda stage, *_: seen.append(stage), tmp_path / "viewed")
    assert "encode image, view 2" in seen
    for name in ("misalignment", "outlier", "duplicate"):  # of the sample as it is
        np.testing.assert_array_equal(viewed.columns[name], plain.columns[name])
    for name in ("multimem", "alignment"):
        assert np.isfinite(viewed.columns[name]).all()
        assert (viewed.columns[name] != plain.columns[name]).any()
    again = run_audit(samples, replace(QUICK, views=2), run_dir=tmp_path / "again")
    assert cells(again) == cells(viewed)
