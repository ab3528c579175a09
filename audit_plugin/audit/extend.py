"""New samples read by the heads of a finished run: held-out scores at once, nothing is trained anew."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, AuditResult, Samples
from audit_plugin.config import digest_of
from audit_plugin.encoders.cached_features import stored_features
from audit_plugin.encoders.embed import Contents, Embedded, Progress, silent
from audit_plugin.scoring import flags as rules
from audit_plugin.scoring.evidence import gather
from audit_plugin.store import RunFolder
from audit_plugin.trials.learners import kept_heads_learner
from audit_plugin.trials.run import Job, Plan

from .kept import KeptRun, load_rows
from .result import Order
from .run import finish, prepare
from .score import Clock, Prepared, describe_rows

NOT_TRAINED = "not trained on: held-out scores only"


def extend_run(samples: Samples, run_dir: str | Path, progress: Progress | None = None) -> AuditResult:
    """Scores samples that came after a run, with its settings, on the scale of its samples.

    Every trial holds them out, so alignment and misalignment are read from all heads; MultiMem is NaN. The run's own
    samples are read again, which costs what scoring them did (no training): O(r n).

    Args:
        samples: the new rows, of the run's modalities.
        run_dir: folder of a finished run (`AuditResult.run_dir`).
        progress: as in `run_audit`.

    Returns:
        One value per new row and column.

    Raises:
        AuditError: no such run, other modalities or encoder, or features of the run are gone from the cache.
    """
    with RunFolder(Path(run_dir), None) as base:
        kept = load_rows(base)
        if set(samples.modalities) != set(kept.samples.modalities):
            raise AuditError(
                f"the run has {', '.join(kept.samples.modalities)}, the new samples have "
                f"{', '.join(samples.modalities)}; name the same modalities"
            )
        clock = Clock(progress or silent)
        encoders = json.loads((base.path / "run.json").read_text())["encoders"]
        new = prepare(samples, kept.config, clock, encoders)
        _same_encoders(encoders, new)
        ready = _joined(kept, new)
        old = len(kept.samples)
        identity = {"extends": str(base.path), "digests": {m: list(d) for m, d in new.contents.digests.items()}}
        folder = base.path / f"extended-{digest_of(identity, list(new.samples.ids))[:16]}"
        with RunFolder(folder, identity) as run:
            job = Job(kept.config, new.device, run, clock.progress)
            with clock.stage("train"):
                added = len(ready.order.rows) - old
                member = np.pad(kept.member, ((0, 0), (0, added)))
                known = np.arange(old + added) < old
                learner = kept_heads_learner(ready.features, kept.projections, base, job)
                rows = replace(describe_rows(ready), known=known)
                gathered = gather(ready.features, rows, lambda *_: learner, job, Plan(member, known))
            return _new_rows(finish(ready, gathered, job, clock), old)


def _same_encoders(was: Mapping[str, str], new: Prepared) -> None:
    now = {modality: identity.key for modality, identity in new.encoder_identities.items()}
    if was != now:
        raise AuditError(f"the run was encoded with {was}, which now would be {now}; audit all samples anew")


def _joined(kept: KeptRun, new: Prepared) -> Prepared:
    """The run's samples, then the new ones, each in canonical order."""
    old = len(kept.samples)
    digests = {m: (*kept.digests[m], *new.contents.digests[m]) for m in new.samples.modalities}
    features = stored_features({m: new.encoder_identities[m].key for m in digests}, digests)
    if missing := int((~features.present[:old]).any(axis=1).sum()):
        raise AuditError(
            f"the features of {missing} samples of the run are gone from the cache; run the audit itself again, which "
            "makes them anew and retrains nothing, then extend it"
        )
    failures = {row + old: why for row, why in new.embedded.failures.items()}
    return replace(
        new,
        samples=_concatenated(kept.samples, new.samples),
        contents=Contents(digests, failures),
        embedded=Embedded(features, failures, new.embedded.split_texts, new.embedded.encoded),
        order=Order(np.concatenate([np.arange(old), old + new.order.rows]), old + len(new.samples)),
    )


def _concatenated(old: Samples, new: Samples) -> Samples:
    def both(name: str, empty: Any) -> Any:
        left, right = getattr(old, name), getattr(new, name)
        return (*(left or (empty,) * len(old)), *(right or (empty,) * len(new))) if left or right else ()

    media = {m: (*old.media[m], *values) for m, values in new.media.items()}
    problems = {row + len(old): why for row, why in new.problems.items()}
    return Samples(both("ids", ""), media, both("groups", ""), both("caption", 0), problems=problems)


def _new_rows(result: AuditResult, old: int) -> AuditResult:
    """The part of a result that belongs to the new rows, with its own counts."""
    columns = {name: values[old:] for name, values in result.columns.items()}
    for name in [c for c in columns if c.startswith("multimem")]:
        columns[name] = np.full_like(columns[name], np.nan)  # a copy of a trained sample is not trained on either
    reason = np.array(columns["reason"], dtype=object)
    reason[reason == ""] = NOT_TRAINED
    columns["reason"] = reason
    summary = {**result.summary, **_counts(columns), "samples": len(reason), "extends": old}
    return AuditResult(result.ids[old:], columns, summary, result.run_dir)


def _counts(columns: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "failures": int((columns["failure"] != "").sum()),
        "flags": {kind: int(columns[f"is_{kind}"].sum()) for kind in rules.FLAGS},
        "actions": {a: int((columns["action"] == a).sum()) for a in ("keep", "relabel", "remove", "review")},
    }
