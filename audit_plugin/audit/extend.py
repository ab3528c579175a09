"""What a finished run stores of its samples, and reads later: maps of them, and scores of samples not trained on.

Those are new samples, and ones that lack some media. Every trial holds such samples out, so alignment and misalignment
are read from all heads at once; nothing is trained.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Bools, Floats, Ints, Samples, count_text
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.cached_features import stored_features, unit_features
from audit_plugin.encoders.embed import Contents, Embedded, Progress, digest_contents, silent
from audit_plugin.encoders.own_embeddings import text_names
from audit_plugin.encoders.pixels import IMAGE, MEASURES_KEY, measure_missing
from audit_plugin.neighbors.projection import Projection, two_directions
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.reflag import reflag
from audit_plugin.store import OWN, FeatureCache, RunFolder, digest_of
from audit_plugin.trials.learners import trained_heads_learner
from audit_plugin.trials.run import Job, Learner, TrialPlan

from .prepare import Clock, Order, Prepared, canonical_rows, describe_samples, encoders_of, prepare
from .result import AuditResult, count_outcomes, result_columns
from .score import gather_evidence, score

PART = "rows"
ROW_TEXTS = ("groups", "labels", "splits")  # fields of `Samples` that later rows are compared by
NOT_TRAINED = "not trained on: held-out scores only"
SAME_VECTOR = 0.99  # cosine of two vectors that one model may give one medium
MIN_MEDIA = 2  # of a sample that can be compared at all
# Sums over all modalities: of some of them they would be on another scale.
COMPLETE_ONLY = ("multimem", "alignment", "driver", "culprit", "failure")


@dataclass(frozen=True)
class StoredRun:
    """A finished run's complete samples in canonical order, with what it takes to read others.

    By modality: content digests, and the projections through which the heads see the features; `member` is `[r, n]`.
    """

    samples: Samples
    digests: Mapping[str, tuple[str, ...]]
    member: Bools
    config: AuditConfig
    projections: Mapping[str, Projection]


def keep_rows(prepared: Prepared, evidence: Evidence, job: Job) -> None:
    """Stores what later samples are read with, of an ensemble of heads without augmented views."""
    if not reads_others(evidence, job):
        return
    samples, rows = prepared.samples, prepared.order.rows
    part: dict[str, Any] = {
        "ids": np.array([samples.ids[row] for row in rows]),
        "caption": np.array([samples.caption[row] for row in rows] if samples.caption else [], dtype=np.int64),
        "member": evidence.required_trials.member,
        "config": np.array(json.dumps(job.config.to_dict())),
        "modalities": np.array(samples.modalities),
    }
    for name in ROW_TEXTS:
        part[name] = np.array([values[row] for row in rows] if (values := getattr(samples, name)) else [])
    for name, projection in prepared.head_projections.items():
        part |= {f"mean_{name}": projection.mean, f"basis_{name}": projection.basis}
        part[f"floor_{name}"] = np.float64(projection.floor)
        part[f"digest_{name}"] = np.array([prepared.contents.digests[name][row] for row in rows], dtype="S64")
        part[f"media_{name}"] = np.array(prepared.media(name))
    job.run.save(PART, **part)


def reads_others(evidence: Evidence, job: Job) -> bool:
    """Whether the trials can read samples that they were not trained on: heads on all samples, no augmented views."""
    trials = evidence.trials
    is_ensemble = trials is not None and trials.roles is None and bool(trials.known.all())
    return is_ensemble and job.config.train == "heads" and not job.config.views


def load_rows(run: RunFolder) -> StoredRun:
    """What `keep_rows` stored; AuditError if the run is not finished or trained something else than such heads."""
    part = run.load(PART)
    if part is None:
        raise AuditError(
            f"run {run.path} cannot be extended: it is not finished, or was not an ensemble of heads without augmented "
            "views; finish it with the command that began it, or audit again"
        )
    names = part["modalities"].tolist()
    media = {name: tuple(part[f"media_{name}"].tolist()) for name in names}
    texts: Any = {name: tuple(part[name].tolist()) for name in ROW_TEXTS if name in part}  # once, groups only were kept
    samples = Samples(tuple(part["ids"].tolist()), media, caption=tuple(part["caption"].tolist()), **texts)
    digests = {name: tuple(key.decode() for key in part[f"digest_{name}"].tolist()) for name in names}
    projections = {
        name: Projection(part[f"mean_{name}"], part[f"basis_{name}"], float(part[f"floor_{name}"])) for name in names
    }
    config = AuditConfig.from_dict(json.loads(str(part["config"])))
    return StoredRun(samples, digests, part["member"], config, projections)


def extend_run(samples: Samples, run_dir: str | Path, progress: Progress | None = None) -> AuditResult:
    """Scores samples that came after a run, with its settings, on the scale of its samples.

    Every trial holds them out, so alignment and misalignment are read from all heads; MultiMem is NaN. The run's own
    samples are read again, which costs what scoring them did (no training): O(r n).

    Args:
        samples: the new rows, of the run's modalities.
        run_dir: folder of a finished run (`AuditResult.run_dir`).
        progress: as in `run_audit`.

    Raises:
        AuditError: no such run, other modalities or encoder, or features of the run are gone from the cache.
    """
    from .run import finish  # which imports this module

    with RunFolder(Path(run_dir), None) as base:
        stored = load_rows(base)
        if set(samples.modalities) != set(stored.samples.modalities):
            raise AuditError(
                f"the run has {', '.join(stored.samples.modalities)}, the new samples have "
                f"{', '.join(samples.modalities)}; name the same modalities"
            )
        clock = Clock(progress or silent)
        encoders = encoders_of(base.path)
        _check_given(samples, encoders)
        new = prepare(samples, stored.config, clock, encoders)
        present_encoders = {name: encoder.key for name, encoder in new.encoder_identities.items()}
        if encoders != present_encoders:
            raise AuditError(
                f"the run was encoded with {encoders}, which now would be {present_encoders}; audit all samples again"
            )
        _check_same_vectors(stored, new)
        if new.image_paths:
            _measure_again(stored, clock.progress)
        joined = _join(stored, new)
        old = len(stored.samples)
        identity = {"extends": str(base.path), "digests": {m: list(d) for m, d in new.contents.digests.items()}}
        folder = base.path / f"extended-{digest_of(identity, list(new.samples.ids))[:16]}"
        with RunFolder(folder, identity) as run:
            job = Job(stored.config, new.device, run, clock.progress)
            with clock.stage("train"):
                learner = trained_heads_learner(joined.features, stored.projections, base, job)
                evidence, notes = _read_with(learner, joined, stored.member, job)
            return _new_rows(finish(joined, evidence, job, clock, notes), old)


def _check_given(samples: Samples, encoders: Mapping[str, str]) -> None:
    """Raises AuditError unless the new samples' embeddings are given for those modalities that the run's were."""
    given = {name: key for name, key in encoders.items() if key.startswith(OWN)}
    if lacking := [name for name in given if name not in samples.vectors]:
        raise AuditError(
            f"the run's {lacking[0]} embeddings were given; give those of the new samples too, from the same model: "
            f"--embeddings {lacking[0]}=FILE"
        )
    if more := [name for name in samples.vectors if name not in given]:
        raise AuditError(f"the run encoded {more[0]} itself; leave the {more[0]} embeddings out, or audit all again")
    for name, key in given.items():
        width, run_width = samples.vectors[name].shape[1], int(key.rpartition(":")[2])
        if width != run_width:
            raise AuditError(
                f"the new {name} embeddings have {width} numbers, the run's {run_width}; compute them with the run's "
                "model, or audit all samples again"
            )


def _check_same_vectors(stored: StoredRun, new: Prepared) -> None:
    """Raises AuditError where a medium that the run had too has another vector now: one of another model."""
    for name in new.samples.vectors:
        cache = FeatureCache(new.encoder_identities[name].key)
        run_digests = dict(zip(stored.samples.media[name], stored.digests[name], strict=True))
        repeated = [
            (row, digest, run_digests[value])
            for row, (value, digest) in enumerate(zip(new.samples.media[name], new.contents.digests[name], strict=True))
            if value and digest and run_digests.get(value, digest) != digest
        ]
        now, has_now = unit_features(cache, [digest for _, digest, _ in repeated])
        then, has_then = unit_features(cache, [digest for _, _, digest in repeated])
        cosines = np.where(has_now & has_then, (now * then).sum(1), 1)
        if (other := np.flatnonzero(cosines < SAME_VECTOR)).size:
            row = repeated[int(other[0])][0]
            raise AuditError(
                f"{len(other)} of the new samples repeat the {name} of one of the run with another vector (the first: "
                f"id {new.samples.ids[row]!r}, cosine {cosines[other[0]]:.2f}); compute the new embeddings with the "
                "run's model, or audit all samples again"
            )


def _measure_again(stored: StoredRun, progress: Progress) -> None:
    """Measures the run's images whose measures are gone from the cache, if their files are still the same."""
    paths = dict(zip(stored.digests[IMAGE], stored.samples.media[IMAGE], strict=True))
    missing = {digest: paths[digest] for digest in FeatureCache(MEASURES_KEY).missing(list(paths))}
    if not missing:
        return
    samples = Samples(tuple(missing), {IMAGE: tuple(missing.values())})
    now = digest_contents(samples, progress).digests[IMAGE]
    unchanged = zip(now, missing.items(), strict=True)
    measure_missing({digest: path for seen, (digest, path) in unchanged if seen == digest and path}, progress)


