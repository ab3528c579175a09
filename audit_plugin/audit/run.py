"""The audit as one story: prepare, find neighbors, train trials, score, explain, order back. No FiftyOne here."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from audit_plugin.arrays import AuditError, Samples
from audit_plugin.config import AuditConfig
from audit_plugin.encoders.devices import matmul_precision, small_by_one_thread
from audit_plugin.encoders.embed import Embedded, Progress, silent
from audit_plugin.encoders.own_models import Embedder, embed_with
from audit_plugin.encoders.prompts import split_templates, with_first_prompt
from audit_plugin.scoring.evidence import Evidence
from audit_plugin.scoring.suggest.captions import Captioner
from audit_plugin.store import RunFolder, cache_root, digest_of
from audit_plugin.trials.engines import opened
from audit_plugin.trials.learners import (
    checkpoint_vectors,
    checkpoints_learner,
    heads_learner,
    learner_identity,
    towers_learner,
)
from audit_plugin.trials.run import Job, Learn

from .explain import explain
from .extend import add_incomplete, keep_rows
from .prepare import Clock, Prepared, describe_samples, encoders_of, prepare, user_groups
from .reading_notes import unread_notes
from .result import AuditResult, result_columns, summarize, versions
from .score import gather_evidence, save_evidence, score

FORMAT = 9  # raised when the same run folder would be filled differently


def run_audit(
    samples: Samples,
    config: AuditConfig | None = None,
    progress: Progress | None = None,
    run_dir: str | Path | None = None,
    models: tuple[Mapping[str, Embedder], Mapping[str, Embedder]] | None = None,
    captioner: Captioner | None = None,
) -> AuditResult:
    """Audits samples and returns one value per row and column, in the order of the samples.

    Args:
        samples: two or more modalities; see `Samples`.
        config: settings; defaults if None.
        progress: called with (stage, done, total); may raise to cancel, and the next run resumes.
        run_dir: folder of the run; default: one per data and settings in the user's cache.
        models: for train = checkpoints, your own f and g as functions: modality -> (list of media -> `[b, d]`); needed
            unless the config names two open_clip checkpoints.
        captioner: any function (list of media paths) -> as many texts, asked for misaligned samples for which the set
            has no better caption.

    Raises:
        AuditError: what the user can fix, in one sentence. Unusable media are not errors: they are recorded per row.
    """
    config = config or AuditConfig()
    clock = Clock(progress or silent)
    _check_training(samples, config, models is not None)
    with contextlib.ExitStack() as stack:
        engine = stack.enter_context(opened(config))
        prepared = prepare(samples, config, clock, encoders_of(run_dir), engine)
        media = with_first_prompt(prepared.samples, split_templates(config.template)).media
        caller_models = None if models is None else [embed_with(media, f, progress=clock.progress) for f in models]
        identity = run_identity(prepared, config)
        if caller_models is not None:
            sha = hashlib.sha256()
            for vectors in (vectors for model in caller_models for vectors in model.features.vectors.values()):
                sha.update(np.ascontiguousarray(vectors).tobytes())
            identity["models"] = sha.hexdigest()
        folder = Path(run_dir) if run_dir else cache_root() / "runs" / digest_of(identity)[:16]
        run = stack.enter_context(RunFolder(folder, identity))
        run.describe(source=samples.source, rows=len(samples))
        job = Job(config, prepared.device, run, clock.progress, engine)
        evidence, notes = evidence_of(prepared, job, clock, caller_models)
        result = finish(prepared, evidence, job, clock, notes, captioner)
        keep_rows(prepared, evidence, job)
        return result


def evidence_of(
    prepared: Prepared, job: Job, clock: Clock, caller_models: Sequence[Embedded] | None = None
) -> tuple[Evidence, list[str]]:
    """The evidence on the complete samples and notes on it; `caller_models`: features by the caller's f and g."""
    facts = describe_samples(prepared)
    with clock.stage("train"):
        learn = learning(prepared, job, caller_models)
        return gather_evidence(prepared.features, facts, learn, job, image_paths=prepared.image_paths)


