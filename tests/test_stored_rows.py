from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from audit_plugin.arrays import AuditError, Features, SampleFacts, Samples
from audit_plugin.audit.extend import PART, keep_rows, load_rows
from audit_plugin.audit.prepare import Order, Prepared
from audit_plugin.audit.score import gather_evidence
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.base import EncoderIdentity
from audit_plugin.encoders.embed import Contents, Embedded
from audit_plugin.neighbors.projection import project
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.store import RunFolder
from audit_plugin.trials.learners import head_projections
from audit_plugin.trials.run import Job
from tests.core_fixtures import heads, unit

N = 40
CONFIG = AuditConfig(trials=2, epochs=1, neighbors=5, encoder="offline")
ROWS = np.random.default_rng(1).permutation(N + 2)[:N]  # canonical order; two rows were not usable
SAMPLES = Samples(
    tuple(f"s{row}" for row in range(N + 2)),
    {
        "image": tuple(f"/pictures/{row}.png" for row in range(N + 2)),
        "text": tuple(f"caption {row}\n\x1b[1m" for row in range(N + 2)),
    },
    groups=tuple(f"g{row // 2}" for row in range(N + 2)),
)
DIGESTS = {m: tuple(f"{m}{row}".ljust(64, "0") for row in range(N + 2)) for m in SAMPLES.media}


def features() -> Features:
    rng = np.random.default_rng(0)
    return Features({m: unit(rng.standard_normal((N, 9))) for m in SAMPLES.media}, np.ones((N, 2), bool))


def gathered(job: Job) -> Evidence:
    rows = SampleFacts(
        dict.fromkeys(SAMPLES.media, np.arange(N)), dict.fromkeys(SAMPLES.media, ""), {"text": np.full(N, 2)}
    )
    return gather_evidence(features(), rows, heads(features(), job), job)[0]


def prepared(samples: Samples = SAMPLES) -> Prepared:
    order = np.full(N + 2, 0)
    order[ROWS] = np.arange(N)  # features of all rows, of which the complete ones are those of `features`
    rows = Features({m: v[order] for m, v in features().vectors.items()}, np.ones((N + 2, 2), bool))
    embedded, encoders = Embedded(rows, {}, 0, {}), {m: EncoderIdentity(m) for m in samples.media}
    return Prepared(samples, Contents(DIGESTS, {}), embedded, (), encoders, "toy", Order(ROWS, N + 2), "cpu")


def keep(run: RunFolder, samples: Samples = SAMPLES, config: AuditConfig = CONFIG, **trials: object) -> Evidence:
    job = Job(config, "cpu", run, lambda *_: None)
    found = gathered(job)
    if trials:
        found = replace(found, trials=replace(found.required_trials, **trials))
    keep_rows(prepared(samples), found, job)
    return found


def test_what_is_kept_comes_back_in_canonical_order(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {}) as run:
        found = keep(run)
        kept = load_rows(run)
    assert kept.samples.ids == tuple(SAMPLES.ids[row] for row in ROWS)
    assert kept.samples.groups == tuple(SAMPLES.groups[row] for row in ROWS)
    assert kept.samples.caption == ()
    for name in ("image", "text"):
        assert kept.samples.media[name] == tuple(SAMPLES.media[name][row] for row in ROWS)
        assert kept.digests[name] == tuple(DIGESTS[name][row] for row in ROWS)
    assert kept.config == CONFIG
    assert (kept.member == found.required_trials.member).all()
    for name, projection in head_projections(features()).items():
        np.testing.assert_array_equal(
            project(features().vectors[name], kept.projections[name]), project(features().vectors[name], projection)
        )


def test_captions_of_one_sample_keep_their_number(tmp_path: Path) -> None:
    several = replace(SAMPLES, groups=(), caption=tuple(row % 3 for row in range(N + 2)))
    with RunFolder(tmp_path / "run", {}) as run:
        keep(run, several)
        kept = load_rows(run)
    assert kept.samples.caption == tuple(int(row % 3) for row in ROWS)
    assert kept.samples.groups == ()


@pytest.mark.parametrize("what", ["towers", "split", "few"])
def test_only_heads_trained_on_all_samples_are_kept(what: str, tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {}) as run:
        if what == "towers":
            keep(run, config=replace(CONFIG, train="towers"))
        elif what == "split":
            keep(run, roles=np.full(N, "both"))
        else:
            job = Job(CONFIG, "cpu", run, lambda *_: None)
            keep_rows(prepared(), replace(gathered(job), trials=None), job)
        assert run.load(PART) is None
        with pytest.raises(AuditError, match="cannot be extended: it is not finished, or was not an ensemble"):
            load_rows(run)


def test_what_is_kept_holds_no_pickle(tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run", {}) as run:
        keep(run)
    with np.load(tmp_path / "run" / f"{PART}.npz", allow_pickle=False) as arrays:
        assert all(arrays[name].dtype != object for name in arrays.files)