def _join(stored: StoredRun, new: Prepared) -> Prepared:
    """The run's samples, then the new ones, each in canonical order."""
    old = len(stored.samples)
    digests = {m: (*stored.digests[m], *new.contents.digests[m]) for m in new.samples.modalities}
    features = stored_features({m: new.encoder_identities[m].key for m in digests}, digests)
    if missing := int((~features.present[:old]).any(axis=1).sum()):
        raise AuditError(
            f"the features of {missing} samples of the run are gone from the cache; run the audit itself again, which "
            "encodes them again and retrains nothing, then extend it"
        )
    failures = {row + old: why for row, why in new.embedded.failures.items()}
    return replace(
        new,
        samples=_concatenated(stored.samples, new.samples),
        contents=Contents(digests, failures, _text_names(stored, new)),
        embedded=replace(new.embedded, features=features, failures=failures),
        order=Order(np.concatenate([np.arange(old), old + new.order.rows]), old + len(new.samples)),
    )


def _text_names(stored: StoredRun, new: Prepared) -> dict[str, tuple[str, ...]]:
    """`Contents.texts` of the run's samples and the new ones."""
    return {
        name: (*text_names(stored.samples.media[name], stored.digests[name]), *names)
        for name, names in new.contents.texts.items()
    }


def _concatenated(old: Samples, new: Samples) -> Samples:
    def both(name: str, empty: Any) -> Any:
        left, right = getattr(old, name), getattr(new, name)
        return (*(left or (empty,) * len(old)), *(right or (empty,) * len(new))) if left or right else ()

    media = {m: (*old.media[m], *values) for m, values in new.media.items()}
    problems = {row + len(old): why for row, why in new.problems.items()}
    texts: Any = {name: both(name, "") for name in ROW_TEXTS}
    return Samples(both("ids", ""), media, caption=both("caption", 0), problems=problems, **texts)