def run_identity(prepared: Prepared, config: AuditConfig) -> dict[str, Any]:
    """What finished parts of a run depend on: another identity is another run."""
    return {
        "settings": {**config.training(), "encoder": prepared.encoder_name},
        "encoders": {m: encoder.key for m, encoder in prepared.encoder_identities.items()},
        "trained_from": learner_identity(config),
        "data": _data_digest(prepared),
        "device": prepared.device,
        "products": matmul_precision(config.precision, prepared.device),
        "versions": versions(),
        "format": FORMAT,
    }


def learning(prepared: Prepared, job: Job, caller_models: Sequence[Embedded] | None = None) -> Learn:
    """How the trials of this run come about, by `config.train`; `caller_models`: features by the caller's f and g."""
    rows = prepared.order.rows
    if job.config.train == "towers":
        samples = with_first_prompt(prepared.samples, split_templates(job.config.template))
        return lambda plan, _shared_ids: towers_learner(samples, rows, plan, job)
    if job.config.train == "checkpoints":
        models = caller_models or checkpoint_vectors(prepared.samples, prepared.contents, job)
        return lambda _plan, _shared_ids: checkpoints_learner(models, rows, job)
    projections = prepared.head_projections
    augmented = [view.features.rows(rows) for view in prepared.augmented]
    return lambda plan, shared_ids: heads_learner(prepared.features, augmented, projections, shared_ids, plan, job)


def finish(
    prepared: Prepared,
    evidence: Evidence,
    job: Job,
    clock: Clock,
    notes: Sequence[str] = (),
    captioner: Captioner | None = None,
) -> AuditResult:
    """Scores, flags and suggestions from the evidence, in the caller's order, with the summary of the whole."""
    samples, rows = prepared.samples, prepared.order.rows
    with clock.stage("score"):
        scored = score(prepared, evidence, job, captioner)
        save_evidence(evidence, [samples.ids[row] for row in rows], job.run)
        columns = result_columns(prepared, scored)
        columns, incomplete_notes = add_incomplete(columns, prepared, evidence, job)
    leak_notes = list(filter(None, [evidence.leaks.note]))
    with clock.stage("explain"), small_by_one_thread(len(rows)):
        explain_notes = explain(prepared, scored, job)["notes"]
    summary = summarize(columns, prepared, scored, job.config, notes)
    summary["notes"] += [*samples.notes, *unread_notes(samples, prepared.embedded.failures)]
    summary["notes"] += [*prepared.embedded.notes, *incomplete_notes, *leak_notes, *explain_notes, *job.run.notes]
    summary |= {"encoder_name": prepared.encoder_name, "device": prepared.device, "seconds": clock.seconds}
    summary["matrix_precision"] = matmul_precision(job.config.precision, prepared.device)
    rate = prepared.order.back(scored.calibration.false_positive_rate, np.float32(np.nan))
    return AuditResult(samples.ids, columns, summary, str(job.run.path), samples.caption, rate)


def _check_training(samples: Samples, config: AuditConfig, has_models: bool) -> None:
    """Raises AuditError for what cannot be trained or compared, before hours of encoding and not after."""
    learner_identity(config)
    if config.train == "checkpoints":
        if not samples.roles:
            raise AuditError("train is checkpoints; name the field or column that says what f and g saw: role")
        if not has_models and not (config.checkpoint_f and config.checkpoint_g):
            raise AuditError("train is checkpoints; name both models: checkpoint_f and checkpoint_g")
    if config.train != "heads" and not has_models and set(samples.modalities) != {"image", "text"}:
        raise AuditError(
            f"train is {config.train}, which takes image and text, not {', '.join(samples.modalities)}; use train heads"
        )


def _data_digest(prepared: Prepared) -> str:
    """sha256 of what the rows hold and which belong together: independent of row order and of where files lie."""
    samples, digests, rows = prepared.samples, prepared.contents.digests, prepared.order.rows
    groups = user_groups(samples, prepared.order)
    contents = [[digests[m][row] for m in samples.modalities] for row in rows]
    marks = [[values[row] for row in rows] for values in (samples.roles, samples.labels) if values]
    return digest_of(contents, None if groups is None else groups.tolist(), *marks)
