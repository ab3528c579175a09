"""A small synthetic set with planted faults and the evidence on it, trained for real, made once per test session."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path

import numpy as np

from audit_plugin.arrays import Features, Neighbors, SampleFacts
from audit_plugin.audit.score import gather_evidence
from audit_plugin.config import AuditConfig
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.scores import pair_misalignment
from audit_plugin.store import RunFolder
from audit_plugin.trials.learners import head_projections, heads_learner
from audit_plugin.trials.run import Job, Learn

MODALITIES = ("image", "text", "audio", "video")
CONFIG = AuditConfig(trials=8, epochs=30, neighbors=20)
N, LATENT, DIM = 300, 8, 24


def unit(x: np.ndarray) -> np.ndarray:
    """Unit rows, float32."""
    return (x / np.linalg.norm(x, axis=-1, keepdims=True)).astype(np.float32)


@dataclass(frozen=True)
class Planted:
    """Evidence, and kind of fault -> its rows (`clean` for the rest)."""

    evidence: Evidence
    rows: Mapping[str, np.ndarray]


@lru_cache
def planted(m: int = 2) -> Planted:
    """n = 300 samples of m modalities that show one hidden vector each, but for the planted rows.

    swapped: the texts of 24 rows go round; outlier: 4 images like no other; duplicate: 10 images repeated with
    the same text's meaning; conflict: 6 images repeated under another text; placeholder: one image in 14 rows.
    """
    rng = np.random.default_rng(5)
    hidden = rng.standard_normal((N, LATENT))
    kinds = np.split(rng.permutation(N), np.cumsum([24, 4, 20, 12, 14]))
    rows = dict(zip(("swapped", "outlier", "duplicate", "conflict", "placeholder", "clean"), kinds, strict=True))
    hidden[rows["duplicate"][1::2]] = hidden[rows["duplicate"][0::2]]
    mix = rng.standard_normal((LATENT, DIM))
    features = {name: hidden @ mix + 0.5 * rng.standard_normal((N, DIM)) for name in MODALITIES[:m]}
    features["text"][rows["swapped"]] = np.roll(features["text"][rows["swapped"]], 1, axis=0)
    features["image"][rows["outlier"]] = 12 * rng.standard_normal((4, DIM))
    contents = {name: np.arange(N) for name in features}
    for kind, block in (("duplicate", 2), ("conflict", 2), ("placeholder", 14)):
        source = rows[kind].reshape(-1, block)[:, :1].repeat(block, 1).reshape(-1)
        features["image"][rows[kind]] = features["image"][source]
        contents["image"][rows[kind]] = source
    present = np.ones((N, m), bool)
    known = SampleFacts(
        {name: np.unique(c, return_inverse=True)[1] for name, c in contents.items()},
        dict.fromkeys(features, "toy"),
        {"text": np.full(N, 8)},
    )
    with tempfile.TemporaryDirectory() as folder, RunFolder(Path(folder) / "run", {}) as run:
        made = Features({name: unit(v) for name, v in features.items()}, present)
        job = Job(CONFIG, "cpu", run, lambda *_: None)
        return Planted(gather_evidence(made, known, heads(made, job), job)[0], rows)


def heads(features: Features, job: Job, views: tuple[Features, ...] = ()) -> Learn:
    """Heads on these features, as `gather_evidence` takes them."""
    return lambda plan, repeats: heads_learner(features, views, head_projections(features), repeats, plan, job)


def permuted(evidence: Evidence, order: np.ndarray) -> Evidence:
    """The same evidence with its rows in another order."""
    back = np.empty_like(order)
    back[order] = np.arange(len(order))
    trials = evidence.trials
    assert trials is not None
    return replace(
        evidence,
        vectors={k: v[order] for k, v in evidence.vectors.items()},
        projections={k: v[order] for k, v in evidence.projections.items()},
        neighbors={
            k: Neighbors(np.where(v.indices >= 0, back[v.indices], -1)[order], v.similarities[order])
            for k, v in evidence.neighbors.items()
        },
        words={k: v[order] for k, v in evidence.words.items()},
        contents={k: v[order] for k, v in evidence.contents.items()},
        near_duplicates={k: v[order] for k, v in evidence.near_duplicates.items()},
        user_groups=back[evidence.user_groups][order],
        leave_together=evidence.leave_together[order],
        known=None if evidence.known is None else evidence.known[order],
        held_out={k: v[:, order] for k, v in evidence.held_out.items()},
        trials=replace(
            trials,
            member=trials.member[:, order],
            consistency=trials.consistency[:, order],
            multimem_terms=trials.multimem_terms[..., order],
            known=trials.known[order],
        ),
    )


def probe_scores_of(evidence: Evidence, kind: str, pair: tuple[str, str]) -> np.ndarray:
    """Combined scores of the probe pairs of a kind, for one pair of modalities."""
    at = evidence.pairs.index(pair)
    of_pair = {name: values[at] for name, values in evidence.probe_evidence[kind].items()}
    return pair_misalignment(evidence, pair, of_pair)