def _new_rows(result: AuditResult, old: int) -> AuditResult:
    """The part of a result that belongs to the new rows, with its own counts."""
    columns = {name: values[old:].copy() for name, values in result.columns.items()}
    for name in [c for c in columns if c.startswith("multimem")]:
        columns[name][:] = np.nan  # a copy of a trained sample is not trained on either
    columns["driver"][:] = ""
    columns |= reflag(columns, {"is_memorized": np.zeros(len(columns["reason"]), dtype=bool)})
    columns["reason"][columns["reason"] == ""] = NOT_TRAINED
    summary = {**result.summary, **count_outcomes(columns), "samples": len(columns["reason"]), "extends": old}
    return AuditResult(result.ids[old:], columns, summary, result.run_dir, result.captions[old:])


def _read_with(learner: Learner, prepared: Prepared, member: Bools, job: Job) -> tuple[Evidence, list[str]]:
    """Evidence on samples of which the first were trained on, masks `[r, n]`, and the others are held out by all."""
    trained, total = member.shape[1], len(prepared.order.rows)
    known = np.arange(total) < trained
    plan = TrialPlan(np.pad(member, ((0, 0), (0, total - trained))), known)
    facts = describe_samples(prepared, known)
    return gather_evidence(prepared.features, facts, lambda *_: learner, job, plan, prepared.image_paths)


