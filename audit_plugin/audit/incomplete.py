"""Samples that lack one of three or more media: read on those that they have, by heads that never saw them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from audit_plugin.arrays import Bools, Ints
from audit_plugin.config import digest_of
from audit_plugin.encoders.cached_features import stored_features
from audit_plugin.encoders.embed import Contents, Embedded
from audit_plugin.scoring.evidence import Gathered, gather
from audit_plugin.store import RunFolder
from audit_plugin.trials.learners import head_projections, kept_heads_learner
from audit_plugin.trials.run import Job, Plan

from .result import Order, result_columns
from .score import Prepared, canonical_rows, describe_rows, score

LEAST = 2  # media of a sample that can be compared at all
# Sums over all modalities: of some of them they would be on another scale.
COMPLETE_ONLY = ("multimem", "alignment", "driver", "culprit", "failure")


def add_incomplete(columns: dict[str, Any], ready: Prepared, gathered: Gathered, job: Job) -> list[str]:
    """Fills the columns, `[n]` in the caller's order, of rows that lack some media; returns notes on them.

    Only where an ensemble of heads can read samples that it was not trained on, as in an extension. Costs a reading of
    the whole set per pattern of missing media.
    """
    plan, present = gathered.plan, ready.embedded.features.present
    kept = plan is not None and plan.roles is None and plan.known.all() and gathered.evidence.trials is not None
    if not kept or present.shape[1] <= LEAST or job.config.train != "heads" or job.config.views:
        return []
    lacking = ~present.all(axis=1) & (present.sum(axis=1) >= LEAST)
    notes = []
    for pattern in np.unique(present[lacking], axis=0):
        alike = np.flatnonzero(lacking & (present == pattern).all(axis=1))
        rows = canonical_rows(ready.samples, ready.contents, alike)
        if len(rows):
            notes.append(_add_pattern(columns, ready, gathered, pattern, rows, job))
    return notes


def _add_pattern(
    columns: dict[str, Any], ready: Prepared, gathered: Gathered, pattern: Bools, rows: Ints, job: Job
) -> str:
    assert gathered.plan is not None
    there = [m for m, has in zip(ready.samples.modalities, pattern, strict=True) if has]
    missing = " and ".join(m for m in ready.samples.modalities if m not in there)
    part = _restricted(ready, there, rows)
    known = np.arange(len(part.order.rows)) < len(ready.order.rows)
    member = np.pad(gathered.plan.member, ((0, 0), (0, len(rows))))
    learner = kept_heads_learner(part.features, head_projections(ready.features), job.run, job)
    digests = [[ready.contents.digests[m][row] for m in there] for row in rows]
    with RunFolder(job.run.path / f"lacking-{digest_of(there, digests)[:16]}", {"media": there}) as run:
        inner = replace(job, run=run, progress=lambda *_: job.progress("score", 1, 1))
        described = replace(describe_rows(part), known=known)
        found = gather(part.features, described, lambda *_: learner, inner, Plan(member, known))
        scored = score(part, found, inner)
    read = result_columns(scored, part.order, part.embedded, part.samples)
    for name in [n for n in columns if n in read and not n.startswith(COMPLETE_ONLY)]:
        columns[name][rows] = read[name][rows]
    unsaid = rows[columns["reason"][rows] == ""]
    columns["reason"][unsaid] = f"scored without {missing}: see failure"
    return (
        f"{len(rows)} samples without {missing} were scored on {', '.join(there)}, by heads that were not trained on "
        "them; MultiMem and alignment, which are sums over all media, are left out"
    )


def _restricted(ready: Prepared, modalities: list[str], rows: Ints) -> Prepared:
    """The complete rows and then these, in some of the modalities only."""
    digests = {m: ready.contents.digests[m] for m in modalities}
    some = stored_features({m: ready.encoder_identities[m].key for m in modalities}, digests)
    return replace(
        ready,
        samples=replace(ready.samples, media={m: ready.samples.media[m] for m in modalities}),
        contents=Contents(digests, {}),
        embedded=Embedded(some, {}, 0, {}),
        encoder_identities={m: ready.encoder_identities[m] for m in modalities},
        order=Order(np.concatenate([ready.order.rows, rows]), len(ready.samples)),
    )
