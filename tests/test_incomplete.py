from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import Samples
from audit_plugin.audit.result import AuditResult
from audit_plugin.audit.run import run_audit
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.offline import IDENTITIES
from audit_plugin.inputs.files import file_digest
from audit_plugin.store import FeatureCache
from tests.core_fixtures import unit
from tests.pipeline_fixtures import SWAPPED, encoded_rows, rows_of

N, LACKING = 160, 24  # the captions of the first 12 rows are swapped, the first 24 have no sound
CONFIG = AuditConfig(encoder="offline", trials=8, epochs=15)
FLOATS = ("misalignment", "misalignment_image_text", "outlier", "outlier_image", "outlier_text", "duplicate")


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> tuple[Samples, AuditResult]:
    """Rows of image, text and sound, and their audit."""
    folder = tmp_path_factory.mktemp("incomplete")
    cache, pairs = encoded_rows(folder, N)
    # the same hidden vectors as the fixture's, so that sound belongs to image and text
    rng = np.random.default_rng(2)
    hidden = rng.standard_normal((N, 8))
    other = np.random.default_rng(9)
    heard = unit(hidden @ other.standard_normal((8, 24)) + 0.5 * other.standard_normal((N, 24)))
    paths = [folder / f"{row}.wav" for row in range(N)]
    for row, path in enumerate(paths):
        path.write_bytes(b"sound %d" % row)  # never decoded: its features are in the cache
    keys = [file_digest(str(path)) for path in paths]
    FeatureCache(IDENTITIES["audio"].key, cache / "features").append(dict(zip(keys, heard, strict=True)))
    sounds = tuple(None if row < LACKING else str(path) for row, path in enumerate(paths))
    samples = replace(pairs, media={**pairs.media, "audio": sounds})
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AUDIT_PLUGIN_CACHE", str(cache))
        yield samples, run_audit(samples, CONFIG)


def test_what_they_have_is_scored_and_the_rest_is_not(home) -> None:
    _, result = home
    for name in FLOATS:
        assert np.isfinite(result.columns[name][:LACKING]).all(), name
    for name in ("multimem", "multimem_stderr", "alignment", "misalignment_image_audio", "outlier_audio"):
        assert np.isnan(result.columns[name][:LACKING]).all(), name
    assert set(result.columns["failure"][:LACKING]) == {"audio: no value"}
    said = {r for r in result.columns["reason"][:LACKING] if "scored without" in r}
    assert said == {"scored without audio: see failure"}
    assert "not scored: see failure" not in result.columns["reason"]
    assert any(note.startswith("24 samples without audio: scored on image, text") for note in result.summary["notes"])


def test_wrong_pairs_among_them_are_found(home) -> None:
    score = home[1].columns["misalignment"]
    assert np.median(score[:SWAPPED]) > np.max(score[SWAPPED:LACKING])
    known = home[1].columns["misalignment_image_text"]
    right = known[LACKING:]
    assert (known[:SWAPPED] > np.quantile(right, 0.9)).mean() > 0.6  # on the complete samples' scale


def test_complete_samples_are_as_if_the_others_were_not_there(home) -> None:
    samples, result = home
    alone = run_audit(rows_of(samples, range(LACKING, N)), CONFIG)
    for name, values in alone.columns.items():
        np.testing.assert_array_equal(result.columns[name][LACKING:], values, err_msg=name)


def test_their_order_and_their_company_do_not_matter(home) -> None:
    samples, result = home
    order = np.random.default_rng(0).permutation(N)
    mixed = run_audit(rows_of(samples, order.tolist()), CONFIG)
    for name in FLOATS:
        np.testing.assert_array_equal(mixed.columns[name], result.columns[name][order], err_msg=name)


def test_counts_include_them(home) -> None:
    result = home[1]
    flagged = int(result.columns["is_misaligned"].sum())
    assert result.summary["flags"]["misaligned"] == flagged
    assert result.summary["failures"] == LACKING


def test_two_patterns_are_read_apart_and_one_medium_alone_is_not_scored(home, tmp_path: Path) -> None:
    samples, _ = home
    texts, sounds = list(samples.media["text"]), list(samples.media["audio"])
    texts[100], texts[5] = None, None  # row 5 has an image alone
    less = replace(samples, media={**samples.media, "text": tuple(texts), "audio": tuple(sounds)})
    result = run_audit(less, CONFIG, run_dir=tmp_path / "run")
    assert np.isfinite(result.columns["misalignment_image_audio"][100])
    assert np.isnan(result.columns["misalignment_image_text"][100])
    assert result.columns["reason"][5] == "not scored: see failure"
    assert np.isnan(result.columns["outlier"][5])
    assert sum(": scored on" in note for note in result.summary["notes"]) == 2


def test_a_second_run_reads_the_same_from_the_folder(home, tmp_path: Path) -> None:
    first, second = (run_audit(home[0], CONFIG, run_dir=tmp_path / "run") for _ in range(2))
    for name, values in first.columns.items():
        np.testing.assert_array_equal(second.columns[name], values, err_msg=name)


def test_only_an_ensemble_of_heads_reads_them(home, tmp_path: Path) -> None:
    split = run_audit(home[0], replace(CONFIG, protocol="split", trials=2), run_dir=tmp_path / "run")
    assert np.isnan(split.columns["outlier"][:LACKING]).all()
    assert set(split.columns["reason"][:LACKING]) == {"not scored: see failure"}