def add_incomplete(
    columns: Mapping[str, Any], prepared: Prepared, evidence: Evidence, job: Job
) -> tuple[dict[str, Any], list[str]]:
    """The columns, `[n]` in the caller's order, with the rows that lack some of three or more media; notes on them.

    Only where an ensemble of heads can read samples that it was not trained on, as in an extension. Costs a reading of
    the whole set per pattern of missing media.
    """
    columns = {name: values.copy() for name, values in columns.items()}
    present = prepared.embedded.features.present
    if not reads_others(evidence, job) or present.shape[1] <= MIN_MEDIA:
        return columns, []
    incomplete = ~present.all(axis=1) & (present.sum(axis=1) >= MIN_MEDIA)
    notes = []
    for pattern in np.unique(present[incomplete], axis=0):
        alike = np.flatnonzero(incomplete & (present == pattern).all(axis=1))
        rows = canonical_rows(prepared.samples, prepared.contents, alike)
        if len(rows):
            notes += _add_pattern(columns, prepared, evidence.required_trials.member, pattern, rows, job)
    return columns, notes


def _add_pattern(
    columns: dict[str, Any], prepared: Prepared, member: Bools, pattern: Bools, rows: Ints, job: Job
) -> list[str]:
    """Fills the rows `[q]` of the columns, which have only the media of a pattern, bool `[m]`; notes on them."""
    present = [m for m, has in zip(prepared.samples.modalities, pattern, strict=True) if has]
    missing = " and ".join(m for m in prepared.samples.modalities if m not in present)
    part = _restrict(prepared, present, rows)
    learner = trained_heads_learner(part.features, prepared.head_projections, job.run, job)
    digests = [[prepared.contents.digests[m][row] for m in present] for row in rows]
    with RunFolder(job.run.path / f"lacking-{digest_of(present, digests)[:16]}", {"media": present}) as run:
        inner = replace(job, run=run, progress=lambda *_: job.progress("score", 1, 1))
        evidence, _ = _read_with(learner, part, member, inner)
        scored = score(part, evidence, inner)
    partial = result_columns(part, scored)
    for name, values in columns.items():
        if name in partial and not name.startswith(COMPLETE_ONLY):
            values[rows] = partial[name][rows]
    without_reason = rows[columns["reason"][rows] == ""]
    columns["reason"][without_reason] = f"scored without {missing}: see failure"
    note = (
        f"{count_text(len(rows), 'sample')} "
        f"without {missing}: scored on {', '.join(present)}, by heads that were not trained on "
        "them; MultiMem and alignment, which are sums over all media, are left out"
    )
    return [note, *run.notes]


def _restrict(prepared: Prepared, modalities: list[str], rows: Ints) -> Prepared:
    """The complete rows and then these, in some of the modalities only."""
    digests = {m: prepared.contents.digests[m] for m in modalities}
    features = stored_features({m: prepared.encoder_identities[m].key for m in modalities}, digests)
    return replace(
        prepared,
        samples=replace(prepared.samples, media={m: prepared.samples.media[m] for m in modalities}),
        contents=Contents(digests, {}, prepared.contents.texts),
        embedded=Embedded(features, {}, 0, {}),
        encoder_identities={m: prepared.encoder_identities[m] for m in modalities},
        order=Order(np.concatenate([prepared.order.rows, rows]), len(prepared.samples)),
    )


def embedding_map(run_dir: str) -> tuple[list[str], Floats]:
    """Ids of an audit's samples `[n]`, and their positions `[n, 2]`, from unit features of all modalities side by side.

    Of a sample with several texts the first row counts.

    Raises:
        AuditError: the run folder or its features are gone, or the run did not store which samples it read.
    """
    with RunFolder(Path(run_dir), None) as run:
        try:
            rows_read = load_rows(run)
        except AuditError as error:
            raise AuditError(
                "the audit cannot be mapped: only one that trained heads on enough samples, without augmented views, "
                "stores what it read; audit again so"
            ) from error
        encoders = encoders_of(run.path)
    ids = rows_read.samples.ids
    first = np.sort(np.unique(np.array(ids), return_index=True)[1])
    parts = []
    for name, digests in rows_read.digests.items():
        features, present = unit_features(FeatureCache(encoders[name]), [digests[row] for row in first])
        if missing := int((~present).sum()):
            raise AuditError(
                f"{missing} features of the audit are gone from the cache; run the same audit again, which computes "
                "them again without training, then ask for the map"
            )
        parts.append(features)
    return [ids[row] for row in first], two_directions(np.concatenate(parts, axis=1))
